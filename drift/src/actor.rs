//! Who is behind a change: process, parents, user, login, unit, and how sure we are.
//!
//! A field that is not known is absent, never empty and never invented. Each link of the chain that can be surer or less sure
//! than the process itself (login, sudo, container) has a certainty of its own.

mod process;
mod session;

use serde::{Deserialize, Serialize};

pub use process::{DigestError, Process, Sha256Digest};
pub(crate) use session::is_name;
pub use session::{Origin, Session, SessionId, SessionIdError, SessionKind, Sudo};

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
    /// Of the process.
    pub certainty: Certainty,
    /// The sensors and sources that spoke: `fanotify`, `ebpf`, `connector`, `procfs`, `rescan`.
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
    /// The nearest sudo that the process runs under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sudo: Option<Sudo>,
    /// systemd's, that the process runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
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
            slice: None,
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

    /// What two sources tell of one process: the surer one's word, the first's of two equally sure, and what only the other
    /// knows. A reason to doubt stays where the surer one had it.
    pub fn with(&self, other: &Self) -> Self {
        let (surer, other) = if other.certainty < self.certainty { (other, self) } else { (self, other) };
        let mut told = surer.clone();
        let more = other.via.iter().filter(|via| !surer.via.contains(via));
        told.via.extend(more.cloned());
        told.process = match (told.process, &other.process) {
            (Some(process), Some(more)) => {
                if let (Some(one), Some(another)) = (&process.exe, &more.exe)
                    && one != another
                {
                    let name = |exe| crate::text::bounded(exe, 200);
                    told.certainty = told.certainty.max(Certainty::Strong);
                    told.reason = Some(format!("the process ran {} and {} while it touched this", name(one), name(another)));
                }
                Some(process.with(more))
            }
            (process, more) => process.or_else(|| more.clone()),
        };
        if told.parents.len() < other.parents.len() {
            told.parents.clone_from(&other.parents);
        }
        told.user = match (told.user, &other.user) {
            // One source may tell as whom it ran, and the other whose login that was.
            (Some(user), Some(more)) if user.login_uid.is_none() && user.uid == more.uid => {
                Some(User { login_uid: more.login_uid, login_name: more.login_name.clone(), ..user })
            }
            (user, more) => user.or_else(|| more.clone()),
        };
        told.session = told.session.or_else(|| other.session.clone());
        told.sudo = told.sudo.or_else(|| other.sudo.clone());
        told.unit = told.unit.or_else(|| other.unit.clone());
        told.slice = told.slice.or_else(|| other.slice.clone());
        told.container = told.container.or_else(|| other.container.clone());
        told
    }

    /// With every text cut where it is longer than any collector takes.
    pub fn bounded(mut self) -> Self {
        let cut = |text: &mut Option<String>| {
            if let Some(text) = text {
                *text = crate::text::bounded(text, crate::value::VALUE_LIMIT).into_owned();
            }
        };
        let (sudo, container) = (self.sudo.iter_mut(), self.container.iter_mut());
        let texts = [&mut self.unit, &mut self.slice, &mut self.reason].into_iter();
        let texts = texts.chain(sudo.flat_map(|sudo| [&mut sudo.by, &mut sudo.as_user, &mut sudo.command, &mut sudo.terminal]));
        texts.chain(container.map(|container| &mut container.image)).for_each(cut);
        for process in self.process.iter_mut().chain(&mut self.parents) {
            [&mut process.exe, &mut process.script, &mut process.cwd].into_iter().for_each(cut);
        }
        self
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

/// What the process is shut in: a container, or another namespace with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub certainty: Certainty,
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_sources_the_surer_counts_and_two_programs_are_never_made_one() {
        let actor = |certainty, via: &str, exe: Option<&str>| Actor {
            certainty,
            via: vec![via.to_owned()],
            process: Some(Process { exe: exe.map(str::to_owned), ..Process::bare(7) }),
            reason: None,
            ..Actor::unknown("")
        };
        let exe = |actor: &Actor| actor.process.as_ref().unwrap().exe.clone();
        let audit = actor(Certainty::Exact, "audit", Some("/usr/bin/vim"));
        let mut gone = actor(Certainty::Strong, "fanotify", None);
        gone.unit = Some("session-1.scope".to_owned());
        for told in [audit.with(&gone), gone.with(&audit)] {
            assert_eq!(
                (told.certainty, exe(&told).as_deref(), told.unit.as_deref()),
                (Certainty::Exact, Some("/usr/bin/vim"), Some("session-1.scope"))
            );
        }
        let other = actor(Certainty::Exact, "ebpf", Some("/usr/bin/apt"));
        let told = audit.with(&other);
        assert_eq!(told.certainty, Certainty::Strong);
        assert!(told.reason.unwrap().contains("/usr/bin/vim and /usr/bin/apt"));
    }

    #[test]
    fn no_text_of_an_actor_is_longer_than_a_collector_takes() {
        let long = "x".repeat(crate::value::TEXT_LIMIT + 1);
        let mut actor = Actor::unknown(long.clone());
        actor.process = Some(Process { exe: Some(long.clone()), ..Process::bare(1) });
        actor.sudo = Some(Sudo { certainty: Certainty::Strong, by: None, as_user: None, command: Some(long), terminal: None });
        let bounded = actor.bounded();
        let texts = [bounded.reason, bounded.process.unwrap().exe, bounded.sudo.unwrap().command];
        assert!(texts.iter().flatten().all(|text| text.len() <= crate::value::TEXT_LIMIT));
    }

    #[test]
    fn the_summary_names_the_login_behind_root() {
        let mut actor = Actor::unknown("");
        actor.user =
            Some(User { uid: 0, euid: Some(0), login_uid: Some(1000), name: Some("root".into()), login_name: Some("alice".into()) });
        actor.process = Some(Process {
            exe: Some("/usr/bin/vim".into()),
            argv: vec!["/usr/bin/vim".into(), "/etc/hosts".into()],
            ..Process::bare(812)
        });
        assert_eq!(actor.summary(), "alice as root · vim /etc/hosts (pid 812)");
        actor.certainty = Certainty::Strong;
        assert_eq!(actor.but("another may have done it").summary(), "perhaps alice as root · vim /etc/hosts (pid 812)");
        assert_eq!(Actor::unknown("the process had ended").summary(), "unknown · the process had ended");
    }
}
