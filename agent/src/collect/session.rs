//! Logins over ssh and on a console, and what was begun within them through su and sudo, as items. Each begins and ends once; an
//! ended one is told for a while and then let go of (`observer/sessions.rs`).
//!
//! What is known of them comes from logind and the journal, by [`crate::actor::login`]: a host without them has no such items.

use std::time::Duration;

use trueline_drift::actor::{Session, SessionKind};
use trueline_drift::{BootId, Certainty, FieldName, Fields, ItemId, ItemKey, ItemKind, Time, Value};

use super::{CollectError, Collector, Listing, Reading, Root};
use crate::actor::login::{AuditSession, Login, Logins};

pub const ENDED_AT: FieldName = FieldName::known("ended_at");
/// For the first reading of the records and the journal, where somebody waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How one within a login was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Means {
    Su,
    Sudo,
}

impl Means {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Su => "su",
            Self::Sudo => "sudo",
        }
    }
}

/// What is said of one that was begun within a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub means: Means,
    pub certainty: Certainty,
    pub as_user: String,
    /// Redacted.
    pub command: Option<String>,
    pub terminal: Option<String>,
    pub began_at: Time,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSession {
    pub key: ItemKey,
    /// The login, or the one that the step is within.
    pub login: Session,
    pub uid: Option<u32>,
    pub step: Option<Step>,
    pub ended_at: Option<Time>,
}

/// The key of a login.
pub fn key_of(boot: BootId, session: AuditSession) -> Option<ItemKey> {
    ItemKey::from_text(trueline_drift::actor::SessionId::audit(boot, session.0).as_str()).ok()
}

/// The key of the login that this one is within.
pub fn login_of(key: &ItemKey) -> Option<ItemKey> {
    let (login, _) = key.as_str().split_once('/')?;
    ItemKey::from_text(login).ok()
}

impl HostSession {
    /// `None` for a job's or a service's: those are no logins.
    pub fn of_login(boot: BootId, number: AuditSession, login: &Login) -> Option<Self> {
        if !matches!(login.kind, SessionKind::Ssh | SessionKind::Console | SessionKind::Su) {
            return None;
        }
        let id = trueline_drift::actor::SessionId::audit(boot, number.0);
        Some(Self { key: key_of(boot, number)?, login: login.session(id), uid: login.uid, step: None, ended_at: None })
    }

    /// One that the process `pid` began within this login. No process has its pid again within that second.
    pub fn with_step(&self, pid: u32, step: Step) -> Option<Self> {
        let key = step_key(&self.key, step.means, pid, step.began_at)?;
        Some(Self { key, step: Some(step), ended_at: None, ..self.clone() })
    }

    pub fn began_at(&self) -> Option<Time> {
        self.step.as_ref().map(|step| step.began_at).or(self.login.began_at)
    }

    pub fn item(&self) -> ItemId {
        ItemId::new(ItemKind::Session, self.key.clone())
    }

    pub fn fields(&self) -> Fields {
        let Self { login, step, ended_at, .. } = self;
        let mut fields = Fields::new();
        let mut set = |name, value: Option<String>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                fields.set(FieldName::known(name), Value::text(&value));
            }
        };
        let (kind, certainty) = match step {
            Some(step) => (step.means.name(), step.certainty.max(login.certainty)),
            None => (login.kind.name(), login.certainty),
        };
        set("type", Some(kind.to_owned()));
        set("certainty", Some(certainty.name().to_owned()));
        set("began_at", self.began_at().map(|at| at.to_string()));
        set("ended_at", ended_at.map(|at| at.to_string()));
        set("origin", login.origin.map(|origin| origin.to_string()));
        match step {
            Some(step) => {
                set("user", login.user.clone());
                set("as_user", Some(step.as_user.clone()));
                set("command", step.command.clone());
                set("terminal", step.terminal.clone().or_else(|| login.terminal.clone()));
                set("within", Some(login.id.to_string()));
            }
            None => {
                // Who it became is all that logind keeps of su outside of a login.
                let user = if login.kind == SessionKind::Su { "as_user" } else { "user" };
                set(user, login.user.clone());
                set("key", login.key.clone());
                set("terminal", login.terminal.clone());
            }
        }
        fields
    }
}

