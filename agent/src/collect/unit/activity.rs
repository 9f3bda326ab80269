//! Which units are active, from the links that systemd keeps for as long as each is: no manager needs to be asked.
//!
//! `/run/systemd/units/invocation:NAME` comes when a unit begins and goes when it is inactive or failed (`unit_notify` of systemd's
//! src/core/unit.c, since version 238). Invariant: while the host starts or stops nothing is told, for then every unit is about to change.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use trueline_drift::Value;

use super::Found;
use crate::collect::Root;

pub const FOLDER: &str = "/run/systemd/units";
const PREFIX: &[u8] = b"invocation:";
const UNITS_LIMIT: usize = 65_536;

/// Where nothing says what a host starts up to.
const USUAL: &[u8] = b"multi-user.target";
const DEFAULT: &[u8] = b"default.target";

/// Those that go on until somebody ends them.
const LASTING: [&[u8]; 4] = [b".service", b".socket", b".timer", b".path"];

#[derive(Debug)]
pub struct Activity {
    active: BTreeSet<Vec<u8>>,
}

impl Activity {
    /// `None` where systemd keeps no such links: it does not run, or is older.
    pub fn read(root: &Root) -> io::Result<Option<Self>> {
        let entries = match std::fs::read_dir(root.path(FOLDER)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries?,
        };
        let mut active = BTreeSet::new();
        for entry in entries {
            let name = entry?.file_name();
            if let Some(unit) = name.as_bytes().strip_prefix(PREFIX) {
                active.insert(unit.to_vec());
            }
            if active.len() > UNITS_LIMIT {
                return Err(io::Error::other(format!("more than {UNITS_LIMIT} units are active")));
            }
        }
        Ok(Some(Self { active }))
    }

    /// Whether the host has started whole and does not stop: what it starts up to comes last, and goes first.
    pub fn is_settled(&self, found: &Found) -> bool {
        let target = found.units.get(DEFAULT).and_then(|path| std::fs::read_link(path).ok());
        let target = target.as_deref().and_then(Path::file_name).map_or(USUAL, |name| name.as_bytes());
        self.active.contains(target)
    }

    /// Nothing for units that come and go by themselves, or that others call.
    pub fn of(&self, name: &[u8], enabled: &Value, is_wanted: bool, files: &[Vec<u8>]) -> Option<Value> {
        let is_lasting = LASTING.iter().any(|suffix| name.ends_with(suffix)) && !name.windows(2).any(|pair| pair == b"@.");
        let is_called = matches!(enabled, Value::Text(state) if state == "alias" || (state == "static" && !is_wanted));
        (is_lasting && !is_called && !runs_once(files)).then(|| Value::from(self.active.contains(name)))
    }
}

/// Whether a service's process is expected to end: `Type=oneshot`, over its file and its drop-ins in their order.
fn runs_once(files: &[Vec<u8>]) -> bool {
    let mut kind: &[u8] = b"";
    for file in files {
        let mut inside = false;
        for line in file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            if line.starts_with(b"[") {
                inside = line == b"[Service]";
            } else if let Some(equals) = line.iter().position(|byte| *byte == b'=').filter(|_| inside)
                && line[..equals].trim_ascii() == b"Type"
            {
                kind = line[equals + 1..].trim_ascii();
            }
        }
    }
    kind == b"oneshot"
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
    }

    proptest! {
        #[test]
        fn hostile_files_never_panic(text in "(\\[Service\\]|Type|=|\n|oneshot| ){0,20}") {
            runs_once(&[text.into_bytes()]);
        }
    }
}
