//! PostgreSQL: connecting, giving sets of rows to statements, telling its errors apart.
//!
//! A URI holds a password: it is parsed, used, and neither kept in a text nor shown.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{Arguments as _, ConnectOptions as _, PgPool, Row as _, TypeInfo as _, ValueRef as _};

use crate::session::{Cell, Column, Dialect, Lock, Session, refused};
use crate::{Result, StoreError};

const CONNECTIONS: u32 = 8;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Postgres {
    pool: PgPool,
}

impl Postgres {
    /// Connects lazily: a database that is away now is [`StoreError::Unavailable`] at each use.
    pub fn connect(uri: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(uri).map_err(|_| StoreError::Invalid {
            subject: "database",
            reason: "not a PostgreSQL address: write postgres://USER:PASSWORD@HOST:PORT/DATABASE".to_owned(),
        })?;
        let options = options
            .application_name("trueline-collector")
            .disable_statement_logging()
            // Every statement here touches rows by key: compiling them or sharing them among workers costs more than
            // it gains. A set of rows is given in one piece: with the usual 4 MB it would pass through a file.
            .options([("jit", "off"), ("max_parallel_workers_per_gather", "0"), ("work_mem", "32MB")]);
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE_TIMEOUT).connect_lazy_with(options);
        Ok(Self { pool })
    }

    pub async fn read(&self, operation: &'static str) -> Result<Session> {
        self.begin(operation, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await
    }

    /// READ COMMITTED: what is read after a lock was granted includes what its last holder wrote.
    pub async fn write(&self, operation: &'static str) -> Result<Session> {
        self.begin(operation, "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE").await
    }

    async fn begin(&self, operation: &'static str, statement: &'static str) -> Result<Session> {
        let transaction = self.pool.begin_with(statement).await.map_err(|source| refused(operation, source))?;
        Ok(Session::new(operation, Dialect::Postgres(transaction)))
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
        // A user, a password or a database that is not there: an operator is at work on it, or must be.
        _ if code.starts_with("28") || code == "3D000" => Some(StoreError::Unavailable { operation, reason: message.to_owned() }),
        _ => None,
    }
}
