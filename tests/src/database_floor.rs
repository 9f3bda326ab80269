//! The floor of ingest: how fast the database itself takes the rows of the change log, same size,
//! same columns, same indexes, when nothing is decoded, judged or acknowledged.
//!
//! The columns and indexes repeat those of `changes` in `collector/store/migrations/`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use prost::Message;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, PgPool, SqlitePool};
use trueline_proto::v1;

use crate::content::World;

/// Bound parameters of a row.
const COLUMNS: usize = 8;
/// SQLite takes at most 32,766 parameters in one statement.
const SQLITE_ROWS: usize = 2000;

#[derive(Debug, Clone)]
pub struct Row {
    position: i64,
    host: i64,
    item: i64,
    sequence: i64,
    at: i64,
    body: Vec<u8>,
}

/// Rows such as the collector would write for this many changes of this many hosts.
pub fn rows(hosts: usize, changes: usize) -> Vec<Row> {
    let mut worlds: Vec<World> = (0..hosts).map(|host| World::new(host, 50)).collect();
    let per_host = changes.div_ceil(hosts.max(1));
    let mut rows = Vec::with_capacity(changes);
    // A host's changes arrive in runs, as frames do.
    'all: for run in 0..per_host.div_ceil(250) {
        for (host, world) in worlds.iter_mut().enumerate() {
            for place in 0..250.min(per_host - run * 250) {
                if rows.len() == changes {
                    break 'all;
                }
                let change = world.change();
                let at = change.observed_at.micros();
                let item = change.item.fingerprint().0[0] % 50;
                rows.push(Row {
                    position: rows.len() as i64 + 1,
                    host: host as i64,
                    item: (host * 50) as i64 + i64::from(item),
                    sequence: (run * 250 + place) as i64,
                    at,
                    body: v1::Change::from(change).encode_to_vec(),
                });
            }
        }
    }
    rows
}

pub fn mean_bytes(rows: &[Row]) -> usize {
    rows.iter().map(|row| row.body.len()).sum::<usize>() / rows.len().max(1)
}

/// Into a new SQLite file in this folder: WAL, synchronous FULL, one transaction a batch.
pub async fn sqlite(folder: &Path, rows: &[Row], batch: usize) -> anyhow::Result<Duration> {
    let options = SqliteConnectOptions::new()
        .filename(folder.join(format!("floor-{batch}.db")))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool: SqlitePool =
        SqlitePoolOptions::new().max_connections(1).connect_with(options).await.context("making the floor's database")?;
    let schema = "CREATE TABLE changes (position INTEGER PRIMARY KEY, host INTEGER NOT NULL, item INTEGER NOT NULL, epoch INTEGER NOT NULL, \
         sequence INTEGER NOT NULL, observed_at INTEGER NOT NULL, received_at INTEGER NOT NULL, body BLOB NOT NULL) STRICT; \
         CREATE INDEX changes_by_host ON changes (host, position); CREATE INDEX changes_by_item ON changes (item, position);";
    sqlx::raw_sql(schema).execute(&pool).await?;
    let start = Instant::now();
    for batch in rows.chunks(batch) {
        let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
        for rows in batch.chunks(SQLITE_ROWS) {
            let one = format!("({})", ["?"; COLUMNS].join(","));
            let sql = format!("INSERT INTO changes VALUES {}", vec![one; rows.len()].join(","));
            let mut insert = sqlx::query(AssertSqlSafe(sql));
            for row in rows {
                insert = insert.bind(row.position).bind(row.host).bind(row.item).bind(1_i64).bind(row.sequence).bind(row.at).bind(row.at);
                insert = insert.bind(&row.body[..]);
            }
            insert.execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
    }
    let took = start.elapsed();
    pool.close().await;
    Ok(took)
}

/// Into a new table of this server: one UNNEST insert and one commit a batch.
pub async fn postgres(uri: &str, rows: &[Row], batch: usize) -> anyhow::Result<Duration> {
    let pool: PgPool = PgPoolOptions::new().max_connections(1).connect(uri).await.context("connecting for the floor")?;
    let schema = "DROP TABLE IF EXISTS floor_changes; \
         CREATE TABLE floor_changes (position bigint PRIMARY KEY, host bigint NOT NULL, item bigint NOT NULL, epoch bigint NOT NULL, \
         sequence bigint NOT NULL, observed_at bigint NOT NULL, received_at bigint NOT NULL, body bytea NOT NULL); \
         CREATE INDEX floor_by_host ON floor_changes (host, position); CREATE INDEX floor_by_item ON floor_changes (item, position);";
    sqlx::raw_sql(schema).execute(&pool).await?;
    let insert = "INSERT INTO floor_changes SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], \
         $6::bigint[], $7::bigint[], $8::bytea[])";
    let start = Instant::now();
    for rows in rows.chunks(batch) {
        let column = |value: fn(&Row) -> i64| rows.iter().map(value).collect::<Vec<i64>>();
        let bodies: Vec<&[u8]> = rows.iter().map(|row| &row.body[..]).collect();
        sqlx::query(insert)
            .bind(column(|row| row.position))
            .bind(column(|row| row.host))
            .bind(column(|row| row.item))
            .bind(column(|_| 1))
            .bind(column(|row| row.sequence))
            .bind(column(|row| row.at))
            .bind(column(|row| row.at))
            .bind(bodies)
            .execute(&pool)
            .await?;
    }
    let took = start.elapsed();
    sqlx::raw_sql("DROP TABLE floor_changes").execute(&pool).await?;
    pool.close().await;
    Ok(took)
}
