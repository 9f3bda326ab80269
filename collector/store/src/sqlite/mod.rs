//! SQLite: opening a database file, giving sets of rows to statements, telling its errors apart.
//!
//! Write-ahead log with `synchronous = FULL`, so that a commit that was answered survives power loss.
//! One writer connection, on which every transaction begins IMMEDIATE: a deferred transaction that
//! reads and then writes fails at once, whatever the busy timeout. A few readers see the last commit.

use std::fs::OpenOptions;
use std::io;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Arguments as _, ConnectOptions as _, Connection as _, SqlitePool};

use crate::session::{Cell, Column, Dialect, Session, refused};
use crate::{Result, StoreError};

const READERS: u32 = 4;
/// How long a writer of another process may keep us waiting.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Most rows in one statement, and most cells: 32,766 are allowed; beyond some hundred rows nothing is gained.
const PART_ROWS: usize = 512;
const PART_CELLS: usize = 8192;

pub(crate) struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Sqlite {
    /// Opens or makes the database that `sqlite:PATH` names.
    pub async fn open(uri: &str) -> Result<Self> {
        const OPERATION: &str = "opening the database";
        let path = file(uri).ok_or_else(|| StoreError::Invalid {
            subject: "database",
            reason: "name a file, as in sqlite:/var/lib/trueline-collector/collector.db".to_owned(),
        })?;
        create_private(path).map_err(|error| {
            let named = io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            refused(OPERATION, sqlx::Error::Io(named))
        })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            // Pages of the write-ahead log before it is copied back: 16 MiB.
            .pragma("wal_autocheckpoint", "4096")
            // After a burst the log's file is cut back to this many bytes.
            .pragma("journal_size_limit", "67108864")
            .pragma("temp_store", "MEMORY")
            .statement_cache_capacity(256)
            .row_buffer_size(1024)
            .disable_statement_logging();
        let writer = pool()
            .max_connections(1)
            // A negative number means KiB.
            .connect_with(options.clone().pragma("cache_size", "-65536"))
            .await
            .map_err(|source| refused(OPERATION, source))?;
        let readers = pool()
            .max_connections(READERS)
            .connect_with(options.pragma("cache_size", "-16384").pragma("query_only", "on"))
            .await
            .map_err(|source| refused(OPERATION, source))?;
        Ok(Self { writer, readers })
    }

    pub async fn read(&self, operation: &'static str) -> Result<Session> {
        let transaction = self.readers.begin().await.map_err(|source| refused(operation, source))?;
        Ok(Session::new(operation, Dialect::Sqlite(transaction)))
    }

    pub async fn write(&self, operation: &'static str) -> Result<Session> {
        let transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(|source| refused(operation, source))?;
        Ok(Session::new(operation, Dialect::Sqlite(transaction)))
    }
}

/// The file that `sqlite:PATH` or a bare path names; `None` for another database.
pub fn file(uri: &str) -> Option<&Path> {
    let path = uri.strip_prefix("sqlite:").unwrap_or(uri);
    let path = path.strip_prefix("//").unwrap_or(path);
    let is_file = !path.is_empty() && !path.starts_with(':') && !path.starts_with("postgres:") && !path.starts_with("postgresql:");
    is_file.then(|| Path::new(path))
}

/// Makes the database's file where there is none, for this user alone whatever the umask: it holds what hosts said of
/// themselves. SQLite gives its log and index the same mode.
///
/// A file that is there is not opened: closing it would drop the locks that this process holds on it
/// (<https://www.sqlite.org/howtocorrupt.html>, 2.2).
fn create_private(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// A pool that keeps no connection whose transaction did not end.
///
/// SQLite itself rolls back on some errors, a full disk among them. The ROLLBACK that sqlx sends then
/// fails, and sqlx counts the connection as within a transaction ever after.
fn pool() -> SqlitePoolOptions {
    SqlitePoolOptions::new().test_before_acquire(false).after_release(|connection, _| {
        Box::pin(async move {
            // Answered after the rollback that the transaction's drop has sent.
            connection.ping().await?;
            Ok(!connection.is_in_transaction())
        })
    })
}

pub(crate) fn arguments(cells: Vec<Cell>) -> Result<SqliteArguments, sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    for cell in cells {
        match cell {
            Cell::Integer(value) => arguments.add(value),
            Cell::Text(value) => arguments.add(value),
            Cell::Blob(value) => arguments.add(value),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// Runs of rows, each for one statement. Their lengths are the greatest that fits and then powers of
/// two, so that few different statements are prepared.
pub(crate) fn parts(rows: usize, columns: usize) -> impl Iterator<Item = Range<usize>> {
    let most = (PART_CELLS / columns.max(1)).clamp(1, PART_ROWS);
    let mut begin = 0;
    std::iter::from_fn(move || {
        let left = rows - begin;
        let length = if left >= most { most } else { left.checked_ilog2().map(|log| 1 << log)? };
        begin += length;
        Some(begin - length..begin)
    })
}

/// `VALUES (?,?),(?,?)`
pub(crate) fn values(rows: usize, columns: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(","));
    format!("VALUES {}", vec![row; rows].join(","))
}

pub(crate) fn part_arguments(columns: &[Column], part: Range<usize>) -> Result<SqliteArguments, sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    arguments.reserve(part.len() * columns.len(), 0);
    for at in part {
        for column in columns {
            match column {
                Column::Integers(cells) => arguments.add(cells[at]),
                Column::Texts(cells) => arguments.add(cells[at].clone()),
                Column::Blobs(cells) => arguments.add(cells[at].clone()),
            }
            .map_err(sqlx::Error::Encode)?;
        }
    }
    Ok(arguments)
}

/// Errors that a later call may not meet: <https://www.sqlite.org/rescode.html>.
pub(crate) fn passing(operation: &'static str, code: &str, message: &str) -> Option<StoreError> {
    let code: i32 = code.parse().ok()?;
    match (code, code & 0xff) {
        // FULL; IOERR_SHMSIZE is the same disk full, met where the log's index grows.
        (13 | 4874, _) => Some(StoreError::NoSpace { operation }),
        // BUSY, LOCKED, IOERR, CANTOPEN.
        (_, 5 | 6 | 10 | 14) => Some(StoreError::Unavailable { operation, reason: message.to_owned() }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_files_of_a_database_are_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let database = Sqlite::open(&format!("sqlite:{}", folder.path().join("store.db").display())).await.unwrap();
        let mut session = database.write("a test").await.unwrap();
        session.execute("CREATE TABLE t (n INTEGER)", Vec::new()).await.unwrap();
        session.commit().await.unwrap();
        let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap).collect();
        assert!(files.len() >= 3, "{files:?}");
        for file in files {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
    }

    #[test]
    fn parts_cover_every_row_once() {
        for (rows, columns) in [(0, 3), (1, 1), (7, 9), (512, 16), (5000, 8), (1023, 40)] {
            let all: Vec<usize> = parts(rows, columns).flatten().collect();
            assert_eq!(all, (0..rows).collect::<Vec<_>>());
            assert!(parts(rows, columns).all(|part| part.len() * columns <= PART_CELLS));
        }
    }
}
