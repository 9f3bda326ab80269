//! `trueline-agent check-coverage`: each operation is done to a canary, and each sensor says whether it saw it and whom it named.
//!
//! Touches nothing but its own folder, and one kernel setting that is written with the value it has. What it mounts it mounts in mounts of
//! its own, which nobody else sees and which end with it.

mod cases;
mod hand;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde::Serialize;
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Certainty, ItemKind, Operation, OperationCoverage, text};

use super::watch::Output;
use crate::kernel::connector::Connector;
use crate::kernel::process_probe::ProcessProbe;
use crate::process::feed::FeedChoice;
use crate::sensor::{CatchUp, Coverage, OPERATION, Preference, SensorCounters, Sensors, Signal, Target, Touch, audit, operations};

use cases::{Before, By, CASES, Case};
use hand::Hand;

/// How long a sensor has to report a change.
const PATIENCE: Duration = Duration::from_millis(1500);
const FANOTIFY: &str = "fanotify";

/// A line of what is printed.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Line {
    /// What there is to watch with.
    Tier {
        tier: &'static str,
        available: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    Tried(Row),
    /// What the agent would tell here.
    Told {
        told: OperationCoverage,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
enum Outcome {
    Seen {
        /// From the operation to the sensor.
        microseconds: u64,
        /// Whether the process that did it was named.
        actor: ActorFound,
        certainty: Certainty,
    },
    Missed,
    /// No event is to be expected: it is found by reading again.
    Untold,
    /// The operation itself is not possible here.
    NotTried {
        reason: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ActorFound {
    Right,
    Wrong,
    None,
}

#[derive(Debug, Serialize)]
struct Row {
    sensor: &'static str,
    /// What tells of processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    feed: Option<&'static str>,
    operation: Operation,
    case: &'static str,
    #[serde(flatten)]
    outcome: Outcome,
}

/// One set of sensors and what came of it.
struct Trial {
    sensor: &'static str,
    /// Why it is not fanotify.
    reason: Option<String>,
    feed: Option<&'static str>,
    rows: Vec<Row>,
    told: Vec<OperationCoverage>,
    /// The hooks in the kernel, each with what it told.
    hooks: Vec<Line>,
}

/// The child that makes the changes.
pub fn act(canary: &Path) -> anyhow::Result<ExitCode> {
    hand::serve(canary).context("making changes")?;
    Ok(ExitCode::SUCCESS)
}

/// Runs every operation under every sensor. Exit code 1 when the sensor in use misses something.
pub fn run(folder: Option<PathBuf>, output: Output) -> anyhow::Result<ExitCode> {
    let base = folder.unwrap_or_else(std::env::temp_dir);
    let base = base.canonicalize().with_context(|| format!("looking for {}", base.display()))?;
    let tester = Tester { base, mounts: own_mounts() };
    let best = tester.trial(Preference::Best, FeedChoice::Best, |_| true)?;
    let mut rows = Vec::new();
    // Of the other feeds what tells them apart.
    if best.sensor == FANOTIFY {
        for choice in [FeedChoice::Probe, FeedChoice::Connector, FeedChoice::Absent] {
            if best.feed != Some(name_of(choice)) {
                let lesser = tester.trial(Preference::Best, choice, |case| case.by == By::Brief || case.name == "write a file")?;
                rows.extend(lesser.rows.into_iter().filter(|row| row.feed == Some(name_of(choice))));
            }
        }
    }
    let mut tiers = tiers(&best);
    tiers.extend(best.hooks);
    if best.sensor == FANOTIFY {
        match tester.trial(Preference::InotifyOnly, FeedChoice::Best, |_| true) {
            Ok(inotify) => {
                tiers.push(tier("inotify", None));
                rows.extend(inotify.rows);
            }
            Err(error) => tiers.push(tier("inotify", Some(format!("{error:#}")))),
        }
    } else {
        tiers.push(tier("inotify", (best.sensor != "inotify").then(|| "it watches nothing here".to_owned())));
    }
    let has_missed = best.rows.iter().any(|row| row.outcome == Outcome::Missed);
    let told = best.told.into_iter().map(|told| Line::Told { told });
    let lines = tiers.into_iter().chain(best.rows.into_iter().chain(rows).map(Line::Tried)).chain(told);
    print(lines, output)?;
    Ok(if has_missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

const fn name_of(choice: FeedChoice) -> &'static str {
    match choice {
        FeedChoice::Best | FeedChoice::Probe => "ebpf",
        FeedChoice::Connector => "connector",
        FeedChoice::Absent => "procfs",
    }
}

fn tier(tier: &'static str, reason: Option<String>) -> Line {
    Line::Tier { tier, available: reason.is_none(), reason }
}

/// Each by itself, whatever is used here.
fn tiers(best: &Trial) -> Vec<Line> {
    let fanotify = (best.sensor != FANOTIFY).then(|| best.reason.clone().unwrap_or_else(|| "it watches nothing here".to_owned()));
    vec![
        tier(FANOTIFY, fanotify),
        tier("ebpf", ProcessProbe::start().err().map(|error| error.to_string())),
        tier("connector", Connector::open().err().map(|error| error.to_string())),
        tier("procfs", None),
        tier("audit", audit::refusal()),
    ]
}

/// From here on what this process and its children mount is theirs alone. Before any thread is started: the sensors look at the mounts of
/// the first.
fn own_mounts() -> Result<(), String> {
    let own = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>));
    own.map_err(|error| format!("mounts of its own are refused: {}", io::Error::from(error)))
}

struct Tester {
    base: PathBuf,
    /// Whether what is mounted is seen by nobody else, or why not.
    mounts: Result<(), String>,
}

impl Tester {
    fn trial(&self, preference: Preference, feed: FeedChoice, is_wanted: impl Fn(&Case) -> bool) -> anyhow::Result<Trial> {
        let canary = Canary::make(&self.base)?;
        self.trial_on(&canary.0, preference, feed, is_wanted)
    }

    fn trial_on(
        &self,
        canary: &Path,
        preference: Preference,
        feed: FeedChoice,
        is_wanted: impl Fn(&Case) -> bool,
    ) -> anyhow::Result<Trial> {
        for case in CASES {
            case.prepare(canary)?;
        }
        let mut policy = WatchPolicy::only_paths(vec![text::printable(canary.as_os_str().as_bytes()).into_owned()]);
        policy.exclude.clear();
        policy.kinds.push(ItemKind::Sysctl);
        let (sender, signals) = sync_channel(1024);
        let sensors = Sensors::start_fed(preference, feed, &policy, sender, Arc::new(SensorCounters::default()))?;
        let coverage = sensors.coverage();
        let row = coverage.iter().find(|row| row.scope.starts_with("file:"));
        let sensor = row.map_or("none", |row| row.name);
        let feed = coverage.iter().find(|row| row.scope.starts_with("process:")).map(|row| row.name);
        let told = operations(&coverage);
        let is_hook = |row: &&Coverage| row.scope.starts_with(OPERATION);
        let hook = |row: &Coverage| Line::Tier { tier: row.name, available: row.watching, reason: row.reason.clone() };
        let hooks = coverage.iter().filter(is_hook).map(hook).collect();
        let mut watched = Watched { canary, sensors: &sensors, signals, question: CatchUp::default(), markers: 0 };
        // After the sensors: so they know from its beginning whoever makes the changes.
        let mut lasting = Hand::start(canary).context("starting the process that makes the changes")?;
        let mut rows = Vec::new();
        for (number, case) in CASES.iter().enumerate().filter(|(_, case)| is_wanted(case)) {
            let is_told = told.iter().any(|row| row.operation == case.operation && row.actor.is_some());
            let outcome = match (&self.mounts, case.operation) {
                (Err(reason), Operation::Mount) => Outcome::NotTried { reason: reason.clone() },
                _ => match watched.look(case, number, &mut lasting)? {
                    Outcome::Missed if !is_told => Outcome::Untold,
                    outcome => outcome,
                },
            };
            rows.push(Row { sensor, feed, operation: case.operation, case: case.name, outcome });
        }
        Ok(Trial { sensor, reason: row.and_then(|row| row.reason.clone()), feed, rows, told, hooks })
    }
}

/// The folder, removed with all in it.
struct Canary(PathBuf);

impl Canary {
    fn make(base: &Path) -> anyhow::Result<Self> {
        let path = base.join(format!("trueline-canary-{:016x}", rand::random::<u64>()));
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        for case in CASES.iter().filter(|case| case.before == Before::Folder) {
            // Nothing is mounted there unless a case broke off.
            let _ = umount2(&case.path(&self.0), MntFlags::MNT_DETACH);
        }
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "the canary could not be removed");
        }
    }
}

struct Watched<'a> {
    canary: &'a Path,
    sensors: &'a Sensors,
    signals: Receiver<Signal>,
    question: CatchUp,
    markers: u32,
}

