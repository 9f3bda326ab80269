//! How many changes a second the store takes in and judges, beside the database's own floor for the
//! same rows: `cargo run --release -p trueline-store --features testing --example rate [CHANGES]`.
//!
//! One task appends while another judges, as the collector does. The floor is one plain INSERT of the
//! stored rows (the changes table and its indexes, nothing else), one statement and one commit for each
//! batch. Half of the changes depart from the baseline and half return to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use trueline_drift::change::ChangeKind;
use trueline_drift::{
    Actor, Cause, Certainty, Change, Epoch, Facts, FieldChange, FieldName, Fields, HostId, ItemId, ItemKey, ItemKind, Observation,
    RecordBody, TenantId, Time, actor,
};
use trueline_store::testing::Sender;
use trueline_store::{AppendOutcome, Batch, NewCapture, Store, testing};
use uuid::Uuid;

const HOSTS: usize = 20;
const ITEMS: usize = 2_000;

fn main() -> anyhow::Result<()> {
    let changes = std::env::args().nth(1).map_or(Ok(100_000), |count| count.parse()).context("a number of changes")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        for batch in [1_000, 5_000] {
            let folder = tempfile::tempdir()?;
            report("SQLite", batch, changes, &format!("sqlite:{}/rate.db", folder.path().display())).await?;
            match testing::postgres() {
                Ok(server) => report("PostgreSQL", batch, changes, &server.uri("rate")).await?,
                Err(missing) => testing::skip("PostgreSQL", missing),
            }
        }
        Ok(())
    })
}

async fn report(database: &str, batch: usize, changes: usize, uri: &str) -> anyhow::Result<()> {
    let store = trueline_store::open(uri).await?;
    let mut hosts = enrol(&*store).await?;
    let rate = |took: Duration| changes as f64 / took.as_secs_f64();
    let prepared = batches(&mut hosts, changes, batch);

    let began = Instant::now();
    let judged = tokio::spawn(judge_all(Arc::clone(&store), changes, batch));
    let mut appended = Duration::ZERO;
    for group in prepared {
        let outcomes = store.append(group, now()).await?;
        if let Some(refused) = outcomes.iter().find(|outcome| !matches!(outcome, AppendOutcome::Accepted { .. })) {
            bail!("refused: {refused:?}");
        }
        appended = began.elapsed();
    }
    judged.await??;
    let both = began.elapsed();
    let alone = batches(&mut hosts, changes, batch);
    let began = Instant::now();
    for group in alone {
        store.append(group, now()).await?;
    }
    let append = began.elapsed();
    let began = Instant::now();
    judge_all(Arc::clone(&store), changes, batch).await?;
    let judge = began.elapsed();
    let floor = if uri.starts_with("sqlite:") {
        floor_of_sqlite(uri, changes, batch).await?
    } else {
        floor_of_postgresql(uri, changes, batch).await?
    };
    println!(
        "{database:10} batch {batch:5}: floor {:7.0}/s; append and judge {:7.0}/s (appended at {:7.0}/s meanwhile); append alone {:7.0}/s; judge alone {:7.0}/s",
        rate(floor),
        rate(both),
        rate(appended),
        rate(append),
        rate(judge)
    );
    Ok(())
}

const FLOOR: &str = "CREATE TABLE floor AS SELECT * FROM changes LIMIT 0; CREATE UNIQUE INDEX floor_position ON floor (position); \
    CREATE INDEX floor_host ON floor (host, position); CREATE INDEX floor_item ON floor (item, position);";
/// About what a change above takes when stored.
const BODY: usize = 480;

async fn floor_of_sqlite(uri: &str, changes: usize, batch: usize) -> anyhow::Result<Duration> {
    let options = uri.parse::<SqliteConnectOptions>()?.synchronous(SqliteSynchronous::Full).journal_mode(SqliteJournalMode::Wal);
    let mut connection = options.connect().await?;
    sqlx::raw_sql(FLOOR).execute(&mut connection).await?;
    let began = Instant::now();
    for first in (0..changes).step_by(batch) {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        for part in (first..first + batch).collect::<Vec<_>>().chunks(500) {
            let rows = vec!["(?,?,?,?,?,?,?,?)"; part.len()].join(",");
            let mut query = sqlx::query(AssertSqlSafe(format!("INSERT INTO floor VALUES {rows}")));
            for number in part {
                let number = *number as i64;
                query =
                    query.bind(number).bind(number % HOSTS as i64).bind(number % 40_000).bind(1i64).bind(number).bind(number).bind(number);
                query = query.bind(vec![number as u8; BODY]);
            }
            query.execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
    }
    Ok(began.elapsed())
}

async fn floor_of_postgresql(uri: &str, changes: usize, batch: usize) -> anyhow::Result<Duration> {
    let mut connection = uri.parse::<PgConnectOptions>()?.connect().await?;
    sqlx::raw_sql(FLOOR).execute(&mut connection).await?;
    let began = Instant::now();
    for first in (0..changes).step_by(batch) {
        let column = |map: fn(i64) -> i64| (first..first + batch).map(|number| map(number as i64)).collect::<Vec<_>>();
        let sql = "INSERT INTO floor SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], \
            $7::bigint[], $8::bytea[])";
        sqlx::query(sql)
            .bind(column(|n| n))
            .bind(column(|n| n % HOSTS as i64))
            .bind(column(|n| n % 40_000))
            .bind(column(|_| 1))
            .bind(column(|n| n))
            .bind(column(|n| n))
            .bind(column(|n| n))
            .bind((first..first + batch).map(|n| vec![n as u8; BODY]).collect::<Vec<_>>())
            .execute(&mut connection)
            .await?;
    }
    Ok(began.elapsed())
}

/// A host, and how many changes it has made.
struct Sending {
    host: Sender,
    sent: usize,
}

fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time::from_micros(since.as_micros() as i64)
}

