//! Questions to the journal: which process opened a session, and what sshd said when it let its user in.
//!
//! Only fields that the journal itself sets are believed (those that begin with an underscore); it takes them from the
//! kernel, about the sender of a message. See systemd.journal-fields(7).

use std::io;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use trueline_drift::Time;
use trueline_drift::text::{bounded, printable};

use super::AuditSession;
use super::accepted::{Accepted, parse_accepted};
use super::words::{SESSION_REMOVED, SU, SUDO, WORDS, Word, parse_words};
use crate::clock;
use crate::collect::program::{run, succeeded};

/// A big journal on a slow disk takes a second or two.
const DEADLINE: Duration = Duration::from_secs(4);
const OUTPUT_LIMIT: usize = 1 << 20;
const WORDS_LIMIT: usize = 8 << 20;
const FIELDS: &str = "MESSAGE,_COMM,_EXE,LEADER,USER_ID";
const WORDS_FIELDS: &str = "MESSAGE,_COMM,_EXE,_PID,_UID,_AUDIT_SESSION,SESSION_ID,MESSAGE_ID";
const ENTRIES: usize = 64;
const NAME_LIMIT: usize = 64;
/// sshd gives a login two minutes (LoginGraceTime) between the first word and the session; and the clocks of two programs.
const BEFORE: i64 = 180 * 1_000_000;
const AFTER: i64 = 2 * 1_000_000;
/// systemd's number for its message that a session was opened.
const SESSION_OPENED: &str = "8d45620c1a4348dbb17410da57c60c66";

/// Who opened a session, as logind told the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    pub user: String,
    pub leader: u32,
    pub at: Time,
}

/// Whose word is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    pub leader: u32,
    pub user: String,
    pub session_began: Time,
}

pub trait Journal: Send + 'static {
    fn opening(&mut self, session: AuditSession) -> io::Result<Option<Opening>>;
    fn accepted(&mut self, admission: &Admission) -> io::Result<Option<Accepted>>;
    /// What logind, su and sudo said of sessions since then, of this boot.
    fn words(&mut self, since: Time) -> io::Result<Vec<Word>>;
}

/// Asks journalctl(1), which reads what the agent's user may read: nothing, unless that is in the group systemd-journal.
#[derive(Debug, Default)]
pub struct Journalctl(());

impl Journalctl {
    fn ask(arguments: &[String]) -> io::Result<Vec<u8>> {
        Self::ask_for(FIELDS, ENTRIES, arguments, OUTPUT_LIMIT)
    }

    fn ask_for(fields: &str, entries: usize, arguments: &[String], limit: usize) -> io::Result<Vec<u8>> {
        let mut command = Command::new("journalctl");
        command.args(["--quiet", "--no-pager", "--output=json"]).arg(format!("--output-fields={fields}"));
        run(command.arg(format!("--lines={entries}")).args(arguments), DEADLINE, limit).and_then(succeeded)
    }
}

impl Journal for Journalctl {
    fn opening(&mut self, session: AuditSession) -> io::Result<Option<Opening>> {
        // Numbers of sessions begin anew with each boot. By time, for in a container the journal may name the boot otherwise.
        let since = format!("--since=@{}", booted()?.micros().div_euclid(1_000_000));
        let (message, of_session) = (format!("MESSAGE_ID={SESSION_OPENED}"), format!("SESSION_ID={}", session.0));
        Self::ask(&[since, message, of_session, "_UID=0".to_owned()]).map(|output| parse_opening(&output))
    }

    fn accepted(&mut self, admission: &Admission) -> io::Result<Option<Accepted>> {
        // Whole seconds, as journalctl takes them.
        let second = |micros: i64| micros.div_euclid(1_000_000);
        let began = admission.session_began.micros();
        let since = format!("--since=@{}", second(began.saturating_sub(BEFORE)));
        let until = format!("--until=@{}", second(began.saturating_add(AFTER)).saturating_add(1));
        let output = Self::ask(&[since, until, format!("_PID={}", admission.leader), "_UID=0".to_owned()])?;
        Ok(pick_accepted(&output, admission))
    }

    fn words(&mut self, since: Time) -> io::Result<Vec<Word>> {
        let since = format!("--since=@{}", since.micros().div_euclid(1_000_000));
        let removed = format!("MESSAGE_ID={SESSION_REMOVED}");
        // By the executable: whoever calls himself sudo could crowd out what it says.
        let programs = SUDO.iter().chain(SU).map(|path| format!("_EXE={path}"));
        let matches: Vec<String> = [since, removed, "_UID=0".to_owned(), "+".to_owned()].into_iter().chain(programs).collect();
        Self::ask_for(WORDS_FIELDS, WORDS, &matches, WORDS_LIMIT).map(|output| parse_words(&output))
    }
}

