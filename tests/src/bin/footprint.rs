//! Figures: the agent's resident memory with 200,000 files watched, after inventory, and its share of
//! a core while nothing changes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
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
    /// Watch /usr and /etc too, with every other kind of item.
    #[arg(long)]
    system: bool,
    /// How long to look on while nothing happens.
    #[arg(long, default_value_t = 60)]
    idle_seconds: u64,
    /// Where the tree lies; it is made on the first run and kept.
    #[arg(long, default_value = "target/bench-tree")]
    tree: PathBuf,
    #[command(flatten)]
    form: Form,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.tree).with_context(|| format!("making {}", arguments.tree.display()))?;
    let root = arguments.tree.canonicalize()?;
    tree::make(&root, arguments.files)?;
    let folder = arguments.form.folder()?;
    let database = Database::start(Engine::Sqlite, folder.path()).await?;
    let mut collector = Collector::start(&database, Setting::default()).await?;
    let watch = if arguments.system {
        Watch { every_kind: true, ..Watch::paths([root.as_path(), "/usr".as_ref(), "/etc".as_ref()]) }
    } else {
        Watch::paths([&root])
    };
    let start = Instant::now();
    let agent = Agent::start(&collector, &watch).await?;
    let host = agent.inventoried(&collector, Duration::from_secs(600)).await?;
    let inventory = start.elapsed();
    let items = collector.rest().get(&format!("/hosts/{host}"), &[]).await?["items"].clone();
    let after_inventory = process::memory(agent.pid())?;
    let cpu = || process::cpu_seconds_precise(agent.pid());
    let before = cpu()?;
    let start = Instant::now();
    // The figure is what happens in this time by itself.
    tokio::time::sleep(Duration::from_secs(arguments.idle_seconds)).await;
    let share = (cpu()? - before) / start.elapsed().as_secs_f64() * 100.0;
    let memory = process::memory(agent.pid())?;
    collector.kill().await?;

    let mut table =
        Table::new(format!("agent with {} files watched{}", arguments.files, if arguments.system { ", /usr and /etc too" } else { "" }));
    table.row("items", items, "");
    table.row("start to inventory at the collector", inventory.as_secs_f64(), "s");
    table.row("resident, idle", memory.resident as f64 / 1024.0, "MiB");
    table.row("of it anonymous", memory.anonymous as f64 / 1024.0, "MiB");
    table.row("resident, right after the inventory", after_inventory.resident as f64 / 1024.0, "MiB");
    table.row("resident, peak", memory.peak as f64 / 1024.0, "MiB");
    table.row("threads", memory.threads, "");
    table.row("CPU while idle", share, "% of a core");
    table.print(arguments.form.json);
    Ok(())
}
