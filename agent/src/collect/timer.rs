//! systemd's timers: what each starts and when, as its file and its drop-ins make it together.
//!
//! Read from the folders of units as `unit` is, and for the same reason: the manager tells what it loaded.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::unit::{self, Found, Fragment};
use super::{CollectError, Collector, Listing, Root, listing, refusal, root};

const SUFFIX: &[u8] = b".timer";
const DROPINS_LIMIT: usize = 64;
const SCHEDULE_LIMIT: usize = 256;

/// Keys that say when. An empty value of any of them takes all back, of the others too (systemd.timer(5)).
const SCHEDULE: &[&str] = &["OnActiveSec", "OnBootSec", "OnCalendar", "OnStartupSec", "OnUnitActiveSec", "OnUnitInactiveSec"];
const OCCASIONS: &[&str] = &["OnClockChange", "OnTimezoneChange"];

pub const COLLECTOR: Collector =
    Collector { kind: ItemKind::Timer, sources: unit::FOLDERS, poll: None, read: |place| read_all(place.root) };

fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let found = unit::found(root)?;
    let timers = found.units.iter().filter(|(name, _)| name.ends_with(SUFFIX));
    let timers = timers.map(|(name, path)| (name.clone(), fields(root, &found, name, path)));
    Ok(listing(ItemKind::Timer, timers, 0))
}

fn fields(root: &Root, found: &Found, name: &[u8], path: &Path) -> Fields {
    let fragment = Fragment::read(root, path);
    let mut fields = Fields::new();
    fields.set(FieldName::known("enabled"), unit::enabled(found, name, &fragment));
    fields.set(FieldName::known("source"), Value::bytes(root.host_path(path).as_os_str().as_bytes()));
    let instances = unit::instances(found, name);
    if !instances.is_empty() {
        fields.set(FieldName::known("instances"), Value::list(instances));
    }
    // A masked timer starts nothing, whatever its drop-ins say.
    let Ok(Some(contents)) = fragment.contents else { return fields };
    if contents.is_empty() {
        return fields;
    }
    let mut timer = Timer::default();
    timer.take(&contents);
    for dropin in unit::dropins(found, name).values().take(DROPINS_LIMIT) {
        match root::read(dropin, unit::FRAGMENT_LIMIT) {
            Ok(contents) => timer.take(&contents.unwrap_or_default()),
            Err(error) => {
                // What it sets could be any of them.
                let reason = Value::unreadable(refusal::reason(&error));
                for field in ["persistent", "randomized_delay", "schedule", "unit"] {
                    fields.set(FieldName::known(field), reason.clone());
                }
                return fields;
            }
        }
    }
    timer.tell(name, &mut fields);
    fields
}

/// What the [Timer] sections come to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Timer {
    schedule: Vec<String>,
    /// Of [`OCCASIONS`].
    occasions: BTreeMap<&'static str, bool>,
    unit: Option<String>,
    persistent: bool,
    randomized_delay: Option<String>,
}

impl Timer {
    fn take(&mut self, contents: &[u8]) {
        let mut inside = false;
        let mut joined = Vec::new();
        for line in contents.split(|byte| *byte == b'\n') {
            let line = line.trim_ascii();
            // A comment within a continued line is passed over, and the line goes on.
            if line.starts_with(b"#") || line.starts_with(b";") {
                continue;
            }
            if let Some(begun) = line.strip_suffix(b"\\") {
                joined.extend_from_slice(begun);
                joined.push(b' ');
                continue;
            }
            joined.extend_from_slice(line);
            self.take_line(joined.trim_ascii(), &mut inside);
            joined.clear();
        }
        self.take_line(joined.trim_ascii(), &mut inside);
    }

    fn take_line(&mut self, line: &[u8], inside: &mut bool) {
        if line.starts_with(b"[") {
            *inside = line == b"[Timer]";
            return;
        }
        let Some(equals) = line.iter().position(|byte| *byte == b'=').filter(|_| *inside) else { return };
        let key = text::printable(line[..equals].trim_ascii());
        let value = text::printable(line[equals + 1..].trim_ascii());
        if SCHEDULE.contains(&&*key) {
            if value.is_empty() {
                self.schedule.clear();
            } else if self.schedule.len() < SCHEDULE_LIMIT {
                self.schedule.push(format!("{key}={value}"));
            }
        } else if let Some(occasion) = OCCASIONS.iter().find(|occasion| **occasion == key) {
            self.occasions.insert(occasion, is_true(&value));
        } else {
            match &*key {
                "Unit" => self.unit = Some(value.into_owned()).filter(|unit| !unit.is_empty()),
                "Persistent" => self.persistent = is_true(&value),
                "RandomizedDelaySec" => self.randomized_delay = Some(value.into_owned()).filter(|delay| !delay.is_empty() && delay != "0"),
                _ => {}
            }
        }
    }

