//! Objects, lists, and what is refused.

use serde_json::{Value as Json, json};
use trueline_collector::{compare, hub};
use trueline_drift::{Operation, RecordBody};
use trueline_store::Role;

use crate::client::send;
use crate::problem;
use crate::site::{HOST, Site, file, told, within_ansible};

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

/// What a file that is not told by its settings was given is seen by line, and a hostile text stays text.
#[tokio::test]
async fn the_lines_that_differ_are_shown_beside_the_fields() {
    let mut site = Site::start(0).await.with_host(&[("file:/etc/motd", file("0644")), ("file:/etc/x", file("0644"))]).await;
    let mut edited = site.changed("file:/etc/motd", "mode", "0644", "0666");
    let lines = json!({
        "told": [
            {"side": "removed", "number": 3, "text": "welcome"},
            {"side": "added", "number": 3, "text": "<script>pwned</script>"}
        ],
        "removed": 1, "added": 4, "is_smallest": true
    });
    edited.lines = serde_json::from_value(lines.clone()).unwrap();
    site.append(vec![RecordBody::Changed(Box::new(edited))]).await;
    site.change("file:/etc/x", "mode", "0644", "0600").await;
    let viewer = site.bearer(Role::Viewer).await;
    let change = async |item: &str| site.get(&format!("/api/v1/changes?item={item}"), &viewer).await.json()["items"][0].clone();
    assert_eq!(change("file:/etc/motd").await["lines"], lines);
    assert!(change("file:/etc/x").await.get("lines").is_none());
    let drift = &site.get("/api/v1/drift?item=file:/etc/motd", &viewer).await.json()["items"][0];
    let session = site.session(Role::Viewer).await;
    let page = send(site.at, "GET", &format!("/drift/{}", drift["id"]), &[("cookie", &session)], b"").await.body;
    assert!(page.contains("-3</span>") && page.contains("welcome</span>") && page.contains("pwned"), "{page}");
    assert!(page.contains("3 more lines are not shown: 1 went and 4 came in all") && !page.contains("<script>pwned"), "{page}");
    site.stop().await;
}

#[tokio::test]
async fn what_is_told_of_each_operation_is_kept_as_the_agent_said_it() {
    let site = Site::start(0).await.with_host(&[]).await;
    let viewer = site.bearer(Role::Viewer).await;
    let path = format!("/api/v1/hosts/{HOST}/coverage");
    let silent = site.get(&path, &viewer).await.json();
    assert_eq!((&silent["sensors"], &silent["operations"]), (&json!([]), &json!([])));
    let status = trueline_store::HostStatus { operations: told(), ..trueline_store::HostStatus::default() };
    site.hub.store.host_status(site.host, &status, hub::now()).await.unwrap();
    let said = site.get(&path, &viewer).await.json();
    let operations = said["operations"].as_array().unwrap();
    let names: Vec<&str> = operations.iter().map(|row| row["operation"].as_str().unwrap()).collect();
    assert_eq!(names, Operation::ALL.map(Operation::name));
    assert_eq!(operations[0], json!({"operation": "create", "actor": "strong", "reason": "ebpf: the kernel has no BTF"}));
    let flags = operations.iter().find(|row| row["operation"] == "flags").unwrap();
    assert!(flags.get("actor").is_none() && flags["reason"].is_string(), "{flags}");
    assert_eq!(site.get(&format!("/api/v1/hosts/{HOST}"), &viewer).await.json()["status"]["operations"], said["operations"]);
    let cookie = site.session(Role::Viewer).await;
    let page = send(site.at, "GET", "/hosts", &[("cookie", &cookie)], b"").await.body;
    assert!(page.contains(">strong</span></td>") && page.contains("<td>no event</td>"), "{page}");
    site.stop().await;
}

