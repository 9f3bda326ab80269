//! The event stream.

use serde_json::{Value as Json, json};
use trueline_store::Role;

use crate::client::{EventSource, send};
use crate::problem;
use crate::site::{Site, file, gap};

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
    while whole.last().is_none_or(|event: &crate::client::Event| event.name != "gap") {
        whole.extend(stream.take(1, &names).await);
    }
    let mut again = EventSource::open(site.at, &format!("/api/v1/events?after={}", ready.id), &[("authorization", &viewer)]).await;
    let replayed = again.take(whole.len(), &names).await;
    let sorted = |events: &[crate::client::Event]| {
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
