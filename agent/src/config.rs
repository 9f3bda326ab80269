//! `/etc/trueline/agent.toml`. Every key has a default; an unknown one is an error with its line.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use trueline_drift::document::{DocumentError, parse_toml};
use trueline_drift::redact::Rules;
use trueline_drift::watch::WatchPolicy;

use crate::sensor::{AuditUse, Preference};

pub const DEFAULT_PATH: &str = "/etc/trueline/agent.toml";

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("{source_name}: {fault}")]
    Fault { source_name: String, fault: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub data_dir: PathBuf,
    /// Bound of the spool on disk, in MiB.
    pub spool_mib: u64,
    /// Threads that read during a scan.
    pub scan_threads: usize,
    pub sensor: SensorChoice,
    pub audit: AuditUse,
    /// The watch list until the collector sends one.
    pub watch: WatchPolicy,
    /// What is a secret on this host besides what is known as one.
    pub redaction: Rules,
}

/// Which kernel interface to prefer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SensorChoice {
    #[default]
    Best,
    Inotify,
}

impl From<SensorChoice> for Preference {
    fn from(choice: SensorChoice) -> Self {
        match choice {
            SensorChoice::Best => Self::Best,
            SensorChoice::Inotify => Self::InotifyOnly,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("/var/lib/trueline-agent"),
            spool_mib: 256,
            scan_threads: 2,
            sensor: SensorChoice::Best,
            audit: AuditUse::Beside,
            watch: WatchPolicy::default(),
            redaction: Rules::default(),
        }
    }
}

impl Config {
    pub fn parse(source_name: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self = parse_toml(source_name, text)?;
        let fault = |fault| ConfigError::Fault { source_name: source_name.to_owned(), fault };
        if !(1..=1 << 20).contains(&config.spool_mib) {
            return Err(fault(format!("spool_mib: {} is not between 1 and 1048576", config.spool_mib)));
        }
        if !(1..=64).contains(&config.scan_threads) {
            return Err(fault(format!("scan_threads: {} is not between 1 and 64", config.scan_threads)));
        }
        match config.watch.faults().into_iter().next() {
            Some(watch) => Err(fault(format!("[watch] {watch}"))),
            None => Ok(config),
        }
    }

    /// Reads a file; without one named, the default file if it is there.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let named = path.unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(named) {
            Ok(text) => Self::parse(&named.display().to_string(), &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.is_none() => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read { path: named.to_owned(), source }),
        }
    }
}

impl Config {
    /// The keys in which another configuration differs and that only a start takes up.
    pub fn needs_start_for(&self, other: &Self) -> Vec<&'static str> {
        let keys = [
            ("data_dir", self.data_dir != other.data_dir),
            ("spool_mib", self.spool_mib != other.spool_mib),
            ("sensor", self.sensor != other.sensor),
            ("audit", self.audit != other.audit),
            ("redaction", self.redaction != other.redaction),
        ];
        keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_key_names_its_line_and_the_nearest() {
        let error = Config::parse("agent.toml", "spool_mib = 4\n[watch]\npath = []\n").unwrap_err().to_string();
        assert!(error.starts_with("agent.toml:3:1: unknown key `path`: did you mean `paths`?"), "{error}");
    }

    #[test]
    fn a_watch_list_that_cannot_work_is_refused() {
        let error = Config::parse("agent.toml", "[watch]\npaths = ['etc/ssh']\n").unwrap_err().to_string();
        assert!(error.contains("must be an absolute path"), "{error}");
    }

    #[test]
    fn what_only_a_start_takes_up_is_named() {
        let (before, after) = (Config::default(), Config::parse("a", "spool_mib = 1\nscan_threads = 7\n[watch]\npaths = []\n").unwrap());
        assert_eq!(before.needs_start_for(&after), ["spool_mib"]);
        assert!(before.needs_start_for(&before).is_empty());
    }

    #[test]
    fn a_rule_that_would_hide_everything_is_refused() {
        let error = Config::parse("agent.toml", "[redaction]\nmask_names = ['*']\n").unwrap_err().to_string();
        assert!(error.contains("the name `*` needs"), "{error}");
    }

    #[test]
    fn numbers_that_cannot_work_are_refused() {
        for (text, key) in [("spool_mib = 0", "spool_mib: 0"), ("scan_threads = 65", "scan_threads: 65")] {
            let error = Config::parse("agent.toml", text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("agent.toml: {key} is not between 1 and ")), "{error}");
        }
    }
}
