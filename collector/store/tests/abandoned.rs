//! A caller may leave the store at any wait: a client hangs up, a stream ends. Whatever it leaves half done, no connection
//! is given to the next one within a transaction, and PostgreSQL is not asked to end one that is not there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use trueline_drift::{TenantId, Time};
use trueline_store::{Page, Store, testing};

/// More waits than any of the calls here has.
const WAITS: usize = 64;
/// Calls left at each of their waits.
const ROUNDS: usize = 20;

/// What PostgreSQL said that nobody asked for.
#[derive(Clone, Default)]
struct Notices(Arc<Mutex<Vec<u8>>>);

impl io::Write for Notices {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Leaves the call when it would go on after so many waits; whether it came to its end before.
async fn left_after<T>(waits: usize, call: impl Future<Output = T>) -> bool {
    let (mut call, mut left) = (pin!(call), waits);
    poll_fn(|context| match left.checked_sub(1) {
        None => Poll::Ready(false),
        Some(rest) => {
            left = rest;
            call.as_mut().poll(context).map(|_| true)
        }
    })
    .await
}

/// Leaves it at each of its waits in turn.
async fn left_everywhere<T, F: Future<Output = T>>(call: impl Fn() -> F) {
    for _ in 0..ROUNDS {
        for waits in 1..=WAITS {
            if left_after(waits, call()).await {
                break;
            }
            assert!(waits < WAITS, "the call has no end");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_left_at_any_wait_leaves_nothing_to_the_next_on_postgresql() {
    let server = match testing::postgres() {
        Ok(server) => server,
        Err(missing) => return testing::skip("a_call_that_is_left_at_any_wait", missing),
    };
    let notices = Notices::default();
    let (shown, filter) = (notices.clone(), Targets::new().with_target("sqlx::postgres::notice", tracing::Level::INFO));
    tracing_subscriber::registry().with(filter).with(tracing_subscriber::fmt::layer().with_writer(move || shown.clone())).init();
    let store = trueline_store::open(&server.uri("abandoned")).await.unwrap();
    // Of making the schema.
    notices.0.lock().unwrap().clear();
    let page = || Page { limit: 10, after: None };
    let (at, tenant) = (Time::from_seconds(1), TenantId::main());
    left_everywhere(|| store.probe(at)).await;
    left_everywhere(|| store.tokens(&tenant, page())).await;
    // More at once than there are connections: each of those that were left is among them.
    let (store, mut calls): (Arc<dyn Store>, _) = (store, tokio::task::JoinSet::new());
    for _ in 0..100 {
        let store = Arc::clone(&store);
        calls.spawn(async move { store.probe(at).await });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
    let said = String::from_utf8(notices.0.lock().unwrap().clone()).unwrap();
    assert!(said.is_empty(), "PostgreSQL was asked for what makes no sense:\n{said}");
}
