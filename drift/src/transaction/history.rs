//! apt's own history (/var/log/apt/history.log): a paragraph for each time that a run had dpkg change packages.
//!
//! Invariants: every text comes out printable and bounded, commands with their secrets masked; what does not read as apt writes
//! it is left out. It is a tool's word on itself: who asked for a run is told by its environment, and nothing is made surer by it.
//!
//! A run has an entry of its own by its arguments and its time. Of two runs with the same arguments, the one that waited for
//! the other's lock has the entries of both.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::{Outcome, program};
use crate::Time;
use crate::redact;
use crate::text::{bounded, printable};

/// The last entries of a log that are read.
const ENTRIES: usize = 256;
/// Packages of one run that are told.
const PACKAGES: usize = 1024;
const PACKAGE_TEXT: usize = 256;
const ERROR_TEXT: usize = 512;
const NAME_TEXT: usize = 128;
/// The log counts in seconds.
const SECOND: i64 = 1_000_000;
/// What apt did to packages, in its words.
const VERBS: [&str; 6] = ["Downgrade", "Install", "Purge", "Reinstall", "Remove", "Upgrade"];

/// Where a host's local times are read in.
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

impl Zone {
    pub const UTC: Self = Self(TimeZone::UTC);

    /// From what /etc/localtime holds. `None` for what is no time zone.
    pub fn from_tzif(bytes: &[u8]) -> Option<Self> {
        TimeZone::tzif("localtime", bytes).ok().map(Self)
    }

    /// `2026-02-12  10:30:01`. Where the clock was put back, the first of the two.
    fn time(&self, text: &str) -> Option<Time> {
        let mut words = text.split_ascii_whitespace();
        let (date, clock) = (words.next()?, words.next()?);
        if date.len() != 10 || clock.len() != 8 || words.next().is_some() {
            return None;
        }
        let local: DateTime = format!("{date}T{clock}").parse().ok()?;
        let at = self.0.to_ambiguous_timestamp(local).compatible().ok()?;
        Some(Time::from_micros(at.as_microsecond()).in_calendar())
    }
}

/// One paragraph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub began_at: Time,
    /// Absent while it is at work, and where it was broken off.
    pub ended_at: Option<Time>,
    pub command: Option<String>,
    pub requested_by: Option<String>,
    /// `upgrade nginx:amd64 1.22.1-9 -> 1.22.1-10`
    pub packages: Vec<String>,
    pub error: Option<String>,
}

/// What a run of apt says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// The end of its last entry; absent unless each of them ended.
    pub ended_at: Option<Time>,
    pub requested_by: Option<String>,
    pub packages: Vec<String>,
    pub error: Option<String>,
}

impl History {
    pub fn outcome(&self) -> Option<Outcome> {
        match (&self.error, self.ended_at) {
            (Some(_), _) => Some(Outcome::Failed),
            (None, Some(_)) => Some(Outcome::Succeeded),
            (None, None) => None,
        }
    }
}

/// The last entries of a log, or of the end of one, the oldest first.
pub fn entries(log: &[u8], zone: &Zone) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut lines: Vec<&[u8]> = Vec::new();
    for line in log.rsplit(|byte| *byte == b'\n') {
        if !line.trim_ascii().is_empty() {
            lines.push(line);
            continue;
        }
        entries.extend(entry(&lines, zone));
        lines.clear();
        if entries.len() >= ENTRIES {
            break;
        }
    }
    // What a cut took the beginning of has no beginning in time either.
    entries.extend(entry(&lines, zone));
    entries.truncate(ENTRIES);
    entries.reverse();
    entries
}

/// From its lines, the last first.
fn entry(lines: &[&[u8]], zone: &Zone) -> Option<Entry> {
    let mut began_at = None;
    let mut entry =
        Entry { began_at: Time::default(), ended_at: None, command: None, requested_by: None, packages: Vec::new(), error: None };
    for line in lines.iter().rev() {
        let line = printable(line);
        let Some((key, value)) = line.split_once(": ") else { continue };
        match key {
            "Start-Date" => began_at = zone.time(value),
            "End-Date" => entry.ended_at = zone.time(value),
            "Commandline" => entry.command = Some(masked(value)),
            "Requested-By" => entry.requested_by = Some(bounded(value, NAME_TEXT).into_owned()),
            "Error" => entry.error = Some(bounded(&redact::free_text(value), ERROR_TEXT).into_owned()),
            verb if VERBS.contains(&verb) => {
                let room = PACKAGES.saturating_sub(entry.packages.len());
                entry.packages.extend(packages(&verb.to_ascii_lowercase(), value).take(room));
            }
            _ => {}
        }
    }
    Some(Entry { began_at: began_at?, ..entry })
}

