//! Who may have made a change that no sensor told of: what else went on at that time, by logins, sudo and the package manager's log.
//!
//! Invariants: a candidate is never the actor and changes nothing of what is said of one; none is offered where a process was
//! named, but where that was the first process at work on units, which does what others ask it to. What is offered was going on within the change's window, and depends on what was found alone, in whatever order that
//! came. There are at most [`Candidates::LIMIT`]; how many more there were is said.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use crate::actor::{Certainty, Session, SessionKind, Sudo};
use crate::{Actor, ItemId, ItemKind, Time};

/// Something that went on for a while and may have made changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Activity {
    #[serde(flatten)]
    pub what: Doing,
    pub began_at: Time,
    /// Absent while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Doing {
    Login {
        session: Session,
    },
    Su {
        session: Session,
        su: Sudo,
    },
    Sudo {
        /// The login that it was within.
        session: Session,
        sudo: Sudo,
    },
    Package {
        #[serde(rename = "package")]
        entry: PackageEntry,
    },
}

/// What a package manager wrote into its log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PackageEntry {
    pub action: PackageAction,
    /// Without the architecture.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// That it came to; of a removal the one that went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// That it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_before: Option<String>,
    /// The run that it was part of, redacted, where another log tells of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PackageAction {
    Install,
    Upgrade,
    Configure,
    Remove,
    Purge,
}

impl PackageAction {
    pub const ALL: [Self; 5] = [Self::Install, Self::Upgrade, Self::Configure, Self::Remove, Self::Purge];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Upgrade => "upgrade",
            Self::Configure => "configure",
            Self::Remove => "remove",
            Self::Purge => "purge",
        }
    }
}

/// In what an activity agrees with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    ObjectAndTime,
    Time,
}

impl Match {
    pub const ALL: [Self; 2] = [Self::ObjectAndTime, Self::Time];

    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::ObjectAndTime => "object and time",
            Self::Time => "time alone",
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::ObjectAndTime => "object_and_time",
            Self::Time => "time",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    #[serde(flatten)]
    pub activity: Activity,
    pub matched: Match,
    /// Between it and the moment when the change was most likely made.
    pub distance_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Candidates {
    /// Best first: the same object before the same time alone, then the nearest, then the shortest.
    pub offered: Vec<Candidate>,
    /// How many others went on at that time.
    #[serde(default)]
    pub more: u32,
}

/// How long before a change is told its maker may have been asked for it.
const ASKED_MICROS: i64 = 5_000_000;

/// A change that nobody was seen to make, or that the first process made for somebody.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub item: &'a ItemId,
    pub actor: &'a Actor,
    pub observed_after: Time,
    pub observed_at: Time,
    /// What the item itself says of when it changed last: a file's ctime. It counts only within the window.
    pub changed_at: Option<Time>,
    /// The package that has the item's file.
    pub owner: Option<&'a str>,
}

impl Candidates {
    pub const LIMIT: usize = 8;

    pub fn is_empty(&self) -> bool {
        self.offered.is_empty() && self.more == 0
    }

    /// Those of the activities that may have made this change.
    pub fn select<'a>(question: &Question<'_>, activities: &'a [Activity]) -> Self {
        if !question.is_open() {
            return Self::default();
        }
        let mut found: Vec<(Match, i64, &Activity)> = activities
            .iter()
            .filter(|activity| activity.overlaps(question.after(), question.observed_at))
            .map(|activity| (activity.what.matched(question), activity.micros_from(question.moment()), activity))
            .collect();
        let more = u32::try_from(found.len().saturating_sub(Self::LIMIT)).unwrap_or(u32::MAX);
        let place = |(matched, micros, activity): &(Match, i64, &'a Activity)| {
            (*matched, *micros, activity.length(), Reverse(activity.began_at), *activity)
        };
        // There may be thousands, and thousands of changes that ask: only those that are offered are put in order.
        if found.len() > Self::LIMIT {
            found.select_nth_unstable_by_key(Self::LIMIT, place);
            found.truncate(Self::LIMIT);
        }
        found.sort_unstable_by_key(place);
        let offer = |(matched, micros, activity): (Match, i64, &Activity)| Candidate {
            activity: activity.clone(),
            matched,
            distance_seconds: micros.unsigned_abs() / 1_000_000,
        };
        Self { offered: found.into_iter().map(offer).collect(), more }
    }
}

impl Question<'_> {
    /// Whether candidates are asked for at all: a named process, however doubtful, is told as the actor and needs no guess beside
    /// it, unless it is the first process, which is asked by others; and a session or a run begins and ends by itself.
    pub fn is_open(&self) -> bool {
        let is_open = self.actor.certainty == Certainty::Unknown || self.is_of_init();
        is_open && self.item.kind.is_setting() && self.observed_after <= self.observed_at
    }

    /// The first process changes units for whoever asks it, and no kernel tells who that was: `systemctl enable`.
    fn is_of_init(&self) -> bool {
        let is_init = self.actor.process.as_ref().is_some_and(|process| process.pid == 1);
        is_init && self.unit().is_some()
    }

    /// The unit that the item is, or is a file of.
    fn unit(&self) -> Option<&str> {
        let key = self.item.key.as_str();
        match self.item.kind {
            ItemKind::Unit => Some(key),
            ItemKind::File if key.contains("/systemd/") => key.rsplit('/').next(),
            _ => None,
        }
    }

    /// When it was made at the earliest. A process that was named did it right before it was told.
    fn after(&self) -> Time {
        if self.is_of_init() { self.observed_after.max(self.observed_at.plus_micros(-ASKED_MICROS)) } else { self.observed_after }
    }

    /// When the change was most likely made.
    fn moment(&self) -> Time {
        let within = |at: &Time| (self.observed_after..=self.observed_at).contains(at);
        self.changed_at.filter(within).unwrap_or(self.observed_at)
    }
}

