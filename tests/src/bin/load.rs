//! Figure: changes a second from a simulated fleet through real mutual TLS, durable and judged, with
//! the generator on the same machine; beside it the database's own floor for the same rows.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use trueline_drift::RecordBody;
use trueline_tests::collector::{Collector, Setting};
use trueline_tests::content::World;
use trueline_tests::database::{Database, Engine};
use trueline_tests::figures::{Form, Table};
use trueline_tests::fleet::Member;
use trueline_tests::{database_floor, process, wait};

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 200)]
    hosts: usize,
    /// In all, spread evenly over the hosts.
    #[arg(long, default_value_t = 400_000)]
    changes: usize,
    /// Of each host.
    #[arg(long, default_value_t = 50)]
    items: usize,
    #[arg(long, default_value = "sqlite")]
    database: Engine,
    /// Changes in one frame.
    #[arg(long, default_value_t = 250)]
    frame: usize,
    #[command(flatten)]
    form: Form,
}

/// The generator is one thread: it only sends what was framed before.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let folder = arguments.form.folder()?;
    let database = Database::start(arguments.database, folder.path()).await?;
    let collector = Collector::start(&database, Setting::default()).await?;
    let mut members = enrol(&collector, arguments.hosts).await?;
    let mut worlds: Vec<World> = (0..arguments.hosts).map(|host| World::new(host, arguments.items)).collect();
    settle(&collector, &mut members, &worlds).await?;
    let per_host = arguments.changes.div_ceil(arguments.hosts);
    let changes = per_host * arguments.hosts;
    for (member, world) in members.iter_mut().zip(&mut worlds) {
        let records: Vec<RecordBody> = (0..per_host).map(|_| RecordBody::Changed(Box::new(world.change()))).collect();
        for frame in records.chunks(arguments.frame) {
            member.append(frame.to_vec())?;
        }
    }
    let run = run(&collector, &database, members, changes).await?;
    let memory = process::memory(collector.pid())?;
    check(&collector, changes, arguments.hosts, per_host).await?;
    drop(collector);
    let floors = floors(&database, folder.path(), arguments.hosts, changes).await?;

    let engine = arguments.database.name();
    let mut table = Table::new(format!("{changes} changes of {} hosts over mutual TLS into {engine}", arguments.hosts));
    let rate = |took: Duration| changes as f64 / took.as_secs_f64();
    table.row("durable", rate(run.durable), "changes/s");
    table.row("judged", rate(run.judged), "changes/s");
    table.row("until all durable", run.durable.as_secs_f64(), "s");
    table.row("until all judged", run.judged.as_secs_f64(), "s");
    table.row("collector CPU", run.collector_cpu, "s");
    table.row("database server CPU", run.database_cpu, "s");
    table.row("generator CPU", run.generator_cpu, "s");
    table.row("collector memory, peak", memory.peak / 1024, "MiB");
    table.row("row body, mean", floors.bytes, "bytes");
    for (batch, took) in floors.took {
        table.row(format!("floor: log rows alone, {batch} a commit"), rate(took), "rows/s");
    }
    table.print(arguments.form.json);
    Ok(())
}

async fn enrol(collector: &Collector, hosts: usize) -> anyhow::Result<Vec<Member>> {
    let token = collector.join_token(hosts).await?;
    let numbered = stream::iter(0..hosts).map(|host| {
        let token = &token;
        async move { Member::enrol(collector.enrolment(), collector.ca_sha256()?, token, &format!("load-{host:04}")).await }
    });
    numbered.buffered(8).try_collect().await
}

/// Inventories in, one host's state captured as the baseline of all, all compared with it.
async fn settle(collector: &Collector, members: &mut [Member], worlds: &[World]) -> anyhow::Result<()> {
    for (member, world) in members.iter_mut().zip(worlds) {
        member.append(world.inventory())?;
        let mut session = member.connect(collector.agents()).await?;
        member.deliver(&mut session).await?;
    }
    let first = members.first().context("a fleet has at least one host")?;
    collector.capture_baseline(&first.host_id, "fleet").await?;
    for member in members.iter() {
        collector.assign_baseline(&member.host_id, "fleet").await?;
    }
    Ok(())
}

struct Run {
    durable: Duration,
    judged: Duration,
    collector_cpu: f64,
    database_cpu: f64,
    generator_cpu: f64,
}

async fn run(collector: &Collector, database: &Database, members: Vec<Member>, changes: usize) -> anyhow::Result<Run> {
    let agents = collector.agents();
    let connected = members.into_iter().map(|mut member| async move {
        let session = member.connect(agents).await?;
        anyhow::Ok((member, session))
    });
    let connected = try_join_all(connected).await?;
    let cpu = || anyhow::Ok((process::cpu_seconds(collector.pid())?, database.cpu_seconds()?, process::cpu_seconds(std::process::id())?));
    let judged_before = collector.judged().await?;
    let before = cpu()?;
    let start = Instant::now();
    let barrier = Arc::new(start);
    let senders = connected.into_iter().map(|(mut member, mut session)| {
        let start = Arc::clone(&barrier);
        tokio::spawn(async move {
            member.deliver(&mut session).await?;
            // The session stays open: a fleet does not hang up when it has nothing to say.
            anyhow::Ok((start.elapsed(), session))
        })
    });
    let senders: Vec<_> = senders.collect();
    let mut durable = Duration::ZERO;
    let mut sessions = Vec::new();
    for sender in senders {
        let (took, session) = sender.await??;
        durable = durable.max(took);
        sessions.push(session);
    }
    let all = judged_before + changes as u64;
    wait::until("every change judged", Duration::from_secs(600), async || Ok((collector.judged().await? >= all).then_some(()))).await?;
    let judged = start.elapsed();
    let after = cpu()?;
    Ok(Run { durable, judged, collector_cpu: after.0 - before.0, database_cpu: after.1 - before.1, generator_cpu: after.2 - before.2 })
}

/// The run counts only if what it did was right.
async fn check(collector: &Collector, changes: usize, hosts: usize, per_host: usize) -> anyhow::Result<()> {
    let summary = collector.rest().get("/summary", &[]).await?;
    let count = |name: &str| summary[name].as_u64().unwrap_or(0);
    let departing = World::departures(per_host as u64) * hosts as u64;
    let (expected, departed) = (count("expected"), count("notable") + count("critical"));
    ensure!(departed == departing, "{departing} changes departed from the baseline and {departed} were judged so: {summary}");
    ensure!(expected + departed == changes as u64, "{changes} changes were sent and {} judged: {summary}", expected + departed);
    Ok(())
}

struct Floors {
    bytes: usize,
    took: Vec<(usize, Duration)>,
}

async fn floors(database: &Database, folder: &Path, hosts: usize, changes: usize) -> anyhow::Result<Floors> {
    let rows = database_floor::rows(hosts, changes);
    let mut took = Vec::new();
    for batch in [1000, 10_000] {
        let measured = match database.engine() {
            Engine::Sqlite => database_floor::sqlite(folder, &rows, batch).await?,
            Engine::Postgres => database_floor::postgres(database.uri(), &rows, batch).await?,
        };
        took.push((batch, measured));
    }
    Ok(Floors { bytes: database_floor::mean_bytes(&rows), took })
}
