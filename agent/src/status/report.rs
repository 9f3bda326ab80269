//! What an operator is told of the agent: one document, as JSON, as text, and as one line for the service manager.
//!
//! Invariant: the document says nothing secret, and what is not known is absent.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use indicatif::{HumanBytes, HumanCount};
use serde::{Deserialize, Serialize};
use trueline_drift::operation::alike;
use trueline_drift::{HostId, OperationCoverage, Time};

use super::{CertificateLife, LinkState, Phase};
use crate::identity::Identity;
use crate::sensor::Coverage;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    Healthy,
    /// It runs, and [`Report::troubles`] says what is not as it should be.
    Troubled,
    /// It opens what is on disk.
    Starting,
    /// It runs and is not enrolled yet.
    Enrolling,
    NotRunning,
}

/// The agent, as it is or as it was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub health: Health,
    pub version: String,
    pub data_dir: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateLife>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<Spooled>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coverage: Vec<Row>,
    /// What that comes to, operation by operation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<OperationCoverage>,
    /// What keeps the process from writing elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<String>,
    pub troubles: Vec<String>,
    /// What to do next, where the agent does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    pub phase: Phase,
    /// Items read in this phase, where it is one of reading.
    pub progress: u64,
    pub progress_bytes: u64,
    /// Items whose state is known, and the files among them.
    pub items: u64,
    pub files: u64,
    pub events: u64,
    pub changes: u64,
    pub read_failures: u64,
    /// Files that were made and gone before they could be read.
    #[serde(default)]
    pub transients: u64,
    /// Of the watch list in force; 0 is the host's own.
    pub policy_version: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub collector: String,
    #[serde(flatten)]
    pub state: LinkState,
    /// The last record that the collector has.
    pub acknowledged: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spooled {
    pub bytes: u64,
    pub limit_bytes: u64,
    pub newest: u64,
    /// Records that the collector does not have.
    pub waiting: u64,
    /// When the oldest of them was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holding_since: Option<Time>,
}

/// A row of the sensors' coverage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub sensor: String,
    pub scope: String,
    pub watching: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Report {
    /// What is known of an agent without asking it.
    pub fn of_disk(data_dir: &Path, identity: Option<&Identity>) -> Self {
        Self {
            health: Health::NotRunning,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data_dir: data_dir.to_owned(),
            pid: None,
            host: identity.map(|identity| identity.host),
            certificate: identity.map(CertificateLife::from),
            work: None,
            link: None,
            spool: None,
            coverage: Vec::new(),
            operations: Vec::new(),
            confinement: None,
            troubles: Vec::new(),
            advice: None,
        }
    }
}

impl From<Coverage> for Row {
    fn from(row: Coverage) -> Self {
        Self { sensor: row.name.to_owned(), scope: row.scope, watching: row.watching, reason: row.reason }
    }
}

impl Work {
    fn phrase(&self) -> String {
        let bytes = if self.progress_bytes > 0 { format!(", {}", HumanBytes(self.progress_bytes)) } else { String::new() };
        match self.phase {
            Phase::Starting => "starting".to_owned(),
            Phase::Inventory => format!("taking the inventory, {} items so far{bytes}", HumanCount(self.progress)),
            Phase::Rescan => {
                format!("watching, and reading again what may have been missed, {} items so far{bytes}", HumanCount(self.progress))
            }
            Phase::Watching => format!("watching {} files", HumanCount(self.files)),
        }
    }
}

/// One line: what matters first.
pub fn line(work: &Work, link: &LinkState, acknowledged: u64, waiting: u64, troubles: &[String]) -> String {
    let mut line = String::new();
    for trouble in troubles {
        line.push_str(trouble);
        line.push_str("; ");
    }
    let link = match link {
        LinkState::Connecting { .. } => format!("connecting, {}", waits(waiting)),
        LinkState::Connected { .. } => format!("acknowledged to {}", HumanCount(acknowledged)),
        LinkState::Down { since, error } => {
            format!("not connected since {}, {} ({error})", seconds(*since), waits(waiting))
        }
    };
    // Writing to a String does not fail.
    let _ = write!(line, "{}, {link}", work.phrase());
    line
}

/// Of records that the collector lacks.
fn waits(records: u64) -> String {
    match records {
        0 => "nothing waits".to_owned(),
        1 => "1 record waits".to_owned(),
        many => format!("{} records wait", HumanCount(many)),
    }
}

