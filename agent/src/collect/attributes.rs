//! Decodes what file systems keep beside a file: ACLs, capabilities, inode flags, extended
//! attributes. Pure: bytes in, text out; malformed bytes answer `None` and are shown raw.

use std::fmt::Write;

use sha2::{Digest, Sha256};
use trueline_drift::{Value, text};

/// Longest attribute value shown in full; of a longer one its digest is kept.
const SHOWN: usize = 1024;

/// A POSIX ACL in the kernel's form (linux/posix_acl_xattr.h) as `user::rw-,user:1000:r--,…`. The
/// outer `None`: not an ACL; the inner: one that says no more than the mode does.
pub fn acl(bytes: &[u8]) -> Option<Option<String>> {
    let (version, rest) = split_u32(bytes)?;
    if version != 2 || !rest.len().is_multiple_of(8) {
        return None;
    }
    let mut text = String::new();
    let mut trivial = true;
    for entry in rest.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let permissions = u16::from_le_bytes([entry[2], entry[3]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        if !text.is_empty() {
            text.push(',');
        }
        trivial &= matches!(tag, 0x01 | 0x04 | 0x20);
        match tag {
            0x01 => text.push_str("user::"),
            0x02 => _ = write!(text, "user:{id}:"),
            0x04 => text.push_str("group::"),
            0x08 => _ = write!(text, "group:{id}:"),
            0x10 => text.push_str("mask::"),
            0x20 => text.push_str("other::"),
            _ => return None,
        }
        for (bit, letter) in [(4, 'r'), (2, 'w'), (1, 'x')] {
            text.push(if permissions & bit != 0 { letter } else { '-' });
        }
    }
    Some((!trivial).then_some(text))
}

/// Names by number, from linux/capability.h.
const CAPABILITIES: [&str; 41] = [
    "cap_chown",
    "cap_dac_override",
    "cap_dac_read_search",
    "cap_fowner",
    "cap_fsetid",
    "cap_kill",
    "cap_setgid",
    "cap_setuid",
    "cap_setpcap",
    "cap_linux_immutable",
    "cap_net_bind_service",
    "cap_net_broadcast",
    "cap_net_admin",
    "cap_net_raw",
    "cap_ipc_lock",
    "cap_ipc_owner",
    "cap_sys_module",
    "cap_sys_rawio",
    "cap_sys_chroot",
    "cap_sys_ptrace",
    "cap_sys_pacct",
    "cap_sys_admin",
    "cap_sys_boot",
    "cap_sys_nice",
    "cap_sys_resource",
    "cap_sys_time",
    "cap_sys_tty_config",
    "cap_mknod",
    "cap_lease",
    "cap_audit_write",
    "cap_audit_control",
    "cap_setfcap",
    "cap_mac_override",
    "cap_mac_admin",
    "cap_syslog",
    "cap_wake_alarm",
    "cap_block_suspend",
    "cap_audit_read",
    "cap_perfmon",
    "cap_bpf",
    "cap_checkpoint_restore",
];

/// `security.capability` (struct vfs_cap_data, revisions 1 to 3) as cap_to_text(3) writes it:
/// `cap_net_raw=ep`, with ` [rootid=1000]` after it where a user namespace owns it.
pub fn capabilities(bytes: &[u8]) -> Option<String> {
    let (magic, mut rest) = split_u32(bytes)?;
    let (words, has_root) = match magic >> 24 {
        1 => (1, false),
        2 => (2, false),
        3 => (2, true),
        _ => return None,
    };
    let (mut permitted, mut inheritable) = (0_u64, 0_u64);
    for word in 0..words {
        let (low, after) = split_u32(rest)?;
        let (high, after) = split_u32(after)?;
        permitted |= u64::from(low) << (32 * word);
        inheritable |= u64::from(high) << (32 * word);
        rest = after;
    }
    let effective = if magic & 1 != 0 { permitted | inheritable } else { 0 };
    let root = if has_root { split_u32(rest)?.0 } else { 0 };
    let mut groups = Vec::<(String, String)>::new();
    for number in 0..64_usize {
        let bit = 1 << number;
        let letters: String = [(effective, 'e'), (inheritable, 'i'), (permitted, 'p')]
            .into_iter()
            .filter(|(set, _)| set & bit != 0)
            .map(|(_, l)| l)
            .collect();
        if letters.is_empty() {
            continue;
        }
        let name = CAPABILITIES.get(number).map_or_else(|| format!("cap_{number}"), |name| (*name).to_owned());
        match groups.iter_mut().find(|(known, _)| *known == letters) {
            Some((_, names)) => _ = write!(names, ",{name}"),
            None => groups.push((letters, name)),
        }
    }
    let mut text = groups.iter().map(|(letters, names)| format!("{names}={letters}")).collect::<Vec<_>>().join(" ");
    if text.is_empty() {
        text.push('=');
    }
    if root != 0 {
        _ = write!(text, " [rootid={root}]");
    }
    Some(text)
}

/// Inode flags as the letters of lsattr(1), without those by which a file system notes how it
/// stores the file (extents, inline data, indexed folders, huge files).
pub fn flags(bits: u32) -> Option<String> {
    const LETTERS: [(u32, char); 16] = [
        (0x0000_0001, 's'),
        (0x0000_0002, 'u'),
        (0x0000_0008, 'S'),
        (0x0001_0000, 'D'),
        (0x0000_0010, 'i'),
        (0x0000_0020, 'a'),
        (0x0000_0040, 'd'),
        (0x0000_0080, 'A'),
        (0x0000_0004, 'c'),
        (0x0000_0800, 'E'),
        (0x0000_4000, 'j'),
        (0x0000_8000, 't'),
        (0x0002_0000, 'T'),
        (0x0080_0000, 'C'),
        (0x0010_0000, 'V'),
        (0x4000_0000, 'F'),
    ];
    let text: String = LETTERS.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, letter)| letter).collect();
    (!text.is_empty()).then_some(text)
}

