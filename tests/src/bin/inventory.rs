//! Figure: an inventory of 200,000 small files by `trueline-agent scan`, beside the floor of reading
//! them at all, alternating in one run, warm cache.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use trueline_tests::binaries::Program;
use trueline_tests::figures::{Quantiles, Table};
use trueline_tests::{disk_floor, tree};

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 200_000)]
    files: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where the tree lies; it is made on the first run and kept.
    #[arg(long, default_value = "target/bench-tree")]
    tree: PathBuf,
    /// A compiled C floor, called as `FLOOR THREADS full TREE`, in the place of our own.
    #[arg(long)]
    floor: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let agent = Program::Agent.path()?;
    std::fs::create_dir_all(&arguments.tree).with_context(|| format!("making {}", arguments.tree.display()))?;
    let root = arguments.tree.canonicalize()?;
    tree::make(&root, arguments.files)?;
    let floor = || match &arguments.floor {
        Some(program) => timed(Command::new(program).args([&arguments.threads.to_string(), "full"]).arg(&root)),
        None => disk_floor::measure(&root, arguments.threads).and_then(|floor| {
            ensure!(floor.failures == 0, "{} files could not be read", floor.failures);
            Ok(floor.took)
        }),
    };
    let scan = || scan(&agent, &root, arguments.threads);
    // Once each to warm the caches.
    floor()?;
    scan()?;
    let (mut floors, mut scans) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        floors.push(floor()?);
        scans.push(scan()?);
    }
    let (floor, scan) = (Quantiles::of(&floors), Quantiles::of(&scans));
    let mut table =
        Table::new(format!("inventory of {} files, {} threads, warm, {} rounds", arguments.files, arguments.threads, arguments.rounds));
    table.row("floor, min", floor.min / 1000.0, "s");
    table.row("floor, median", floor.median / 1000.0, "s");
    table.row("trueline-agent scan, min", scan.min / 1000.0, "s");
    table.row("trueline-agent scan, median", scan.median / 1000.0, "s");
    table.row("scan / floor, min", scan.min / floor.min, "x");
    table.row("scan / floor, median", scan.median / floor.median, "x");
    table.row("files a second, median", arguments.files as f64 / scan.median * 1000.0, "1/s");
    table.print(arguments.json);
    Ok(())
}

fn scan(agent: &Path, root: &Path, threads: usize) -> anyhow::Result<Duration> {
    timed(Command::new(agent).arg("scan").arg(root).args(["--threads", &threads.to_string()]))
}

/// From start to end of a program, process start included. What it prints is not kept.
fn timed(command: &mut Command) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().with_context(|| format!("running {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(start.elapsed())
}
