//! A process and what it ran.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Time;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Together with the pid this names a process for as long as the host is up. A whole number of the kernel's clock ticks
    /// after the boot, so that every source tells the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// Of the executable's contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256Digest>,
    /// What the executable interprets: the script that was started, where the executable is its interpreter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Redacted: see [`crate::redact::arguments`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

impl Process {
    /// A process of which only the pid is known.
    pub const fn bare(pid: u32) -> Self {
        Self { pid, started_at: None, exe: None, sha256: None, script: None, argv: Vec::new(), cwd: None }
    }

    /// The same process, with what only the other knows of it. What it ran is taken from one of them alone, for it may have
    /// run another program in between.
    pub(super) fn with(self, other: &Self) -> Self {
        let started_at = self.started_at.or(other.started_at);
        let is_same_program = self.exe.is_none() || self.exe == other.exe;
        if !is_same_program {
            return Self { started_at, ..self };
        }
        let argv = if self.argv.len() < other.argv.len() { other.argv.clone() } else { self.argv };
        Self {
            pid: self.pid,
            started_at,
            exe: self.exe.or_else(|| other.exe.clone()),
            sha256: self.sha256.or(other.sha256),
            script: self.script.or_else(|| other.script.clone()),
            argv,
            cwd: self.cwd.or_else(|| other.cwd.clone()),
        }
    }

    /// `vim /etc/hosts (pid 812)`, or the executable where no arguments are known.
    pub fn summary(&self) -> String {
        // What is no path keeps its slashes: `sshd: alice@pts/0`.
        let base = |path: &str| if path.starts_with('/') { path.rsplit('/').next().unwrap_or(path) } else { path }.to_owned();
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

/// SHA-256 of a file's contents: 64 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest(pub [u8; 32]);

#[derive(Debug, thiserror::Error)]
#[error("a SHA-256 has 64 hexadecimal digits")]
pub struct DigestError;

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| DigestError)?;
        Ok(Self(bytes))
    }
}

impl Serialize for Sha256Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_reads_as_its_program_and_arguments() {
        let summary = |argv: &[&str]| {
            let argv = argv.iter().map(|argument| (*argument).to_owned()).collect();
            Process { exe: Some("/usr/bin/vim.basic".to_owned()), argv, ..Process::bare(812) }.summary()
        };
        assert_eq!(summary(&["/usr/bin/vim", "/etc/hosts"]), "vim /etc/hosts (pid 812)");
        assert_eq!(summary(&["sshd: alice@pts/0"]), "sshd: alice@pts/0 (pid 812)");
        assert_eq!(summary(&[]), "vim.basic (pid 812)");
    }

    #[test]
    fn a_digest_is_64_hexadecimal_digits() {
        let text = "ab".repeat(32);
        assert_eq!(text.parse::<Sha256Digest>().unwrap().to_string(), text);
        assert_eq!(serde_json::from_str::<Sha256Digest>(&format!("\"{text}\"")).unwrap(), Sha256Digest([0xab; 32]));
        for wrong in ["", "ab", &"a".repeat(63), &"g".repeat(64), &"a".repeat(66)] {
            assert!(wrong.parse::<Sha256Digest>().is_err(), "{wrong}");
        }
    }
}