/// Through the store, REST and the console, and never as the actor.
#[tokio::test]
async fn who_may_have_made_a_change_stands_beside_an_actor_that_stays_unknown() {
    let mut site = Site::start(0).await.with_host(&[("file:/etc/hosts", file("0644")), ("file:/etc/x", file("0644"))]).await;
    let mut found = site.changed("file:/etc/hosts", "mode", "0644", "0666");
    found.actor = trueline_drift::Actor::unknown("found by a scan");
    let candidates = json!({
        "offered": [{
            "kind": "login", "began_at": "2026-02-02T02:40:00.000000Z", "ended_at": "2026-02-02T02:44:00.000000Z",
            "matched": "time", "distance_seconds": 3,
            "session": {"id": "3f2a9c01d4e7-43", "certainty": "strong", "kind": "ssh", "user": "<bob>", "origin": {"address": "10.0.0.9"}}
        }],
        "more": 2
    });
    found.candidates = serde_json::from_value(candidates.clone()).unwrap();
    site.append(vec![RecordBody::Changed(Box::new(found))]).await;
    site.change("file:/etc/x", "mode", "0644", "0600").await;
    let viewer = site.bearer(Role::Viewer).await;
    let change = async |item: &str| site.get(&format!("/api/v1/changes?item={item}"), &viewer).await.json()["items"][0].clone();
    let found = change("file:/etc/hosts").await;
    assert_eq!(found["candidates"], candidates);
    assert_eq!(found["actor"], json!({"certainty": "unknown", "reason": "found by a scan"}));
    assert!(change("file:/etc/x").await.get("candidates").is_none());
    // Whoever may have done it has not: it is no change of that session's.
    let of_session = site.get("/api/v1/changes?session=3f2a9c01d4e7-43", &viewer).await.json();
    assert_eq!(of_session["items"], json!([]));
    let drift = &site.get("/api/v1/drift?item=file:/etc/hosts", &viewer).await.json()["items"][0];
    let session = site.session(Role::Viewer).await;
    let page = send(site.at, "GET", &format!("/drift/{}", drift["id"]), &[("cookie", &session)], b"").await.body;
    assert!(page.contains("Perhaps <span class=\"mono\">") && page.contains("ssh session 3f2a9c01d4e7-43 from 10.0.0.9"), "{page}");
    assert!(page.contains("and 2 more in that time") && !page.contains("<bob>"), "{page}");
    site.stop().await;
}

