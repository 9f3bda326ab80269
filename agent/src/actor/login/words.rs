//! What logind, su and sudo say of sessions in the journal. Pure: entries in, values out.
//!
//! Only fields that the journal itself sets decide who speaks, and within which login. su and sudo speak with the uid of whoever
//! started them: another program of that user's may have spoken and become one of them before the journal looked. So
//! what they say is sure only where the kernel told that root spoke, and else a guess, about that user's own login alone.

use std::collections::HashMap;

use serde_json::Value;
use trueline_drift::redact;
use trueline_drift::text::{bounded, printable};
use trueline_drift::{Certainty, Time};

use super::AuditSession;
use super::journal::{entries, program_of, time_of};
use crate::collect::session::{Means, Step};

/// logind's number for its message that a session is gone.
pub const SESSION_REMOVED: &str = "3354939424b4456d9802ca8333ed424a";
/// Where distributions have them.
pub const SUDO: &[&str] = &["/usr/bin/sudo", "/bin/sudo"];
pub const SU: &[&str] = &["/usr/bin/su", "/bin/su"];
/// Entries that are asked for, the latest.
pub const WORDS: usize = 2000;
const NAME_LIMIT: usize = 64;
const COMMAND_LIMIT: usize = 1024;

/// The process that began one within a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    pub session: AuditSession,
    pub means: Means,
    pub pid: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// logind let go of a session.
    Removed {
        session: AuditSession,
        at: Time,
    },
    Opened {
        place: Place,
        step: Step,
    },
    Closed {
        place: Place,
        at: Time,
    },
}

/// In the order of the journal.
pub fn parse_words(output: &[u8]) -> Vec<Word> {
    let mut commands: HashMap<Place, Said> = HashMap::new();
    entries(output, WORDS).filter_map(|entry| word(&entry, &mut commands)).collect()
}

/// What sudo says before it opens a session.
struct Said {
    command: String,
    terminal: Option<String>,
}

fn word(entry: &Value, commands: &mut HashMap<Place, Said>) -> Option<Word> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str);
    let (message, at) = (text("MESSAGE")?, time_of(entry)?);
    let is_root = text("_UID") == Some("0");
    if text("MESSAGE_ID") == Some(SESSION_REMOVED) {
        let session = text("SESSION_ID")?.parse().ok().filter(|_| is_root && program_of(entry) == Some("systemd-logind"))?;
        return Some(Word::Removed { session: AuditSession(session), at });
    }
    let means = match text("_EXE")? {
        exe if SUDO.contains(&exe) => Means::Sudo,
        exe if SU.contains(&exe) => Means::Su,
        _ => return None,
    };
    let session = text("_AUDIT_SESSION")?.parse().ok().filter(|session| !matches!(session, 0 | &u32::MAX))?;
    let place = Place { session: AuditSession(session), means, pid: text("_PID")?.parse().ok()? };
    let Some(told) = pam_word(message, means) else {
        if let Some(said) = command(message).filter(|_| means == Means::Sudo) {
            commands.insert(place, said);
        }
        return None;
    };
    if told.starts_with("closed for user ") {
        return Some(Word::Closed { place, at });
    }
    let as_user = told.strip_prefix("opened for user ")?.split([' ', '(']).next()?;
    let said = commands.remove(&place);
    let (command, terminal) = said.map_or((None, None), |said| (Some(said.command), said.terminal));
    let certainty = if is_root { Certainty::Strong } else { Certainty::Correlated };
    Some(Word::Opened { place, step: Step { means, certainty, as_user: name(as_user), command, terminal, began_at: at } })
}

/// `pam_unix(sudo:session): session …`, the rest of it.
fn pam_word(message: &str, means: Means) -> Option<&str> {
    let (service, told) = message.strip_prefix("pam_unix(")?.split_once(":session): session ")?;
    let is_own = match means {
        Means::Sudo => matches!(service, "sudo" | "sudo-i"),
        Means::Su => matches!(service, "su" | "su-l"),
    };
    is_own.then_some(told)
}

/// `alice : TTY=pts/1 ; PWD=/home/alice ; USER=root ; COMMAND=/usr/bin/id`
fn command(message: &str) -> Option<Said> {
    let (_, told) = message.split_once(" : ")?;
    let (before, command) = told.split_once(" ; COMMAND=")?;
    let terminal = before.strip_prefix("TTY=").and_then(|rest| rest.split(" ; ").next());
    let terminal = terminal.filter(|terminal| terminal.starts_with("pts/") || terminal.starts_with("tty")).map(name);
    let command: String = printable(command.as_bytes()).into_owned();
    let argv: Vec<String> = command.split(' ').map(str::to_owned).collect();
    Some(Said { command: bounded(&redact::arguments(&argv).join(" "), COMMAND_LIMIT).into_owned(), terminal })
}