impl Watched<'_> {
    fn look(&mut self, case: &Case, number: usize, lasting: &mut Hand) -> anyhow::Result<Outcome> {
        let (pid, done) = match case.by {
            By::Lasting => (lasting.pid(), lasting.act(number)?),
            By::Brief => {
                let mut brief = Hand::start(self.canary)?;
                (brief.pid(), brief.act(number)?)
            }
        };
        let began = match done {
            Ok(began) => began,
            Err(reason) => return Ok(Outcome::NotTried { reason }),
        };
        let Some(touch) = self.touch(case)? else { return Ok(Outcome::Missed) };
        let microseconds = u64::try_from(touch.at.micros_since(began)).unwrap_or(0);
        let named = touch.actor.as_ref().and_then(|actor| actor.process.as_ref()).map(|process| process.pid);
        let actor = match named {
            None => ActorFound::None,
            Some(named) if named == pid => ActorFound::Right,
            Some(_) => ActorFound::Wrong,
        };
        let certainty = touch.actor.as_ref().map_or(Certainty::Unknown, |actor| actor.certainty);
        // What was not told as a write is at most correlated in a record of it, whoever let go of the file.
        let certainty =
            if case.operation == Operation::MmapWrite && !touch.wrote { certainty.max(Certainty::Correlated) } else { certainty };
        Ok(Outcome::Seen { microseconds, actor, certainty })
    }

    /// The first of the case's own, or none once the sensors have told of all before this call.
    fn touch(&mut self, case: &Case) -> anyhow::Result<Option<Touch>> {
        let target = case.target(self.canary);
        self.markers += 1;
        let marker = self.canary.join(format!("marker-{}", self.markers));
        File::create(&marker)?;
        let marker = Target::Path(marker.as_os_str().as_bytes().to_vec());
        self.question = self.question.next();
        let (mut is_marked, mut is_answered) = (false, !self.sensors.catch_up(self.question));
        // The table of mounts is none of the queues that are asked about.
        let is_aside = case.operation == Operation::Mount && self.sensors.names_processes();
        let deadline = Instant::now() + PATIENCE;
        while is_aside || !(is_marked && is_answered) {
            match self.signals.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Signal::Touched(touch)) if touch.target == target => return Ok(Some(touch)),
                Ok(Signal::Touched(touch)) if touch.target == marker => is_marked = true,
                Ok(Signal::CaughtUp(answer)) if answer == self.question => is_answered = true,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        Ok(None)
    }
}

