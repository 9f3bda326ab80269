use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::tz::TimeZone;
use trueline_drift::BootId;
use trueline_drift::candidate::Candidate;

use super::package_log::{PackageLog, parse_history, parse_log};
use super::*;
use crate::actor::login::{AuditSession, Login};
use crate::collect::session::Step;

fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
}

fn shown(activities: &[Activity]) -> String {
    let line = |activity: &Activity| {
        let candidate = Candidate { activity: activity.clone(), matched: trueline_drift::candidate::Match::Time, distance_seconds: 0 };
        let ended = activity.ended_at.map_or_else(|| "on".to_owned(), |at| at.to_string());
        format!("{}..{} {}", activity.began_at, ended, candidate.summary()).replace(".000000", "")
    };
    activities.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Of apt-get on Debian 12, in winter.
const LOG: &str = "\
2026-11-22 10:00:00 startup archives unpack
2026-11-22 10:00:00 upgrade openssl:amd64 3.0.1-1 3.0.2-1
2026-11-22 10:00:00 status half-configured openssl:amd64 3.0.1-1
2026-11-22 10:00:02 status unpacked openssl:amd64 3.0.2-1
2026-11-22 10:00:03 startup packages configure
2026-11-22 10:00:03 configure openssl:amd64 3.0.2-1 <none>
2026-11-22 10:00:04 status installed openssl:amd64 3.0.2-1
2026-11-22 10:00:04 trigproc libc-bin:amd64 2.36-9 <none>
2026-11-22 10:00:05 status installed libc-bin:amd64 2.36-9
2026-11-22 11:00:00 install jq:amd64 <none> 1.6-2
2026-11-22 11:00:01 status unpacked jq:amd64 1.6-2
2026-11-22 12:00:00 remove jq:amd64 1.6-2 <none>
2026-11-22 12:00:01 purge jq:amd64 1.6-2 <none>
2026-11-22 13:00:00 status triggers-pending libc-bin:amd64 2.36-9
2026-11-22 13:00:01 status installed openssl:amd64 3.0.2-1
";

const HISTORY: &str = "
Start-Date: 2026-11-22  09:59:58
Commandline: apt-get upgrade --password=x
Requested-By: alice (1000)
Upgrade: openssl:amd64 (3.0.1-1, 3.0.2-1), libssl3:amd64 (3.0.1-1, 3.0.2-1)
End-Date: 2026-11-22  10:00:05

Start-Date: 2026-11-22  11:30:00
Commandline: apt-get install jq
Install: jq:amd64 (1.6-2)
End-Date: 2026-11-22  11:30:01
";

#[test]
fn an_upgrade_with_its_configuration_is_one_entry_and_apt_says_of_its_packages_alone_who_asked() {
    let zone = berlin();
    let entries = parse_log(LOG.as_bytes(), &parse_history(HISTORY.as_bytes(), &zone), &zone);
    insta::assert_snapshot!(shown(&entries), @r"
    2026-11-22T09:00:00Z..2026-11-22T09:00:05Z upgrade of openssl 3.0.1-1 -> 3.0.2-1 by apt-get upgrade --password=[redacted], for alice (1000)
    2026-11-22T09:00:04Z..2026-11-22T09:00:06Z configure of libc-bin 2.36-9
    2026-11-22T10:00:00Z..2026-11-22T10:00:02Z install of jq 1.6-2
    2026-11-22T11:00:00Z..2026-11-22T11:00:01Z remove of jq 1.6-2
    2026-11-22T11:00:01Z..2026-11-22T11:00:02Z purge of jq 1.6-2
    ");
}

#[test]
fn a_run_that_was_broken_off_has_no_part_in_what_came_later() {
    let history = "Start-Date: 2026-11-01  10:00:00\nCommandline: apt-get install jq\nInstall: jq:amd64 (1.6)\n
Start-Date: 2026-11-01  10:10:00\nCommandline: apt-get install yq\nInstall: yq:amd64 (1)\n";
    let log = "2026-11-01 10:00:01 install jq:amd64 <none> 1.6\n2026-11-01 10:10:01 upgrade jq:amd64 1.6 1.7\n\
        2026-11-01 10:10:02 install yq:amd64 <none> 1\n2026-11-08 10:00:00 upgrade yq:amd64 1 2\n";
    let zone = TimeZone::UTC;
    insta::assert_snapshot!(shown(&parse_log(log.as_bytes(), &parse_history(history.as_bytes(), &zone), &zone)), @r"
    2026-11-01T10:00:01Z..2026-11-01T10:00:02Z install of jq 1.6 by apt-get install jq
    2026-11-01T10:10:01Z..2026-11-01T10:10:02Z upgrade of jq 1.6 -> 1.7
    2026-11-01T10:10:02Z..2026-11-01T10:10:03Z install of yq 1 by apt-get install yq
    2026-11-08T10:00:00Z..2026-11-08T10:00:01Z upgrade of yq 1 -> 2
    ");
}

#[test]
fn in_the_hour_that_comes_twice_an_entry_may_be_of_either() {
    let log = "2026-10-25 02:30:00 install jq:amd64 <none> 1.6\n2026-07-01 12:00:00 install yq:amd64 <none> 1\n";
    insta::assert_snapshot!(shown(&parse_log(log.as_bytes(), &[], &berlin())), @r"
    2026-10-25T00:30:00Z..2026-10-25T01:30:01Z install of jq 1.6
    2026-07-01T10:00:00Z..2026-07-01T10:00:01Z install of yq 1
    ");
}

#[test]
fn a_line_that_dpkg_does_not_write_is_passed_over() {
    let zone = TimeZone::UTC;
    let hostile = [
        "2026-11-22 10:00:00 install \u{1b}[31mjq:amd64 <none> 1.6",
        "2026-11-22 10:00:00 install jq:amd64 <none> 1.6\u{202e}",
        "2026-11-22 10:00:00 install ../../etc/passwd <none> 1.6",
        "2026-11-22 10:00:00 install jq:../x <none> 1.6",
        "2026-11-22 10:00:00 install jq:amd64 <none>",
        "2026-13-22 10:00:00 install jq:amd64 <none> 1.6",
        "2026-11-22 10:00:61 install jq:amd64 <none> 1.6",
        "2026-11-2\u{e9}10:00:00 install jq:amd64 <none> 1.6",
        "+026-11-22 10:00:00 install jq:amd64 <none> 1.6",
        "2026-11-22 10:00:00",
        "",
    ]
    .map(str::to_owned);
    let long = format!("2026-11-22 10:00:00 install {} <none> 1.6", "a".repeat(2_000_000));
    for line in hostile.iter().chain([&long]) {
        assert_eq!(parse_log(line.as_bytes(), &[], &zone), [], "{}", line.get(..80).unwrap_or(line));
    }
    assert_eq!(parse_log(b"2026-11-22 10:00:00 install j\xffq <none> 1\n", &[], &zone), []);
    let after = format!("{long}\n2026-11-22 10:00:00 install jq:amd64 <none> 1.6");
    assert_eq!(parse_log(after.as_bytes(), &[], &zone).len(), 1);
}

proptest::proptest! {
    #[test]
    fn anything_reads_without_a_panic(log: Vec<u8>, line in "2026-11-22 10:00:0[0-9] (install|status|configure) .{0,40} .{0,40} .{0,40}") {
        let zone = berlin();
        let _ = (parse_log(&log, &[], &zone), parse_history(&log, &zone));
        for activity in parse_log(line.as_bytes(), &[], &zone) {
            let summary = shown(&[activity]);
            proptest::prop_assert!(!summary.chars().any(char::is_control), "{summary:?}");
        }
    }
}

/// A host in a folder, with logs as its root has written them.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("var/log/apt")).unwrap();
        Self(folder)
    }

    fn log(&self) -> std::path::PathBuf {
        self.0.path().canonicalize().unwrap().join("var/log/dpkg.log")
    }

    fn packages(&self) -> PackageLog {
        PackageLog::beneath(&Root::at(self.0.path().canonicalize().unwrap()))
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
}

#[test]
fn a_log_is_read_with_the_one_before_its_rotation_and_again_once_it_has_grown() {
    let host = Host::new();
    write(&host.log().with_extension("log.1"), "2026-11-01 10:00:00 install old:amd64 <none> 1\n");
    write(&host.log(), "2026-11-22 10:00:00 install jq:amd64 <none> 1.6\n");
    let mut packages = host.packages();
    insta::assert_snapshot!(shown(packages.entries()), @r"
    2026-11-01T10:00:00Z..2026-11-01T10:00:01Z install of old 1
    2026-11-22T10:00:00Z..2026-11-22T10:00:01Z install of jq 1.6
    ");
    write(&host.log(), LOG);
    assert_eq!(packages.entries().len(), 6);
}

#[test]
fn of_a_huge_log_the_end_is_read() {
    let host = Host::new();
    let line = |number: u32| format!("2026-11-22 10:00:00 install p{number:07}:amd64 <none> 1.6\n");
    write(&host.log(), &(0..60_000).map(line).collect::<String>());
    let mut packages = host.packages();
    let entries = packages.entries();
    assert_eq!(entries.len(), 4096);
    assert!(shown(&entries[4095..]).ends_with("install of p0059999 1.6"), "{}", shown(&entries[4095..]));
    // One line that never ends.
    write(&host.log(), &"x".repeat(3_000_000));
    assert_eq!(packages.entries(), []);
}

#[test]
fn what_is_no_regular_file_of_roots_is_no_log() {
    let host = Host::new();
    let elsewhere = host.log().with_file_name("elsewhere");
    write(&elsewhere, LOG);
    std::os::unix::fs::symlink(&elsewhere, host.log()).unwrap();
    assert_eq!(host.packages().entries(), []);
    std::fs::remove_file(host.log()).unwrap();
    // Opening it would wait for a writer for ever.
    nix::unistd::mkfifo(&host.log(), nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    assert_eq!(host.packages().entries(), []);
    std::fs::remove_file(host.log()).unwrap();
    std::fs::create_dir(host.log()).unwrap();
    assert_eq!(host.packages().entries(), []);
    std::fs::remove_dir(host.log()).unwrap();
    write(&host.log(), LOG);
    assert_eq!(host.packages().entries().len(), 5);
    std::fs::set_permissions(host.log(), PermissionsExt::from_mode(0o666)).unwrap();
    assert_eq!(host.packages().entries(), []);
}

#[test]
fn a_session_that_was_told_of_is_as_one_that_is_known() {
    let boot: BootId = "3f2a9c01-d4e7-4a55-8d2c-0123456789ab".parse().unwrap();
    let login = Login {
        certainty: Certainty::Strong,
        kind: SessionKind::Ssh,
        uid: Some(1000),
        user: Some("alice".to_owned()),
        origin: Some(Origin { address: "10.0.0.9".parse().unwrap(), port: Some(51022) }),
        terminal: Some("pts/0".to_owned()),
        key: Some("SHA256:abc".to_owned()),
        began_at: Time::from_seconds(100),
    };
    let mut session = HostSession::of_login(boot, AuditSession(42), &login).unwrap();
    session.ended_at = Some(Time::from_seconds(300));
    let step = Step {
        means: Means::Sudo,
        certainty: Certainty::Correlated,
        as_user: "root".to_owned(),
        command: Some("/usr/bin/vim /etc/hosts".to_owned()),
        terminal: None,
        began_at: Time::from_seconds(150),
    };
    let sudo = session.with_step(812, step).unwrap();
    assert_eq!(of_fields(&session.key, &session.fields()), of_session(&session));
    let told = of_fields(&sudo.key, &sudo.fields()).unwrap();
    insta::assert_snapshot!(shown(&[of_session(&session).unwrap(), told]), @r"
    1970-01-01T00:01:40Z..1970-01-01T00:05:00Z alice's ssh session 3f2a9c01d4e7-42 from 10.0.0.9 port 51022
    1970-01-01T00:02:30Z..on alice's sudo as root: /usr/bin/vim /etc/hosts, within session 3f2a9c01d4e7-42 from 10.0.0.9 port 51022
    ");
    assert_eq!(of_fields(&session.key, &Fields::new()), None);
}
