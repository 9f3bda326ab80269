//! Records into system calls: who did one, and which paths it named. Pure.
//!
//! Invariants: text that a process chose (names, paths, arguments) is quoted or in hexadecimal digits in what the kernel tells,
//! so it cannot pass for another field; a call is whole or not told at all; the number of those begun is bounded, the
//! oldest is given up.

use std::collections::VecDeque;

use trueline_drift::Time;

use super::netlink::KEY;
use crate::actor::procfs;

const SYSCALL: u16 = 1300;
const PATH: u16 = 1302;
const CWD: u16 = 1307;
const END: u16 = 1320;
const TITLE: u16 = 1327;
/// Calls begun and not yet ended.
const BEGUN: usize = 64;
/// Paths of one call; rename(2) has the most, with four.
const PATHS: usize = 8;

/// A successful system call that one of our rules caught.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// To the millisecond.
    pub at: Time,
    pub pid: u32,
    pub parent: u32,
    pub uid: u32,
    pub euid: u32,
    /// Absent for a process that nobody's login started.
    pub login_uid: Option<u32>,
    pub session: Option<u32>,
    pub exe: Option<Vec<u8>>,
    /// Begins of the arguments, each ended by a zero byte: the kernel keeps 128 bytes.
    pub title: Vec<u8>,
    pub cwd: Option<Vec<u8>>,
    pub paths: Vec<Named>,
}

/// An entry that the call named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// As the process named it.
    pub name: Vec<u8>,
    pub inode: u64,
    /// Major and minor number.
    pub device: (u32, u32),
    pub role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The folder of an entry that is made or removed.
    Folder,
    Made,
    Removed,
    There,
}

#[derive(Debug)]
struct Begun {
    serial: u64,
    call: Call,
}

#[derive(Debug, Default)]
pub struct Assembler {
    begun: VecDeque<Begun>,
}

impl Assembler {
    /// Takes the next record; the call that it ends, if any.
    pub fn take(&mut self, kind: u16, text: &[u8]) -> Option<Call> {
        let (at, serial, fields) = split(text)?;
        if kind == SYSCALL {
            if self.begun.len() >= BEGUN {
                self.begun.pop_front();
            }
            self.begun.extend(begin(at, fields).map(|call| Begun { serial, call }));
            return None;
        }
        let place = self.begun.iter().position(|begun| begun.serial == serial)?;
        let call = &mut self.begun[place].call;
        match kind {
            PATH if call.paths.len() < PATHS => call.paths.extend(named(fields)),
            CWD => call.cwd = text_of(fields, "cwd"),
            TITLE => call.title = text_of(fields, "proctitle").unwrap_or_default(),
            END => return self.begun.remove(place).map(|begun| begun.call),
            _ => {}
        }
        None
    }
}

/// Time, serial number and fields of `audit(1795354815.604:2): …`.
fn split(text: &[u8]) -> Option<(Time, u64, &[u8])> {
    let rest = text.strip_prefix(b"audit(")?;
    let end = rest.iter().position(|byte| *byte == b')')?;
    let (stamp, fields) = (std::str::from_utf8(&rest[..end]).ok()?, rest.get(end + 1..)?);
    let (time, serial) = stamp.split_once(':')?;
    let (seconds, millis) = time.split_once('.')?;
    let micros = seconds.parse::<i64>().ok()?.checked_mul(1_000_000)?.checked_add(millis.parse::<i64>().ok()?.checked_mul(1000)?)?;
    Some((Time::from_micros(micros), serial.parse().ok()?, fields))
}

/// The value of a field, as it stands there.
fn value<'a>(fields: &'a [u8], name: &str) -> Option<&'a [u8]> {
    // No value holds a blank: the kernel writes what would in hexadecimal digits.
    let tokens = fields.split(|byte| byte.is_ascii_whitespace() || *byte == 0);
    tokens.filter_map(|token| token.strip_prefix(name.as_bytes())?.strip_prefix(b"=")).next()
}

fn number(fields: &[u8], name: &str) -> Option<u32> {
    std::str::from_utf8(value(fields, name)?).ok()?.parse().ok()
}

/// `"text"`, or hexadecimal digits; `(null)` and the like are none.
fn text_of(fields: &[u8], name: &str) -> Option<Vec<u8>> {
    let value = value(fields, name)?;
    match value {
        [b'"', text @ .., b'"'] => Some(text.to_vec()),
        _ => hex::decode(value).ok(),
    }
}

fn begin(at: Time, fields: &[u8]) -> Option<Call> {
    let is_ours = text_of(fields, "key").is_some_and(|keys| keys.split(|byte| *byte == 1).any(|key| key == KEY.as_bytes()));
    if !is_ours || value(fields, "success") != Some(b"yes") {
        return None;
    }
    let login = |name| value(fields, name).and_then(procfs::parse_audit_id);
    Some(Call {
        at,
        pid: number(fields, "pid")?,
        parent: number(fields, "ppid")?,
        uid: number(fields, "uid")?,
        euid: number(fields, "euid")?,
        login_uid: login("auid"),
        session: login("ses"),
        exe: text_of(fields, "exe"),
        title: Vec::new(),
        cwd: None,
        paths: Vec::new(),
    })
}

