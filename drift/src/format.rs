//! Reads configuration files as the settings that they make, so that drift is `PermitRootLogin no -> yes` and not another
//! digest.
//!
//! A format is chosen by a file's path alone, never by what is in the file, which its writer could shape. Comments, blanks and,
//! where the format gives it no meaning, order do not show. Where a name is set more than once, what the format's own
//! reader would take counts, and a conflict is shown beside it.
//!
//! The texts are hostile: reading one takes time and memory in proportion to its length, and nesting has a limit. What comes out
//! is bounded and printable, and holds secrets as they stand: whoever tells it masks them first (see [`crate::redact`]).

mod account;
mod apache;
mod apt_sources;
mod blocks;
mod crontab;
mod fstab;
mod json;
mod key_value;
pub mod lines;
mod logrotate;
mod modprobe;
mod nginx;
mod pam;
mod rsyslog;
pub mod sshd_config;
mod sudoers;
pub mod sysctl;
mod table;
mod toml;
mod tree;
pub mod unit;
mod xml;
mod yaml;

use std::borrow::Cow;
use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::{FieldName, Value, text};

/// Longest file that is read as settings, in bytes.
pub const TEXT_LIMIT: usize = 1024 * 1024;

/// Most settings that one file yields; what is beyond is counted.
pub const SETTINGS_LIMIT: usize = 512;

/// Most values that one setting keeps.
const VALUES_LIMIT: usize = 256;

/// Most bytes of names and values that are kept of one file: names within blocks repeat those of the blocks.
const KEPT_LIMIT: usize = 4 * TEXT_LIMIT;

/// Longest name of a setting that is told as it is, in bytes.
const NAME_LIMIT: usize = 384;

/// How deep blocks may lie in each other.
pub const DEPTH: usize = 32;

/// How a format takes a name that is set again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// The first counts (sshd_config); another value after it is a conflict.
    First,
    /// The last counts (sysctl.conf, `KEY=value`); another value before it is a conflict.
    Last,
    /// All count, in this order (`nameserver`, a PAM stack).
    Ordered,
    /// All count, in any order (`AcceptEnv`, members of a group).
    Unordered,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    repeat: Repeat,
    values: Vec<String>,
    /// Values beyond the limit.
    left_out: usize,
}

/// What a configuration file sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    settings: BTreeMap<String, Setting>,
    /// Of names and values.
    bytes: usize,
    left_out: usize,
}

/// Why a text is not of the format that its path promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct FormatError {
    /// From 1; 0 where it is the file as a whole.
    pub line: usize,
    pub reason: &'static str,
}

impl Settings {
    /// Takes one more value of a setting. Names of settings within blocks are led by the blocks: `Match User bob.PermitRootLogin`.
    pub fn take(&mut self, repeat: Repeat, name: &str, value: &str) {
        let is_full = !self.settings.contains_key(name) && self.settings.len() >= SETTINGS_LIMIT;
        let bytes = self.bytes + name.len() + value.len();
        if is_full || bytes > KEPT_LIMIT {
            self.left_out += 1;
            return;
        }
        self.bytes = bytes;
        let setting = self.settings.entry(name.to_owned()).or_insert(Setting { repeat, values: Vec::new(), left_out: 0 });
        // Where one value counts it is kept whatever else was there.
        if setting.values.len() >= VALUES_LIMIT {
            setting.left_out += 1;
            if repeat == Repeat::Last {
                setting.values.pop();
            } else {
                return;
            }
        }
        setting.values.push(value.to_owned());
    }

    /// Takes back what a setting was given so far.
    fn forget(&mut self, name: &str) {
        self.settings.remove(name);
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty()
    }

    /// The names and what counts for each, sorted by name; a value alone or, where all count, a list.
    /// `mask` is given each setting's name and one value, and answers with what may be told of it.
    pub fn fields(&self, mut mask: impl FnMut(&str, &str) -> String) -> Vec<(FieldName, Value)> {
        let mut fields = Vec::new();
        for (name, setting) in &self.settings {
            let mut told: Vec<String> =
                setting.values.iter().map(|value| text::printable(mask(name, value).as_bytes()).into_owned()).collect();
            let name = told_name(name);
            let field = FieldName::new(&format!("config.{name}"));
            let (first, last) = (told.first().cloned().unwrap_or_default(), told.last().cloned().unwrap_or_default());
            let value = match setting.repeat {
                Repeat::First => Value::text(&first),
                Repeat::Last => Value::text(&last),
                Repeat::Ordered => Value::list(told.clone()),
                Repeat::Unordered => {
                    told.sort();
                    told.dedup();
                    Value::list(told.clone())
                }
            };
            fields.push((field, value));
            let conflicts =
                matches!(setting.repeat, Repeat::First | Repeat::Last) && setting.values.iter().any(|value| *value != setting.values[0]);
            if conflicts {
                fields.push((FieldName::new(&format!("conflict.{name}")), Value::list(told)));
            }
        }
        let left_out = self.left_out + self.settings.values().map(|setting| setting.left_out).sum::<usize>();
        if left_out > 0 {
            let count = i64::try_from(left_out).unwrap_or(i64::MAX);
            fields.push((FieldName::new("config_left_out"), Value::Integer(count)));
        }
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        fields
    }
}