fn print(lines: impl Iterator<Item = Line>, output: Output) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        match output {
            Output::JsonLines => writeln!(out, "{}", serde_json::to_string(&line)?)?,
            Output::Text => writeln!(out, "{}", sentence(&line))?,
        }
    }
    Ok(())
}

fn sentence(line: &Line) -> String {
    match line {
        Line::Tier { tier, available, reason } => {
            let available = if *available { "available" } else { "not available" };
            let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("tier      {tier:<13} {available}{reason}")
        }
        Line::Tried(Row { sensor, feed, operation, case, outcome }) => {
            let outcome = match outcome {
                Outcome::Seen { microseconds, actor, certainty } => {
                    let actor = match (actor, feed) {
                        (ActorFound::Right, Some(feed)) => format!("names the process ({certainty}, {feed})"),
                        (ActorFound::Right, None) => format!("names the process ({certainty})"),
                        (ActorFound::Wrong, _) => "NAMES ANOTHER PROCESS".to_owned(),
                        (ActorFound::None, _) => "names no process".to_owned(),
                    };
                    format!("seen after {microseconds} us, {actor}")
                }
                Outcome::Untold => "no event tells of it; found by reading again".to_owned(),
                Outcome::Missed => "MISSED (found only by reading again)".to_owned(),
                Outcome::NotTried { reason } => format!("not tried: {reason}"),
            };
            format!("{sensor:<9} {operation:<13} {case:<31} {outcome}")
        }
        Line::Told { told: OperationCoverage { operation, actor, reason } } => {
            let actor = actor.map_or("no event", Certainty::name);
            let reason = reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            format!("told      {operation:<13} {actor}{reason}")
        }
    }
}
