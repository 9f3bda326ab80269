//! `trueline quickstart`: the main job on this very machine, in one process and one folder.
//!
//! collector up -> agent enrolled through its own door -> inventory -> baseline -> live feed. All
//! but the first token goes through REST and the mutual-TLS link, like on any other host.
//!
//! Invariants: everything started here is stopped here, agent first, so that what it saw is drained,
//! also when standard output has gone; a second run goes on with the same host, history and baseline;
//! standard output is either for people or JSON lines, never both.

mod agent;
mod banner;
mod collector;
mod folder;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt;
use trueline_agent::run::RunningAgent;
use trueline_agent::status::Phase;
use trueline_drift::Time;
use trueline_systemd::journal::filter;

use self::banner::Scene;
use self::collector::Collector;
use self::folder::{Folder, WatchList};
use crate::age::now;
use crate::api::{Api, Query};
use crate::commands::baseline::baseline_name;
use crate::counted::counted;
use crate::failure::Failure;
use crate::feed::Feed;
use crate::progress::{Meter, STEP, count, figures};
use crate::screen::{Screen, Tone};
use crate::shape::{self, Host, Summary};
use crate::sse::{Follower, News};

/// How long the last changes of a restart may take to come through before the feed begins.
const CATCH_UP: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub struct Options {
    /// Where everything is kept
    #[arg(long, default_value = "./.trueline", value_name = "DIR")]
    dir: PathBuf,
    /// Watch only these files and folders, and no other kind of item (first run only)
    #[arg(long, value_name = "PATH", num_args = 1..)]
    watch: Vec<PathBuf>,
    /// Do not make a login link for the console
    #[arg(long)]
    no_browser_hint: bool,
}

pub async fn run(options: Options, screen: Screen) -> Result<(), Failure> {
    let refused = |error: folder::FolderError| Failure::Refused(error.to_string());
    let folder = Folder::open(&options.dir).map_err(refused)?;
    let list = folder.watch_list(&options.watch).map_err(refused)?;
    begin_log(&folder).map_err(refused)?;
    let stop = stop_signal()?;
    let identity = agent::identity(&folder)?;
    let collector = Collector::start(&folder, identity.as_ref().map(|identity| identity.link.as_str())).await?;
    let mut stage = Stage { folder: &folder, list: &list, collector: &collector, screen, agent: None, login: !options.no_browser_hint };
    let outcome = tokio::select! {
        outcome = Box::pin(stage.live(identity)) => outcome,
        () = stop.cancelled() => Ok(()),
    };
    let agent = stage.agent.take();
    // Both are stopped also where standard output has gone.
    let told = say(screen, json!({ "phase": "stopping" }), "\nStopping: sending what is left…");
    if let Some(agent) = agent
        && tokio::task::spawn_blocking(|| agent.stop()).await.is_err()
    {
        screen.note("trueline: the agent broke off; what it had not sent is found again at the next run");
    }
    let farewell = farewell(&collector.api, &folder, screen).await;
    collector.stop().await;
    outcome.and(told).and(farewell)
}

/// What the live part works with.
struct Stage<'a> {
    folder: &'a Folder,
    list: &'a WatchList,
    collector: &'a Collector,
    screen: Screen,
    /// Running from the moment it is here.
    agent: Option<RunningAgent>,
    login: bool,
}