/// `a:amd64 (1, automatic), b:amd64 (1, 2)`
fn packages<'a>(verb: &'a str, value: &'a str) -> impl Iterator<Item = String> + 'a {
    value.split("), ").filter_map(move |package| {
        let (name, versions) = package.split_once(" (")?;
        let versions = versions.strip_suffix(')').unwrap_or(versions).split(", ").filter(|word| *word != "automatic");
        let versions: Vec<&str> = versions.collect();
        Some(bounded(&format!("{verb} {name} {}", versions.join(" -> ")), PACKAGE_TEXT).into_owned())
    })
}

fn masked(command: &str) -> String {
    // apt puts quotation marks around some arguments; which ones is not kept.
    let words: Vec<String> = command.replace('"', "").split_ascii_whitespace().map(str::to_owned).collect();
    redact::arguments(&words).join(" ")
}

/// What the entries say of a run that began and ended in this time. `command` is the run's own, masked, perhaps cut.
pub fn of_run(entries: &[Entry], command: &str, began_at: Time, ended_at: Time) -> Option<History> {
    // A second may have been begun before the run was.
    let is_in_time = |entry: &&Entry| entry.began_at.plus_micros(SECOND) > began_at && entry.began_at <= ended_at;
    let own = masked(command);
    let is_its = |entry: &&Entry| entry.command.as_deref().is_some_and(|command| is_same_command(&own, command));
    let its: Vec<&Entry> = entries.iter().filter(is_in_time).filter(is_its).collect();
    let last = its.last()?;
    let is_over = its.iter().all(|entry| entry.ended_at.is_some());
    Some(History {
        ended_at: last.ended_at.filter(|_| is_over),
        requested_by: its.iter().find_map(|entry| entry.requested_by.clone()),
        packages: its.iter().flat_map(|entry| entry.packages.iter().cloned()).take(PACKAGES).collect(),
        error: its.iter().find_map(|entry| entry.error.clone()),
    })
}

