//! dpkg's log (dpkg(1), `--log`) and apt's history: which package came, changed or went, and when.
//!
//! Invariants: only what root alone can have written counts, and only a regular file that no symbolic link leads to; of each log
//! at most the last [`TAIL`] bytes are read, and a log that is as it was is not read again. A line that is not as dpkg writes
//! it is passed over, so that no text of a log reaches anybody but names, versions and a redacted command. The logs have the
//! host's local time: where an hour came twice, an entry may be of either.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::ffi::OsStrExt;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use tracing::warn;
use trueline_drift::candidate::{Activity, Doing, PackageAction, PackageEntry};
use trueline_drift::text::{bounded, printable};
use trueline_drift::{Time, redact};

use crate::collect::Root;
use crate::kernel::file::{EntryType, Metadata, Pinned};

const DPKG: &str = "/var/log/dpkg.log";
/// The one before the last rotation.
const BEFORE: &str = "/var/log/dpkg.log.1";
const APT: &str = "/var/log/apt/history.log";
const ZONE: &str = "/etc/localtime";
/// Some thousand entries.
const TAIL: u64 = 512 * 1024;
const ZONE_LIMIT: u64 = 256 * 1024;
const LINE_LIMIT: usize = 1024;
const ENTRIES: usize = 4096;
const NAME_LIMIT: usize = 128;
const COMMAND_LIMIT: usize = 1024;
/// A run without an end was broken off, or goes on: what it says of a package holds for so long at most.
const UNENDED_SECONDS: i64 = 3600;

#[derive(Debug)]
pub struct PackageLog {
    root: Root,
    /// Whose the logs must be.
    owner: u32,
    read: Vec<Seen>,
    entries: Vec<Activity>,
}

/// What a log was when it was looked at last.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Absent,
    Refused(String),
    Log(Metadata),
}

impl Seen {
    fn of(log: &io::Result<Pinned>) -> Self {
        match log {
            Ok(pinned) => Self::Log(pinned.metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Absent,
            Err(error) => Self::Refused(error.to_string()),
        }
    }
}

impl PackageLog {
    pub fn beneath(root: &Root) -> Self {
        let owner = if root.is_host() { 0 } else { nix::unistd::geteuid().as_raw() };
        Self { root: root.clone(), owner, read: Vec::new(), entries: Vec::new() }
    }

    pub fn entries(&mut self) -> &[Activity] {
        let paths = [BEFORE, DPKG, APT];
        let logs = paths.map(|path| self.pin(path));
        let seen: Vec<Seen> = logs.iter().map(Seen::of).collect();
        if self.read != seen {
            for (path, seen) in paths.iter().zip(&seen).filter(|(_, seen)| !self.read.contains(seen)) {
                if let Seen::Refused(reason) = seen {
                    warn!(path, reason, "what this log tells of packages is not offered as a candidate");
                }
            }
            let zone = self.zone();
            let failed = |error: io::Error| {
                warn!(%error, "a log of packages cannot be read; what it tells is not offered as a candidate");
                Vec::new()
            };
            let [before, present, history] = logs.map(|log| log.map_or_else(|_| Vec::new(), |log| tail(&log).unwrap_or_else(failed)));
            self.entries = parse_log(&[before, present].concat(), &parse_history(&history, &zone), &zone);
            self.read = seen;
        }
        &self.entries
    }

    /// A log that counts.
    fn pin(&self, path: &str) -> io::Result<Pinned> {
        let pinned = Pinned::open(self.root.path(path).as_os_str().as_bytes())?;
        let Metadata { entry_type, uid, mode, .. } = pinned.metadata;
        if entry_type != EntryType::File {
            return Err(io::Error::other(format!("it is a {}, not a regular file", entry_type.name())));
        }
        if uid != self.owner || mode & 0o022 != 0 {
            return Err(io::Error::other("others than root may have written it"));
        }
        Ok(pinned)
    }

