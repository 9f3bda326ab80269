//! Which services are active, from the links that systemd keeps for as long as each is: no manager needs to be asked.
//!
//! `/run/systemd/units/invocation:NAME` comes when a service begins to start and goes when it is inactive or failed (`unit_notify` of
//! systemd's src/core/unit.c, since version 238). Timers, sockets and targets have none. Invariant: nothing is told of services that come
//! and go by themselves, or that others call.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use trueline_drift::{Time, Value};

use super::Found;
use crate::actor::procfs;
use crate::collect::{Root, refusal, root};
use crate::process::event::BootTime;
use crate::process::survey;

const FOLDER: &str = "/run/systemd/units";
const PREFIX: &[u8] = b"invocation:";
const SERVICE: &[u8] = b".service";
const SERVICES_LIMIT: usize = 65_536;

/// A manager that is older than this has started what it starts, or will not.
const START: Duration = Duration::from_secs(300);
/// While it starts, so long no service may have begun or ended.
const QUIET_MICROS: i64 = 20_000_000;

#[derive(Debug)]
pub struct Activity {
    active: Result<BTreeSet<Vec<u8>>, String>,
}

impl Activity {
    /// `None` where systemd keeps no such links: it does not run, or is older.
    pub fn read(root: &Root) -> Option<Self> {
        match read(root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => Some(Self { active: read.map_err(|error| refusal::reason(&error)) }),
        }
    }

    pub(super) fn of(&self, name: &[u8], enabled: &Value, found: &Found, files: &[Vec<u8>]) -> Option<Value> {
        let stem = name.strip_suffix(SERVICE)?;
        let is_called = match enabled {
            Value::Text(state) if state == "alias" => true,
            Value::Text(state)
                if matches!(state.as_str(), "static" | "disabled" | "indirect") && !found.wanted_by_packages.contains(name) =>
            {
                let has = |suffix: &str| found.units.contains_key(&[stem, suffix.as_bytes()].concat());
                state == "static" || [".socket", ".timer", ".path"].into_iter().any(has)
            }
            _ => false,
        };
        if is_called || stem.ends_with(b"@") || runs_once(files) {
            return None;
        }
        Some(match &self.active {
            Ok(active) => Value::from(active.contains(name)),
            Err(reason) => Value::unreadable(reason.clone()),
        })
    }
}

fn read(root: &Root) -> io::Result<BTreeSet<Vec<u8>>> {
    let mut active = BTreeSet::new();
    for entry in std::fs::read_dir(root.path(FOLDER))? {
        let name = entry?.file_name();
        if let Some(unit) = name.as_bytes().strip_prefix(PREFIX) {
            active.insert(unit.to_vec());
        }
        if active.len() > SERVICES_LIMIT {
            return Err(io::Error::other(format!("more than {SERVICES_LIMIT} services are active")));
        }
    }
    Ok(active)
}

/// When a service last began or ended; `None` as for [`Activity::read`].
pub fn stirred_at(root: &Root) -> Option<Time> {
    let folder = std::fs::metadata(root.path(FOLDER)).ok()?;
    Some(Time::from_micros(folder.mtime() * 1_000_000 + folder.mtime_nsec() / 1000))
}

/// Whether services are still being started for the first time: nothing says so but how long it has been quiet.
pub fn is_starting(root: &Root, now: Time) -> bool {
    let manager = root::read(&root.path("/proc/1/stat"), 4096).ok().flatten().and_then(|bytes| procfs::parse_stat(&bytes));
    let is_young = manager.is_some_and(|stat| BootTime::now().since(survey::started(&stat)) < START);
    is_young && stirred_at(root).is_some_and(|at| now.micros_since(at) < QUIET_MICROS)
}

/// Whether a service is over once its process has ended: `Type=oneshot` without `RemainAfterExit=`, in its file and its drop-ins.
fn runs_once(files: &[Vec<u8>]) -> bool {
    let remains = matches!(setting(files, b"RemainAfterExit"), b"yes" | b"y" | b"true" | b"t" | b"on" | b"1");
    setting(files, b"Type") == b"oneshot" && !remains
}

/// What the last assignment of a service's file and drop-ins says.
fn setting<'a>(files: &'a [Vec<u8>], name: &[u8]) -> &'a [u8] {
    let mut last: &[u8] = b"";
    for file in files {
        let mut inside = false;
        for line in file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            if line.starts_with(b"[") {
                inside = line == b"[Service]";
            } else if let Some(equals) = line.iter().position(|byte| *byte == b'=').filter(|_| inside)
                && line[..equals].trim_ascii() == name
            {
                last = line[equals + 1..].trim_ascii();
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_type_counts_and_only_in_its_section() {
        let once = |files: &[&str]| runs_once(&files.iter().map(|file| file.as_bytes().to_vec()).collect::<Vec<_>>());
        assert!(once(&["[Service]\nType=oneshot\n"]));
        assert!(once(&["[Service]\nType=simple\n", "[Service]\n Type = oneshot\n"]));
        assert!(!once(&["[Service]\nType=oneshot\n", "[Service]\nType=exec\n"]));
        assert!(!once(&["[Unit]\nType=oneshot\n[Service]\n#Type=oneshot\n"]));
        assert!(!once(&["[Service]\nType=oneshot\nRemainAfterExit=yes\n"]), "as a packet filter's rules");
        assert!(once(&["[Service]\nType=oneshot\nRemainAfterExit=yes\n", "[Service]\nRemainAfterExit=no\n"]));
    }

    #[test]
    fn a_host_starts_for_as_long_as_services_come_and_go_but_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        std::fs::create_dir_all(root.path("/proc/1")).unwrap();
        let manager = |age: Duration| {
            let tick = Duration::from_nanos(BootTime::now().nanos()).saturating_sub(age).as_millis() / 10;
            std::fs::write(root.path("/proc/1/stat"), format!("1 (systemd) S 0 1 1 0 -1 4194560 {}{tick}", "0 ".repeat(12))).unwrap();
        };
        manager(Duration::from_secs(30));
        assert!(!is_starting(&root, crate::clock::now()), "no links are kept");
        std::fs::create_dir_all(root.path(FOLDER)).unwrap();
        let stirred = stirred_at(&root).unwrap();
        assert!(is_starting(&root, stirred.plus_seconds(19)));
        assert!(!is_starting(&root, stirred.plus_seconds(20)));
        manager(Duration::from_secs(301));
        assert!(!is_starting(&root, stirred.plus_seconds(1)));
    }

    proptest! {
        #[test]
        fn hostile_files_never_panic(text in "(\\[Service\\]|Type|=|\n|oneshot| ){0,20}") {
            runs_once(&[text.into_bytes()]);
        }
    }
}
