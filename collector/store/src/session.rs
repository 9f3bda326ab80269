//! One transaction on one of the two databases, and how values go in and rows come out.
//!
//! Most SQL here is the same text in both databases and is written once, beside what calls it. What
//! differs is in this file's two arms and in `sqlite/` and `postgres/`: connecting, locking, how a set
//! of rows is given to a statement, what an error means.
//!
//! Invariants: every method of the store is one transaction, so a reader sees one moment and a writer
//! has all of its effect or none. A session that is dropped before [`Session::commit`] has no effect. A caller may be
//! dropped at any wait (a client hangs up, a stream ends), but never between the two halves of a BEGIN or a COMMIT: see
//! [`unbroken`].

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _, SqlSafeStr, Sqlite, Transaction};
use trueline_drift::Time;

use crate::{Result, StoreError, postgres, sqlite};

pub(crate) struct Session {
    /// For messages: what the caller of the store is doing.
    operation: &'static str,
    transaction: Dialect,
}

pub(crate) enum Dialect {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(postgres::Transaction),
}

/// How much longer than usual an answer of the database is waited for. SQLite is this process's own, and always answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Statements that touch all that a host or a baseline has.
    Long,
    /// Statements whose duration nobody can foresee: those of the schema's steps.
    Endless,
}

/// What must not happen twice at once. SQLite has one writer and needs none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Positions of changes and gaps grow in commit order.
    Log,
    /// Numbers of drifts and of the drift log grow in commit order.
    Drift,
    /// Versions of baselines have no holes and no twins.
    Baselines,
    Schema,
}

impl Session {
    pub fn new(operation: &'static str, transaction: Dialect) -> Self {
        Self { operation, transaction }
    }

    /// All rows of a statement with `$1`, `$2` … for the cells.
    pub async fn fetch(&mut self, sql: impl SqlSafeStr, cells: Vec<Cell>) -> Result<Vec<Row>> {
        let operation = self.operation;
        let sql = sql.into_sql_str();
        let rows = match &mut self.transaction {
            Dialect::Sqlite(transaction) => {
                let query = sqlx::query_with(sql, sqlite::arguments(cells).map_err(|source| refused(operation, source))?);
                query.fetch_all(&mut **transaction).await.map(|rows| rows.into_iter().map(Row::Sqlite).collect())
            }
            Dialect::Postgres(transaction) => {
                let query = sqlx::query_with(sql, postgres::arguments(cells).map_err(|source| refused(operation, source))?);
                transaction.fetch(query).await.map(|rows| rows.into_iter().map(Row::Postgres).collect())
            }
        };
        rows.map_err(|source| refused(operation, source))
    }

    pub async fn fetch_optional(&mut self, sql: impl SqlSafeStr, cells: Vec<Cell>) -> Result<Option<Row>> {
        Ok(self.fetch(sql, cells).await?.into_iter().next())
    }

    /// The first row of a statement that always has one.
    pub async fn fetch_one(&mut self, sql: impl SqlSafeStr, cells: Vec<Cell>) -> Result<Row> {
        let operation = self.operation;
        self.fetch_optional(sql, cells).await?.ok_or_else(|| refused(operation, sqlx::Error::RowNotFound))
    }

    /// The number of rows that the statement touched.
    pub async fn execute(&mut self, sql: impl SqlSafeStr, cells: Vec<Cell>) -> Result<u64> {
        let operation = self.operation;
        let sql = sql.into_sql_str();
        let touched = match &mut self.transaction {
            Dialect::Sqlite(transaction) => {
                let query = sqlx::query_with(sql, sqlite::arguments(cells).map_err(|source| refused(operation, source))?);
                query.execute(&mut **transaction).await.map(|done| done.rows_affected())
            }
            Dialect::Postgres(transaction) => {
                let query = sqlx::query_with(sql, postgres::arguments(cells).map_err(|source| refused(operation, source))?);
                transaction.execute(query).await
            }
        };
        touched.map_err(|source| refused(operation, source))
    }

    /// A statement over a set of rows, which stand where the text says `{rows}`: `WITH given (a, b) AS
    /// ({rows}) INSERT …`. The statement may run in several parts, each over some of the rows in their
    /// order; it must mean the same then. Without rows nothing runs.
    pub async fn bulk(&mut self, sql: &str, columns: Vec<Column>) -> Result<Vec<Row>> {
        let operation = self.operation;
        let count = columns.first().map_or(0, Column::len);
        debug_assert!(columns.iter().all(|column| column.len() == count), "columns of one set have one length");
        if count == 0 {
            return Ok(Vec::new());
        }
        let rows = match &mut self.transaction {
            Dialect::Sqlite(transaction) => {
                let mut all = Vec::new();
                for part in sqlite::parts(count, columns.len()) {
                    let sql = sql.replace("{rows}", &sqlite::values(part.len(), columns.len()));
                    let arguments = sqlite::part_arguments(&columns, part).map_err(|source| refused(operation, source))?;
                    let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
                    let rows = query.fetch_all(&mut **transaction).await.map_err(|source| refused(operation, source))?;
                    all.extend(rows.into_iter().map(Row::Sqlite));
                }
                Ok(all)
            }
            Dialect::Postgres(transaction) => {
                let sql = sql.replace("{rows}", &postgres::unnest(&columns));
                let arguments = postgres::array_arguments(columns).map_err(|source| refused(operation, source))?;
                let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
                transaction.fetch(query).await.map(|rows| rows.into_iter().map(Row::Postgres).collect())
            }
        };
        rows.map_err(|source| refused(operation, source))
    }