/// A name, and of a long one its beginning with a digest of the whole, so that no two become one.
fn told_name(name: &str) -> Cow<'_, str> {
    if name.len() <= NAME_LIMIT {
        return Cow::Borrowed(name);
    }
    let digest = hex::encode(&Sha256::digest(name)[..8]);
    Cow::Owned(format!("{} sha256 {digest}", text::bounded(name, NAME_LIMIT)))
}

/// Beginnings of the fields of a file that tell what it sets: `config.NAME`, and `conflict.NAME` where it is set again otherwise.
pub const CONFIG: &str = "config.";
pub const CONFLICT: &str = "conflict.";

/// Whether a file's field comes from reading the file as settings.
pub fn is_of_settings(name: &str) -> bool {
    name.starts_with(CONFIG) || name.starts_with(CONFLICT) || matches!(name, "config_left_out" | "format" | "format_error")
}

/// A format of configuration files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// `KEY=value` as a shell or systemd reads it: /etc/environment, /etc/default/*, os-release(5).
    KeyValue,
    /// fstab(5).
    Fstab,
    /// group(5).
    Group,
    /// gshadow(5), without hashes.
    Gshadow,
    /// hosts(5).
    Hosts,
    /// limits.conf(5) and limits.d.
    Limits,
    /// login.defs(5).
    LoginDefs,
    /// nsswitch.conf(5).
    Nsswitch,
    /// passwd(5).
    Passwd,
    /// resolv.conf(5).
    ResolvConf,
    /// shadow(5), without hashes.
    Shadow,
    /// sshd_config(5) and sshd_config.d.
    SshdConfig,
    /// sysctl.d(5) and sysctl.conf(5).
    Sysctl,
    /// modprobe.d(5).
    Modprobe,
    /// pam.d(5).
    Pam,
    /// Units of systemd, their drop-ins and systemd's own files.
    Unit,
    /// JSON, by suffix within /etc.
    Json,
    /// YAML, by suffix within /etc.
    Yaml,
    /// TOML, by suffix within /etc.
    Toml,
    /// XML, by suffix within /etc.
    Xml,
    /// nginx's own files.
    Nginx,
    /// Apache's own files.
    Apache,
    /// logrotate.conf(8).
    Logrotate,
    /// rsyslog.conf(5).
    Rsyslog,
    /// crontab(5), of the system and of users.
    Crontab,
    /// sudoers(5) and sudoers.d.
    Sudoers,
    /// sources.list(5), a source a line.
    AptSources,
    /// sources.list(5), stanzas of deb822.
    AptStanzas,
    /// Any other file in a folder of configuration: it sets nothing that is known, and is told by its lines.
    Text,
}

impl Format {
    pub const ALL: &[Self] = &[
        Self::KeyValue,
        Self::Fstab,
        Self::Group,
        Self::Gshadow,
        Self::Hosts,
        Self::Limits,
        Self::LoginDefs,
        Self::Nsswitch,
        Self::Passwd,
        Self::ResolvConf,
        Self::Shadow,
        Self::SshdConfig,
        Self::Sysctl,
        Self::Modprobe,
        Self::Pam,
        Self::Unit,
        Self::Json,
        Self::Yaml,
        Self::Toml,
        Self::Xml,
        Self::Nginx,
        Self::Apache,
        Self::Logrotate,
        Self::Rsyslog,
        Self::Crontab,
        Self::Sudoers,
        Self::AptSources,
        Self::AptStanzas,
        // Last: it covers what no other does.
        Self::Text,
    ];

