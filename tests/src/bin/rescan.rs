//! Figure: how long an agent that is started anew takes to see that nothing of 200,000 files has changed, beside the floor of
//! asking for each file's metadata, alternating in one run, warm cache.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use trueline_tests::agent::{Agent, Watch};
use trueline_tests::collector::{Collector, Setting};
use trueline_tests::database::{Database, Engine};
use trueline_tests::figures::{Form, Quantiles, Table};
use trueline_tests::{process, tree, wait};

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 200_000)]
    files: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A compiled C floor, called as `FLOOR THREADS stat TREE`
    #[arg(long)]
    floor: PathBuf,
    /// Where the tree lies; it is made on the first run and kept.
    #[arg(long, default_value = "target/bench-tree")]
    tree: PathBuf,
    #[command(flatten)]
    form: Form,
}

/// What the agent logs once it has caught up.
const CAUGHT_UP: &str = "caught up after the restart";
const LIMIT: Duration = Duration::from_secs(300);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.tree).with_context(|| format!("making {}", arguments.tree.display()))?;
    let root = arguments.tree.canonicalize()?;
    tree::make(&root, arguments.files)?;
    let folder = arguments.form.folder()?;
    let database = Database::start(Engine::Sqlite, folder.path()).await?;
    let mut collector = Collector::start(&database, Setting::default()).await?;
    let watch = Watch { data_dir: Some(folder.path().join("agent")), ..Watch::paths([&root]) };
    let mut agent = Agent::start(&collector, &watch).await?;
    agent.inventoried(&collector, LIMIT).await?;
    let (mut floors, mut sweeps, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=arguments.rounds {
        agent.stop().await?;
        let start = Instant::now();
        let mut stat = Command::new(&arguments.floor);
        let status = stat.args(["2", "stat"]).arg(&root).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "the floor ended with {status}");
        floors.push(start.elapsed());
        agent.restart()?;
        let line = wait::until("the agent to have caught up", LIMIT, async || {
            let log = agent.log();
            let mut lines = log.lines().filter(|line| line.contains(CAUGHT_UP));
            Ok(lines.nth(round - 1).map(str::to_owned))
        });
        let line = line.await?;
        let number = |name: &str| -> anyhow::Result<u64> {
            let after = line.split_once(&format!("{name}=")).with_context(|| format!("no {name} in `{line}`"))?.1;
            let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().with_context(|| format!("{name} in `{line}`"))
        };
        ensure!(number("changed")? == 0, "something changed: {line}");
        ensure!(number("items")? >= arguments.files as u64, "not all was looked at: {line}");
        sweeps.push(Duration::from_millis(number("took_ms")?));
        cpu.push(Duration::from_secs_f64(process::cpu_seconds(agent.pid())?));
    }
    agent.stop().await?;
    collector.kill().await?;
    let (floor, sweep, cpu) = (Quantiles::of(&floors), Quantiles::of(&sweeps), Quantiles::of(&cpu));
    let mut table = Table::new(format!("{} files of which none has changed, {} rounds, warm", arguments.files, arguments.rounds));
    table.row("floor, 2 threads, min", floor.min / 1000.0, "s");
    table.row("floor, 2 threads, median", floor.median / 1000.0, "s");
    table.row("the agent's scan at its start, min", sweep.min / 1000.0, "s");
    table.row("the agent's scan at its start, median", sweep.median / 1000.0, "s");
    table.row("scan / floor, min", sweep.min / floor.min, "x");
    table.row("scan / floor, median", sweep.median / floor.median, "x");
    table.row("processor time of the agent since it started, median", cpu.median / 1000.0, "s");
    table.print(arguments.form.json);
    Ok(())
}
