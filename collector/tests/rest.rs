//! The REST API and the console over a real listener and a real database: what they refuse, what
//! they say, and that nothing a host sends becomes markup.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "rest/client.rs"]
mod client;
#[path = "rest/site.rs"]
mod site;

use std::collections::BTreeSet;

use client::{EventSource, send};
use serde_json::{Value as Json, json};
use site::{HOST, Site, file, gap};
use trueline_collector::hub::{Part, now};
use trueline_store::{Role, TokenKind};

const OPEN: &[&str] = &["/healthz", "/readyz"];
const PAGES: &[&str] = &["/", "/hosts", "/drift/1", "/feed/events"];

fn operations(document: &Json) -> Vec<(String, String, Json)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().iter().map(move |(method, operation)| (path.clone(), method.to_uppercase(), operation.clone()))
    });
    operations.collect()
}

fn problem(answer: &client::Answer, status: u16) -> Json {
    assert_eq!((answer.status, answer.header("content-type")), (status, "application/problem+json"), "{answer:?}");
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert_eq!(problem["type"], "about:blank");
    assert!(problem["title"].is_string() && problem["detail"].is_string() && problem["instance"].is_string(), "{problem}");
    problem
}

#[tokio::test]
async fn without_a_token_nothing_but_health_answers() {
    let site = Site::start(0).await;
    let admin = site.bearer(Role::Admin).await;
    let document = site.get("/api/v1/openapi.json", &admin).await.json();
    let session = site.token(TokenKind::Session, Role::Admin).await;
    let join = site.token(TokenKind::Join, Role::Admin).await;
    for (path, method, _) in operations(&document) {
        let path = path.replace("{id}", "1");
        let answer = send(site.at, &method, &path, &[], b"").await;
        if OPEN.contains(&path.as_str()) {
            assert_eq!(answer.status, 200, "{method} {path}");
            continue;
        }
        problem(&answer, 401);
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{method} {path}");
        // A token of another kind is none.
        for wrong in [&session, &join, "tl_api_0000"] {
            let bearer = format!("Bearer {wrong}");
            assert_eq!(send(site.at, &method, &path, &[("authorization", &bearer)], b"").await.status, 401, "{method} {path}");
        }
    }
    for path in PAGES {
        let answer = send(site.at, "GET", path, &[], b"").await;
        assert_eq!((answer.status, answer.header("location")), (303, "/login"), "{path}");
    }
    for (path, body) in [("/logout", ""), ("/drift/1/acknowledge", "note=x")] {
        let answer = send(site.at, "POST", path, &[("content-type", "application/x-www-form-urlencoded")], body.as_bytes()).await;
        assert_eq!(answer.status, 401, "{path}");
    }
    site.stop().await;
}

#[tokio::test]
async fn the_openapi_document_is_whole_and_describes_what_is_served() {
    let site = Site::start(0).await;
    let viewer = site.bearer(Role::Viewer).await;
    let document = site.get("/api/v1/openapi.json", &viewer).await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let described: BTreeSet<String> = operations(&document).into_iter().map(|(path, method, _)| format!("{method} {path}")).collect();
    let expected = [
        "DELETE /api/v1/tokens/{id}",
        "GET /api/v1/actions",
        "GET /api/v1/baselines",
        "GET /api/v1/changes",
        "GET /api/v1/changes/{id}",
        "GET /api/v1/coverage",
        "GET /api/v1/drift",
        "GET /api/v1/drift/{id}",
        "GET /api/v1/events",
        "GET /api/v1/hosts",
        "GET /api/v1/hosts/{id}",
        "GET /api/v1/hosts/{id}/items",
        "GET /api/v1/openapi.json",
        "GET /api/v1/summary",
        "GET /api/v1/tokens",
        "GET /healthz",
        "GET /metrics",
        "GET /readyz",
        "POST /api/v1/baselines",
        "POST /api/v1/baselines/capture",
        "POST /api/v1/drift/{id}/acknowledge",
        "POST /api/v1/hosts/{id}/baseline",
        "POST /api/v1/hosts/{id}/revoke",
        "POST /api/v1/hosts/{id}/scan",
        "POST /api/v1/tokens",
    ];
    assert_eq!(described, expected.into_iter().map(str::to_owned).collect());

    let mut names = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        assert!(names.insert(operation["operationId"].to_string()), "{method} {path}: the operation's name is taken");
        assert!(operation["summary"].as_str().is_some_and(|summary| summary.ends_with('.')), "{method} {path}");
        assert!(operation["security"].is_array() && operation["responses"]["default"].is_object(), "{method} {path}");
        let declared: BTreeSet<&str> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let needed: BTreeSet<&str> = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(declared, needed, "{method} {path}");
    }
    each_reference_resolves(&document, &document);
    site.stop().await;
}