fn item(number: usize) -> ItemId {
    ItemId::new(ItemKind::File, ItemKey::from_text(&format!("/etc/service/{}/part-{number}.conf", number % 97)).expect("a short key"))
}

fn fields(value: &str) -> Fields {
    stable().with("sha256", value)
}

fn stable() -> Fields {
    Fields::new()
        .with("type", "file")
        .with("mode", "0644")
        .with("owner", "root")
        .with("group", "root")
        .with("uid", 0)
        .with("gid", 0)
        .with("size", 1234)
        .with("mtime", "2026-02-12T10:30:00.000000Z")
        .with("nlink", 1)
}

const GOOD: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const BAD: &str = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";

fn change(number: usize, departs: bool) -> RecordBody {
    let (before, after) = if departs { (GOOD, BAD) } else { (BAD, GOOD) };
    let process = |pid, exe: &str| actor::Process {
        started_at: Some(Time::from_seconds(1)),
        exe: Some(exe.to_owned()),
        argv: vec![exe.to_owned(), "-w".into()],
        cwd: Some("/root".into()),
        ..actor::Process::bare(pid)
    };
    let actor = Actor {
        certainty: Certainty::Strong,
        via: vec!["fanotify".into(), "procfs".into()],
        process: Some(process(812, "/usr/bin/vim")),
        parents: vec![process(800, "/usr/bin/bash"), process(700, "/usr/sbin/sshd")],
        user: Some(actor::User {
            uid: 0,
            euid: Some(0),
            login_uid: Some(1000),
            name: Some("root".into()),
            login_name: Some("alice".into()),
        }),
        session: Some(actor::Session::bare("3f2a9c01d4e7-42".parse().expect("a session's name"))),
        unit: Some("ssh.service".into()),
        reason: None,
        ..Actor::unknown("")
    };
    RecordBody::Changed(Box::new(Change {
        item: item(number),
        kind: ChangeKind::Modified,
        fields: vec![FieldChange { name: FieldName::known("sha256"), before: Some(before.into()), after: Some(after.into()) }],
        unchanged: stable(),
        observed_after: Time::from_seconds(1_770_000_000),
        observed_at: Time::from_seconds(1_770_000_001),
        cause: Cause::Event,
        actor,
        transaction: None,
        shipped_by: None,
        candidates: trueline_drift::Candidates::default(),
        lines: None,
    }))
}

async fn enrol(store: &dyn Store) -> anyhow::Result<Vec<Sending>> {
    let mut hosts = Vec::new();
    for number in 0..HOSTS {
        let id = HostId(Uuid::now_v7());
        let facts = Facts { hostname: format!("host-{number}"), ..Facts::default() };
        testing::enrol(store, &TenantId::main(), id, &facts, now()).await?;
        store.host_connected(id, &facts, "0.1.0", Epoch(1), now()).await?;
        let mut host = Sender::new(id, Epoch(1));
        let mut records: Vec<_> = (0..ITEMS)
            .map(|number| RecordBody::Observed(Observation { item: item(number), fields: fields(GOOD), observed_at: now() }))
            .collect();
        records.push(RecordBody::InventoryComplete { items: ITEMS as u64, observed_at: now() });
        store.append(vec![host.batch(records)], now()).await?;
        hosts.push(Sending { host, sent: 0 });
    }
    let capture = NewCapture {
        tenant: TenantId::main(),
        host: hosts[0].host.id,
        name: "rate".into(),
        scopes: Vec::new(),
        by: "rate".into(),
        at: now(),
        assign: true,
    };
    let baseline = store.capture_baseline(capture).await?;
    for host in &hosts {
        store.assign_baseline(&TenantId::main(), host.host.id, baseline.id).await?;
    }
    Ok(hosts)
}

/// Groups of `batch` changes, each from all hosts.
fn batches(hosts: &mut [Sending], changes: usize, batch: usize) -> Vec<Vec<Batch>> {
    (0..changes / batch)
        .map(|_| {
            let next = hosts.iter_mut().map(|Sending { host, sent }| {
                let changes = (0..batch / HOSTS).map(|_| {
                    *sent += 1;
                    change(*sent % ITEMS, (*sent / ITEMS).is_multiple_of(2))
                });
                host.batch(changes.collect())
            });
            next.collect()
        })
        .collect()
}

async fn judge_all(store: Arc<dyn Store>, changes: usize, limit: usize) -> anyhow::Result<()> {
    let mut judged = 0;
    while judged < changes {
        let input = store.unjudged(limit as u32).await?;
        if input.changes.is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        }
        judged += input.changes.len();
        let output = tokio::task::spawn_blocking(move || testing::judgement(input)).await?;
        if let Some(output) = output
            && !store.record_judgements(output).await?
        {
            bail!("another judge was faster");
        }
    }
    Ok(())
}
