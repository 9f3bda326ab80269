//! Figure: an inventory of a tree by `trueline-agent scan`, beside the floor of reading it at all and AIDE's database of
//! it, alternating in one run, with caches warm and dropped; and how long an agent that knows all of it takes to see that nothing
//! has changed, beside the floor of asking for each file's metadata.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use trueline_tests::binaries::Program;
use trueline_tests::figures::{Quantiles, Table};
use trueline_tests::{aide, disk_floor, tree};

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 200_000)]
    files: usize,
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A tree of one's own, as /usr; without it one of small files is made on the first run and kept.
    #[arg(long)]
    tree: Option<PathBuf>,
    /// Also with the kernel's caches dropped before each, as root, with this many threads.
    #[arg(long)]
    cold: Option<usize>,
    /// Also AIDE's, if it is installed: one round.
    #[arg(long)]
    aide: bool,
    /// A compiled C floor, called as `FLOOR THREADS full TREE`, in the place of our own.
    #[arg(long)]
    floor: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caches {
    Warm,
    Dropped,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let agent = Program::Agent.path()?;
    let root = match &arguments.tree {
        Some(tree) => tree.canonicalize().with_context(|| format!("finding {}", tree.display()))?,
        None => made(arguments.files)?,
    };
    let mut table = Table::new(format!("inventory of {}, {} rounds", root.display(), arguments.rounds));
    let mut runs: Vec<_> = arguments.threads.iter().map(|threads| (*threads, Caches::Warm)).collect();
    runs.extend(arguments.cold.map(|threads| (threads, Caches::Dropped)));
    let mut slowest = 0.0_f64;
    for (threads, caches) in runs {
        let floor = || floor(arguments.floor.as_deref(), &root, threads);
        let scan = || timed(Command::new(&agent).arg("scan").arg(&root).args(["--threads", &threads.to_string()]));
        if caches == Caches::Warm {
            // Once each to warm them.
            floor()?;
            scan()?;
        }
        let (mut floors, mut scans) = (Vec::new(), Vec::new());
        for _ in 0..arguments.rounds {
            drop_caches(caches)?;
            floors.push(floor()?);
            drop_caches(caches)?;
            scans.push(scan()?);
        }
        let (floor, scan) = (Quantiles::of(&floors), Quantiles::of(&scans));
        let named = |what: &str| format!("{what}, {threads} threads, {}", if caches == Caches::Warm { "warm" } else { "cold" });
        table.row(named("floor, min"), floor.min / 1000.0, "s");
        table.row(named("floor, median"), floor.median / 1000.0, "s");
        table.row(named("scan, min"), scan.min / 1000.0, "s");
        table.row(named("scan, median"), scan.median / 1000.0, "s");
        table.row(named("scan / floor, min"), scan.min / floor.min, "x");
        table.row(named("scan / floor, median"), scan.median / floor.median, "x");
        if caches == Caches::Warm {
            slowest = slowest.max(scan.median);
        }
    }
    if arguments.aide {
        let work = tempfile::tempdir_in("target").context("making a folder in target")?;
        let aide = aide::measure(&root, work.path())?;
        table.row("AIDE", aide.version, "");
        table.row("AIDE, init, warm", aide.init.as_secs_f64(), "s");
        table.row("AIDE, check of what has not changed, warm", aide.check.as_secs_f64(), "s");
        table.row("AIDE, init / slowest scan, median, warm", aide.init.as_secs_f64() * 1000.0 / slowest, "x");
    }
    table.print(arguments.json);
    Ok(())
}

fn made(files: usize) -> anyhow::Result<PathBuf> {
    let tree = Path::new("target/bench-tree");
    std::fs::create_dir_all(tree).with_context(|| format!("making {}", tree.display()))?;
    let root = tree.canonicalize()?;
    tree::make(&root, files)?;
    Ok(root)
}

fn floor(program: Option<&Path>, root: &Path, threads: usize) -> anyhow::Result<Duration> {
    match program {
        Some(program) => timed(Command::new(program).args([&threads.to_string(), "full"]).arg(root)),
        None => disk_floor::measure(root, threads).map(|floor| floor.took),
    }
}

/// What was read is forgotten, so that the disk is asked again.
fn drop_caches(caches: Caches) -> anyhow::Result<()> {
    if caches == Caches::Dropped {
        timed(&mut Command::new("sync"))?;
        std::fs::write("/proc/sys/vm/drop_caches", "3").context("dropping the kernel's caches, which root alone may")?;
    }
    Ok(())
}

/// From start to end of a program, process start included. What it prints is not kept.
fn timed(command: &mut Command) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().with_context(|| format!("running {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(start.elapsed())
}