fn each_reference_resolves(part: &Json, document: &Json) {
    match part {
        Json::Object(object) => {
            if let Some(reference) = object.get("$ref").and_then(Json::as_str) {
                let pointer = reference.strip_prefix('#').expect("a reference within the document");
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            object.values().for_each(|part| each_reference_resolves(part, document));
        }
        Json::Array(array) => array.iter().for_each(|part| each_reference_resolves(part, document)),
        _ => {}
    }
}

#[tokio::test]
async fn shapes_are_those_of_the_design() {
    let mut site = Site::start(0).await.with_host(&[("file:/etc/hosts", file("0644"))]).await;
    site.change("file:/etc/hosts", "mode", "0644", "0666").await;
    let viewer = site.bearer(Role::Viewer).await;
    let change = &site.get(&format!("/api/v1/changes?host={HOST}&item=file:/etc/hosts"), &viewer).await.json()["items"][0];
    for name in [
        "id",
        "tenant",
        "host",
        "host_name",
        "epoch",
        "sequence",
        "item",
        "kind",
        "cause",
        "fields",
        "observed_after",
        "observed_at",
        "received_at",
        "actor",
        "verdict",
        "reasons",
    ] {
        assert!(!change[name].is_null(), "{name} in {change}");
    }
    assert_eq!(change["fields"], json!([{"name": "mode", "before": "0644", "after": "0666"}]));
    assert_eq!(change["host"], site.host.to_string());
    assert!(change.get("transaction").is_none());
    let listed = site.get("/api/v1/drift?state=open&field=mode", &viewer).await;
    assert!(problem(&listed, 400)["detail"].as_str().unwrap().contains("unknown query parameter `field`"));
    let drift = &site.get("/api/v1/drift?state=open&item=file:/etc/hosts", &viewer).await.json()["items"][0];
    assert_eq!(
        (&drift["field"], &drift["expected"], &drift["actual"], &drift["authorised_by"]),
        (&json!("mode"), &json!("0644"), &json!("0666"), &json!([]))
    );
    assert_eq!((&drift["actor"]["user"]["login_name"], &drift["change"]), (&json!("alice"), &change["id"]));
    assert!(drift.get("resolved_at").is_none() && drift.get("acknowledged").is_none());
    let host = site.get(&format!("/api/v1/hosts/{HOST}"), &viewer).await.json();
    assert_eq!((&host["state"], &host["items"], &host["baseline"]["name"]), (&json!("connected"), &json!(1), &json!("web")));
    let items = site.get(&format!("/api/v1/hosts/{}/items?kind=file&prefix=/etc/", site.host), &viewer).await.json();
    assert_eq!(items["items"][0]["fields"]["mode"], "0666");
    site.stop().await;
}

#[tokio::test]
async fn pages_follow_one_another_without_loss_or_repetition() {
    let mut site = Site::start(0).await.with_host(&[("file:/etc/hosts", file("0644"))]).await;
    for number in 0..7 {
        site.change("file:/etc/hosts", "mode", "0644", &format!("07{number}0")).await;
    }
    let viewer = site.bearer(Role::Viewer).await;
    let whole = site.get("/api/v1/changes", &viewer).await.json();
    assert!(whole.get("next").is_none());
    let whole: Vec<i64> = whole["items"].as_array().unwrap().iter().map(|change| change["id"].as_i64().unwrap()).collect();
    assert_eq!(whole.len(), 7);
    let (mut ids, mut after) = (Vec::new(), String::new());
    loop {
        let page = site.get(&format!("/api/v1/changes?limit=2{after}"), &viewer).await.json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        ids.extend(items.iter().map(|change| change["id"].as_i64().unwrap()));
        let Some(next) = page.get("next").and_then(Json::as_str) else { break };
        after = format!("&after={next}");
    }
    assert_eq!(ids, whole);
    problem(&site.get("/api/v1/changes?after=nonsense", &viewer).await, 400);
    problem(&site.get("/api/v1/changes?limit=501", &viewer).await, 400);
    site.stop().await;
}

#[tokio::test]
async fn refusals_are_problem_documents_that_help() {
    let site = Site::start(0).await;
    let admin = site.bearer(Role::Admin).await;
    let viewer = site.bearer(Role::Viewer).await;
    let detail = |problem: Json| problem["detail"].as_str().unwrap().to_owned();
    let near = problem(&site.get("/api/v1/drift?severitty=critical", &viewer).await, 400);
    assert_eq!(near["instance"], "/api/v1/drift");
    assert!(detail(near).contains("did you mean `severity`?"));
    problem(&site.get("/api/v1/drift?severity=grave", &viewer).await, 400);
    problem(&site.get("/api/v1/nothing", &viewer).await, 404);
    problem(&site.get("/api/v1/drift/99", &viewer).await, 404);
    problem(&site.get("/api/v1/drift/%ff", &viewer).await, 400);
    problem(&site.get("/api/v1/hosts/nowhere", &viewer).await, 404);
    problem(&site.post("/api/v1/hosts", &viewer, &json!({})).await, 405);
    problem(&site.post("/api/v1/tokens", &viewer, &json!({"kind": "api"})).await, 403);
    let key = problem(&site.post("/api/v1/tokens", &admin, &json!({"kinds": "api"})).await, 400);
    assert!(detail(key).ends_with("did you mean `kind`?"));
    problem(&site.post("/api/v1/tokens", &admin, &json!({"kind": "session"})).await, 400);
    let yaml = [("authorization", admin.as_str()), ("content-type", "application/yaml")];
    let lined = problem(&send(site.at, "POST", "/api/v1/baselines", &yaml, b"name: web\nitem: {}\n").await, 400);
    assert!(detail(lined).starts_with("baseline.yaml:2:1: unknown key `item`: did you mean `items`?"));
    let form = [("authorization", admin.as_str()), ("content-type", "text/plain")];
    problem(&send(site.at, "POST", "/api/v1/baselines", &form, b"name: web\n").await, 415);
    problem(
        &send(
            site.at,
            "POST",
            "/api/v1/tokens",
            &[("authorization", admin.as_str()), ("content-type", "application/json")],
            &[b' '; 1_100_000],
        )
        .await,
        413,
    );
    site.stop().await;
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let site = Site::start(0).await;
    for path in ["/login", "/assets/console.js", "/api/v1/drift", "/nothing"] {
        let answer = send(site.at, "GET", path, &[], b"").await;
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!((answer.header("x-content-type-options"), answer.header("x-frame-options")), ("nosniff", "DENY"), "{path}");
    }
    assert_eq!(send(site.at, "GET", "/api/v1/drift", &[], b"").await.header("cache-control"), "no-store");
    site.stop().await;
}

#[tokio::test]
async fn an_event_stream_resumes_exactly_after_the_last_event_seen() {
    let mut site = Site::start(0).await.with_host(&[("file:/etc/hosts", file("0644"))]).await;
    let viewer = site.bearer(Role::Viewer).await;
    let mut stream = EventSource::open(site.at, "/api/v1/events", &[("authorization", &viewer)]).await;
    let ready = stream.next().await.unwrap();
    assert_eq!(ready.name, "ready");
    for mode in ["0600", "0640", "0666"] {
        site.change("file:/etc/hosts", "mode", "0644", mode).await;
    }
    site.append(vec![gap("file:/etc", true)]).await;
    // Three changes, a drift opened and updated twice, a gap; what is read at once is in the order of the logs.
    let names = ["change", "drift", "gap"];
    let mut whole = Vec::new();
    while whole.last().is_none_or(|event: &client::Event| event.name != "gap") {
        whole.extend(stream.take(1, &names).await);
    }
    let mut again = EventSource::open(site.at, &format!("/api/v1/events?after={}", ready.id), &[("authorization", &viewer)]).await;
    let replayed = again.take(whole.len(), &names).await;
    let sorted = |events: &[client::Event]| {
        let mut keys: Vec<(String, Json)> = events
            .iter()
            .map(|event| {
                let data: Json = serde_json::from_str(&event.data).unwrap();
                (event.name.clone(), json!([data["id"], data["event"]]))
            })
            .collect();
        keys.sort_by_key(|(name, key)| (name.clone(), key.to_string()));
        keys
    };
    assert_eq!(sorted(&whole), sorted(&replayed));
    assert_eq!(whole.iter().filter(|event| event.name == "change").count(), 3);
    for cut in 0..replayed.len() - 1 {
        let headers = [("authorization", viewer.as_str()), ("last-event-id", replayed[cut].id.as_str())];
        let mut resumed = EventSource::open(site.at, "/api/v1/events", &headers).await;
        assert_eq!(resumed.take(replayed.len() - cut - 1, &names).await, replayed[cut + 1..], "after event {cut}");
    }
    let headers = [("authorization", viewer.as_str()), ("last-event-id", "yesterday")];
    problem(&send(site.at, "GET", "/api/v1/events", &headers, b"").await, 400);
    site.hub.shutdown.cancel();
    assert_eq!(again.next().await, None);
    site.stop().await;
}

#[tokio::test]
async fn what_a_host_sends_never_becomes_markup_or_a_terminal_command() {
    let item = "file:/tmp/<script>alert(1)</script>\u{1b}[2J\"'";
    let mut site = Site::start(0).await.with_host(&[(item, file("0644"))]).await;
    site.change(item, "mode", "0644", "<img src=x onerror=alert(2)>").await;
    let session = site.session(Role::Viewer).await;
    let viewer = site.bearer(Role::Viewer).await;
    let id = site.get("/api/v1/drift", &viewer).await.json()["items"][0]["id"].to_string();
    for path in ["/".to_owned(), format!("/drift/{id}"), "/hosts".to_owned()] {
        let page = send(site.at, "GET", &path, &[("cookie", &session)], b"").await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        assert!(!page.body.contains("<script>") && !page.body.contains("<img src=x") && !page.body.contains('\u{1b}'), "{path}");
        assert!(!page.body.contains(" style=") && !page.body.contains(" onclick="), "{path}: needs an unsafe policy");
    }
    let feed = send(site.at, "GET", "/", &[("cookie", &session)], b"").await.body;
    assert!(feed.contains("&#60;script&#62;alert(1)") || feed.contains("&lt;script&gt;alert(1)"), "the item is shown");
    let drift = site.get("/api/v1/drift", &viewer).await.body;
    assert!(drift.contains(r"\\x1b[2J") && !drift.contains('\u{1b}'), "{drift}");
    let hostile = send(site.at, "GET", "/?verdict=%3Cscript%3E", &[("cookie", &session)], b"").await;
    assert!(hostile.status == 400 && !hostile.body.contains("<script>"), "{}", hostile.body);
    site.stop().await;
}

#[tokio::test]
async fn a_write_with_a_cookie_must_come_from_our_own_pages() {
    let mut site = Site::start(0).await.with_host(&[("file:/etc/hosts", file("0644"))]).await;
    site.change("file:/etc/hosts", "mode", "0644", "0666").await;
    let session = site.session(Role::Operator).await;
    let viewer = site.bearer(Role::Viewer).await;
    let id = site.get("/api/v1/drift", &viewer).await.json()["items"][0]["id"].to_string();
    let path = format!("/drift/{id}/acknowledge");
    let form = ("content-type", "application/x-www-form-urlencoded");
    let cookie = ("cookie", session.as_str());
    for origin in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("x-nothing", "")] {
        let answer = send(site.at, "POST", &path, &[cookie, form, origin], b"note=x").await;
        assert_eq!(answer.status, 403, "{origin:?}");
        let answer = send(site.at, "POST", &format!("/api/v1{path}"), &[cookie, ("content-type", "application/json"), origin], b"{}").await;
        problem(&answer, 403);
    }
    let answer = send(site.at, "POST", &path, &[cookie, form, ("sec-fetch-site", "same-origin")], b"note=seen+it").await;
    assert_eq!(answer.status, 303, "{answer:?}");
    let drift = site.get(&format!("/api/v1/drift/{id}"), &viewer).await.json();
    assert_eq!((&drift["state"], &drift["acknowledged"]["note"]), (&json!("acknowledged"), &json!("seen it")));
    let actions = site.get("/api/v1/actions", &viewer).await.json();
    assert!(actions["items"].as_array().unwrap().iter().any(|action| action["action"] == "drift.acknowledge"), "{actions}");
    // A viewer may read and no more.
    let answer = site.post(&format!("/api/v1{path}"), &viewer, &json!({})).await;
    problem(&answer, 403);
    site.stop().await;
}