fn named(fields: &[u8]) -> Option<Named> {
    let role = match value(fields, "nametype")? {
        b"PARENT" => Role::Folder,
        b"CREATE" => Role::Made,
        b"DELETE" => Role::Removed,
        b"NORMAL" => Role::There,
        _ => return None,
    };
    let (major, minor) = std::str::from_utf8(value(fields, "dev")?).ok()?.split_once(':')?;
    let hex = |text| u32::from_str_radix(text, 16).ok();
    let inode = std::str::from_utf8(value(fields, "inode")?).ok()?.parse().ok()?;
    Some(Named { name: text_of(fields, "name")?, inode, device: (hex(major)?, hex(minor)?), role })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CALL: &str = "arch=c000003e syscall=257 success=yes exit=3 a0=ffffff9c items=2 ppid=8657 pid=9489 auid=1000 uid=0 gid=0 euid=0 \
         suid=0 fsuid=0 tty=pts0 ses=3 comm=\"sh\" exe=\"/usr/bin/dash\" key=\"trueline\"";

    fn take(assembler: &mut Assembler, serial: u32, kind: u16, fields: &str) -> Option<Call> {
        assembler.take(kind, format!("audit(1795354815.900:{serial}): {fields}").as_bytes())
    }

    #[test]
    fn the_records_of_a_call_become_one_though_others_come_between() {
        let mut assembler = Assembler::default();
        let path = |name: &str, role: &str| format!("item=0 name={name} inode=7 dev=fe:00 mode=040755 nametype={role} cap_fp=0");
        for serial in [3, 4] {
            assert_eq!(take(&mut assembler, serial, SYSCALL, CALL), None);
            assert_eq!(take(&mut assembler, serial, CWD, "cwd=\"/etc\""), None);
        }
        take(&mut assembler, 3, PATH, &path("\"ssh\"", "PARENT"));
        // A name with a blank and a quote, which would else look like a field.
        take(&mut assembler, 3, PATH, &path(&hex::encode("ssh/a \"pid=1"), "CREATE"));
        take(&mut assembler, 3, PATH, &path("(null)", "NORMAL"));
        take(&mut assembler, 3, TITLE, "proctitle=7368002D63");
        let call = take(&mut assembler, 3, END, "").unwrap();
        assert_eq!((call.pid, call.parent, call.uid, call.login_uid, call.session), (9489, 8657, 0, Some(1000), Some(3)));
        assert_eq!(
            (call.exe.as_deref(), call.cwd.as_deref(), &call.title[..]),
            (Some(&b"/usr/bin/dash"[..]), Some(&b"/etc"[..]), &b"sh\0-c"[..])
        );
        let paths: Vec<_> = call.paths.iter().map(|path| (&path.name[..], path.role, path.device)).collect();
        assert_eq!(paths, [(&b"ssh"[..], Role::Folder, (0xfe, 0)), (b"ssh/a \"pid=1", Role::Made, (0xfe, 0))]);
        assert_eq!(call.at, Time::from_micros(1_795_354_815_900_000));
        assert!(take(&mut assembler, 3, END, "").is_none() && take(&mut assembler, 4, END, "").is_some());
    }

    #[test]
    fn what_failed_or_is_another_rules_is_left_out() {
        let mut assembler = Assembler::default();
        for fields in [
            CALL.replace("success=yes", "success=no"),
            CALL.replace("\"trueline\"", "\"identity\""),
            CALL.replace("\"trueline\"", "(null)"),
        ] {
            take(&mut assembler, 1, SYSCALL, &fields);
            assert_eq!(take(&mut assembler, 1, END, ""), None, "{fields}");
        }
        // Two rules caught it: their keys are joined.
        take(&mut assembler, 2, SYSCALL, &CALL.replace("\"trueline\"", &hex::encode("identity\u{1}trueline")));
        assert!(take(&mut assembler, 2, END, "").is_some());
    }

    #[test]
    fn calls_without_an_end_are_given_up() {
        let mut assembler = Assembler::default();
        for serial in 0..1000 {
            take(&mut assembler, serial, SYSCALL, CALL);
        }
        assert_eq!(assembler.begun.len(), BEGUN);
        assert!(take(&mut assembler, 1, END, "").is_none() && take(&mut assembler, 999, END, "").is_some());
    }

    proptest! {
        #[test]
        fn no_record_breaks_it(records in proptest::collection::vec((1295u16..1330, "(audit\\([0-9.:]{0,12}\\): )?[a-z=\"0-9 ]{0,80}"), 0..40)) {
            let mut assembler = Assembler::default();
            for (kind, text) in records {
                assembler.take(kind, text.as_bytes());
            }
        }
    }
}
