//! PostgreSQL: connecting, giving sets of rows to statements, telling its errors apart.
//!
//! A URI holds a password: it is parsed, used, and neither kept in a text nor shown.

#[cfg(test)]
mod tests;
mod transaction;

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{Arguments as _, AssertSqlSafe, ConnectOptions as _, PgPool, Row as _, SqlSafeStr as _, TypeInfo as _, ValueRef as _};

use crate::session::{Cell, Column, Dialect, Lock, Patience, Session, refused, unbroken};
use crate::{Result, StoreError};

pub(crate) use transaction::Transaction;

const CONNECTIONS: u32 = 8;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Postgres {
    pool: PgPool,
    limits: Limits,
}

/// What ends a wait, on either side of the connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How long the server works on one statement before it gives it up; also, how long it keeps a transaction whose client
    /// says nothing: that of a collector that vanished would hold the log's lock until TCP notices.
    statement: Duration,
    /// How much longer the answer is waited for: a server that works says in time that it gave up.
    margin: Duration,
    /// How long a connection may take until it can be given back. One whose caller has left in the middle of a statement is
    /// not worth more: callers that leave again and again (health is asked every few seconds) would have all of them.
    giving_back: Duration,
}

impl Default for Limits {
    /// Far beyond what any statement takes that does not write a whole host.
    fn default() -> Self {
        Self { statement: Duration::from_secs(60), margin: Duration::from_secs(10), giving_back: Duration::from_secs(5) }
    }
}

/// For a statement that writes a whole host's items, as long as people wait for it: see the endpoints of baselines.
const LONG: Duration = Duration::from_secs(300);

impl Postgres {
    /// Connects lazily: a database that is away now is [`StoreError::Unavailable`] at each use.
    pub fn connect(uri: &str) -> Result<Self> {
        Self::connect_within(uri, Limits::default())
    }

    pub fn connect_within(uri: &str, limits: Limits) -> Result<Self> {
        let options = PgConnectOptions::from_str(uri).map_err(|_| StoreError::Invalid {
            subject: "database",
            reason: "not a PostgreSQL address: write postgres://USER:PASSWORD@HOST:PORT/DATABASE".to_owned(),
        })?;
        let options = options
            .application_name("trueline-collector")
            .disable_statement_logging()
            // Every statement here touches rows by key: compiling them or sharing them among workers costs more than
            // it gains. A set of rows is given in one piece: with the usual 4 MB it would pass through a file.
            .options([("jit", "off"), ("max_parallel_workers_per_gather", "0"), ("work_mem", "32MB")])
            .options(["statement_timeout", "idle_in_transaction_session_timeout"].map(|name| (name, limits.statement.as_millis())));
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE_TIMEOUT).connect_lazy_with(options);
        Ok(Self { pool, limits })
    }

    pub async fn read(&self, operation: &'static str) -> Result<Session> {
        self.begin(operation, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await
    }

    /// READ COMMITTED: what is read after a lock was granted includes what its last holder wrote.
    pub async fn write(&self, operation: &'static str) -> Result<Session> {
        self.begin(operation, "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE").await
    }

    async fn begin(&self, operation: &'static str, statement: &'static str) -> Result<Session> {
        // Whoever no longer waits for a connection takes none.
        let connection = self.pool.acquire().await.map_err(|source| refused(operation, source))?;
        let limit = self.limits.statement + self.limits.margin;
        let beginning = Transaction::begin(connection, statement, limit, self.limits.giving_back);
        let transaction = unbroken(operation, beginning).await?.map_err(|source| refused(operation, source))?;
        Ok(Session::new(operation, Dialect::Postgres(transaction)))
    }
}

/// Makes this one transaction wait for longer, on both sides.
pub(crate) async fn be_patient(transaction: &mut Transaction, patience: Patience) -> Result<(), sqlx::Error> {
    match patience {
        Patience::Long => {
            let limit = LONG + Limits::default().margin;
            transaction.set_limit(Some(limit));
            let statement = format!("SET LOCAL statement_timeout = {}", LONG.as_millis());
            transaction.script(AssertSqlSafe(statement).into_sql_str()).await
        }
        Patience::Endless => {
            transaction.script("SET LOCAL statement_timeout = 0".into_sql_str()).await?;
            transaction.set_limit(None);
            Ok(())
        }
    }
}

/// Advisory locks share one space of numbers with everything else in the database: ours begin alike.
pub(crate) fn lock_number(lock: Lock) -> i64 {
    const TRUELINE: i64 = 0x7472_6c6e_0000;
    TRUELINE
        + match lock {
            Lock::Log => 1,
            Lock::Drift => 2,
            Lock::Baselines => 3,
            Lock::Schema => 4,
        }
}

pub(crate) fn arguments(cells: Vec<Cell>) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    for cell in cells {
        match cell {
            Cell::Integer(value) => arguments.add(value),
            Cell::Text(value) => arguments.add(value.map(storable)),
            Cell::Blob(value) => arguments.add(value),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// `SELECT * FROM UNNEST($1::bigint[], $2::text[])`
pub(crate) fn unnest(columns: &[Column]) -> String {
    let arrays: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let kind = match column {
                Column::Integers(_) => "bigint",
                Column::Texts(_) => "text",
                Column::Blobs(_) => "bytea",
            };
            format!("${}::{kind}[]", at + 1)
        })
        .collect();
    format!("SELECT * FROM UNNEST({})", arrays.join(","))
}

pub(crate) fn array_arguments(columns: Vec<Column>) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    for column in columns {
        match column {
            Column::Integers(cells) => arguments.add(cells),
            Column::Texts(cells) => arguments.add(cells.into_iter().map(|text| text.map(storable)).collect::<Vec<_>>()),
            Column::Blobs(cells) => arguments.add(cells),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// PostgreSQL's text cannot hold the character zero. Keys and values have it escaped long before; what
/// is left are names that people type.
fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// An integer of any width.
pub(crate) fn integer(row: &PgRow, at: usize) -> Result<Option<i64>, sqlx::Error> {
    let value = row.try_get_raw(at)?;
    match value.type_info().name() {
        "INT2" => row.try_get_unchecked::<Option<i16>, _>(at).map(|number| number.map(i64::from)),
        "INT4" => row.try_get_unchecked::<Option<i32>, _>(at).map(|number| number.map(i64::from)),
        _ => row.try_get(at),
    }
}

/// Errors that a later call may not meet: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(crate) fn passing(operation: &'static str, code: &str, message: &str) -> Option<StoreError> {
    match code {
        "53100" => Some(StoreError::NoSpace { operation }),
        // Transaction rollback, insufficient resources, operator intervention, connection, locks.
        _ if ["40", "53", "57", "08", "55"].iter().any(|class| code.starts_with(class)) => {
            Some(StoreError::Unavailable { operation, reason: message.to_owned() })
        }
        // The server ended the transaction of a collector that had stood still.
        "25P03" | "25P04" => Some(StoreError::Unavailable { operation, reason: message.to_owned() }),
        // A user, a password or a database that is not there: an operator is at work on it, or must be.
        _ if code.starts_with("28") || code == "3D000" => Some(StoreError::Unavailable { operation, reason: message.to_owned() }),
        _ => None,
    }
}