#[tokio::test]
async fn a_login_link_opens_the_console_once() {
    let site = Site::start(0).await;
    let login = site.token(TokenKind::Login, Role::Viewer).await;
    let path = format!("/login?token={login}");
    let first = send(site.at, "GET", &path, &[], b"").await;
    assert_eq!((first.status, first.header("location")), (303, "/"));
    let attributes = first.header("set-cookie");
    assert!(attributes.contains("HttpOnly") && attributes.contains("SameSite=Strict") && attributes.contains("Path=/"), "{attributes}");
    let cookie = first.cookie();
    let headers = [("cookie", cookie.as_str())];
    let page = send(site.at, "GET", "/", &headers, b"").await;
    assert!(page.status == 200 && page.body.contains("No host yet"), "{}", page.body);
    let second = send(site.at, "GET", &path, &[], b"").await;
    assert!(second.status == 401 && second.header("set-cookie").is_empty() && second.body.contains("has been used"), "{second:?}");
    // An API token is no login link, and a session's token is no API token.
    let api = site.token(TokenKind::Api, Role::Viewer).await;
    assert_eq!(send(site.at, "GET", &format!("/login?token={api}"), &[], b"").await.status, 401);
    let headers = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin")];
    assert_eq!(send(site.at, "POST", "/logout", &headers, b"").await.status, 303);
    assert_eq!(send(site.at, "GET", "/", &headers, b"").await.header("location"), "/login");
    site.stop().await;
}

