//! Drift of a package's parts: left out, counted, and there for whoever asks.

use serde_json::{Value as Json, json};
use trueline_drift::{Fields, RecordBody};
use trueline_store::Role;

use crate::client::{EventSource, send};
use crate::problem;
use crate::site::{HOST, Site, file};

const PACKAGE: &str = "package:nginx";
const PART: &str = "file:/usr/sbin/nginx";
const OWN: &str = "file:/etc/hosts";

/// A host whose package was upgraded with its file, and of which somebody has changed another.
async fn upgraded() -> Site {
    let version = Fields::new().with("version", "1.22");
    let mut site = Site::start(0).await.with_host(&[(PACKAGE, version), (PART, file("0755")), (OWN, file("0644"))]).await;
    let mut part = site.changed(PART, "sha256", "ab", "cd");
    part.shipped_by = Some(PACKAGE.parse().unwrap());
    let package = site.changed(PACKAGE, "version", "1.22", "1.24");
    site.append([part, package].map(|change| RecordBody::Changed(Box::new(change))).into()).await;
    site.change(OWN, "mode", "0644", "0600").await;
    site
}

#[tokio::test]
async fn drift_of_a_packages_parts_is_listed_to_whoever_asks_for_it() {
    let site = upgraded().await;
    let viewer = site.bearer(Role::Viewer).await;
    let listed = async |query: &str| -> Vec<Json> {
        site.get(&format!("/api/v1/drift?{query}"), &viewer).await.json()["items"].as_array().unwrap().clone()
    };
    let names =
        async |query: &str| -> Vec<String> { listed(query).await.iter().map(|drift| drift["item"].as_str().unwrap().to_owned()).collect() };
    for query in ["", "folded=no", "state=unresolved&host=web1", "kind=package&folded=no"] {
        let query = query.replace("web1", HOST);
        let wanted: &[&str] = if query.starts_with("kind") { &[PACKAGE] } else { &[OWN, PACKAGE] };
        assert_eq!(names(&query).await, wanted, "{query}");
    }
    assert_eq!(names("folded=yes").await, [OWN, PACKAGE, PART]);
    for query in ["folded=only", "folded_under=package:nginx", "folded_under=package:nginx&folded=only", "item=file:/usr/sbin/nginx"] {
        assert_eq!(names(query).await, [PART], "{query}");
    }
    for query in ["folded_under=package:other", "item=file:/usr/sbin/nginx&folded=no", "folded=only&state=resolved"] {
        assert!(names(query).await.is_empty(), "{query}");
    }
    for query in ["folded=perhaps", "folded_under=file:/etc/hosts", "folded_under=nginx", "folded_under=package:nginx&folded=no"] {
        problem(&site.get(&format!("/api/v1/drift?{query}"), &viewer).await, 400);
    }

    let all = listed("folded=yes").await;
    let told: Vec<_> = all.iter().map(|drift| (drift.get("folded_under").cloned(), drift.get("folds").cloned())).collect();
    assert_eq!(told, [(None, None), (None, Some(json!(1))), (Some(json!(PACKAGE)), None)]);
    let one = site.get(&format!("/api/v1/drift/{}", all[2]["id"]), &viewer).await.json();
    assert_eq!(one, all[2]);
    let changes = site.get("/api/v1/changes", &viewer).await.json();
    let told: Vec<_> = changes["items"].as_array().unwrap().iter().map(|change| (&change["shipped_by"], &change["verdict"])).collect();
    assert_eq!(told, [(&json!(null), &json!("notable")), (&json!(null), &json!("notable")), (&json!(PACKAGE), &json!("expected"))]);

    let counts = |of: &Json| (of["open_drifts"].clone(), of["folded_drifts"].clone());
    for path in ["/api/v1/summary".to_owned(), format!("/api/v1/hosts/{HOST}")] {
        assert_eq!(counts(&site.get(&path, &viewer).await.json()), (json!(2), json!(1)), "{path}");
    }
    let headers = [("authorization", viewer.as_str())];
    let mut stream = EventSource::open(site.at, "/api/v1/events?after=0-0-0", &headers).await;
    let mut drift: Vec<Json> = Vec::new();
    for event in stream.take(3, &["drift"]).await {
        drift.push(serde_json::from_str(&event.data).unwrap());
    }
    let folded: Vec<_> = drift.iter().filter(|drift| drift["folded_under"] == PACKAGE).map(|drift| &drift["item"]).collect();
    assert_eq!(folded, [PART]);
    site.stop().await;
}

#[tokio::test]
async fn the_console_shows_a_package_for_its_parts() {
    let mut site = upgraded().await;
    let (session, viewer) = (site.session(Role::Viewer).await, site.bearer(Role::Viewer).await);
    let page = async |path: &str| {
        let answer = send(site.at, "GET", path, &[("cookie", &session)], b"").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    };
    let id = async |item: &str| site.get(&format!("/api/v1/drift?item={item}"), &viewer).await.json()["items"][0]["id"].to_string();
    let feed = page("/").await;
    assert!(!feed.contains("/usr/sbin/nginx") && feed.contains("+ 1 folded"), "{feed}");
    let package = page(&format!("/drift/{}", id(PACKAGE).await)).await;
    let link = format!("/?folded_under=package%3Anginx&amp;host={}", site.host);
    let link = [link.clone(), link.replace("&amp;", "&#38;")].into_iter().find(|link| package.contains(link.as_str()));
    let link = link.unwrap_or_else(|| panic!("no link to the parts in {package}"));
    let parts = page(&link.replace("&amp;", "&").replace("&#38;", "&")).await;
    assert!(parts.contains("/usr/sbin/nginx") && !parts.contains("/etc/hosts"), "{parts}");
    assert!(parts.contains("data-after=\"\""), "what is folded is not kept live");
    let part = page(&format!("/drift/{}", id(PART).await)).await;
    let above = format!("A part of <a class=\"mono\" href=\"/drift/{}\">", id(PACKAGE).await);
    assert!(part.contains(&above) && part.contains("Shipped by"), "{part}");
    assert!(page("/hosts").await.contains("and 1 folded"));
    for refused in ["/?folded_under=nginx", "/?folded_under=package:nginx&state=resolved"] {
        assert_eq!(send(site.at, "GET", refused, &[("cookie", &session)], b"").await.status, 400, "{refused}");
    }

    // What the stream tells of a part is enough to take its row away.
    let place = site.hub.store.event_position().await.unwrap();
    let after = format!("/feed/events?after={}-{}-{}", place.changes, place.drift, place.gaps);
    let mut part = site.changed(PART, "sha256", "cd", "ef");
    part.shipped_by = Some(PACKAGE.parse().unwrap());
    site.append(vec![RecordBody::Changed(Box::new(part))]).await;
    let mut stream = EventSource::open(site.at, &after, &[("cookie", &session)]).await;
    let row: Json = serde_json::from_str(&stream.take(1, &["drift"]).await[0].data).unwrap();
    assert_eq!((&row["folded_under"], &row["folds"]), (&json!(PACKAGE), &json!(null)));
    assert!(row["package"].is_string());
    site.stop().await;
}
