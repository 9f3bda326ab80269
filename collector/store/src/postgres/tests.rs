//! A server that vanishes within a transaction, by way of a proxy that falls silent in the middle of one.

use tokio::time::timeout;
use trueline_drift::{TenantId, Time};

use super::*;
use crate::testing::{self, Proxy};
use crate::{Page, SqlStore, Store};

/// Guards against a test that would hang.
const GUARD: Duration = Duration::from_secs(60);
const LIMITS: Limits = Limits { statement: Duration::from_secs(2), margin: Duration::from_secs(1), giving_back: Duration::from_secs(1) };

async fn store(uri: &str) -> SqlStore {
    let store = SqlStore::on(Postgres::connect_within(uri, LIMITS).unwrap());
    store.migrate(&|_| {}).await.unwrap();
    store
}

fn unavailable<T: std::fmt::Debug>(done: Result<T>) {
    assert!(matches!(done, Err(StoreError::Unavailable { .. })), "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_vanishes_within_a_transaction_ends_the_wait_and_what_it_held_is_free_when_it_is_back() {
    let server = match testing::postgres() {
        Ok(server) => server,
        Err(missing) => return testing::skip("a_server_that_vanishes_within_a_transaction", missing),
    };
    let proxy = Proxy::start(server).unwrap();
    let at = Time::from_seconds(1);
    for words in ["BEGIN", "UPDATE cursors", testing::COMMIT] {
        let store = store(&proxy.uri(server, "vanishing")).await;
        let before = proxy.silenced();
        proxy.silence_on(Some(words));
        unavailable(timeout(GUARD, store.probe(at)).await.unwrap_or_else(|_| panic!("it waits for an answer to {words}")));
        assert!(proxy.silenced() > before, "{words} was not said");
        proxy.silence_on(None);
        // Its server still holds the row that the transaction wrote, until it gives the transaction up itself.
        let mut last = store.probe(at).await;
        for _ in 0..5 {
            if last.is_ok() {
                break;
            }
            last = store.probe(at).await;
        }
        last.unwrap_or_else(|error| panic!("after {words}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_whose_server_vanishes_as_they_are_given_back_do_not_use_up_the_pool() {
    let server = match testing::postgres() {
        Ok(server) => server,
        Err(missing) => return testing::skip("connections_whose_server_vanishes", missing),
    };
    let proxy = Proxy::start(server).unwrap();
    let store = store(&proxy.uri(server, "given_back")).await;
    let tenant = TenantId::main();
    let read = || timeout(GUARD, store.tokens(&tenant, Page { limit: 10, after: None }));
    proxy.silence_on(Some("ROLLBACK"));
    for number in 0..2 * CONNECTIONS {
        read().await.unwrap().unwrap_or_else(|error| panic!("read {number}: {error}"));
    }
    assert!(proxy.silenced() >= CONNECTIONS, "{}", proxy.silenced());
    proxy.silence_on(None);
    read().await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_leave_in_the_middle_of_a_statement_do_not_keep_the_pool() {
    let server = match testing::postgres() {
        Ok(server) => server,
        Err(missing) => return testing::skip("callers_that_leave_in_the_middle_of_a_statement", missing),
    };
    // The server works for longer than anybody waits for a connection.
    let limits = Limits { statement: 2 * ACQUIRE_TIMEOUT, ..LIMITS };
    let database = Postgres::connect_within(&server.uri("left"), limits).unwrap();
    for number in 0..2 * CONNECTIONS {
        let mut session = database.read("a test").await.unwrap_or_else(|error| panic!("session {number}: {error}"));
        let nap = session.execute("SELECT pg_sleep(3600)", Vec::new());
        timeout(Duration::from_millis(50), nap).await.expect_err("it sleeps");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_works_too_long_is_given_up_by_the_server_unless_it_may() {
    let server = match testing::postgres() {
        Ok(server) => server,
        Err(missing) => return testing::skip("a_statement_that_works_too_long", missing),
    };
    let database = Postgres::connect_within(&server.uri("working"), LIMITS).unwrap();
    let nap = |mut session: Session| async move { session.execute("SELECT pg_sleep(4)", Vec::new()).await };
    let given_up = nap(database.write("a test").await.unwrap()).await.unwrap_err();
    assert!(given_up.is_passing() && given_up.to_string().contains("statement timeout"), "{given_up}");
    for patience in [Patience::Long, Patience::Endless] {
        let mut session = database.write("a test").await.unwrap();
        session.be_patient(patience).await.unwrap();
        nap(session).await.unwrap();
    }
}