    /// The format of the file at a path in its printable form, where that is known.
    pub fn of(path: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.covers(path))
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::KeyValue => "key_value",
            Self::Fstab => "fstab",
            Self::Group => "group",
            Self::Gshadow => "gshadow",
            Self::Hosts => "hosts",
            Self::Limits => "limits",
            Self::LoginDefs => "login_defs",
            Self::Nsswitch => "nsswitch",
            Self::Passwd => "passwd",
            Self::ResolvConf => "resolv_conf",
            Self::Shadow => "shadow",
            Self::SshdConfig => "sshd_config",
            Self::Sysctl => "sysctl",
            Self::Modprobe => "modprobe",
            Self::Pam => "pam",
            Self::Unit => "unit",
            Self::Json => "json",
            Self::Yaml => "yaml",
            Self::Toml => "toml",
            Self::Xml => "xml",
            Self::Nginx => "nginx",
            Self::Apache => "apache",
            Self::Logrotate => "logrotate",
            Self::Rsyslog => "rsyslog",
            Self::Crontab => "crontab",
            Self::Sudoers => "sudoers",
            Self::AptSources => "apt_sources",
            Self::AptStanzas => "apt_deb822",
            Self::Text => "text",
        }
    }

    /// The format with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.name() == name)
    }

    /// Whether two files that set the same mean the same to whoever reads them, so that the digest says nothing more. Not where
    /// lines are passed over that some reader runs (a file in /etc/default is a script), nor where a part is kept back.
    pub fn tells_all(self) -> bool {
        match self {
            Self::Fstab
            | Self::Hosts
            | Self::LoginDefs
            | Self::Nsswitch
            | Self::ResolvConf
            | Self::SshdConfig
            | Self::Sysctl
            | Self::Unit
            | Self::Json
            | Self::Toml => true,
            Self::KeyValue
            | Self::Limits
            | Self::Modprobe
            | Self::Pam
            | Self::Group
            | Self::Gshadow
            | Self::Passwd
            | Self::Shadow
            | Self::Yaml
            | Self::Xml
            | Self::Nginx
            | Self::Apache
            | Self::Logrotate
            | Self::Rsyslog
            | Self::Crontab
            | Self::Sudoers
            | Self::AptSources
            | Self::AptStanzas
            | Self::Text => false,
        }
    }

    fn covers(self, path: &str) -> bool {
        match self {
            Self::KeyValue => key_value::covers(path),
            Self::Fstab => path == "/etc/fstab",
            Self::Group => path == "/etc/group",
            Self::Gshadow => path == "/etc/gshadow",
            Self::Hosts => path == "/etc/hosts",
            Self::Limits => table::covers_limits(path),
            Self::LoginDefs => path == "/etc/login.defs",
            Self::Nsswitch => path == "/etc/nsswitch.conf",
            Self::Passwd => path == "/etc/passwd",
            Self::ResolvConf => path == "/etc/resolv.conf",
            Self::Shadow => path == "/etc/shadow",
            Self::SshdConfig => sshd_config::covers(path),
            Self::Sysctl => sysctl::covers(path),
            Self::Modprobe => modprobe::covers(path),
            Self::Pam => pam::covers(path),
            Self::Unit => unit::covers(path),
            Self::Json => json::covers(path),
            Self::Yaml => yaml::covers(path),
            Self::Toml => toml::covers(path),
            Self::Xml => xml::covers(path),
            Self::Nginx => nginx::covers(path),
            Self::Apache => apache::covers(path),
            Self::Logrotate => logrotate::covers(path),
            Self::Rsyslog => rsyslog::covers(path),
            Self::Crontab => crontab::covers(path),
            Self::Sudoers => sudoers::covers(path),
            Self::AptSources => apt_sources::covers(path),
            Self::AptStanzas => apt_sources::covers_stanzas(path),
            Self::Text => lines::covers(path),
        }
    }

    /// Reads a whole file. Bytes that are no UTF-8 are read as `\xHH`, so that a change of one shows.
    pub fn read(self, bytes: &[u8]) -> Result<Settings, FormatError> {
        let text = decoded(bytes)?;
        let mut settings = Settings::default();
        match self {
            Self::KeyValue => key_value::read(&text, &mut settings)?,
            Self::Fstab => fstab::read(&text, &mut settings)?,
            Self::Group => account::read_group(&text, &mut settings)?,
            Self::Gshadow => account::read_gshadow(&text, &mut settings)?,
            Self::Hosts => table::read_hosts(&text, &mut settings)?,
            Self::Limits => table::read_limits(&text, &mut settings)?,
            Self::LoginDefs => table::read_login_defs(&text, &mut settings)?,
            Self::Nsswitch => table::read_nsswitch(&text, &mut settings)?,
            Self::Passwd => account::read_passwd(&text, &mut settings)?,
            Self::ResolvConf => table::read_resolv_conf(&text, &mut settings)?,
            Self::Shadow => account::read_shadow(&text, &mut settings)?,
            Self::SshdConfig => sshd_config::read(&text, &mut settings)?,
            Self::Sysctl => sysctl::read(&text, &mut settings)?,
            Self::Modprobe => modprobe::read(&text, &mut settings)?,
            Self::Pam => pam::read(&text, &mut settings)?,
            Self::Unit => unit::read(&text, &mut settings)?,
            Self::Json => json::read(&text, &mut settings)?,
            Self::Yaml => yaml::read(&text, &mut settings)?,
            Self::Toml => toml::read(&text, &mut settings)?,
            Self::Xml => xml::read(&text, &mut settings)?,
            Self::Nginx => nginx::read(&text, &mut settings)?,
            Self::Apache => apache::read(&text, &mut settings)?,
            Self::Logrotate => logrotate::read(&text, &mut settings)?,
            Self::Rsyslog => rsyslog::read(&text, &mut settings)?,
            Self::Crontab => crontab::read(&text, &mut settings)?,
            Self::Sudoers => sudoers::read(&text, &mut settings)?,
            Self::AptSources => apt_sources::read(&text, &mut settings)?,
            Self::AptStanzas => apt_sources::read_stanzas(&text, &mut settings)?,
            Self::Text => {}
        }
        Ok(settings)
    }
}