impl Stage<'_> {
    async fn live(&mut self, identity: Option<trueline_agent::identity::Identity>) -> Result<(), Failure> {
        let api = self.collector.api.clone();
        let url = api.address().to_owned();
        say(self.screen, json!({ "phase": "collector", "url": url }), &format!("Collector on {url}, kept in {}.", self.folder.shown))?;
        let before: Summary = shape::read(&api.get(&["summary"], &Query::default().with("since", Some(Time::default()))).await?)?;
        // From here on nothing that happens is passed over, though it is shown only later.
        let mut follower = Follower::open(api.clone()).await?;
        let resumes = identity.is_some();
        let identity = match identity {
            Some(identity) => self.repoint(identity)?,
            None => agent::join(self.folder, self.collector).await?,
        };
        let host = identity.host.to_string();
        let began = now();
        self.agent = Some(agent::watch(self.folder, self.list)?);
        let host = if resumes { self.resume(&host, &before, began).await? } else { self.inventory(&host).await? };
        self.introduce(&api, &host).await?;
        let mut feed = Feed::new(self.screen, false);
        loop {
            match follower.next().await? {
                News::Event(event) => feed.show(&event)?,
                News::Lost(error) => self.screen.note(&format!("{error}; trying again")),
                News::Back => {}
            }
        }
    }

    /// The agent dials the port it was told at enrolment; that port may be taken by now.
    fn repoint(&self, identity: trueline_agent::identity::Identity) -> Result<trueline_agent::identity::Identity, Failure> {
        let link = self.collector.addresses().agents.to_string();
        if identity.link == link { Ok(identity) } else { identity.point_to(&link).map_err(|error| Failure::Refused(error.to_string())) }
    }

    /// The first run: read everything, hand it in, and take it as the baseline.
    async fn inventory(&self, host: &str) -> Result<Host, Failure> {
        let api = &self.collector.api;
        let meter = self.meter("Inventory");
        let (items, bytes) = self.read_through(meter.as_ref()).await?;
        let took = meter.map(Meter::finish).unwrap_or_default();
        let line = json!({ "phase": "inventory", "items": items, "bytes": bytes });
        say(self.screen, line, &format!("Inventory: {}.", figures(items, bytes, took)))?;

        let meter = self.meter("Handing in");
        if let Some(meter) = &meter {
            meter.bound("Handing in", items);
        }
        let host = loop {
            let host: Host = shape::read(&api.get(&["hosts", host], &Query::default()).await?)?;
            if let Some(meter) = &meter {
                meter.reach(host.acknowledged.min(items));
            }
            if host.inventory_completed_at.is_some() {
                break host;
            }
            self.fail_on_trouble()?;
            tokio::time::sleep(STEP).await;
        };
        meter.map(Meter::finish);

        let meter = self.meter("Baseline");
        let wish = json!({ "host": host.id, "name": baseline_name(&host.name), "assign": true });
        let baseline = api.post(&["baselines", "capture"], &wish).await?;
        meter.map(Meter::finish);
        let captured: shape::Baseline = shape::read(&baseline)?;
        let line = json!({ "phase": "baseline", "baseline": baseline });
        say(
            self.screen,
            line,
            &format!("Baseline {} v{} captured: {}.", captured.name, captured.version, counted(captured.items, "item")),
        )?;
        shape::read(&api.get(&["hosts", &host.id], &Query::default()).await?)
    }

    /// A later run: say what is there, and find what changed while nothing ran.
    async fn resume(&self, host: &str, before: &Summary, began: Time) -> Result<Host, Failure> {
        let api = &self.collector.api;
        let line = json!({ "phase": "resuming", "changes": before.changes(), "open_drift": before.open_drifts });
        let history = format!("Resuming: {}, {} open drift.", counted(before.changes(), "change"), count(before.open_drifts));
        say(self.screen, line, &history)?;
        let meter = self.meter("Reading again");
        let (items, bytes) = self.read_through(meter.as_ref()).await?;
        // The gap of the stop is handed in after the changes found in it.
        let deadline = Instant::now() + CATCH_UP;
        loop {
            let query = Query::default().with("host", Some(host)).with("limit", Some(1));
            let (_, page) = api.page(&["coverage"], &query).await?;
            let newest = page.items.first().map(shape::read::<shape::Gap>).transpose()?;
            if newest.is_some_and(|gap| gap.ended_at.is_some_and(|ended| ended >= began)) || Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(STEP).await;
        }
        let took = meter.map(Meter::finish).unwrap_or_default();
        let query = Query::default().with("host", Some(host)).with("since", Some(began)).with("limit", Some(500));
        let (_, page) = api.page(&["changes"], &query).await?;
        let more = if page.next.is_some() { " or more" } else { "" };
        let changed = format!("{}{more}", counted(page.items.len() as u64, "change"));
        let line = json!({ "phase": "caught_up", "items": items, "changes": page.items.len(), "more": page.next.is_some() });
        say(self.screen, line, &format!("Read again: {}. While it was stopped: {changed}.", figures(items, bytes, took)))?;
        let host: Host = shape::read(&api.get(&["hosts", host], &Query::default()).await?)?;
        // The first run was stopped before it had a baseline.
        if host.baseline.is_none() { self.inventory(&host.id).await } else { Ok(host) }
    }

    /// Until the agent has read everything: items and bytes.
    async fn read_through(&self, meter: Option<&Meter>) -> Result<(u64, u64), Failure> {
        let Some(agent) = &self.agent else { return Ok((0, 0)) };
        let mut progress = agent.progress();
        let mut bytes = 0;
        loop {
            let now = *progress.borrow_and_update();
            if now.phase == Phase::Watching {
                return Ok((now.items, bytes));
            }
            bytes = bytes.max(now.bytes);
            if let Some(meter) = meter {
                meter.show(now.items, now.bytes);
            }
            if progress.changed().await.is_err() {
                return Err(Failure::Refused(format!("the agent broke off; {}/quickstart.log says more", self.folder.shown)));
            }
        }
    }

    /// A link that cannot come up would otherwise be waited for in vain.
    fn fail_on_trouble(&self) -> Result<(), Failure> {
        match self.agent.as_ref().map(RunningAgent::troubles).unwrap_or_default().first() {
            Some(trouble) if trouble.contains("refused") => Err(Failure::Refused(format!("the agent cannot hand in: {trouble}"))),
            _ => Ok(()),
        }
    }

    async fn introduce(&self, api: &Api, host: &Host) -> Result<(), Failure> {
        let login = if self.login {
            let wish = json!({ "kind": "login", "name": "quickstart", "role": "operator" });
            let answer = api.post(&["tokens"], &wish).await?;
            answer["token"].as_str().map(|token| format!("{}/login?token={token}", api.address()))
        } else {
            None
        };
        let agent = self.agent.as_ref();
        let (coverage, troubles) =
            (agent.map(RunningAgent::coverage).unwrap_or_default(), agent.map(RunningAgent::troubles).unwrap_or_default());
        let baseline = host.baseline.as_ref().map(ToString::to_string);
        let scene = Scene {
            folder: self.folder,
            list: self.list,
            coverage: &coverage,
            troubles: &troubles,
            console: api.address(),
            login: login.as_deref(),
            host: &host.name,
            items: host.items,
            baseline: baseline.as_deref(),
            is_root: std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0),
        };
        say(self.screen, scene.json(), &scene.text(self.screen))
    }

    fn meter(&self, what: &str) -> Option<Meter> {
        (!self.screen.is_json()).then(|| Meter::spinner(what))
    }
}

