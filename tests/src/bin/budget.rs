//! Figure: how well a scheduled scan keeps to its share of a core. Watches 200,000 files, waits for the first scheduled scan (five
//! minutes, the shortest that can be set), and looks on while it works.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use trueline_tests::agent::{Agent, Watch};
use trueline_tests::collector::{Collector, Setting};
use trueline_tests::database::{Database, Engine};
use trueline_tests::figures::{Form, Table};
use trueline_tests::{process, tree};

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 200_000)]
    files: usize,
    /// Percent of a core.
    #[arg(long, default_value_t = 20)]
    share: u32,
    /// Bytes a second instead of a share of a core.
    #[arg(long)]
    bytes: Option<u64>,
    /// Where the tree lies; it is made on the first run and kept.
    #[arg(long, default_value = "target/bench-tree")]
    tree: PathBuf,
    #[command(flatten)]
    form: Form,
}

const SCHEDULE: u64 = 300;
const STEP: Duration = Duration::from_millis(250);
/// Below it the agent rests.
const REST: f64 = 0.02;
/// So many rests after each other are an end.
const RESTS: usize = 8;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.tree).with_context(|| format!("making {}", arguments.tree.display()))?;
    let root = arguments.tree.canonicalize()?;
    tree::make(&root, arguments.files)?;
    let folder = arguments.form.folder()?;
    let database = Database::start(Engine::Sqlite, folder.path()).await?;
    let mut collector = Collector::start(&database, Setting::default()).await?;
    let watch = Watch {
        full_scan_seconds: Some(SCHEDULE),
        scan_core_percent: Some(if arguments.bytes.is_some() { 0 } else { arguments.share }),
        scan_bytes_per_second: Some(arguments.bytes.unwrap_or(0)),
        data_dir: Some(folder.path().join("agent")),
        ..Watch::paths([&root])
    };
    let agent = Agent::start(&collector, &watch).await?;
    let started = Instant::now();
    agent.inventoried(&collector, Duration::from_secs(SCHEDULE)).await?;
    let sample = || -> anyhow::Result<(Instant, f64, u64)> {
        Ok((Instant::now(), process::cpu_seconds(agent.pid())?, process::bytes_read(agent.pid())?))
    };
    // What the figure is about happens by itself at its time.
    let quiet_until = Duration::from_secs(SCHEDULE) - Duration::from_secs(2);
    tokio::time::sleep(quiet_until.saturating_sub(started.elapsed())).await;
    let mut last = sample()?;
    let (mut first, mut end, mut rests) = (None, last, 0);
    while rests < RESTS {
        ensure!(started.elapsed() < Duration::from_secs(2 * SCHEDULE), "no scan was seen to begin and end");
        tokio::time::sleep(STEP).await;
        let now = sample()?;
        if (now.1 - last.1) / now.0.duration_since(last.0).as_secs_f64() >= REST {
            first.get_or_insert(last);
            (end, rests) = (now, 0);
        } else if first.is_some() {
            rests += 1;
        }
        last = now;
    }
    collector.kill().await?;
    let first = first.context("no scan began")?;
    let took = end.0.duration_since(first.0).as_secs_f64();
    let mut table = Table::new(format!("a scheduled scan of {} files", arguments.files));
    table.row("took", took, "s");
    match arguments.bytes {
        Some(bytes) => {
            let rate = (end.2 - first.2) as f64 / took;
            table.row("bytes a second, set", bytes, "B/s");
            table.row("bytes a second, read", rate, "B/s");
            table.row("off by", (rate / bytes as f64 - 1.0) * 100.0, "%");
        }
        None => {
            let share = (end.1 - first.1) / took * 100.0;
            table.row("share of a core, set", f64::from(arguments.share), "%");
            table.row("share of a core, used by the whole agent", share, "%");
            table.row("off by", (share / f64::from(arguments.share) - 1.0) * 100.0, "%");
        }
    }
    table.print(arguments.form.json);
    Ok(())
}