/// The value of any other attribute: text where it is text, else `0x…`, else a digest of it.
pub fn xattr(bytes: &[u8]) -> Value {
    let shown = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.len() > SHOWN {
        return Value::Text(format!("sha256:{} ({} bytes)", hex::encode(Sha256::digest(bytes)), bytes.len()));
    }
    match std::str::from_utf8(shown) {
        // What could be taken for the other two forms is shown in hexadecimal.
        Ok(plain) if text::printable(shown) == plain && !plain.starts_with("0x") && !plain.starts_with("sha256:") => Value::text(plain),
        _ => Value::Text(format!("0x{}", hex::encode(bytes))),
    }
}

fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*word), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn acl_bytes(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn an_acl_names_who_gets_what_and_one_that_repeats_the_mode_is_left_out() {
        let bytes = acl_bytes(&[(1, 6, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)]);
        assert_eq!(acl(&bytes), Some(Some("user::rw-,user:1000:r--,group::r--,mask::r--,other::---".into())));
        assert_eq!(acl(&acl_bytes(&[(1, 6, u32::MAX), (4, 4, u32::MAX), (0x20, 4, u32::MAX)])), Some(None));
        assert_eq!(acl(b"\x03\0\0\0"), None);
    }

    #[test]
    fn capabilities_read_as_their_tools_write_them() {
        let bytes = |magic: u32, words: [u32; 4]| {
            let mut bytes = magic.to_le_bytes().to_vec();
            words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
            bytes
        };
        assert_eq!(capabilities(&bytes(0x0200_0001, [1 << 13, 0, 0, 0])).unwrap(), "cap_net_raw=ep");
        assert_eq!(capabilities(&bytes(0x0200_0000, [1 << 13 | 1 << 12, 0, 1 << 7, 0])).unwrap(), "cap_net_admin,cap_net_raw,cap_bpf=p");
        assert_eq!(capabilities(&bytes(0x0200_0001, [1 << 13, 1 << 10, 0, 0])).unwrap(), "cap_net_bind_service=ei cap_net_raw=ep");
        let mut namespaced = bytes(0x0300_0001, [1 << 7, 0, 0, 0]);
        namespaced.extend(1000_u32.to_le_bytes());
        assert_eq!(capabilities(&namespaced).unwrap(), "cap_setuid=ep [rootid=1000]");
        assert_eq!(capabilities(b"\x01\0\0\x02"), None);
    }

    #[test]
    fn flags_of_policy_are_letters_and_those_of_storage_are_nothing() {
        assert_eq!(flags(0x0008_0000 | 0x1000), None);
        assert_eq!(flags(0x10 | 0x20 | 0x0008_0000).as_deref(), Some("ia"));
    }

    #[test]
    fn attribute_values_stay_distinct_and_bounded() {
        assert_eq!(xattr(b"system_u:object_r:etc_t:s0\0"), Value::text("system_u:object_r:etc_t:s0"));
        assert_eq!(xattr(b"\x00\xff"), Value::text("0x00ff"));
        assert_ne!(xattr(b"0x00ff"), xattr(b"\x00\xff"));
        let (mut a, b) = (vec![7; 60_000], vec![7; 60_000]);
        a[59_999] = 8;
        assert_ne!(xattr(&a), xattr(&b));
        assert!(xattr(&a).to_string().len() < 100);
    }

    proptest! {
        #[test]
        fn hostile_attributes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128), revision in 0_u8..5) {
            let mut versioned = vec![revision & 2, 0, 0, revision];
            versioned.extend(&bytes);
            for bytes in [&bytes, &versioned] {
                let _ = (acl(bytes), capabilities(bytes), xattr(bytes));
            }
        }
    }
}
