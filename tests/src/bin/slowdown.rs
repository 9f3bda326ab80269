//! Figure: what a writer pays for being watched. One thread makes files, at 5,000 a second and as fast as it can: with nobody watching,
//! under a bare fanotify reader that only drains, under the agent as it runs on a host, and under auditd with a rule for the folder.
//!
//! What is made stays until the end, and each turn has a folder of its own: for half a minute after an inode was freed ext4 steps over it,
//! one by one, whenever it looks for another, and each turn would pay for what the one before had removed.
//!
//! All take turns in each round, so that what the machine does besides falls on each of them. The agent has enrolled and spools what it tells: its
//! collector is stopped, since on a real fleet that is another machine. It has the share of the processor that its unit gives it. Needs root; without auditd that part says so.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use trueline_tests::agent::{Agent, Watch};
use trueline_tests::collector::{Collector, Setting};
use trueline_tests::database::{Database, Engine};
use trueline_tests::figures::{Form, Quantiles, Table};
use trueline_tests::process::{cpu_seconds_precise, memory};
use trueline_tests::processor_share::ProcessorShare;

/// Of a watcher: its processor time over this long has to be below this before the next measurement.
const CALM: (Duration, f64) = (Duration::from_millis(500), 0.01);
const PATIENCE: Duration = Duration::from_secs(300);
const KEY: &str = "trueline-figure";

#[derive(Parser)]
struct Arguments {
    /// Files made a second, when not as fast as can be.
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    /// For how long at that rate.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Files made at full speed.
    #[arg(long, default_value_t = 50_000)]
    files: u64,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where the agent keeps its state and spool; beside the files, as on most hosts, where not given.
    #[arg(long)]
    data: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

/// Who looks on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Watcher {
    Nobody,
    BareReader,
    Agent,
    Auditd,
}

impl Watcher {
    const ALL: [Self; 4] = [Self::Nobody, Self::BareReader, Self::Agent, Self::Auditd];

    const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::BareReader => "a bare fanotify reader",
            Self::Agent => "the agent",
            Self::Auditd => "auditd",
        }
    }
}