    fn tell(mut self, name: &[u8], fields: &mut Fields) {
        let occasions = self.occasions.iter().filter(|(_, is_on)| **is_on);
        self.schedule.extend(occasions.map(|(occasion, _)| format!("{occasion}=yes")));
        fields.set(FieldName::known("schedule"), Value::list(self.schedule));
        fields.set(FieldName::known("persistent"), self.persistent.into());
        if let Some(delay) = self.randomized_delay {
            fields.set(FieldName::known("randomized_delay"), Value::text(&delay));
        }
        // Without a word it is the service of the same name.
        let unit = self
            .unit
            .map_or_else(|| Value::bytes(&[name.strip_suffix(SUFFIX).unwrap_or(name), b".service"].concat()), |unit| Value::text(&unit));
        fields.set(FieldName::known("unit"), unit);
    }
}

/// As systemd reads a boolean.
fn is_true(value: &str) -> bool {
    ["1", "yes", "y", "true", "t", "on"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(root: &Root) -> Vec<String> {
        let listing = read_all(root).unwrap();
        listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect()
    }

    fn write(folder: &tempfile::TempDir, path: &str, text: &str) {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn a_timer_is_what_its_file_and_drop_ins_make_it() {
        let folder = tempfile::tempdir().unwrap();
        let usr = "usr/lib/systemd/system";
        write(&folder, &format!("{usr}/fstrim.service"), "[Timer]\nOnCalendar=never\n");
        write(
            &folder,
            &format!("{usr}/apt-daily.timer"),
            "[Unit]\nOnCalendar=no\n[Timer]\nOnCalendar=*-*-* 6,18:00\nOnBootSec=\\\n# why\n  15min\nRandomizedDelaySec=12h\nPersistent=true\n[Install]\nWantedBy=timers.target\n",
        );
        write(&folder, &format!("{usr}/plain.timer"), "[Timer]\nOnUnitActiveSec=1d\nOnClockChange=yes\nUnit=other.service\n");
        assert_eq!(
            shown(&Root::at(folder.path())),
            [
                r#"timer:apt-daily.timer {"enabled":"disabled","persistent":true,"randomized_delay":"12h","schedule":["OnCalendar=*-*-* 6,18:00","OnBootSec=15min"],"source":"/usr/lib/systemd/system/apt-daily.timer","unit":"apt-daily.service"}"#,
                r#"timer:plain.timer {"enabled":"static","persistent":false,"schedule":["OnUnitActiveSec=1d","OnClockChange=yes"],"source":"/usr/lib/systemd/system/plain.timer","unit":"other.service"}"#,
            ]
        );
        // An empty value of one takes back the others too; the more particular folder's file of a name counts.
        write(&folder, "etc/systemd/system/apt-.timer.d/10.conf", "[Timer]\nPersistent=no\n");
        write(&folder, "etc/systemd/system/apt-.timer.d/20.conf", "[Timer]\nOnCalendar=yearly\n");
        write(&folder, "etc/systemd/system/apt-daily.timer.d/20.conf", "[Timer]\nOnBootSec=\nOnCalendar=hourly\n");
        write(&folder, "etc/systemd/system/timer.d/30.conf", "[Timer]\nUnit=all.service\n");
        assert_eq!(
            shown(&Root::at(folder.path()))[0],
            r#"timer:apt-daily.timer {"enabled":"disabled","persistent":false,"randomized_delay":"12h","schedule":["OnCalendar=hourly"],"source":"/usr/lib/systemd/system/apt-daily.timer","unit":"all.service"}"#
        );
    }

    #[test]
    fn a_masked_timer_has_no_schedule_and_one_that_cannot_be_read_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let usr = "usr/lib/systemd/system";
        write(&folder, &format!("{usr}/a.timer"), "[Timer]\nOnCalendar=daily\n");
        write(&folder, &format!("{usr}/b.timer"), "[Timer]\nOnCalendar=daily\n");
        write(&folder, "etc/systemd/system/b.timer.d/huge.conf", &"#".repeat(unit::FRAGMENT_LIMIT as usize + 1));
        std::os::unix::fs::symlink("/dev/null", folder.path().join("etc/systemd/system/a.timer")).unwrap();
        let shown = shown(&Root::at(folder.path()));
        assert_eq!(shown[0], r#"timer:a.timer {"enabled":"masked","source":"/etc/systemd/system/a.timer"}"#);
        assert!(shown[1].contains(r#""schedule":{"unreadable":"#), "{}", shown[1]);
    }

    proptest! {
        #[test]
        fn hostile_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(\\[Timer\\]|OnCalendar|Unit|=|\\\\|\n|a| ){0,60}") {
            for contents in [&bytes[..], text.as_bytes()] {
                let mut timer = Timer::default();
                timer.take(contents);
                prop_assert!(timer.schedule.len() <= SCHEDULE_LIMIT);
                timer.tell(b"a.timer", &mut Fields::new());
            }
        }
    }
}