/// The first word is the program, by whichever of its names it was called: aptitude is aptitude-curses.
fn is_same_command(own: &str, told: &str) -> bool {
    let [own, told] = [own, told].map(|command| command.split_once(' ').unwrap_or((command, "")));
    let [name, told_name] = [own, told].map(|(program, _)| program::base(program));
    if name.is_empty() || told_name.is_empty() || !(name.starts_with(told_name) || told_name.starts_with(name)) {
        return false;
    }
    let [own, told] = [own, told].map(|(_, arguments)| arguments);
    match own.split_once('…') {
        // The beginning that is known is long: whatever was cut was.
        Some((beginning, _)) => told.starts_with(beginning.trim_end()),
        None => own == told,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As apt, aptitude and unattended-upgrades write it.
    const LOG: &[u8] = include_bytes!("history.log");

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    #[test]
    fn each_paragraph_is_an_entry_with_its_packages() {
        let shown: Vec<String> = entries(LOG, &Zone::UTC).iter().map(shown).collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        2026-02-12T10:30:02.000000Z 2026-02-12T10:30:04.000000Z apt-get -q -y install story tampered | alice (1000) | –
          install story:amd64 1
          install tampered:amd64 1
        2026-02-12T11:00:01.000000Z 2026-02-12T11:00:09.000000Z apt upgrade | alice (1000) | Sub-process /usr/bin/dpkg returned an error code (1)
          upgrade story:amd64 1 -> 2
        2026-02-13T06:00:01.000000Z 2026-02-13T06:00:02.000000Z /usr/bin/unattended-upgrade | – | –
          upgrade a:amd64 1 -> 2
        2026-02-13T06:00:03.000000Z 2026-02-13T06:00:04.000000Z /usr/bin/unattended-upgrade | – | –
          upgrade b:all 1:1.0-1 -> 1:1.0-2
        2026-02-14T06:00:03.000000Z – aptitude remove c | – | –
          remove c:amd64 1.0~rc1+dfsg-2
          purge d:amd64 3
        ");
    }

    fn shown(entry: &Entry) -> String {
        let Entry { began_at, ended_at, command, requested_by, packages, error } = entry;
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "–".to_owned());
        let ended = ended_at.map_or_else(|| "–".to_owned(), |at| at.to_string());
        let head = format!("{began_at} {ended} {} | {} | {}", text(command), text(requested_by), text(error));
        packages.iter().fold(head, |lines, package| format!("{lines}\n  {package}"))
    }

    #[test]
    fn a_run_has_the_entries_of_its_arguments_and_its_time() {
        let entries = entries(LOG, &Zone::UTC);
        let of = |command: &str, from: &str, until: &str| of_run(&entries, command, at(from), at(until));
        let began = "2026-02-12T10:30:00.500000Z";
        let install = of("apt-get -q -y install story tampered", began, "2026-02-12T10:31:00Z").unwrap();
        assert_eq!(install.packages, ["install story:amd64 1", "install tampered:amd64 1"]);
        assert_eq!((install.outcome(), install.requested_by.as_deref()), (Some(Outcome::Succeeded), Some("alice (1000)")));
        assert_eq!(install.ended_at, Some(at("2026-02-12T10:30:04Z")));
        // Another command, another program, another time.
        assert_eq!(of("zypper -q -y install story tampered", began, "2026-02-12T10:31:00Z"), None);
        assert_eq!(of("apt-get -q -y install story", began, "2026-02-12T10:31:00Z"), None);
        assert_eq!(of("apt-get -q -y install story tampered", "2026-02-12T10:30:06Z", "2026-02-12T10:31:00Z"), None);
        assert_eq!(of("apt-get -q -y install story tampered", "2026-02-12T10:29:00Z", "2026-02-12T10:29:59Z"), None);
        // Of a cut command the beginning is held against it.
        assert!(of("apt-get -q -y install st… (36 bytes in all)", began, "2026-02-12T10:31:00Z").is_some());
        let failed = of("apt upgrade", "2026-02-12T11:00:00Z", "2026-02-12T11:10:00Z").unwrap();
        assert_eq!((failed.outcome(), failed.ended_at), (Some(Outcome::Failed), Some(at("2026-02-12T11:00:09Z"))));
        // In minimal steps there are several entries.
        let nightly = of("unattended-upgrade", "2026-02-13T06:00:00Z", "2026-02-13T06:10:00Z").unwrap();
        assert_eq!(nightly.packages, ["upgrade a:amd64 1 -> 2", "upgrade b:all 1:1.0-1 -> 1:1.0-2"]);
        // One that was broken off did not end, and nothing says how it did.
        let broken = of("aptitude remove c", "2026-02-14T06:00:00Z", "2026-02-14T06:10:00Z").unwrap();
        assert_eq!((broken.outcome(), broken.ended_at), (None, None));
    }

    #[test]
    fn local_times_are_read_in_the_hosts_zone() {
        // Two hours east, and none of the transitions that a real zone has: the footer alone.
        let mut tzif = b"TZif2".to_vec();
        let block = |types: u8| {
            let mut block = [0; 15].to_vec();
            block.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, types, 0, 0, 0, 4]);
            block.extend(7200_i32.to_be_bytes());
            block.extend([0, 0]);
            block.extend(b"EET\0");
            block
        };
        tzif.extend(block(1));
        tzif.extend(b"TZif2");
        tzif.extend(block(1));
        tzif.extend(b"\nEET-2\n");
        let zone = Zone::from_tzif(&tzif).unwrap();
        assert_eq!(zone.time("2026-02-12  10:30:01"), Some(at("2026-02-12T08:30:01Z")));
        assert!(Zone::from_tzif(b"TZ").is_none());
        for text in ["2026-02-12", "2026-02-12 10:30:01 x", "2026-02-12 24:00:01", "99999-02-12 10:30:01", "+0262-02-1 10:30:01"] {
            assert_eq!(Zone::UTC.time(text), None, "{text}");
        }
    }

    #[test]
    fn secrets_in_a_command_are_masked_and_still_name_the_run() {
        let log = b"Start-Date: 2026-02-12  10:30:01\nCommandline: apt-get -o Acquire::http::Proxy=\"http://u:hunter2@p\" install x\n";
        let entries = entries(log, &Zone::UTC);
        assert!(!format!("{entries:?}").contains("hunter2"), "{entries:?}");
        let argv = ["-o", "Acquire::http::Proxy=http://u:hunter2@p", "install", "x"].map(str::to_owned);
        let own = format!("apt-get {}", redact::arguments(&argv).join(" "));
        assert!(of_run(&entries, &own, at("2026-02-12T10:30:00Z"), at("2026-02-12T10:30:02Z")).is_some(), "{own}");
    }

    #[test]
    fn a_log_of_any_length_has_a_bounded_number_of_bounded_entries() {
        let package = format!("{} (1), ", "p".repeat(10_000));
        let entry = format!("Start-Date: 2026-02-12  10:30:01\nInstall: {}\nError: {}\n\n", package.repeat(3), "e".repeat(10_000));
        let many = entries(entry.repeat(300).as_bytes(), &Zone::UTC);
        assert_eq!(many.len(), ENTRIES);
        assert!(many[0].packages.iter().all(|package| package.len() < PACKAGE_TEXT + 40) && many[0].packages.len() == 3);
        let one = format!("Start-Date: 2026-02-12  10:30:01\nInstall: {}\n", "p (1), ".repeat(5000));
        assert_eq!(entries(one.as_bytes(), &Zone::UTC)[0].packages.len(), PACKAGES);
    }

    proptest! {
        #[test]
        fn whatever_the_log_holds_comes_out_printable(log in proptest::collection::vec(any::<u8>(), 0..256), at in 0..400_usize) {
            let mut whole = LOG[..at.min(LOG.len())].to_vec();
            whole.extend(&log);
            whole.extend(&LOG[at.min(LOG.len())..]);
            for entry in entries(&whole, &Zone::UTC) {
                let texts = entry.packages.iter().chain(&entry.command).chain(&entry.requested_by).chain(&entry.error);
                for text in texts {
                    prop_assert!(!text.chars().any(char::is_control), "{text:?}");
                }
            }
        }
    }
}
