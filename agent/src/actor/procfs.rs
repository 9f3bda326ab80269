//! Parses what /proc/PID holds. Pure: bytes in, values out. See proc_pid_stat(5) and its siblings.
//!
//! Names and arguments were chosen by whoever started the process: they come out printable and
//! bounded, arguments with their secrets masked.

use trueline_drift::redact;
use trueline_drift::text::{bounded, printable};

/// Longest command line that is looked at, in bytes.
pub const ARGUMENT_BYTES: usize = 4096;
const ARGUMENTS: usize = 64;
const ARGUMENT_TEXT: usize = 512;
/// What the kernel writes for "never set".
const UNSET: u32 = u32::MAX;

/// The parts of /proc/PID/stat that tell one process, and one program in it, from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// At most 15 bytes, printable.
    pub name: String,
    pub parent: u32,
    /// It waits without heeding signals, as for a disk or a file server.
    pub is_stuck: bool,
    /// It is over, and waits for its parent to ask how it ended.
    pub is_ended: bool,
    /// It runs no program: the kernel started it for itself.
    pub is_kernels: bool,
    /// Terminal's device number; 0 for none.
    pub terminal: u32,
    /// Clock ticks since the host booted.
    pub started: u64,
    /// Where the program's arguments lie: moves with each exec. 0 once the process has ended.
    pub arguments_at: u64,
}

/// The name may hold blanks and brackets, so the fields are counted from the last bracket.
pub fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let open = bytes.iter().position(|byte| *byte == b'(')?;
    let close = bytes.iter().rposition(|byte| *byte == b')')?;
    let name = printable(bytes.get(open + 1..close)?).into_owned();
    /// `PF_KTHREAD` of linux/sched.h.
    const KERNEL_THREAD: u32 = 0x0020_0000;
    let rest = std::str::from_utf8(&bytes[close + 1..]).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The first field after the name is the manual's number 3.
    let field = |number: usize| fields.get(number - 3);
    Some(Stat {
        name,
        parent: field(4)?.parse().ok()?,
        is_stuck: *field(3)? == "D",
        is_ended: matches!(*field(3)?, "Z" | "X"),
        is_kernels: field(9)?.parse::<u32>().ok()? & KERNEL_THREAD != 0,
        terminal: field(7).and_then(|text| text.parse::<i32>().ok()).unwrap_or(0).cast_unsigned(),
        started: field(22)?.parse().ok()?,
        arguments_at: field(48).and_then(|text| text.parse().ok()).unwrap_or(0),
    })
}

/// `pts/3` or `tty1`, for the device numbers of terminals that people sit at.
pub fn terminal_name(device: u32) -> Option<String> {
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    match major {
        136..=143 => Some(format!("pts/{}", (major - 136) * 256 + minor)),
        4 if minor < 64 => Some(format!("tty{minor}")),
        4 => Some(format!("ttyS{}", minor - 64)),
        _ => None,
    }
}

/// Real and effective user of /proc/PID/status.
pub fn parse_users(status: &[u8]) -> Option<(u32, u32)> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    let mut ids = std::str::from_utf8(line).ok()?.split_ascii_whitespace().map(str::parse);
    Some((ids.next()?.ok()?, ids.next()?.ok()?))
}

/// /proc/PID/cmdline, masked and bounded; a last argument `…` stands for what was left out.
pub fn parse_arguments(cmdline: &[u8]) -> Vec<String> {
    if cmdline.is_empty() {
        return Vec::new();
    }
    let cut = cmdline.len() >= ARGUMENT_BYTES;
    let body = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
    let all: Vec<String> = body.split(|byte| *byte == 0).map(|argument| printable(argument).into_owned()).collect();
    let mut arguments: Vec<String> =
        redact::arguments(&all).iter().take(ARGUMENTS).map(|argument| bounded(argument, ARGUMENT_TEXT).into_owned()).collect();
    if cut || all.len() > ARGUMENTS {
        arguments.push("…".to_owned());
    }
    arguments
}

/// /proc/PID/loginuid and sessionid; `None` for a process that nobody's login started.
pub fn parse_audit_id(bytes: &[u8]) -> Option<u32> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok().filter(|id| *id != UNSET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_made_to_look_like_fields_does_not_shift_them() {
        let tail = "S 41 1 1 34819 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 169047 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 777 0 0 0";
        let stat = parse_stat(format!("42 (a) S 1 (\n) {tail}").as_bytes()).unwrap();
        assert_eq!((stat.parent, stat.started, stat.arguments_at), (41, 169_047, 777));
        assert_eq!(stat.name, "a) S 1 (\\x0a");
        assert!(!stat.is_stuck && parse_stat(format!("42 (S) {}", tail.replacen('S', "D", 1)).as_bytes()).unwrap().is_stuck);
        assert_eq!(terminal_name(stat.terminal), Some("pts/3".to_owned()));
        assert_eq!(parse_stat(b"42 (x"), None);
        assert_eq!(parse_stat(b"42 )x("), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn our_own_stat_reads_back() {
        let stat = parse_stat(&std::fs::read("/proc/self/stat").unwrap()).unwrap();
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
        assert!(stat.started > 0 && !stat.is_kernels);
    }

    #[test]
    fn an_unset_login_is_no_login() {
        assert_eq!(parse_audit_id(b"4294967295"), None);
        assert_eq!(parse_audit_id(b"1000\n"), Some(1000));
        assert_eq!(parse_audit_id(b""), None);
    }

    #[test]
    fn real_and_effective_user_are_told_apart() {
        assert_eq!(parse_users(b"Name:\tUid: 9\nUid:\t1000\t0\t0\t0\nGid:\t1\n"), Some((1000, 0)));
        assert_eq!(parse_users(b"Name:\tx\n"), None);
    }

    #[test]
    fn arguments_are_masked_printable_and_bounded() {
        assert_eq!(parse_arguments(b"tool\0--password=hunter2\0\x1b[2J\0"), ["tool", "--password=[redacted]", "\\x1b[2J"]);
        let many = b"x\0".repeat(300);
        let arguments = parse_arguments(&many);
        assert_eq!((arguments.len(), arguments.last().unwrap().as_str()), (ARGUMENTS + 1, "…"));
        assert!(parse_arguments(&vec![b'y'; ARGUMENT_BYTES]).iter().all(|argument| argument.len() <= ARGUMENT_TEXT + 40));
        assert!(parse_arguments(b"").is_empty());
    }
}