    /// Statements of our own without cells, several in one text.
    pub async fn script(&mut self, sql: &'static str) -> Result<()> {
        let operation = self.operation;
        let done = match &mut self.transaction {
            Dialect::Sqlite(transaction) => sqlx::raw_sql(sql).execute(&mut **transaction).await.map(drop),
            Dialect::Postgres(transaction) => transaction.script(sql.into_sql_str()).await,
        };
        done.map_err(|source| refused(operation, source))
    }

    pub async fn be_patient(&mut self, patience: Patience) -> Result<()> {
        let operation = self.operation;
        match &mut self.transaction {
            Dialect::Sqlite(_) => Ok(()),
            Dialect::Postgres(transaction) => {
                postgres::be_patient(transaction, patience).await.map_err(|source| refused(operation, source))
            }
        }
    }

    pub fn is_sqlite(&self) -> bool {
        matches!(self.transaction, Dialect::Sqlite(_))
    }

    /// Held until the session ends.
    pub async fn lock(&mut self, lock: Lock) -> Result<()> {
        match &self.transaction {
            Dialect::Sqlite(_) => Ok(()),
            Dialect::Postgres(_) => {
                self.execute("SELECT pg_advisory_xact_lock($1)", vec![postgres::lock_number(lock).into()]).await.map(drop)
            }
        }
    }

    pub async fn commit(self) -> Result<()> {
        let done = match self.transaction {
            Dialect::Sqlite(transaction) => unbroken(self.operation, transaction.commit()).await,
            Dialect::Postgres(transaction) => unbroken(self.operation, transaction.commit()).await,
        };
        done?.map_err(|source| refused(self.operation, source))
    }
}

/// Goes on to its end also where its caller is dropped meanwhile.
///
/// sqlx notes that a transaction began or ended when the database has answered. Were it dropped between a COMMIT and the
/// answer, it would send a ROLLBACK that no transaction is there for; between a BEGIN and its answer, the connection would go
/// back to the pool within a transaction that nobody knows of. `work` must have an end of its own.
pub(crate) async fn unbroken<T: Send + 'static>(operation: &'static str, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.map_err(|error| StoreError::Unavailable { operation, reason: error.to_string() })
}

/// Tells a database error by what the caller should do about it, and counts it.
pub(crate) fn refused(operation: &'static str, source: sqlx::Error) -> StoreError {
    let error = told_apart(operation, source);
    metrics::counter!("trueline_database_errors_total", "reason" => error.name()).increment(1);
    error
}

fn told_apart(operation: &'static str, source: sqlx::Error) -> StoreError {
    use sqlx::Error;
    if let Error::Database(error) = &source {
        let code = error.code().unwrap_or_default();
        let passing = if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
            sqlite::passing(operation, &code, error.message())
        } else {
            postgres::passing(operation, &code, error.message())
        };
        return passing.unwrap_or(StoreError::Database { operation, source });
    }
    match &source {
        Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => StoreError::NoSpace { operation },
        Error::Io(_) | Error::Tls(_) | Error::PoolTimedOut | Error::PoolClosed | Error::WorkerCrashed => {
            StoreError::Unavailable { operation, reason: source.to_string() }
        }
        _ => StoreError::Database { operation, source },
    }
}

/// One value for a statement. The absent ones keep their type, which PostgreSQL asks for.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    Integer(Option<i64>),
    Text(Option<String>),
    Blob(Option<Vec<u8>>),
}

macro_rules! cells_from {
    ($($from:ty => $variant:ident, $value:ident => $convert:expr;)+) => {
        $(
            impl From<$from> for Cell {
                fn from($value: $from) -> Self {
                    Self::$variant(Some($convert))
                }
            }

            impl From<Option<$from>> for Cell {
                fn from(value: Option<$from>) -> Self {
                    Self::$variant(value.map(|$value| $convert))
                }
            }
        )+
    };
}

cells_from! {
    i64 => Integer, value => value;
    u32 => Integer, value => i64::from(value);
    Time => Integer, value => value.micros();
    &str => Text, value => value.to_owned();
    String => Text, value => value;
    Vec<u8> => Blob, value => value;
    &[u8] => Blob, value => value.to_vec();
}

/// One column of a set of rows.
#[derive(Debug)]
pub(crate) enum Column {
    Integers(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
    Blobs(Vec<Option<Vec<u8>>>),
}

impl Column {
    pub fn len(&self) -> usize {
        match self {
            Self::Integers(cells) => cells.len(),
            Self::Texts(cells) => cells.len(),
            Self::Blobs(cells) => cells.len(),
        }
    }