#[tokio::test]
async fn an_api_token_opens_the_console_through_the_form() {
    let site = Site::start(0).await;
    let api = site.token(TokenKind::Api, Role::Viewer).await;
    let form = [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "same-origin")];
    let answer = send(site.at, "POST", "/login", &form, format!("token={api}").as_bytes()).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/"));
    assert_eq!(send(site.at, "GET", "/hosts", &[("cookie", &answer.cookie())], b"").await.status, 200);
    assert_eq!(send(site.at, "POST", "/login", &form, b"token=tl_api_wrong").await.status, 401);
    assert_eq!(send(site.at, "POST", "/login", &form[..1], format!("token={api}").as_bytes()).await.status, 403);
    site.stop().await;
}

#[tokio::test]
async fn tokens_are_shown_once_and_end_when_revoked() {
    let site = Site::start(0).await;
    let admin = site.bearer(Role::Admin).await;
    let made = site.post("/api/v1/tokens", &admin, &json!({"kind": "api", "role": "viewer", "name": "ci"})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let bearer = format!("Bearer {}", made["token"].as_str().unwrap());
    assert_eq!(site.get("/api/v1/summary", &bearer).await.status, 200);
    let listed = site.get("/api/v1/tokens", &admin).await;
    assert!(!listed.body.contains("tl_api_"), "{}", listed.body);
    let path = format!("/api/v1/tokens/{}", made["id"]);
    assert_eq!(send(site.at, "DELETE", &path, &[("authorization", &admin)], b"").await.status, 204);
    assert!(problem(&site.get("/api/v1/summary", &bearer).await, 401)["detail"].as_str().unwrap().contains("revoked"));
    site.stop().await;
}

#[tokio::test]
async fn readiness_names_the_part_in_trouble_and_the_reason_only_to_callers() {
    let site = Site::start(0).await;
    let viewer = site.bearer(Role::Viewer).await;
    assert_eq!(send(site.at, "GET", "/readyz", &[], b"").await.json(), json!({"status": "ready"}));
    assert_eq!(site.get("/readyz", &viewer).await.json()["version"], "0.1.0");
    site.hub.health.is_troubled(Part::Judge, now(), "a secret place is broken");
    let anybody = problem(&send(site.at, "GET", "/readyz", &[], b"").await, 503).to_string();
    assert!(anybody.contains("judge") && !anybody.contains("secret place"), "{anybody}");
    assert!(problem(&site.get("/readyz", &viewer).await, 503).to_string().contains("secret place"));
    assert_eq!(send(site.at, "GET", "/healthz", &[], b"").await.status, 200);
    site.hub.health.is_well(Part::Judge);
    assert_eq!(send(site.at, "GET", "/readyz", &[], b"").await.status, 200);
    site.stop().await;
}

#[tokio::test]
async fn baselines_are_captured_written_and_assigned() {
    let site = Site::start(0).await.with_host(&[("file:/etc/hosts", file("0644"))]).await;
    let operator = site.bearer(Role::Operator).await;
    let captured = site.post("/api/v1/baselines/capture", &operator, &json!({"host": HOST, "name": "web", "assign": true})).await;
    assert_eq!((captured.status, &captured.json()["version"]), (201, &json!(2)), "{captured:?}");
    let yaml = [("authorization", operator.as_str()), ("content-type", "application/yaml")];
    let document = b"name: strict\nitems:\n  \"file:/etc/hosts\": { mode: \"0600\" }\n";
    let written = send(site.at, "POST", "/api/v1/baselines", &yaml, document).await;
    assert_eq!((written.status, &written.json()["origin"]), (201, &json!("written")), "{written:?}");
    let assigned = site.post(&format!("/api/v1/hosts/{HOST}/baseline"), &operator, &json!({"baseline": "strict"})).await;
    assert_eq!((assigned.status, &assigned.json()["baseline"]), (200, &json!({"name": "strict", "version": 1})), "{assigned:?}");
    problem(&site.post(&format!("/api/v1/hosts/{HOST}/baseline"), &operator, &json!({"baseline": "none@3"})).await, 404);
    problem(&site.post(&format!("/api/v1/hosts/{HOST}/scan"), &operator, &json!({})).await, 409);
    problem(&site.post(&format!("/api/v1/hosts/{HOST}/scan"), &operator, &json!({"scope": "disk:/"})).await, 400);
    site.stop().await;
}

/// `TRUELINE_SHOW=8099 cargo test -p trueline-collector --test rest -- --ignored --nocapture` serves a seeded console until
/// its standard input ends.
#[tokio::test]
#[ignore = "serves a console for a person to look at; set TRUELINE_SHOW to a port"]
async fn show() {
    let Some(port) = std::env::var("TRUELINE_SHOW").ok().and_then(|port| port.parse().ok()) else { return };
    let mut site = site::shown(port).await;
    let line = || std::io::stdin().lines().next();
    let api = site.token(TokenKind::Api, Role::Operator).await;
    println!("http://{}/login?token={} {api}", site.at, site.token(TokenKind::Login, Role::Operator).await);
    let mut number = 0;
    while let Ok(Some(Ok(_))) = tokio::task::spawn_blocking(line).await {
        number += 1;
        site.change("sysctl:vm.swappiness", "value", "60", &number.to_string()).await;
        println!("http://{}/login?token={}", site.at, site.token(TokenKind::Login, Role::Operator).await);
    }
    site.stop().await;
}