impl Activity {
    /// Whether any of it lies within these, both included.
    pub fn overlaps(&self, after: Time, until: Time) -> bool {
        self.began_at <= until && self.ended_at.is_none_or(|ended| ended >= after && ended >= self.began_at)
    }

    fn micros_from(&self, moment: Time) -> i64 {
        match self.ended_at {
            Some(ended) if ended < moment => moment.micros_since(ended),
            _ => self.began_at.micros_since(moment).max(0),
        }
    }

    fn length(&self) -> i64 {
        self.ended_at.map_or(i64::MAX, |ended| ended.micros_since(self.began_at))
    }
}

impl Doing {
    /// The words that `kind` is one of.
    pub const KINDS: [&'static str; 4] = ["login", "su", "sudo", "package"];

    fn matched(&self, question: &Question<'_>) -> Match {
        let is_object = match self {
            Self::Login { .. } | Self::Su { .. } => false,
            Self::Sudo { sudo, .. } => sudo.command.as_deref().is_some_and(|command| {
                let unit = question.unit().into_iter().flat_map(|unit| [unit, unit.strip_suffix(".service").unwrap_or(unit)]);
                unit.chain([question.item.key.as_str()]).any(|name| names(command, name))
            }),
            Self::Package { entry } => entry.is_of(question),
        };
        if is_object { Match::ObjectAndTime } else { Match::Time }
    }
}

/// Whether one of a command's words is this, alone or with a value: `/etc/hosts`, `net.ipv4.ip_forward=1`.
fn names(command: &str, key: &str) -> bool {
    // A shorter one, as of a user, may be a word of anything.
    const TELLING: usize = 4;
    let is_it = |word: &str| word.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
    key.len() >= TELLING && command.split(' ').skip(1).any(is_it)
}

impl PackageEntry {
    fn is_of(&self, question: &Question<'_>) -> bool {
        match question.item.kind {
            ItemKind::Package => {
                let key = question.item.key.as_str();
                let with =
                    |architecture: &str| key.strip_prefix(self.name.as_str()).and_then(|rest| rest.strip_prefix(':')) == Some(architecture);
                key == self.name || self.architecture.as_deref().is_some_and(with)
            }
            _ => question.owner == Some(self.name.as_str()),
        }
    }

    /// `upgrade of openssl 3.0.1 -> 3.0.2 by apt-get upgrade, for alice`
    fn summary(&self) -> String {
        let mut line = format!("{} of {}", self.action.name(), self.name);
        for (lead, text) in [
            (" ", &self.version_before),
            (if self.version_before.is_some() { " -> " } else { " " }, &self.version),
            (" by ", &self.command),
            (", for ", &self.requested_by),
        ] {
            if let Some(text) = text {
                line.push_str(lead);
                line.push_str(text);
            }
        }
        line
    }
}

impl Candidate {
    /// The whole, with the times as they are shown there: `alice's ssh session …, 10:30:00 to 10:34:00 (time alone)`.
    pub fn line(&self, show: impl Fn(Time) -> String) -> String {
        let Activity { began_at, ended_at, .. } = self.activity;
        let when = match ended_at {
            Some(ended) => format!("{} to {}", show(began_at), show(ended)),
            None => format!("since {}", show(began_at)),
        };
        format!("{}, {when} ({})", self.summary(), self.matched.words())
    }

    /// `alice's ssh session 3f2a9c01d4e7-42 from 10.0.0.9`: who or what, without when and how sure. It is a guess in any case.
    pub fn summary(&self) -> String {
        match &self.activity.what {
            Doing::Login { session } => format!("{}{}", whose(session.user.as_ref()), login(session)),
            Doing::Su { session, su } => step("su", su, session),
            Doing::Sudo { session, sudo } => step("sudo", sudo, session),
            Doing::Package { entry } => entry.summary(),
        }
    }
}

fn whose(user: Option<&String>) -> String {
    user.map_or_else(String::new, |user| format!("{user}'s "))
}

fn login(session: &Session) -> String {
    let kind = match session.kind {
        SessionKind::Other => String::new(),
        kind => format!("{kind} "),
    };
    let from = session.origin.map_or_else(String::new, |origin| format!(" from {origin}"));
    format!("{kind}session {}{from}", session.id)
}

/// `alice's sudo as root: vim /etc/hosts, within ssh session 3f2a9c01d4e7-42 from 10.0.0.9`
fn step(means: &str, step: &Sudo, session: &Session) -> String {
    let as_user = step.as_user.as_ref().map_or_else(String::new, |user| format!(" as {user}"));
    let command = step.command.as_ref().map_or_else(String::new, |command| format!(": {command}"));
    format!("{}{means}{as_user}{command}, within {}", whose(step.by.as_ref().or(session.user.as_ref())), login(session))
}
