//! Logins, and what was done through sudo within them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::Certainty;
use crate::Time;
use crate::host::BootId;

/// A login: everything that the processes with its audit session id did.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Session {
    pub id: SessionId,
    /// Of what is said of the login. That the process belongs to the session is as sure as the process is.
    pub certainty: Certainty,
    pub kind: SessionKind,
    /// Who logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// From where over the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<String>,
    /// Fingerprint of the key that was let in, as sshd tells it: `SHA256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_at: Option<Time>,
}

impl Session {
    /// A login of which only the number is known.
    pub const fn bare(id: SessionId) -> Self {
        Self {
            id,
            certainty: Certainty::Unknown,
            kind: SessionKind::Other,
            user: None,
            origin: None,
            terminal: None,
            key: None,
            began_at: None,
        }
    }

    /// `ssh of alice from 10.0.4.17 port 51022`
    pub fn brief(&self) -> String {
        let bare = Self { key: None, terminal: None, ..self.clone() };
        bare.summary()
    }

    /// `ssh of alice from 10.0.4.17 port 51022 with key SHA256:… on pts/0`
    pub fn summary(&self) -> String {
        let mut line = match self.kind {
            SessionKind::Other => "session".to_owned(),
            kind => kind.name().to_owned(),
        };
        let mut add = |lead: &str, text: Option<String>| {
            if let Some(text) = text {
                line.push_str(lead);
                line.push_str(&text);
            }
        };
        add(" of ", self.user.clone());
        add(" from ", self.origin.map(|origin| origin.to_string()));
        add(" with key ", self.key.clone());
        add(" on ", self.terminal.clone());
        // A guess must not read like a fact.
        if self.certainty == Certainty::Correlated { format!("perhaps {line}") } else { line }
    }
}

/// Names a login among all hosts and boots: `<boot>-<number>`, the beginning of the boot's id and the audit session number,
/// which begins anew with each boot. Hosts that one kernel serves share both. A running machine that was copied has the boot
/// id of its twin: there the host tells them apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SessionId(String);

#[derive(Debug, thiserror::Error)]
#[error("a session is named by letters, digits, '-', '_' and '.', as 3f2a9c01d4e7-42; at most {} of them", SessionId::LIMIT)]
pub struct SessionIdError;

impl SessionId {
    pub const LIMIT: usize = 64;

    pub fn audit(boot: BootId, number: u32) -> Self {
        Self(format!("{}-{number}", boot.short()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Whether text is a name that needs no escaping anywhere.
pub(crate) fn is_name(text: &str, limit: usize) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= limit && text.bytes().all(plain)
}

impl FromStr for SessionId {
    type Err = SessionIdError;

    fn from_str(text: &str) -> Result<Self, SessionIdError> {
        if is_name(text, Self::LIMIT) { Ok(Self(text.to_owned())) } else { Err(SessionIdError) }
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionKind {
    Ssh,
    Console,
    Su,
    Cron,
    /// Of systemd: a user's own services.
    Service,
    Other,
}

impl SessionKind {
    pub const ALL: [Self; 6] = [Self::Ssh, Self::Console, Self::Su, Self::Cron, Self::Service, Self::Other];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Console => "console",
            Self::Su => "su",
            Self::Cron => "cron",
            Self::Service => "service",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for SessionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    pub address: IpAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{} port {port}", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sudo {
    pub certainty: Certainty,
    /// Who ran sudo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_user: Option<String>,
    /// What was given to sudo, redacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<String>,
}

impl Sudo {
    /// `alice as root: vim /etc/hosts, on pts/0`
    pub fn summary(&self) -> String {
        let mut line = self.by.clone().unwrap_or_else(|| "someone".to_owned());
        if let Some(user) = &self.as_user {
            line.push_str(" as ");
            line.push_str(user);
        }
        if let Some(command) = &self.command {
            line.push_str(": ");
            line.push_str(command);
        }
        if let Some(terminal) = &self.terminal {
            line.push_str(", on ");
            line.push_str(terminal);
        }
        if self.certainty == Certainty::Correlated { format!("perhaps {line}") } else { line }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_named_by_boot_and_number() {
        let boot: BootId = "3f2a9c01-d4e7-4a55-8d2c-0123456789ab".parse().unwrap();
        let id = SessionId::audit(boot, 42);
        assert_eq!(id.as_str(), "3f2a9c01d4e7-42");
        assert_eq!(id.as_str().parse::<SessionId>().unwrap(), id);
        for wrong in ["", "a b", "<b>", "a\u{202e}", &"x".repeat(65)] {
            assert!(wrong.parse::<SessionId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_login_reads_as_one_line_and_a_guess_as_a_guess() {
        let mut session = Session {
            certainty: Certainty::Strong,
            kind: SessionKind::Ssh,
            user: Some("alice".into()),
            origin: Some(Origin { address: "10.0.4.17".parse().unwrap(), port: Some(51022) }),
            key: Some("SHA256:abc".into()),
            terminal: Some("pts/0".into()),
            ..Session::bare("1-2".parse().unwrap())
        };
        let line = "ssh of alice from 10.0.4.17 port 51022 with key SHA256:abc on pts/0";
        assert_eq!(session.summary(), line);
        assert_eq!(session.brief(), "ssh of alice from 10.0.4.17 port 51022");
        session.certainty = Certainty::Correlated;
        assert_eq!(session.summary(), format!("perhaps {line}"));
        let sudo =
            Sudo { certainty: Certainty::Strong, by: Some("alice".into()), as_user: Some("root".into()), command: None, terminal: None };
        assert_eq!(sudo.summary(), "alice as root");
    }
}
