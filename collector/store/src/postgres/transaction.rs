//! One transaction on a connection of the pool, with an end to every wait for the server.
//!
//! A server whose machine, network or proxy vanishes says nothing any more, and TCP alone does not tell for hours. sqlx's own
//! transaction would hold its connection for good then, and when that is dropped the pool would, which asks whether the
//! connection lives.
//!
//! Invariant: a connection that owes an answer beyond its limit is closed and never given back. What became of a
//! transaction whose COMMIT was not answered is not known to the caller, as after any connection that broke.

use std::io;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, SqlStr};
use tokio::runtime::Handle;
use tokio::time::{error::Elapsed, timeout};

pub(crate) struct Transaction {
    /// Gone once it was closed.
    connection: Option<PoolConnection<Postgres>>,
    is_open: bool,
    /// For the answer to a statement; none: however long it takes.
    limit: Option<Duration>,
    /// For the answers that it takes to give the connection back.
    return_limit: Duration,
}

impl Transaction {
    pub async fn begin(
        connection: PoolConnection<Postgres>,
        statement: &'static str,
        limit: Duration,
        return_limit: Duration,
    ) -> Result<Self, sqlx::Error> {
        let mut transaction = Self { connection: Some(connection), is_open: false, limit: Some(limit), return_limit };
        let begun = within(transaction.limit, sqlx::raw_sql(statement).execute(transaction.connection()?)).await;
        transaction.heard(begun).inspect_err(|_| transaction.close())?;
        transaction.is_open = true;
        Ok(transaction)
    }

    pub fn set_limit(&mut self, limit: Option<Duration>) {
        self.limit = limit;
    }

    pub async fn fetch(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, sqlx::Error> {
        let answer = within(self.limit, query.fetch_all(self.connection()?)).await;
        self.heard(answer)
    }

    /// The number of rows that the statement touched.
    pub async fn execute(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<u64, sqlx::Error> {
        let answer = within(self.limit, query.execute(self.connection()?)).await;
        self.heard(answer).map(|done| done.rows_affected())
    }

    pub async fn script(&mut self, sql: SqlStr) -> Result<(), sqlx::Error> {
        let answer = within(self.limit, sqlx::raw_sql(sql).execute(self.connection()?)).await;
        self.heard(answer).map(drop)
    }

    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        // Whatever is answered, nothing is open then.
        self.is_open = false;
        let answer = within(self.limit, sqlx::raw_sql("COMMIT").execute(self.connection()?)).await;
        self.heard(answer).map(drop)
    }

    fn connection(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        self.connection.as_deref_mut().ok_or_else(|| silence(self.return_limit))
    }

    fn heard<T>(&mut self, answer: Result<Result<T, sqlx::Error>, Elapsed>) -> Result<T, sqlx::Error> {
        answer.unwrap_or_else(|_| {
            self.close();
            Err(silence(self.limit.unwrap_or(self.return_limit)))
        })
    }

    /// Not by the pool's own ways: each of them waits until all is sent.
    fn close(&mut self) {
        drop(self.connection.take().map(PoolConnection::detach));
    }
}

/// Ends what was not committed, and gives the connection back.
impl Drop for Transaction {
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else { return self.close() };
        if let Some(connection) = self.connection.take() {
            runtime.spawn(give_back(connection, self.is_open, self.return_limit));
        }
    }
}

async fn give_back(mut connection: PoolConnection<Postgres>, is_open: bool, limit: Duration) {
    if is_open && !matches!(timeout(limit, sqlx::raw_sql("ROLLBACK").execute(&mut *connection)).await, Ok(Ok(_))) {
        drop(connection.detach());
        return;
    }
    // What dropping the connection would do, but with an end.
    let _ = timeout(limit, connection.return_to_pool()).await;
}

async fn within<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    match limit {
        Some(limit) => timeout(limit, work).await,
        None => Ok(work.await),
    }
}

fn silence(limit: Duration) -> sqlx::Error {
    let reason = format!("it gave no answer within {} seconds", limit.as_secs());
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, reason))
}