#[tokio::test]
async fn all_that_a_session_or_a_transaction_changed_is_one_query() {
    let mut site = Site::start(0).await.with_host(&[("file:/etc/hosts", file("0644")), ("file:/etc/x", file("0644"))]).await;
    let mut by_apt = site.changed("file:/etc/hosts", "mode", "0644", "0666");
    by_apt.transaction = Some(within_ansible());
    site.append(vec![RecordBody::Changed(Box::new(by_apt))]).await;
    let mut elsewhere = site.changed("file:/etc/x", "mode", "0644", "0600");
    elsewhere.actor.session = None;
    site.append(vec![RecordBody::Changed(Box::new(elsewhere))]).await;
    let viewer = site.bearer(Role::Viewer).await;
    let found = async |query: &str| -> Vec<Json> {
        let listed = site.get(&format!("/api/v1/changes?{query}"), &viewer).await.json();
        listed["items"].as_array().unwrap().iter().map(|change| change["item"].clone()).collect()
    };
    assert_eq!(found("").await.len(), 2);
    for query in ["session=3f2a9c01d4e7-42", "transaction=apt-1", "transaction=ansible-1", "session=3f2a9c01d4e7-42&transaction=apt-1"] {
        assert_eq!(found(query).await, ["file:/etc/hosts"], "{query}");
    }
    for query in ["session=3f2a9c01d4e7-43", "transaction=apt-2", "session=apt-1"] {
        assert!(found(query).await.is_empty(), "{query}");
    }
    problem(&site.get("/api/v1/changes?session=%3Cb%3E", &viewer).await, 400);
    let change = &site.get("/api/v1/changes?transaction=apt-1", &viewer).await.json()["items"][0];
    assert_eq!(
        change["transaction"],
        json!({
            "id": "apt-1", "kind": "apt", "certainty": "exact", "name": "install", "command": "apt-get install <nginx>",
            "requested_by": "alice",
            "within": {"id": "ansible-1", "kind": "ansible", "certainty": "correlated", "name": "apt"}
        })
    );
    assert_eq!(
        change["actor"]["session"],
        json!({
            "id": "3f2a9c01d4e7-42", "certainty": "strong", "kind": "ssh", "user": "alice",
            "origin": {"address": "10.0.4.17", "port": 51022}, "terminal": "pts/0",
            "key": "SHA256:Zk3vQ0p7cZ1oV9b1h2m4n6q8s0u2w4y6A8C0E2G4I6k", "began_at": "2026-02-02T02:40:00.000000Z"
        })
    );
    let drift = &site.get("/api/v1/drift?item=file:/etc/hosts", &viewer).await.json()["items"][0];
    assert_eq!(drift["transaction"], change["transaction"]);
    // The console's page names every link, and escapes what a host said.
    let session = site.session(Role::Viewer).await;
    let page = async |path: &str| send(site.at, "GET", path, &[("cookie", &session)], b"").await.body;
    let shown = page(&format!("/drift/{}", drift["id"])).await;
    for part in [
        "ssh of alice from 10.0.4.17 port 51022 with key SHA256:Zk3vQ0p7cZ1oV9b1h2m4n6q8s0u2w4y6A8C0E2G4I6k on pts/0",
        "3f2a9c01d4e7-42",
        "alice as root: vim /etc/ssh/sshd_config, on pts/0",
        "session-42.scope",
        "user-1000.slice",
        "apt-get install &#60;nginx&#62;",
        "perhaps ansible: apt",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(!shown.contains("<nginx>"));
    let feed = page("/").await;
    assert!(feed.contains("apt: apt-get install &#60;nginx&#62;, for alice") && !feed.contains("<nginx>"), "{feed}");
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
    let (mut ids, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        pages += 1;
        assert!(pages < 1000, "the pages have no end");
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
    // What is said of the host's drift is old until it is compared.
    let host = async || site.get(&format!("/api/v1/hosts/{HOST}"), &operator).await.json();
    assert_eq!((&assigned.json()["comparison"], &host().await["comparison"]), (&json!("pending"), &json!("pending")));
    compare::compare_all(&site.hub).await.unwrap();
    let compared = host().await;
    assert_eq!((&compared["comparison"], &compared["open_drifts"]), (&json!("current"), &json!(1)));
    // What a version holds, and what of it lies outside the host's view.
    let items = site.get("/api/v1/baselines/strict@1/items", &operator).await.json();
    assert_eq!(items["items"], json!([{"item": "file:/etc/hosts", "expected": {"mode": "0600"}}]));
    assert_eq!(site.get("/api/v1/baselines/web", &operator).await.json()["version"], 2, "the newest where no version is named");
    let captured = site.get("/api/v1/baselines/web@2/items", &operator).await.json();
    assert_eq!(captured["items"][0]["expected"]["mode"], "0644");
    problem(&site.get("/api/v1/baselines/none/items", &operator).await, 404);
    let wide = b"name: wide\nitems:\n  \"file:/etc/hosts\": absent\n  \"file:/etc/hosts/x\": absent\n  \"file:/opt/x\": absent\n  \"sysctl:a.b\": absent\n";
    assert_eq!(send(site.at, "POST", "/api/v1/baselines", &yaml, wide).await.status, 201);
    let unwatched = site.get(&format!("/api/v1/baselines/wide/unwatched?host={HOST}"), &operator).await.json();
    let mut unwatched: Vec<&str> = unwatched["items"].as_array().unwrap().iter().map(|item| item["item"].as_str().unwrap()).collect();
    unwatched.sort_unstable();
    assert_eq!(unwatched, ["file:/opt/x", "sysctl:a.b"]);
    problem(&site.get("/api/v1/baselines/wide/unwatched", &operator).await, 400);
    // Nonsense makes no version; all of it is told.
    let nonsense = b"name: bad\nitems:\n  \"file:/a\": { mode: 644 }\n  \"file:/b/\": absent\n";
    let told = problem(&send(site.at, "POST", "/api/v1/baselines", &yaml, nonsense).await, 400);
    let told = told["detail"].as_str().unwrap();
    assert!(told.lines().count() == 2 && told.starts_with("baseline.yaml:3:22: mode is text"), "{told}");
    problem(&site.get("/api/v1/baselines/bad", &operator).await, 404);
    problem(&site.post(&format!("/api/v1/hosts/{HOST}/baseline"), &operator, &json!({"baseline": "none@3"})).await, 404);
    problem(&site.post(&format!("/api/v1/hosts/{HOST}/scan"), &operator, &json!({})).await, 409);
    problem(&site.post(&format!("/api/v1/hosts/{HOST}/scan"), &operator, &json!({"scope": "disk:/"})).await, 400);
    site.stop().await;
}