async fn farewell(api: &Api, folder: &Folder, screen: Screen) -> Result<(), Failure> {
    let summary = api.get(&["summary"], &Query::default().with("since", Some(Time::default()))).await?;
    let summary: Summary = shape::read(&summary)?;
    let kept = format!("Kept in {}: {}, {} open drift.", folder.shown, counted(summary.changes(), "change"), count(summary.open_drifts));
    let line = json!({ "phase": "stopped", "changes": summary.changes(), "open_drift": summary.open_drifts });
    let resume = format!("Go on with `{}`; forget all of it with `rm -r {}`.", folder.resume_command(), folder.shown);
    let resume = screen.paint.text(Tone::Dim, &resume);
    say(screen, line, &format!("{kept}\n{resume}"))
}

/// The same thing for programs or for people.
fn say(screen: Screen, line: Value, text: &str) -> Result<(), Failure> {
    if screen.is_json() {
        screen.json_line(&json!({ "quickstart": line }))?
    } else {
        screen.line(text)?
    }
    Ok(())
}

/// Collector and agent write to a file of their own: the terminal is for the feed.
fn begin_log(folder: &Folder) -> Result<(), folder::FolderError> {
    let text = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Mutex::new(folder.log_file()?));
    let subscriber = tracing_subscriber::registry().with(filter("TRUELINE_LOG", "info")).with(text);
    // Set once per process; a second time only happens in tests.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// Cancelled at the first SIGINT, SIGTERM or SIGHUP.
fn stop_signal() -> Result<CancellationToken, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::Refused(format!("cannot listen for signals: {error}")));
    let (mut interrupt, mut terminate, mut hangup) =
        (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        cancel.cancel();
    });
    Ok(stop)
}
