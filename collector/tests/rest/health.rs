//! Readiness and measurements.

use serde_json::json;
use trueline_collector::hub::{Part, now};
use trueline_store::Role;

use crate::client::send;
use crate::problem;
use crate::site::{Site, file};

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
async fn measurements_say_what_an_operator_needs_and_what_each_means() {
    let mut site = Site::start(0).await.with_host(&[("file:/etc/hosts", file("0644")), ("file:/etc/shadow", file("0640"))]).await;
    site.change("file:/etc/hosts", "mtime", "1", "2").await;
    site.change("file:/etc/shadow", "mode", "0640", "0666").await;
    let viewer = site.bearer(Role::Viewer).await;
    let answer = site.get("/metrics", &viewer).await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let described = |name: &str, kind: &str| {
        answer.body.lines().any(|line| line.starts_with(&format!("# HELP {name} ")))
            && answer.body.lines().any(|line| line == format!("# TYPE {name} {kind}"))
    };
    for sample in [
        r#"trueline_build_info{version="0.1.0"} 1"#,
        r#"trueline_hosts{state="connected"} 1"#,
        r#"trueline_hosts{state="silent"} 0"#,
        r#"trueline_hosts{state="revoked"} 0"#,
        r#"trueline_open_drifts{verdict="critical"} 1"#,
        r#"trueline_open_drifts{verdict="notable"} 0"#,
        r#"trueline_folded_drifts{verdict="critical"} 0"#,
        r#"trueline_folded_drifts{verdict="notable"} 0"#,
        r#"trueline_trouble{part="database"} 0"#,
        "trueline_judge_lag_changes 0",
        "trueline_judge_lag_seconds 0",
        "trueline_hosts_to_compare 0",
        "trueline_items 2",
        "trueline_streams 0",
        "trueline_event_streams 0",
    ] {
        assert!(answer.body.lines().any(|line| line == sample), "{sample} in {}", answer.body);
        let name = sample.split(['{', ' ']).next().unwrap();
        assert!(described(name, "gauge"), "{name} in {}", answer.body);
    }
    // Whatever else is counted has a meaning too, and a name that says that it counts.
    for line in answer.body.lines().filter(|line| line.starts_with("trueline_")) {
        let name = line.split(['{', ' ']).next().unwrap();
        let of = name.trim_end_matches("_sum").trim_end_matches("_count");
        let kind = if name.ends_with("_total") {
            "counter"
        } else if of.ends_with("append_seconds") {
            "summary"
        } else {
            "gauge"
        };
        assert!(described(of, kind), "{name} is not described as a {kind}");
    }
    site.stop().await;
}