    fn zone(&self) -> TimeZone {
        let read = self.root.read(ZONE, ZONE_LIMIT).ok().flatten();
        // Without one a host has UTC: tzset(3).
        read.and_then(|bytes| TimeZone::tzif("local", &bytes).ok()).unwrap_or(TimeZone::UTC)
    }
}

/// Whole lines from the end of a log.
fn tail(log: &Pinned) -> io::Result<Vec<u8>> {
    let contents = log.contents()?;
    let from = log.metadata.size.saturating_sub(TAIL);
    let mut bytes = vec![0; usize::try_from(log.metadata.size - from).map_err(io::Error::other)?];
    let mut filled = 0;
    while filled < bytes.len() {
        match contents.read_at(&mut bytes[filled..], from + filled as u64) {
            // Cut meanwhile.
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    if from > 0 {
        let first = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1);
        bytes.drain(..first);
    }
    Ok(bytes)
}

/// The moments that a local time can stand for: the first and the last.
fn moments(text: &str, zone: &TimeZone) -> Option<(Time, Time)> {
    let bytes = text.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b' '), (13, b':'), (16, b':')];
    if bytes.len() != 19 || separators.iter().any(|(at, separator)| bytes[*at] != *separator) {
        return None;
    }
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i16>().ok())?
    };
    let small = |from: usize| number(from, from + 2).and_then(|number| i8::try_from(number).ok());
    let local = DateTime::new(number(0, 4)?, small(5)?, small(8)?, small(11)?, small(14)?, small(17)?, 0).ok()?;
    let time = |timestamp: jiff::Timestamp| Time::from_micros(timestamp.as_microsecond());
    let first = zone.to_ambiguous_timestamp(local).earlier().ok()?;
    let last = zone.to_ambiguous_timestamp(local).later().ok()?;
    Some((time(first.min(last)), time(first.max(last))))
}

/// What begins within a second lasts into the next.
fn end_of(second: Time) -> Time {
    second.plus_seconds(1)
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok())
}

/// A package as the logs name it: `openssl:amd64`.
fn package(text: &str) -> Option<(String, Option<String>)> {
    let is_name = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric) && text.len() <= NAME_LIMIT && text.bytes().all(plain)
    };
    let (name, architecture) = text.split_once(':').map_or((text, None), |(name, architecture)| (name, Some(architecture)));
    (is_name(name) && architecture.is_none_or(is_name)).then(|| (name.to_owned(), architecture.map(str::to_owned)))
}

/// `None` for what is none; else whether there is one.
fn version(text: &str) -> Option<Option<String>> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b':' | b'~' | b'^' | b'_');
    match text {
        "<none>" => Some(None),
        text if !text.is_empty() && text.len() <= NAME_LIMIT && text.bytes().all(is_plain) => Some(Some(text.to_owned())),
        _ => None,
    }
}