/// Of one watcher, over all rounds.
#[derive(Debug, Default)]
struct Figures {
    /// Files a second.
    full_speed: Vec<f64>,
    full_speed_cpu: Vec<f64>,
    paced_rate: Vec<f64>,
    paced_median: Vec<f64>,
    paced_p99: Vec<f64>,
    /// Processor time of the watcher, in seconds a second.
    paced_cpu: Vec<f64>,
    peak_mib: f64,
    lost: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    ensure!(nix::unistd::geteuid().is_root(), "needs root: the agent's sensors and auditd do");
    let folder = arguments.form.folder()?;
    let base = folder.path().canonicalize()?;
    let mut all: BTreeMap<Watcher, Figures> = BTreeMap::new();
    let mut absent = None;
    for round in 0..arguments.rounds {
        for watcher in Watcher::ALL {
            if watcher == Watcher::Auditd && absent.is_some() {
                continue;
            }
            let watched = base.join(format!("watched-{round}-{}", watcher as u8));
            fs::create_dir(&watched).with_context(|| format!("making {}", watched.display()))?;
            let mut watching = match Watching::start(watcher, &base, &watched, arguments.data.as_deref()).await {
                Ok(watching) => watching,
                Err(error) if watcher == Watcher::Auditd => {
                    absent = Some(format!("{error:#}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let figures = all.entry(watcher).or_default();
            measure(&arguments, &watched, &mut watching, figures)?;
            watching.stop().await?;
        }
    }
    for (watcher, figures) in &all {
        table(*watcher, figures, &all[&Watcher::Nobody], &all[&Watcher::BareReader]).print(arguments.form.json);
    }
    if let Some(reason) = absent {
        println!("auditd was not measured: {reason}");
    }
    Ok(())
}

fn table(watcher: Watcher, figures: &Figures, nobody: &Figures, reader: &Figures) -> Table {
    let mut table = Table::new(format!("files made while {} looks on, median of {} rounds", watcher.name(), figures.full_speed.len()));
    let against = |other: &Figures| (median(&figures.full_speed) / median(&other.full_speed) - 1.0) * 100.0;
    table.row("at full speed", median(&figures.full_speed), "files/s");
    table.row("against nobody", against(nobody), "%");
    table.row("against the bare reader", against(reader), "%");
    table.row("the watcher's processor time for it, until it has told all", median(&figures.full_speed_cpu), "s");
    table.row("paced: reached", median(&figures.paced_rate), "files/s");
    table.row("paced: one file, median", median(&figures.paced_median) * 1000.0, "us");
    table.row("paced: one file, p99", median(&figures.paced_p99) * 1000.0, "us");
    table.row("paced: the watcher's processor time", median(&figures.paced_cpu) * 100.0, "% of a core");
    table.row("the watcher's memory, peak", figures.peak_mib, "MiB");
    table.row("events lost", figures.lost, "");
    table
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn measure(arguments: &Arguments, watched: &Path, watching: &mut Watching, figures: &mut Figures) -> anyhow::Result<()> {
    watching.calm()?;
    let before = watching.cpu()?;
    let began = Instant::now();
    let files = arguments.rate * arguments.seconds;
    let paced = make_paced(watched, files, arguments.rate)?;
    let took = began.elapsed().as_secs_f64();
    let quantiles = Quantiles::of(&paced);
    figures.paced_cpu.push((watching.cpu()? - before) / took);
    figures.paced_rate.push(files as f64 / took);
    figures.paced_median.push(quantiles.median);
    figures.paced_p99.push(quantiles.p99);
    watching.calm()?;

    let before = watching.cpu()?;
    let began = Instant::now();
    for number in 0..arguments.files {
        make(watched, "full", number)?;
    }
    figures.full_speed.push(arguments.files as f64 / began.elapsed().as_secs_f64());
    watching.calm()?;
    figures.full_speed_cpu.push(watching.cpu()? - before);
    figures.peak_mib = figures.peak_mib.max(watching.peak()?);
    figures.lost += watching.lost()?;
    Ok(())
}

fn make(folder: &Path, name: &str, number: u64) -> anyhow::Result<()> {
    let path = folder.join(format!("{name}-{number}"));
    OpenOptions::new().write(true).create_new(true).open(&path).map(drop).with_context(|| format!("making {}", path.display()))
}

/// How long each file took. One that comes late is followed by those that are due.
fn make_paced(folder: &Path, files: u64, rate: u64) -> anyhow::Result<Vec<Duration>> {
    let began = Instant::now();
    let mut took = Vec::with_capacity(files as usize);
    for number in 0..files {
        let due = Duration::from_nanos(number * 1_000_000_000 / rate);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        let start = Instant::now();
        make(folder, "paced", number)?;
        took.push(start.elapsed());
    }
    Ok(took)
}

/// Ended when it is dropped.
enum Watching {
    Nobody,
    BareReader(BareReader),
    Agent { agent: Box<Agent>, _folder: tempfile::TempDir, _share: ProcessorShare },
    Auditd(Auditd),
}

impl Watching {
    async fn start(watcher: Watcher, base: &Path, watched: &Path, data: Option<&Path>) -> anyhow::Result<Self> {
        Ok(match watcher {
            Watcher::Nobody => Self::Nobody,
            Watcher::BareReader => Self::BareReader(BareReader::start(watched)?),
            Watcher::Agent => {
                let folder = tempfile::tempdir_in(data.unwrap_or(base))?;
                let database = Database::start(Engine::Sqlite, folder.path()).await?;
                let mut collector = Collector::start(&database, Setting::default()).await?;
                let watch = Watch { data_dir: Some(folder.path().join("agent")), ..Watch::paths([watched]) };
                let agent = Agent::start(&collector, &watch).await?;
                agent.inventoried(&collector, PATIENCE).await?;
                collector.kill().await?;
                let share = ProcessorShare::of_unit(include_str!("../../../systemd/trueline-agent.service"), "trueline-slowdown")?;
                share.take(agent.pid())?;
                Self::Agent { agent: Box::new(agent), _folder: folder, _share: share }
            }
            Watcher::Auditd => Self::Auditd(Auditd::start(base, watched)?),
        })
    }

    fn pid(&self) -> Option<u32> {
        match self {
            Self::Nobody | Self::BareReader(_) => None,
            Self::Agent { agent, .. } => Some(agent.pid()),
            Self::Auditd(auditd) => Some(auditd.child.id()),
        }
    }

    /// In seconds. auditd's is its own: what the kernel does for a rule is the writer's.
    fn cpu(&self) -> anyhow::Result<f64> {
        match self {
            Self::BareReader(reader) => reader.cpu(),
            other => other.pid().map_or(Ok(0.0), cpu_seconds_precise),
        }
    }

    fn peak(&self) -> anyhow::Result<f64> {
        Ok(match self.pid() {
            Some(pid) => memory(pid)?.peak as f64 / 1024.0,
            None => 0.0,
        })
    }

    /// Returns once the watcher has done with what happened.
    fn calm(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let before = self.cpu()?;
            std::thread::sleep(CALM.0);
            if self.cpu()? - before < CALM.1 {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "the watcher does not come to rest");
        }
    }

    fn lost(&self) -> anyhow::Result<u64> {
        Ok(match self {
            Self::Nobody => 0,
            Self::BareReader(reader) => reader.overflows.load(Ordering::Relaxed),
            Self::Agent { agent, .. } => agent.log().lines().filter(|line| line.contains("overflow")).count() as u64,
            Self::Auditd(_) => auditctl(&["-s"])?
                .lines()
                .find_map(|line| line.strip_prefix("lost "))
                .and_then(|lost| lost.trim().parse().ok())
                .unwrap_or(0),
        })
    }

    async fn stop(self) -> anyhow::Result<()> {
        match self {
            Self::Agent { mut agent, .. } => agent.kill().await,
            _ => Ok(()),
        }
    }
}

/// The same mark as the agent's, read and thrown away.
struct BareReader {
    stopping: Arc<AtomicBool>,
    overflows: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
    tid: i32,
}

impl BareReader {
    fn start(watched: &Path) -> anyhow::Result<Self> {
        let flags = InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK;
        // nix does not name them: FAN_REPORT_DIR_FID and FAN_REPORT_NAME.
        let flags = flags | InitFlags::from_bits_retain(0x0c00);
        let group = Fanotify::init(flags, EventFFlags::O_RDONLY).context("starting fanotify")?;
        let mask = MaskFlags::FAN_CREATE
            | MaskFlags::FAN_DELETE
            | MaskFlags::FAN_MOVED_FROM
            | MaskFlags::FAN_MOVED_TO
            | MaskFlags::FAN_MODIFY
            | MaskFlags::FAN_CLOSE_WRITE
            | MaskFlags::FAN_ATTRIB
            | MaskFlags::FAN_ONDIR;
        group
            .mark(MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_FILESYSTEM, mask, File::open(watched)?, None::<&Path>)
            .context("watching the file system")?;
        let (stopping, overflows) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (sender, tid) = std::sync::mpsc::channel();
        let (told_to_stop, counted) = (Arc::clone(&stopping), Arc::clone(&overflows));
        let thread = std::thread::spawn(move || {
            let _ = sender.send(nix::unistd::gettid().as_raw());
            let mut buffer = vec![0; 64 << 10];
            while !told_to_stop.load(Ordering::Relaxed) {
                let mut waiting = [PollFd::new(group.as_fd(), PollFlags::POLLIN)];
                if poll(&mut waiting, PollTimeout::from(100u8)).is_ok_and(|ready| ready > 0)
                    && let Ok(read) = nix::unistd::read(group.as_fd(), &mut buffer)
                {
                    counted.fetch_add(overflows_in(&buffer[..read]), Ordering::Relaxed);
                }
            }
        });
        Ok(Self { stopping, overflows, thread: Some(thread), tid: tid.recv()? })
    }

    fn cpu(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/self/task/{}/schedstat", self.tid);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        Ok(text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9)
    }
}

/// fanotify(7): each event begins with its length, and has its mask after eight bytes.
fn overflows_in(mut events: &[u8]) -> u64 {
    const OVERFLOW: u64 = 0x4000;
    let mut found = 0;
    while let (Some(length), Some(mask)) = (events.first_chunk::<4>(), events.get(8..16).and_then(|mask| mask.first_chunk::<8>())) {
        found += u64::from(u64::from_ne_bytes(*mask) & OVERFLOW != 0);
        let length = u32::from_ne_bytes(*length) as usize;
        let Some(rest) = events.get(length..).filter(|_| length > 0) else { break };
        events = rest;
    }
    found
}

impl Drop for BareReader {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The real one, with a configuration, a log and one rule of its own; what it set in the kernel is put back.
struct Auditd {
    child: Child,
    watched: PathBuf,
}

impl Auditd {
    fn start(base: &Path, watched: &Path) -> anyhow::Result<Self> {
        let status = auditctl(&["-s"])?;
        ensure!(status.lines().any(|line| line == "pid 0"), "another audit daemon runs here");
        let folder = base.join("auditd");
        fs::create_dir_all(folder.join("plugins.d"))?;
        let log = folder.join("audit.log");
        let configuration = format!(
            "log_file = {}\nlog_format = RAW\nflush = INCREMENTAL_ASYNC\nfreq = 50\nmax_log_file = 8\nnum_logs = 2\nmax_log_file_action = ROTATE\nplugin_dir = {}\nspace_left = 2\nadmin_space_left = 1\nspace_left_action = IGNORE\nadmin_space_left_action = IGNORE\ndisk_full_action = IGNORE\ndisk_error_action = IGNORE\n",
            log.display(),
            folder.join("plugins.d").display()
        );
        fs::write(folder.join("auditd.conf"), configuration)?;
        let child = Command::new("auditd")
            .arg("-n")
            .args(["-s", "enable", "-c"])
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting auditd: apt-get install auditd")?;
        let mut daemon = Self { child, watched: watched.to_owned() };
        let began = Instant::now();
        while auditctl(&["-s"])?.lines().any(|line| line == "pid 0") {
            if let Some(status) = daemon.child.try_wait()? {
                bail!("auditd ended at once: {status}");
            }
            ensure!(began.elapsed() < Duration::from_secs(10), "auditd does not begin its work");
            std::thread::sleep(Duration::from_millis(20));
        }
        // As Debian's own rules do, so that a burst is no loss at once.
        auditctl(&["-b", "8192"])?;
        auditctl(&["--reset-lost"])?;
        let folder = daemon.watched.display().to_string();
        auditctl(&["-a", "always,exit", "-F", &format!("dir={folder}"), "-F", "perm=wa", "-k", KEY])?;
        Ok(daemon)
    }
}

impl Drop for Auditd {
    fn drop(&mut self) {
        let folder = self.watched.display().to_string();
        let _ = auditctl(&["-d", "always,exit", "-F", &format!("dir={folder}"), "-F", "perm=wa", "-k", KEY]);
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.child.wait();
        let _ = auditctl(&["-b", "64"]);
        let _ = auditctl(&["-e", "0"]);
    }
}

fn auditctl(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("auditctl").args(arguments).output().context("running auditctl: apt-get install auditd")?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    ensure!(output.status.success(), "auditctl {}: {said}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
