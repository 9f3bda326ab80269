//! `trueline-agent watch [PATH…]`: live attributed changes on the standard output.
//!
//! The same observer as the service, with a state in a private folder that is removed at the end.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;

use anyhow::Context;
use serde_json::{Value as Json, json};
use trueline_drift::change::ChangeKind;
use trueline_drift::redact::Rules;
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Change, CoverageGap, Epoch, RecordBody, Sequence, Value, text};

use crate::actor::complete::Completion;
use crate::clock;
use crate::collect::Collectors;
use crate::observer::{Observer, ObserverParts, Plan, RETRY, Scope, Sink, SinkError, Why, sensor_policy};
use crate::process::feed::FeedChoice;
use crate::run::redaction_key;
use crate::sensor::{Preference, SensorCounters, Sensors, View};
use crate::service::Confinement;
use crate::state::State;
use crate::status::{Phase, Status};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Text,
    JsonLines,
}

/// Watches until `stop` is set or nobody reads the output.
pub fn run(
    policy: WatchPolicy,
    rules: Rules,
    preference: Preference,
    feed: FeedChoice,
    output: Output,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let folder = PrivateFolder::make()?;
    let key = redaction_key(&folder.0)?.with_rules(rules);
    let (state, _) = State::open(&folder.0.join("state.redb"), 4 * 1024 * 1024, "0").context("opening a state for this run")?;
    let policy = Arc::new(View::new(&policy).policy().clone());
    let collectors = Collectors::new(Arc::clone(&policy), key);
    let (sender, signals) = sync_channel(1024);
    let watched = sensor_policy(&policy, &collectors);
    let sensors = Arc::new(Sensors::start_fed(preference, feed, &watched, sender, Arc::new(SensorCounters::default()))?);
    let status = Arc::new(Status::default());
    let announcer = announce(&status, &sensors, output, Arc::clone(&stop));
    let (_errand_sender, mut errands) = tokio::sync::mpsc::channel(1);
    let parts = ObserverParts {
        collectors,
        policy: Arc::clone(&policy),
        own_policy: Arc::clone(&policy),
        state: Arc::new(state),
        sink: Printer { output, sequence: Sequence(0), epoch: Epoch(u64::try_from(clock::now().micros()).unwrap_or(1)) },
        completion: Completion::start(&Confinement::default()),
        status: Arc::clone(&status),
        sensors: Some(sensors),
        scan_threads: 2,
        retry_after: RETRY,
        alive_file: None,
        answers: None,
        policy_version: tokio::sync::watch::Sender::new(0),
    };
    Observer::new(parts, vec![Plan { scope: Scope::All, why: Why::Inventory }]).run(&signals, &mut errands, &stop);
    stop.store(true, Ordering::Relaxed);
    if announcer.join().is_err() {
        tracing::warn!("the progress display broke off");
    }
    Ok(())
}

/// Says on the standard error how far the first reading is, and then what is watched and how.
fn announce(status: &Arc<Status>, sensors: &Arc<Sensors>, output: Output, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (status, sensors) = (Arc::clone(status), Arc::clone(sensors));
    std::thread::spawn(move || {
        let progress = status.progress();
        let bar = if std::io::stderr().is_terminal() { indicatif::ProgressBar::new_spinner() } else { indicatif::ProgressBar::hidden() };
        while !stop.load(Ordering::Relaxed) {
            let now = *progress.borrow();
            if now.phase == Phase::Watching {
                bar.finish_and_clear();
                if output == Output::Text {
                    eprintln!("watching {} items; Ctrl-C ends", now.items);
                    for row in sensors.coverage() {
                        let note = row.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                        let word = if row.watching { "by" } else { "NOT by" };
                        eprintln!("  {} {word} {}{note}", row.scope, row.name);
                    }
                } else {
                    eprintln!("{}", json!({ "watching": { "items": now.items } }));
                }
                return;
            }
            bar.set_message(format!("reading for the first time: {} items", now.items));
            bar.tick();
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        bar.finish_and_clear();
    })
}

/// Prints changes and gaps; observations only fill the state.
struct Printer {
    output: Output,
    epoch: Epoch,
    sequence: Sequence,
}

impl Sink for Printer {
    fn put(&mut self, records: &[RecordBody]) -> Result<Sequence, SinkError> {
        let mut text = String::new();
        for body in records {
            self.sequence = self.sequence.next();
            match (body, self.output) {
                (RecordBody::Changed(change), Output::Text) => text.push_str(&change_text(change)),
                (RecordBody::Changed(change), Output::JsonLines) => {
                    text.push_str(&self.change_json(change).to_string());
                    text.push('\n');
                }
                (RecordBody::Gap(gap), Output::Text) => text.push_str(&gap_text(gap)),
                (RecordBody::Gap(gap), Output::JsonLines) => {
                    text.push_str(&json!({ "gap": gap }).to_string());
                    text.push('\n');
                }
                (RecordBody::Observed(_) | RecordBody::Unwatched { .. } | RecordBody::InventoryComplete { .. }, _) => {}
            }
        }
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|_| SinkError::Closed)?;
        Ok(self.sequence)
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn applied(&mut self, _: (Epoch, Sequence)) {}

    fn restore(&mut self, state: &State) -> Result<(), SinkError> {
        state.reopen().map_err(|error| SinkError::Broken(error.to_string()))
    }
}

impl Printer {
    /// The shape of REST's changes, as far as an agent alone can know it.
    fn change_json(&self, change: &Change) -> Json {
        let mut json = json!(change);
        if let Json::Object(object) = &mut json {
            object.insert("epoch".to_owned(), json!(self.epoch));
            object.insert("sequence".to_owned(), json!(self.sequence));
        }
        json
    }
}

fn change_text(change: &Change) -> String {
    let time = change.observed_at.to_string();
    let clock = time.get(11..19).unwrap_or(&time);
    let mut text = format!("{clock}  {} {}  {}\n", change.item, change.kind.name(), change.actor.summary());
    if let Some(package) = &change.shipped_by {
        text.push_str(&format!("            a part of {package}, whose manifest it equals\n"));
    }
    for field in &change.fields {
        if change.kind == ChangeKind::Modified || matches!(field.name.as_str(), "type" | "mode" | "owner" | "sha256" | "value" | "version")
        {
            text.push_str(&format!("            {}  {} → {}\n", field.name, shown(field.before.as_ref()), shown(field.after.as_ref())));
        }
    }
    for line in change.lines.iter().flat_map(|lines| lines.told.iter().map(ToString::to_string).chain(lines.remark())) {
        text.push_str(&format!("              {line}\n"));
    }
    text
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "(none)".to_owned(), |value| text::bounded(&value.to_string(), 120).into_owned())
}

fn gap_text(gap: &CoverageGap) -> String {
    let remedy = gap.remedy.as_deref().unwrap_or("");
    format!("          COVERAGE GAP {}: {} since {}; {remedy}\n", gap.scope, gap.reason.explanation(), gap.began_at)
}

/// A folder that nobody else can enter, removed with all in it.
struct PrivateFolder(PathBuf);

impl PrivateFolder {
    fn make() -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let name = format!("trueline-watch-{:016x}", rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("making the folder {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a temporary folder could not be removed");
        }
    }
}