/// A configuration file's text, with what is none in its printable form.
fn decoded(bytes: &[u8]) -> Result<String, FormatError> {
    if bytes.len() > TEXT_LIMIT {
        return Err(FormatError { line: 0, reason: "it is longer than 1 MiB" });
    }
    if bytes.contains(&0) {
        return Err(FormatError { line: 0, reason: "it holds a NUL byte" });
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.push_str(&text::printable(chunk.invalid()));
    }
    Ok(text)
}

/// Longest name of a block in bytes: it leads every name within, so a long one would multiply.
const BLOCK_LIMIT: usize = 256;

/// A block's name as it leads names of settings.
fn block(name: &str) -> Cow<'_, str> {
    text::bounded(name, BLOCK_LIMIT)
}

/// Whether a path is a file directly in one of the folders and ends so; hidden files are what editors leave.
fn in_folder(path: &str, folders: &[&str], suffix: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    folders.contains(&folder) && name.len() > suffix.len() && name.ends_with(suffix) && !name.starts_with('.')
}

/// The name of a file that lies directly in the folder, which ends in a slash; no hidden one.
fn in_folder_of_names<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    path.strip_prefix(folder).filter(|name| !name.is_empty() && !name.contains('/') && !name.starts_with('.'))
}

/// The lines, those that end in a backslash joined with what follows them.
fn continued(text: &str) -> impl Iterator<Item = String> {
    joined(text, |line| line)
}

/// As [`continued`] and without comments, for formats whose comments end with their line whatever it ends in. `uncommented` answers
/// with the beginning of a line that is no comment.
fn joined(text: &str, uncommented: impl Fn(&str) -> &str) -> impl Iterator<Item = String> {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        let (mut joined, mut any) = (String::new(), false);
        for line in lines.by_ref() {
            any = true;
            let kept = uncommented(line);
            let Some(begun) = kept.strip_suffix('\\').filter(|_| kept.len() == line.len()) else {
                joined.push_str(kept);
                return Some(joined);
            };
            joined.push_str(begun);
            joined.push(' ');
        }
        any.then_some(joined)
    })
}

/// Whether a name without a suffix of its own is what an editor or a package manager leaves beside a file.
fn is_leftover(name: &str) -> bool {
    let ends = [".bak", ".orig", ".rpmnew", ".rpmorig", ".rpmsave", ".swp", ".ucf-dist", ".ucf-new", ".ucf-old", "~"];
    name.starts_with('.') || name.contains(".dpkg-") || ends.iter().any(|end| name.ends_with(end))
}

/// The words with one space between them.
fn spaced(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a file within /etc ends so. An editor's leftovers end otherwise.
fn has_suffix(path: &str, suffixes: &[&str]) -> bool {
    path.starts_with("/etc/") && suffixes.iter().any(|suffix| path.ends_with(suffix))
}

#[cfg(test)]
mod nested_tests;
#[cfg(test)]
mod tests;