    pub fn integers(cells: impl IntoIterator<Item = i64>) -> Self {
        Self::Integers(cells.into_iter().map(Some).collect())
    }

    pub fn texts(cells: impl IntoIterator<Item = String>) -> Self {
        Self::Texts(cells.into_iter().map(Some).collect())
    }

    pub fn blobs(cells: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self::Blobs(cells.into_iter().map(Some).collect())
    }
}

pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// The cells from the first on, in the order of the statement.
    pub fn cells(&self) -> Cells<'_> {
        Cells { row: self, at: 0 }
    }
}

/// Reads a row from left to right.
pub(crate) struct Cells<'a> {
    row: &'a Row,
    at: usize,
}

impl Cells<'_> {
    pub fn integer_or_none(&mut self) -> Result<Option<i64>> {
        let at = self.next();
        match self.row {
            Row::Sqlite(row) => row.try_get_unchecked(at).map_err(unreadable),
            Row::Postgres(row) => postgres::integer(row, at).map_err(unreadable),
        }
    }

    pub fn text_or_none(&mut self) -> Result<Option<String>> {
        let at = self.next();
        match self.row {
            Row::Sqlite(row) => row.try_get_unchecked(at).map_err(unreadable),
            Row::Postgres(row) => row.try_get_unchecked(at).map_err(unreadable),
        }
    }

    pub fn blob_or_none(&mut self) -> Result<Option<Vec<u8>>> {
        let at = self.next();
        match self.row {
            Row::Sqlite(row) => row.try_get_unchecked(at).map_err(unreadable),
            Row::Postgres(row) => row.try_get_unchecked(at).map_err(unreadable),
        }
    }

    /// Past so many cells.
    #[must_use]
    pub fn skip(mut self, cells: usize) -> Self {
        self.at += cells;
        self
    }

    /// Of a text or bytes, in bytes; nothing has none.
    pub fn length(&mut self) -> Result<usize> {
        let at = self.next();
        let bytes: Option<&[u8]> = match self.row {
            Row::Sqlite(row) => row.try_get_unchecked(at),
            Row::Postgres(row) => row.try_get_unchecked(at),
        }
        .map_err(unreadable)?;
        Ok(bytes.map_or(0, <[u8]>::len))
    }

    pub fn integer(&mut self) -> Result<i64> {
        self.integer_or_none()?.ok_or_else(absent)
    }

    pub fn text(&mut self) -> Result<String> {
        self.text_or_none()?.ok_or_else(absent)
    }

    pub fn blob(&mut self) -> Result<Vec<u8>> {
        self.blob_or_none()?.ok_or_else(absent)
    }

    pub fn time(&mut self) -> Result<Time> {
        self.integer().map(Time::from_micros)
    }

    pub fn time_or_none(&mut self) -> Result<Option<Time>> {
        Ok(self.integer_or_none()?.map(Time::from_micros))
    }

    /// A count or a number that was unsigned when it was stored.
    pub fn count(&mut self) -> Result<u64> {
        Ok(u64::try_from(self.integer()?).unwrap_or(0))
    }

    fn next(&mut self) -> usize {
        self.at += 1;
        self.at - 1
    }
}

fn unreadable(source: sqlx::Error) -> StoreError {
    StoreError::Corrupt { subject: "row", reason: source.to_string() }
}

fn absent() -> StoreError {
    StoreError::Corrupt { subject: "row", reason: "a value is missing".to_owned() }
}

/// A statement that grows by conditions.
pub(crate) struct Query {
    sql: String,
    cells: Vec<Cell>,
}

impl Query {
    pub fn new(sql: &str) -> Self {
        Self { sql: sql.to_owned(), cells: Vec::new() }
    }

    pub fn text(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    /// `sql`, then the placeholder of the cell.
    pub fn with(&mut self, sql: &str, cell: impl Into<Cell>) -> &mut Self {
        self.cells.push(cell.into());
        self.sql.push_str(sql);
        self.sql.push('$');
        self.sql.push_str(&self.cells.len().to_string());
        self
    }

    /// The placeholder of the cell.
    pub fn value(&mut self, cell: impl Into<Cell>) -> &mut Self {
        self.with("", cell)
    }

    /// What another statement says from its first placeholder on; this one must have none yet.
    pub fn append(&mut self, other: &Self) -> &mut Self {
        debug_assert!(self.cells.is_empty(), "placeholders are numbered from the first");
        self.sql.push_str(&other.sql);
        self.cells.extend(other.cells.iter().cloned());
        self
    }

    pub fn with_some(&mut self, sql: &str, cell: Option<impl Into<Cell>>) -> &mut Self {
        match cell {
            Some(cell) => self.with(sql, cell),
            None => self,
        }
    }

    /// The first row of a statement that always has one.
    pub async fn fetch_one(self, session: &mut Session) -> Result<Row> {
        session.fetch_one(AssertSqlSafe(self.sql), self.cells).await
    }

    pub async fn fetch(self, session: &mut Session) -> Result<Vec<Row>> {
        session.fetch(AssertSqlSafe(self.sql), self.cells).await
    }
}
