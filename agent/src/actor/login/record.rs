//! A session's record as logind keeps it in /run/systemd/sessions. Pure: bytes in, values out.

use trueline_drift::Time;
use trueline_drift::actor::SessionKind;
use trueline_drift::text::{bounded, printable};

use super::AuditSession;

const NAME_LIMIT: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub session: AuditSession,
    pub uid: Option<u32>,
    pub user: Option<String>,
    pub kind: SessionKind,
    /// An address, or the name that an address was looked up as.
    pub remote_host: Option<String>,
    pub terminal: Option<String>,
    /// The process that opened it.
    pub leader: Option<u32>,
    pub began_at: Time,
}

/// Lines of `KEY=value`. `None` for a session that has no audit session, or does not say when it began.
pub fn parse_record(bytes: &[u8]) -> Option<Record> {
    let text = printable_lines(bytes);
    let field = |key: &str| {
        let value = text.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(value.trim_matches('"')).filter(|value| !value.is_empty())
    };
    let name = |key: &str| field(key).map(|value| bounded(value, NAME_LIMIT).into_owned());
    let number = |key: &str| field(key).and_then(|value| value.parse::<u32>().ok());
    let began: i64 = field("REALTIME")?.parse().ok()?;
    Some(Record {
        session: AuditSession(number("AUDIT").filter(|id| *id != 0 && *id != u32::MAX)?),
        uid: number("UID"),
        user: name("USER"),
        kind: field("SERVICE").map_or(SessionKind::Other, kind_of),
        remote_host: name("REMOTE_HOST"),
        terminal: name("TTY").filter(|terminal| terminal.starts_with("pts/") || terminal.starts_with("tty")),
        leader: number("LEADER"),
        began_at: Time::from_micros(began),
    })
}

fn printable_lines(bytes: &[u8]) -> Vec<String> {
    bytes.split(|byte| *byte == b'\n').map(|line| printable(line).into_owned()).collect()
}

/// By the service that the session was opened for with PAM: each has a file of this name in /etc/pam.d.
fn kind_of(service: &str) -> SessionKind {
    match service {
        "sshd" => SessionKind::Ssh,
        "login" | "remote" | "gdm-password" | "gdm-autologin" | "gdm-fingerprint" | "gdm-smartcard" | "lightdm" | "lightdm-autologin"
        | "sddm" | "sddm-autologin" | "greetd" | "xdm" => SessionKind::Console,
        "su" | "su-l" | "runuser" | "runuser-l" | "sudo" | "sudo-i" | "polkit-1" => SessionKind::Su,
        "cron" | "crond" | "atd" => SessionKind::Cron,
        "systemd-user" => SessionKind::Service,
        _ => SessionKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SSH: &str = "# This is private data. Do not parse.\nUID=1000\nUSER=alice\nACTIVE=1\nSTATE=active\nREMOTE=1\nTYPE=tty\nCLASS=user\n\
        SCOPE=session-436.scope\nREMOTE_HOST=10.79.1.1\nSERVICE=sshd\nPOSITION=0\nLEADER=61\nAUDIT=436\nREALTIME=1795353877872665\n";

    #[test]
    fn a_login_over_ssh_reads_as_one() {
        let record = parse_record(SSH.as_bytes()).unwrap();
        assert_eq!((record.session, record.uid, record.leader), (AuditSession(436), Some(1000), Some(61)));
        assert_eq!((record.user.as_deref(), record.remote_host.as_deref()), (Some("alice"), Some("10.79.1.1")));
        assert_eq!((record.kind, record.terminal), (SessionKind::Ssh, None));
        assert_eq!(record.began_at, Time::from_micros(1_795_353_877_872_665));
    }

    #[test]
    fn services_are_told_apart_and_what_is_no_audit_session_is_left_out() {
        let of = |service: &str| parse_record(SSH.replace("=sshd", &format!("={service}")).as_bytes()).unwrap().kind;
        let kinds = ["login", "su-l", "crond", "systemd-user", "cockpit"].map(of);
        assert_eq!(kinds, [SessionKind::Console, SessionKind::Su, SessionKind::Cron, SessionKind::Service, SessionKind::Other]);
        for without in ["AUDIT=436", "REALTIME=1795353877872665"] {
            assert_eq!(parse_record(SSH.replace(without, "").as_bytes()), None, "{without}");
        }
        assert_eq!(parse_record(SSH.replace("AUDIT=436", "AUDIT=4294967295").as_bytes()), None);
        let seated = SSH.replace("=sshd", "=login\nTTY=tty1");
        assert_eq!(parse_record(seated.as_bytes()).unwrap().terminal.as_deref(), Some("tty1"));
    }

    proptest! {
        #[test]
        fn anything_reads_without_a_panic_and_within_bounds(lines in "(([A-Z_]{1,8}|AUDIT|REALTIME|USER|REMOTE_HOST)=.{0,200}\n){0,20}", noise: Vec<u8>) {
            let mut bytes = b"AUDIT=3\nREALTIME=5\n".to_vec();
            bytes.extend(lines.as_bytes());
            bytes.extend(&noise);
            if let Some(record) = parse_record(&bytes) {
                for text in [record.user, record.remote_host, record.terminal].into_iter().flatten() {
                    prop_assert!(text.len() <= NAME_LIMIT + 40 && !text.chars().any(char::is_control), "{text:?}");
                }
            }
            let _ = parse_record(&noise);
        }
    }
}