/// When the host began to run, by its present clock.
pub fn booted() -> io::Result<Time> {
    let up = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(Duration::from)?;
    Ok(Time::from_micros(clock::now().micros().saturating_sub(i64::try_from(up.as_micros()).unwrap_or(i64::MAX))))
}

/// The last word of acceptance before the session began: its pid may have been another sshd's before.
pub fn pick_accepted(output: &[u8], admission: &Admission) -> Option<Accepted> {
    let latest = admission.session_began.micros().saturating_add(AFTER);
    let words = entries(output, ENTRIES).filter(|entry| is_sshd(entry) && time_of(entry).is_some_and(|at| at.micros() <= latest));
    words.filter_map(|entry| parse_accepted(entry.get("MESSAGE")?.as_str()?, &admission.user)).last()
}

pub fn parse_opening(output: &[u8]) -> Option<Opening> {
    let entry = entries(output, ENTRIES).filter(|entry| program_of(entry) == Some("systemd-logind")).last()?;
    let user = entry.get("USER_ID")?.as_str()?;
    Some(Opening {
        user: bounded(&printable(user.as_bytes()), NAME_LIMIT).into_owned(),
        leader: entry.get("LEADER")?.as_str()?.parse().ok()?,
        at: time_of(&entry)?,
    })
}

/// One JSON object a line; what is none is left out.
pub(super) fn entries(output: &[u8], most: usize) -> impl Iterator<Item = Value> {
    output.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).take(most)
}

pub(super) fn time_of(entry: &Value) -> Option<Time> {
    entry.get("__REALTIME_TIMESTAMP")?.as_str()?.parse().ok().map(Time::from_micros)
}

/// The sender's executable, else its name: the journal cannot always look at the first.
pub(super) fn program_of(entry: &Value) -> Option<&str> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    text("_EXE").map_or_else(|| text("_COMM"), |path| path.rsplit('/').next())
}

/// sshd; since OpenSSH 9.8 a program of its own for each connection.
fn is_sshd(entry: &Value) -> bool {
    matches!(program_of(entry), Some("sshd" | "sshd-session"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "SHA256:N+GuxVoGPIh0OfsixHT6ehMxUujikazXnHRk06f0qkY";
    const BEGAN: i64 = 1_795_353_877_872_665;

    fn admission() -> Admission {
        Admission { leader: 61, user: "alice".to_owned(), session_began: Time::from_micros(BEGAN) }
    }

    fn said(exe: &str, message: &str, at: i64) -> String {
        format!("{}\n", serde_json::json!({ "_EXE": exe, "_COMM": "sshd", "MESSAGE": message, "__REALTIME_TIMESTAMP": at.to_string() }))
    }

    fn accepted(port: u16) -> String {
        format!("Accepted publickey for alice from 10.79.1.1 port {port} ssh2: ED25519 {KEY}")
    }

    #[test]
    fn sshds_word_for_this_login_is_found_among_others() {
        let output = [
            said("/usr/sbin/sshd", &accepted(1), BEGAN - 90_000_000),
            "no entry\n".to_owned(),
            said("/usr/sbin/sshd", &accepted(2), BEGAN - 30_000),
            said("/usr/sbin/sshd", "pam_unix(sshd:session): session opened for user alice(uid=1000) by (uid=0)", BEGAN),
            said("/usr/bin/logger", &accepted(3), BEGAN - 10),
            said("/usr/sbin/sshd", &accepted(4), BEGAN + 60_000_000),
        ];
        let found = pick_accepted(output.concat().as_bytes(), &admission()).unwrap();
        assert_eq!((found.origin.port, found.key.as_deref()), (Some(2), Some(KEY)));
        let of_bob = Admission { user: "bob".to_owned(), ..admission() };
        assert_eq!(pick_accepted(output.concat().as_bytes(), &of_bob), None);
        let newer = said("/usr/lib/openssh/sshd-session", &accepted(5), BEGAN);
        assert!(pick_accepted(newer.as_bytes(), &admission()).is_some());
    }

    #[test]
    fn who_opened_a_session_is_logind_s_word_alone() {
        let entry = |exe: &str| {
            let entry = serde_json::json!({ "_EXE": exe, "USER_ID": "al\u{1b}ice", "LEADER": "61", "__REALTIME_TIMESTAMP": "5" });
            parse_opening(entry.to_string().as_bytes())
        };
        let opening = Opening { user: "al\\x1bice".to_owned(), leader: 61, at: Time::from_micros(5) };
        assert_eq!(entry("/usr/lib/systemd/systemd-logind"), Some(opening));
        assert_eq!(entry("/usr/bin/logger"), None);
        assert_eq!(parse_opening(b""), None);
    }

    proptest! {
        #[test]
        fn anything_reads_without_a_panic(noise: Vec<u8>, message in ".{0,80}", at: i64) {
            let _ = (pick_accepted(&noise, &admission()), parse_opening(&noise));
            let _ = pick_accepted(said("/usr/sbin/sshd", &message, at).as_bytes(), &admission());
        }
    }
}