/// In the order of the log, the latest of them.
pub(super) fn parse_log(log: &[u8], runs: &[Run], zone: &TimeZone) -> Vec<Activity> {
    let mut entries: Vec<Activity> = Vec::new();
    // Where the entry of each package is that its next lines belong to.
    let mut open: HashMap<(String, Option<String>), usize> = HashMap::new();
    for line in lines(log).filter(|line| line.len() <= LINE_LIMIT) {
        let Some((time, told)) = line.split_at_checked(19) else { continue };
        let (Some((first, last)), Some(told)) = (moments(time, zone), told.strip_prefix(' ')) else { continue };
        let words: Vec<&str> = told.split(' ').collect();
        let (action, named, before, after) = match words[..] {
            ["install", name, before, after] => (PackageAction::Install, name, before, after),
            ["upgrade", name, before, after] => (PackageAction::Upgrade, name, before, after),
            ["configure" | "trigproc", name, after, _] => (PackageAction::Configure, name, "<none>", after),
            ["remove", name, after, _] => (PackageAction::Remove, name, "<none>", after),
            ["purge", name, after, _] => (PackageAction::Purge, name, "<none>", after),
            // Another package's doing: the one that it names may have been left alone for months.
            ["status", "triggers-pending" | "triggers-awaited", _, _] => continue,
            ["status", state, name, _] => {
                let Some(key) = package(name) else { continue };
                if let Some(at) = open.get(&key) {
                    entries[*at].ended_at = entries[*at].ended_at.max(Some(end_of(last)));
                }
                if matches!(state, "installed" | "not-installed" | "config-files") {
                    open.remove(&key);
                }
                continue;
            }
            _ => continue,
        };
        let (Some(key), Some(version_before), Some(version)) = (package(named), version(before), version(after)) else { continue };
        // What was unpacked is configured: one entry tells of both.
        if action == PackageAction::Configure
            && let Some(at) = open.get(&key)
            && let Doing::Package { entry } = &entries[*at].what
            && matches!(entry.action, PackageAction::Install | PackageAction::Upgrade)
            && entry.version == version
            && words[0] == "configure"
        {
            entries[*at].ended_at = entries[*at].ended_at.max(Some(end_of(last)));
            continue;
        }
        let run = runs.iter().rev().find(|run| run.tells_of(&key.0, first));
        let (command, requested_by) = run.map_or((None, None), |run| (run.command.clone(), run.requested_by.clone()));
        let (name, architecture) = key.clone();
        let entry = PackageEntry { action, name, architecture, version, version_before, command, requested_by };
        open.insert(key, entries.len());
        entries.push(Activity { what: Doing::Package { entry }, began_at: first, ended_at: Some(end_of(last)) });
    }
    entries.drain(..entries.len().saturating_sub(ENTRIES));
    entries
}

/// One run of apt's.
#[derive(Debug, Default)]
pub(super) struct Run {
    began_at: Time,
    /// Absent while it goes on, or where it was broken off.
    ended_at: Option<Time>,
    command: Option<String>,
    requested_by: Option<String>,
    packages: HashSet<String>,
}

impl Run {
    fn tells_of(&self, package: &str, at: Time) -> bool {
        let until = self.ended_at.unwrap_or_else(|| self.began_at.plus_seconds(UNENDED_SECONDS));
        self.began_at <= at && at <= until && self.packages.contains(package)
    }
}

pub(super) fn parse_history(history: &[u8], zone: &TimeZone) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for line in lines(history) {
        let Some((field, value)) = line.split_once(": ") else { continue };
        // Two spaces stand between date and time.
        let time = || moments(&value.replacen("  ", " ", 1), zone);
        if field == "Start-Date" {
            // Without a time it is no run, and what follows is none's.
            let Some((began_at, _)) = time() else {
                runs.push(Run { ended_at: Some(Time::default()), ..Run::default() });
                continue;
            };
            // Two are never at work at once: the one before was broken off.
            if let Some(before) = runs.last_mut() {
                before.ended_at.get_or_insert(began_at);
            }
            runs.push(Run { began_at, ..Run::default() });
            continue;
        }
        let Some(run) = runs.last_mut() else { continue };
        match field {
            "Commandline" => {
                let argv: Vec<String> = printable(value.as_bytes()).split(' ').map(str::to_owned).collect();
                run.command = Some(bounded(&redact::arguments(&argv).join(" "), COMMAND_LIMIT).into_owned());
            }
            "Requested-By" => run.requested_by = Some(bounded(&printable(value.as_bytes()), NAME_LIMIT).into_owned()),
            "End-Date" => run.ended_at = time().map(|(_, last)| end_of(last)),
            "Install" | "Upgrade" | "Downgrade" | "Reinstall" | "Remove" | "Purge" => {
                // `nginx:amd64 (1.2), libx:amd64 (3, automatic)`
                let named = value.split("), ").filter_map(|one| one.split(' ').next()).filter_map(package).map(|(name, _)| name);
                run.packages.extend(named.take(ENTRIES));
            }
            _ => {}
        }
    }
    runs
}
