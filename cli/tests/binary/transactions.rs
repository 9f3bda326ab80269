//! `trueline transactions` beside a collector in this process, whose host tells of runs as an agent does.

use serde_json::Value as Json;
use trueline_collector::hub::now;
use trueline_drift::{Fields, Observation, RecordBody, Value};

use crate::check::{HOST, Site};
use crate::running::{errors, text};

fn run(key: &str, fields: Fields) -> RecordBody {
    RecordBody::Observed(Observation { item: format!("run:{key}").parse().unwrap(), fields, observed_at: now() })
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_listed_newest_first_and_shown_with_what_they_say_of_themselves() {
    let mut site = Site::start().await;
    let none = site.ask(&["transactions", "list"]).await;
    assert!(none.status.success() && errors(&none).contains("`trueline changes list`"), "{}", errors(&none));
    let apt = Fields::new()
        .with("tool", "apt")
        .with("certainty", "exact")
        .with("command", "apt-get install nginx")
        .with("requested_by", "alice")
        .with("began_at", "2026-02-12T10:30:00.000000Z")
        .with("ended_at", "2026-02-12T10:31:00.000000Z")
        .with("result", "succeeded")
        .with("packages", Value::list(vec!["install nginx:amd64 1".to_owned()]))
        .with("pid", 812);
    let puppet = Fields::new().with("tool", "puppet").with("began_at", "2026-02-12T10:32:00.000000Z").with("pid", 900);
    site.append(vec![run("apt-9c41d0e2a7f35b18", apt), run("puppet-5be0c2719d43fa86", puppet)]).await;

    let listed = site.ask(&["transactions", "list"]).await;
    let rows = text(&listed);
    let place = |word: &str| rows.find(word).unwrap_or_else(|| panic!("{word} in {rows}"));
    assert!(place("puppet-5be0c2719d43fa86") < place("apt-9c41d0e2a7f35b18"), "{rows}");
    assert!(rows.contains("succeeded") && rows.contains("open") && rows.contains("alice"), "{rows}");
    let only = text(&site.ask(&["transactions", "list", "--tool", "apt", "--host", HOST]).await);
    assert!(only.contains("apt-9c") && !only.contains("puppet"), "{only}");
    let first = site.ask(&["transactions", "list", "--limit", "1"]).await;
    assert!(!text(&first).contains("apt-9c") && errors(&first).contains("--limit 2"), "{}", errors(&first));
    let document: Json = serde_json::from_str(&text(&site.ask(&["transactions", "list", "--output", "json"]).await)).unwrap();
    assert_eq!((document["items"].as_array().map(Vec::len), &document["items"][1]["fields"]["pid"]), (Some(2), &Json::from(812)));
    assert_eq!(document["items"][0]["host_name"], HOST);

    let sheet = text(&site.ask(&["transactions", "show", "apt-9c41d0e2a7f35b18"]).await);
    assert!(sheet.contains("install nginx:amd64 1") && sheet.contains("--transaction apt-9c41d0e2a7f35b18"), "{sheet}");
    let unknown = site.ask(&["transactions", "show", "apt-9c41d0e2a7f35b1"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(errors(&unknown).contains("trueline changes list --transaction apt-9c41d0e2a7f35b1"), "{}", errors(&unknown));
    let wrong = site.ask(&["transactions", "list", "--tool", "yast"]).await;
    assert_eq!(wrong.status.code(), Some(2), "{}", errors(&wrong));
    site.stop().await;
}