/// `3f2a9c01d4e7-42/sudo-812-1795367150`: by what it was begun, with the pid and the second of it.
pub fn step_key(login: &ItemKey, means: Means, pid: u32, began_at: Time) -> Option<ItemKey> {
    let second = began_at.micros().div_euclid(1_000_000);
    ItemKey::from_text(&format!("{login}/{}-{pid}-{second}", means.name())).ok()
}

pub const COLLECTOR: Collector = Collector { kind: ItemKind::Session, sources: &[], poll: None, read: |place| read_all(place.root) };

/// Those that are open now, read once. A service keeps a [`Logins`] instead.
pub fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let Some(logins) = Logins::beneath(root).map_err(|error| CollectError::database("the records of sessions", &error))? else {
        return Ok(Listing::default());
    };
    let book = logins.sessions().read_within(PATIENCE);
    let items = book.sessions().map(|session| (session.item(), Reading::of(session.fields()))).collect();
    Ok(Listing { items, ..Listing::default() })
}

#[cfg(test)]
mod tests {
    use trueline_drift::actor::Origin;
    use trueline_drift::baseline::BaselineDocument;

    use super::*;

    fn login(kind: SessionKind) -> Login {
        Login {
            certainty: Certainty::Strong,
            kind,
            uid: Some(1000),
            user: Some("alice".to_owned()),
            origin: Some(Origin { address: "10.0.4.17".parse().unwrap(), port: Some(51022) }),
            terminal: Some("pts/0".to_owned()),
            key: Some("SHA256:abc".to_owned()),
            began_at: Time::from_seconds(1_795_367_150),
        }
    }

    #[test]
    fn a_login_and_a_sudo_within_it_are_items_of_the_fields_that_a_baseline_knows() {
        let boot: BootId = "3f2a9c01-d4e7-4a55-8d2c-0123456789ab".parse().unwrap();
        let session = HostSession::of_login(boot, AuditSession(42), &login(SessionKind::Ssh)).unwrap();
        let step = Step {
            means: Means::Sudo,
            certainty: Certainty::Correlated,
            as_user: "root".to_owned(),
            command: Some("/usr/bin/id".to_owned()),
            terminal: None,
            began_at: Time::from_seconds(1_795_367_151),
        };
        let mut sudo = session.with_step(812, step).unwrap();
        sudo.ended_at = Some(Time::from_seconds(1_795_367_152));
        assert_eq!(login_of(&sudo.key), Some(session.key.clone()));
        let shown = [&session, &sudo].map(|session| format!("{} {}", session.item(), serde_json::to_string(&session.fields()).unwrap()));
        insta::assert_snapshot!(shown.join("\n"), @r#"
        session:3f2a9c01d4e7-42 {"began_at":"2026-11-22T17:05:50.000000Z","certainty":"strong","key":"SHA256:abc","origin":"10.0.4.17 port 51022","terminal":"pts/0","type":"ssh","user":"alice"}
        session:3f2a9c01d4e7-42/sudo-812-1795367151 {"as_user":"root","began_at":"2026-11-22T17:05:51.000000Z","certainty":"correlated","command":"/usr/bin/id","ended_at":"2026-11-22T17:05:52.000000Z","origin":"10.0.4.17 port 51022","terminal":"pts/0","type":"sudo","user":"alice","within":"3f2a9c01d4e7-42"}
        "#);
        for session in [&session, &sudo] {
            let document = serde_json::json!({ "name": "n", "items": { session.item().to_string(): session.fields() } });
            BaselineDocument::parse("n.yaml", &document.to_string()).unwrap();
        }
        for kind in [SessionKind::Cron, SessionKind::Service, SessionKind::Other] {
            assert_eq!(HostSession::of_login(boot, AuditSession(42), &login(kind)), None, "{kind}");
        }
    }
}