fn name(text: &str) -> String {
    bounded(&printable(text.as_bytes()), NAME_LIMIT).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(exe: &str, uid: u32, pid: u32, message: &str, at: u32) -> String {
        let entry = serde_json::json!({
            "_EXE": exe, "_UID": uid.to_string(), "_PID": pid.to_string(), "_AUDIT_SESSION": "1500", "_AUDIT_LOGINUID": "1000",
            "MESSAGE": message, "__REALTIME_TIMESTAMP": at.to_string(),
        });
        format!("{entry}\n")
    }

    const SUDO: &str = "/usr/bin/sudo";
    const SU: &str = "/usr/bin/su";

    /// What Debian 12 says of `sudo -u bob env …`, of `su bob`, and of `sudo su - bob -c id`, in a login over ssh that then ends.
    #[test]
    fn what_su_sudo_and_logind_say_is_told_with_the_command_and_how_sure_it_is() {
        let removed = serde_json::json!({
            "_EXE": "/usr/lib/systemd/systemd-logind", "_UID": "0", "_PID": "41", "_COMM": "systemd-logind", "SESSION_ID": "1500",
            "USER_ID": "alice", "LEADER": "67", "MESSAGE": "Removed session 1500.", "MESSAGE_ID": SESSION_REMOVED,
            "__REALTIME_TIMESTAMP": "9",
        });
        let output = [
            said(SUDO, 0, 82, "   alice : unable to resolve host h-sess: Temporary failure in name resolution", 1),
            said(SUDO, 1000, 82, "   alice : TTY=pts/1 ; PWD=/home/alice ; USER=bob ; COMMAND=/usr/bin/env API_TOKEN=x /bin/echo hello", 1),
            said(SUDO, 1000, 82, "pam_limits(sudo:session): Could not set limit for 'core' to soft=0, hard=-1: Operation not permitted", 1),
            said(SUDO, 1000, 82, "pam_unix(sudo:session): session opened for user bob(uid=1001) by alice(uid=1000)", 2),
            said(SUDO, 1000, 82, "pam_unix(sudo:session): session closed for user bob", 3),
            said(SU, 1000, 86, "(to bob) alice on none", 4),
            said(SU, 1000, 86, "pam_unix(su:session): session opened for user bob(uid=1001) by (uid=1000)", 4),
            said(SU, 1000, 86, "pam_unix(su:session): session closed for user bob", 5),
            said(SU, 0, 91, "(to bob) root on pts/2", 6),
            said(SU, 0, 91, "pam_unix(su-l:session): session opened for user bob(uid=1001) by alice(uid=0)", 7),
            said(SU, 0, 91, "pam_unix(su-l:session): session closed for user bob", 8),
            removed.to_string(),
        ];
        let told = parse_words(output.concat().as_bytes());
        let lines: Vec<String> = told.iter().map(|word| format!("{word:?}")).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        Opened { place: Place { session: AuditSession(1500), means: Sudo, pid: 82 }, step: Step { means: Sudo, certainty: Correlated, as_user: "bob", command: Some("/usr/bin/env API_TOKEN=[redacted] /bin/echo hello"), terminal: Some("pts/1"), began_at: Time(2) } }
        Closed { place: Place { session: AuditSession(1500), means: Sudo, pid: 82 }, at: Time(3) }
        Opened { place: Place { session: AuditSession(1500), means: Su, pid: 86 }, step: Step { means: Su, certainty: Correlated, as_user: "bob", command: None, terminal: None, began_at: Time(4) } }
        Closed { place: Place { session: AuditSession(1500), means: Su, pid: 86 }, at: Time(5) }
        Opened { place: Place { session: AuditSession(1500), means: Su, pid: 91 }, step: Step { means: Su, certainty: Strong, as_user: "bob", command: None, terminal: None, began_at: Time(7) } }
        Closed { place: Place { session: AuditSession(1500), means: Su, pid: 91 }, at: Time(8) }
        Removed { session: AuditSession(1500), at: Time(9) }
        "#);
    }

    #[test]
    fn another_program_or_one_without_a_login_says_nothing() {
        let opened = "pam_unix(sudo:session): session opened for user root(uid=0) by alice(uid=1000)";
        for exe in ["/home/alice/sudo", "/usr/bin/logger", SU, ""] {
            assert_eq!(parse_words(said(exe, 1000, 8, opened, 1).as_bytes()), [], "{exe}");
        }
        assert_eq!(parse_words(said(SUDO, 1000, 8, opened, 1).replace("1500", "4294967295").as_bytes()), []);
        let removed = serde_json::json!({
            "_EXE": "/usr/bin/logger", "_UID": "1000", "SESSION_ID": "7", "MESSAGE": "", "MESSAGE_ID": SESSION_REMOVED, "__REALTIME_TIMESTAMP": "9",
        });
        assert_eq!(parse_words(removed.to_string().as_bytes()), []);
    }

    proptest! {
        #[test]
        fn anything_reads_without_a_panic_and_within_bounds(noise: Vec<u8>, message in "(pam_unix\\(sudo:session\\): session opened for user |.* ; COMMAND=).{0,300}") {
            let _ = parse_words(&noise);
            for word in parse_words(said(SUDO, 0, 8, &message, 1).as_bytes()) {
                if let Word::Opened { step, .. } = word {
                    prop_assert!(step.as_user.len() <= NAME_LIMIT + 40 && !step.as_user.chars().any(char::is_control));
                }
            }
        }
    }
}