/// To the second.
fn seconds(time: Time) -> String {
    let text = time.to_string();
    text.split_once('.').map_or(text.clone(), |(whole, _)| format!("{whole}Z"))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let health = match self.health {
            Health::Healthy => "healthy",
            Health::Troubled => "in trouble",
            Health::Starting => "starting",
            Health::Enrolling => "not enrolled yet",
            Health::NotRunning => "not running",
        };
        match self.pid {
            Some(pid) => writeln!(f, "trueline-agent {} is {health} (pid {pid})", self.version)?,
            None => writeln!(f, "trueline-agent {} is {health}", self.version)?,
        }
        for trouble in &self.troubles {
            writeln!(f, "  trouble      {trouble}")?;
        }
        match self.host {
            Some(host) => writeln!(f, "  host         {host}")?,
            None => writeln!(f, "  host         not enrolled")?,
        }
        if let Some(CertificateLife { valid_until, renew_at }) = self.certificate {
            writeln!(f, "  certificate  until {}, renewed from {} on", seconds(valid_until), seconds(renew_at))?;
        }
        if let Some(work) = &self.work {
            writeln!(f, "  work         {}", work.phrase())?;
            let list =
                if work.policy_version == 0 { "its own".to_owned() } else { format!("the collector's, version {}", work.policy_version) };
            writeln!(f, "  watch list   {list}; {} items known, {} of them files", HumanCount(work.items), HumanCount(work.files))?;
            let counts = [work.events, work.changes, work.transients, work.read_failures];
            let [events, changes, transients, failures] = counts.map(HumanCount);
            writeln!(
                f,
                "  since start  {events} events, {changes} changes, {transients} files that came and went, {failures} failed readings"
            )?;
        }
        if let Some(link) = &self.link {
            let state = match &link.state {
                LinkState::Connecting { since } => format!("connecting since {}", seconds(*since)),
                LinkState::Connected { since } => format!("connected since {}", seconds(*since)),
                LinkState::Down { since, error } => format!("down since {}: {error}", seconds(*since)),
            };
            writeln!(f, "  link         {}, {state}; acknowledged to {}", link.collector, HumanCount(link.acknowledged))?;
        }
        if let Some(spool) = &self.spool {
            write!(f, "  spool        {} of {}, ", HumanBytes(spool.bytes), HumanBytes(spool.limit_bytes))?;
            match spool.oldest_at {
                Some(oldest) => writeln!(f, "{}, the oldest of {}", waits(spool.waiting), seconds(oldest))?,
                None => writeln!(f, "{}", waits(spool.waiting))?,
            }
        }
        for row in &self.coverage {
            let state = if row.watching { "watched" } else { "not watched" };
            let reason = row.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            writeln!(f, "  coverage     {} {state} by {}{reason}", row.scope, row.sensor)?;
        }
        for group in alike(&self.operations) {
            let told = group.actor.map_or("no event tells of it".to_owned(), |actor| format!("told, actor {actor}"));
            let reason = group.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            writeln!(f, "  operations   {}: {told}{reason}", group.names())?;
        }
        if let Some(confinement) = &self.confinement {
            writeln!(f, "  confinement  {confinement}")?;
        }
        writeln!(f, "  data         {}", self.data_dir.display())?;
        match &self.advice {
            Some(advice) => writeln!(f, "  next         {advice}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trueline_drift::{Certainty, Operation};

    fn work(phase: Phase) -> Work {
        Work {
            phase,
            progress: 81_204,
            progress_bytes: 0,
            items: 214_900,
            files: 214_332,
            events: 9,
            changes: 2,
            read_failures: 0,
            transients: 0,
            policy_version: 0,
        }
    }

    #[test]
    fn the_line_says_what_matters() {
        let at = Time::from_seconds(1_800_000_000);
        let connected = LinkState::Connected { since: at };
        assert_eq!(line(&work(Phase::Watching), &connected, 81_204, 0, &[]), "watching 214,332 files, acknowledged to 81,204");
        let down = LinkState::Down { since: at, error: "cannot reach c:9440: Connection refused".to_owned() };
        assert_eq!(
            line(&work(Phase::Inventory), &down, 0, 1_204, &["changes are held back".to_owned()]),
            "changes are held back; taking the inventory, 81,204 items so far, not connected since 2027-01-15T08:00:00Z, \
             1,204 records wait (cannot reach c:9440: Connection refused)"
        );
    }

    #[test]
    fn the_document_reads_back_and_names_its_parts_as_documented() {
        let at = Time::from_seconds(1_800_000_000);
        let report = Report {
            health: Health::Troubled,
            version: "0.1.0".to_owned(),
            data_dir: PathBuf::from("/var/lib/trueline-agent"),
            pid: Some(7),
            host: None,
            certificate: Some(CertificateLife { valid_until: at, renew_at: at }),
            work: Some(work(Phase::Watching)),
            link: Some(Link {
                collector: "c:9440".to_owned(),
                state: LinkState::Down { since: at, error: "x".to_owned() },
                acknowledged: 3,
            }),
            spool: Some(Spooled { bytes: 1, limit_bytes: 2, newest: 5, waiting: 2, oldest_at: Some(at), holding_since: None }),
            coverage: vec![Row { sensor: "fanotify".to_owned(), scope: "file:/etc".to_owned(), watching: true, reason: None }],
            operations: [(Operation::Create, Some(Certainty::Exact)), (Operation::Write, Some(Certainty::Exact)), (Operation::Flags, None)]
                .map(|(operation, actor)| OperationCoverage { operation, actor, reason: None })
                .into(),
            confinement: None,
            troubles: vec!["the disk is full".to_owned()],
            advice: None,
        };
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!(value["link"]["state"], "down");
        assert_eq!(value["work"]["phase"], "watching");
        assert_eq!(serde_json::from_value::<Report>(value).unwrap(), report);
        let text = report.to_string();
        for part in [
            "is in trouble (pid 7)",
            "trouble      the disk is full",
            "2 records wait, the oldest of 2027-01-15T08:00:00Z",
            "operations   create, write: told, actor exact\n  operations   flags: no event tells of it\n",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
