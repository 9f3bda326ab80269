//! Runs that make changes together: of a package manager, a configuration manager, a job, a container's build.

mod history;
mod program;
mod recognise;
mod report;
#[cfg(test)]
mod tests;

pub use history::{Entry, History, Zone, entries, of_run};
pub use program::is_script;
pub use recognise::{Chain, Link, Standing, Unit, recognise};
pub use report::{Summary, summary};

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::actor::Certainty;
use crate::actor::Process;
use crate::{Actor, BootId, Time, actor};

/// One run. Every change that it made carries the same identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    pub id: TransactionId,
    pub kind: TransactionKind,
    pub certainty: Certainty,
    /// What it ran, in its own terms: a module of Ansible, a mode of Puppet, a unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Redacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The user who asked for it, or the address of the controller that did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_at: Option<Time>,
    /// The run around it: Ansible's around apt's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Box<Transaction>>,
}

impl Transaction {
    /// Most runs within each other.
    pub const DEPTH: usize = 4;

    /// This one first, then those around it.
    pub fn outwards(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |run| run.within.as_deref()).take(Self::DEPTH)
    }

    /// The process of the actor's chain that leads this run. Absent where the run has its name from something else.
    pub fn leader<'a>(&self, boot: BootId, actor: &'a Actor) -> Option<&'a Process> {
        let mut chain = actor.process.iter().chain(&actor.parents);
        chain.find(|process| TransactionId::led_by(self.kind, boot, process.pid, process.started_at) == self.id)
    }

    /// `apt: apt-get install nginx, for alice`
    pub fn summary(&self) -> String {
        let mut line = self.kind.name().replace('_', " ");
        // A command mostly has the name among its words.
        let is_told = |name: &&String| self.command.as_ref().is_some_and(|command| command.split(' ').any(|word| word == name.as_str()));
        for text in [self.name.as_ref().filter(|name| !is_told(name)), self.command.as_ref()].into_iter().flatten() {
            line.push_str(": ");
            line.push_str(text);
        }
        if let Some(by) = &self.requested_by {
            line.push_str(", for ");
            line.push_str(by);
        }
        // A guess must not read like a fact.
        if self.certainty == Certainty::Correlated { format!("perhaps {line}") } else { line }
    }
}

/// Names a run among all hosts and boots: `<kind>-<16 hexadecimal digits>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TransactionId(String);

#[derive(Debug, thiserror::Error)]
#[error("a transaction is named by letters, digits, '-', '_' and '.', as apt-9c41d0e2a7f35b18; at most {} of them", TransactionId::LIMIT)]
pub struct TransactionIdError;

impl TransactionId {
    pub const LIMIT: usize = 64;

    /// The run that this process leads.
    pub fn led_by(kind: TransactionKind, boot: BootId, pid: u32, started_at: Option<Time>) -> Self {
        use sha2::{Digest, Sha256};
        let mut hasher = Sha256::new();
        hasher.update(boot.0.as_bytes());
        hasher.update(pid.to_le_bytes());
        hasher.update(started_at.map_or(0, Time::micros).to_le_bytes());
        Self(format!("{}-{}", kind.name(), hex::encode(&hasher.finalize()[..8])))
    }

    /// This start of a service.
    pub fn of_invocation(kind: TransactionKind, invocation: Uuid) -> Self {
        Self(format!("{}-{}", kind.name(), hex::encode(&invocation.as_bytes()[..8])))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for TransactionId {
    type Err = TransactionIdError;

    fn from_str(text: &str) -> Result<Self, TransactionIdError> {
        if actor::is_name(text, Self::LIMIT) { Ok(Self(text.to_owned())) } else { Err(TransactionIdError) }
    }
}

impl<'de> Deserialize<'de> for TransactionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What came of a run, as the tool itself says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Changed,
    Failed,
    Succeeded,
    Unchanged,
}

impl Outcome {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Failed => "failed",
            Self::Succeeded => "succeeded",
            Self::Unchanged => "unchanged",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionKind {
    /// apt, aptitude.
    Apt,
    Dpkg,
    UnattendedUpgrades,
    Rpm,
    /// Also by its older name, yum.
    Dnf,
    Zypper,
    Ansible,
    Puppet,
    Salt,
    Chef,
    Cfengine,
    CloudInit,
    /// A job of cron.
    Cron,
    /// A service that has a systemd timer. Whether that started it this time is not told.
    Timer,
    ContainerBuild,
}

impl TransactionKind {
    pub const ALL: [Self; 15] = [
        Self::Apt,
        Self::Dpkg,
        Self::UnattendedUpgrades,
        Self::Rpm,
        Self::Dnf,
        Self::Zypper,
        Self::Ansible,
        Self::Puppet,
        Self::Salt,
        Self::Chef,
        Self::Cfengine,
        Self::CloudInit,
        Self::Cron,
        Self::Timer,
        Self::ContainerBuild,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Apt => "apt",
            Self::Dpkg => "dpkg",
            Self::UnattendedUpgrades => "unattended_upgrades",
            Self::Rpm => "rpm",
            Self::Dnf => "dnf",
            Self::Zypper => "zypper",
            Self::Ansible => "ansible",
            Self::Puppet => "puppet",
            Self::Salt => "salt",
            Self::Chef => "chef",
            Self::Cfengine => "cfengine",
            Self::CloudInit => "cloud_init",
            Self::Cron => "cron",
            Self::Timer => "timer",
            Self::ContainerBuild => "container_build",
        }
    }
}

impl fmt::Display for TransactionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
