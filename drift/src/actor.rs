//! Who is behind a change: process, parents, user, login, unit, and how sure we are.
//!
//! A field that is not known is absent, never empty and never invented.

use serde::{Deserialize, Serialize};

use crate::Time;

/// How an actor was learnt, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// The kernel told it in one piece with the change.
    Exact,
    /// The kernel named the process, and what is said of it was read while it was alive.
    Strong,
    /// Only time and object agree.
    Correlated,
    Unknown,
}

impl Certainty {
    pub const ALL: [Self; 4] = [Self::Exact, Self::Strong, Self::Correlated, Self::Unknown];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Strong => "strong",
            Self::Correlated => "correlated",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for Certainty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    pub certainty: Certainty,
    /// The sensors and sources that spoke: `fanotify`, `procfs`, `rescan`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Nearest first, up to the first process of the host or the limit of the reader.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Process>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// The command that was given to sudo, where one of the parents is sudo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Why the certainty is no higher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Actor {
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self {
            certainty: Certainty::Unknown,
            via: Vec::new(),
            process: None,
            parents: Vec::new(),
            user: None,
            session: None,
            sudo: None,
            unit: None,
            container: None,
            reason: Some(reason.into()),
        }
    }

    /// The same, held to be no surer than correlated for this reason. Who is unknown stays so.
    pub fn but(&self, reason: &str) -> Self {
        match self.certainty {
            Certainty::Unknown => self.clone(),
            certainty => Self { certainty: certainty.max(Certainty::Correlated), reason: Some(reason.to_owned()), ..self.clone() },
        }
    }

    /// One line for people: `alice via sudo: vim (pid 812)`, or the reason nobody is named.
    pub fn summary(&self) -> String {
        let who = self.user.as_ref().map(User::summary);
        let program = self.process.as_ref().map(Process::summary);
        let line = match (who, program) {
            (Some(who), Some(program)) => format!("{who} · {program}"),
            (Some(who), None) => who,
            (None, Some(program)) if self.certainty != Certainty::Unknown => program,
            (None, program) => match &self.reason {
                Some(reason) => format!("unknown · {reason}"),
                None => program.unwrap_or_else(|| "unknown".to_owned()),
            },
        };
        // A guess must not read like a fact.
        if self.certainty == Certainty::Correlated { format!("perhaps {line}") } else { line }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Together with the pid this names a process for as long as the host is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// Redacted: see [`crate::redact::arguments`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

impl Process {
    /// `vim /etc/hosts (pid 812)`, or the executable where no arguments are known.
    pub fn summary(&self) -> String {
        let base = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        let program = match (self.argv.split_first(), &self.exe) {
            (Some((first, rest)), _) => {
                let mut line = base(first);
                for argument in rest {
                    line.push(' ');
                    line.push_str(argument);
                }
                crate::text::bounded(&line, 80).into_owned()
            }
            (None, Some(exe)) => base(exe),
            (None, None) => "process".to_owned(),
        };
        format!("{program} (pid {})", self.pid)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub euid: Option<u32>,
    /// The user that logged in, kept by the kernel through su and sudo (audit login uid).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_name: Option<String>,
}

impl User {
    /// `alice as root` where the login and the acting user differ.
    pub fn summary(&self) -> String {
        let name = self.name.clone().unwrap_or_else(|| format!("uid {}", self.uid));
        match (&self.login_name, self.login_uid) {
            (Some(login), Some(uid)) if uid != self.uid => format!("{login} as {name}"),
            (None, Some(uid)) if uid != self.uid => format!("login uid {uid} as {name}"),
            _ => name,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The audit session id, or systemd's.
    pub id: String,
    /// Where it came from: a terminal, a remote address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_the_login_behind_root() {
        let mut actor = Actor::unknown("");
        actor.user =
            Some(User { uid: 0, euid: Some(0), login_uid: Some(1000), name: Some("root".into()), login_name: Some("alice".into()) });
        actor.process = Some(Process {
            pid: 812,
            started_at: None,
            exe: Some("/usr/bin/vim".into()),
            argv: vec!["/usr/bin/vim".into(), "/etc/hosts".into()],
            cwd: None,
        });
        assert_eq!(actor.summary(), "alice as root · vim /etc/hosts (pid 812)");
        actor.certainty = Certainty::Strong;
        assert_eq!(actor.but("another may have done it").summary(), "perhaps alice as root · vim /etc/hosts (pid 812)");
        assert_eq!(Actor::unknown("the process had ended").summary(), "unknown · the process had ended");
    }
}
