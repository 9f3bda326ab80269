//! Kernel settings, from /proc/sys. Settings that the policy leaves out are not even opened:
//! reading some of them has an effect, and others hold keys.

use std::io::{self, Read};
use std::path::Path;

use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Fields, ItemKey, ItemKind, Value, text};

use super::{CollectError, Listing, Reading, Root, listing, refusal};
use crate::kernel::file::{EntryType, Pinned, entries};

const SETTINGS: &str = "/proc/sys";
const VALUE_LIMIT: u64 = 4096;
const DEPTH_LIMIT: usize = 16;

pub fn read_all(root: &Root, policy: &WatchPolicy) -> Result<Listing, CollectError> {
    let mut found = Vec::new();
    let top = Pinned::follow(&root.path(SETTINGS)).map_err(|error| CollectError::database(SETTINGS, &error))?;
    walk(&top, "", DEPTH_LIMIT, policy, &mut found).map_err(|error| CollectError::database(SETTINGS, &error))?;
    Ok(listing(ItemKind::Sysctl, found, 0))
}

/// One setting by its name. `None`: there is none, or it can only be written.
pub fn read_one(root: &Root, name: &ItemKey) -> Result<Option<Reading>, CollectError> {
    let Some(path) = path(&name.bytes()) else { return Ok(None) };
    let mut place = root.path(SETTINGS).into_os_string().into_encoded_bytes();
    place.push(b'/');
    place.extend(path);
    match Pinned::open(&place) {
        Ok(pinned) => Ok(setting(&pinned).map(|fields| Reading { fields, stamp: None })),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(CollectError::database(format!("the kernel setting {name}"), &error)),
    }
}

/// The name of the setting at a path beneath /proc/sys: dots between segments, a `/` for a dot
/// within one, as sysctl(8) writes it.
pub fn name(path: &Path) -> String {
    let segments = path.iter().map(|segment| swapped(&text::printable(segment.as_encoded_bytes())));
    segments.collect::<Vec<_>>().join(".")
}

fn swapped(segment: &str) -> String {
    segment.replace('.', "/")
}

/// The path beneath /proc/sys of a setting, or `None` where the name could lead out of it.
fn path(name: &[u8]) -> Option<Vec<u8>> {
    let segments: Vec<Vec<u8>> = name
        .split(|byte| *byte == b'.')
        .map(|segment| segment.iter().map(|byte| if *byte == b'/' { b'.' } else { *byte }).collect())
        .collect();
    let is_plain = |segment: &Vec<u8>| !segment.is_empty() && segment != b"." && segment != b"..";
    segments.iter().all(is_plain).then(|| segments.join(&b'/'))
}

fn walk(folder: &Pinned, prefix: &str, depth: usize, policy: &WatchPolicy, found: &mut Vec<(Vec<u8>, Fields)>) -> io::Result<()> {
    let contents = folder.contents()?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let packed = contents.list(&mut buffer)?;
        if packed.is_empty() {
            return Ok(());
        }
        for (entry, _) in entries(packed) {
            let segment = swapped(&text::printable(entry.to_bytes()));
            let name = if prefix.is_empty() { segment } else { format!("{prefix}.{segment}") };
            // Settings come and go with network interfaces.
            let Ok(pinned) = Pinned::at(contents.folder(), entry) else { continue };
            match pinned.metadata.entry_type {
                EntryType::Folder if depth > 0 => walk(&pinned, &name, depth - 1, policy, found).or_else(gone)?,
                EntryType::File if policy.watches_sysctl(&name) => {
                    if let Some(fields) = setting(&pinned) {
                        found.push((text::original(&name).into_owned(), fields));
                    }
                }
                _ => {}
            }
        }
    }
}

fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound || error.kind() == io::ErrorKind::PermissionDenied { Ok(()) } else { Err(error) }
}

/// `None` for a setting that can only be written, or that has gone with its network interface.
fn setting(pinned: &Pinned) -> Option<Fields> {
    if pinned.metadata.entry_type != EntryType::File || pinned.metadata.mode & 0o444 == 0 {
        return None;
    }
    let mut bytes = Vec::new();
    let read = pinned.contents().and_then(|contents| contents.into_file().take(VALUE_LIMIT + 1).read_to_end(&mut bytes));
    let value = match read {
        Ok(_) => {
            let shown: Vec<u8> = bytes.trim_ascii().iter().map(|byte| if *byte == b'\t' { b' ' } else { *byte }).collect();
            Value::bytes(&shown)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => Value::unreadable(refusal::reason(&error)),
    };
    Some([(trueline_drift::FieldName::known("value"), value)].into_iter().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trueline_drift::pattern::Pattern;

    use super::*;

    fn key(name: &str) -> ItemKey {
        ItemKey::from_text(name).unwrap()
    }

    fn sample() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join("proc/sys").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("net/ipv4/ip_forward", "0\n");
        write("net/ipv4/conf/eth0.100/forwarding", "1\n");
        write("net/ipv4/tcp_rmem", "4096\t131072\t6291456\n");
        write("kernel/secret", "hidden\n");
        write("kernel/long", &"x".repeat(10_000));
        let root = Root::at(folder.path());
        (folder, root)
    }

    #[test]
    fn settings_are_named_as_their_tool_names_them_and_excluded_ones_are_not_read() {
        let (_folder, root) = sample();
        let policy = WatchPolicy { exclude_sysctls: vec![Pattern::new("kernel.secret")], ..WatchPolicy::default() };
        let listing = read_all(&root, &policy).unwrap();
        let shown: Vec<_> = listing
            .items
            .iter()
            .filter(|(item, _)| item.key.as_str() != "kernel.long")
            .map(|(item, reading)| format!("{item} = {}", reading.fields.value("value").unwrap()))
            .collect();
        assert_eq!(
            shown,
            [
                "sysctl:net.ipv4.conf.eth0/100.forwarding = 1",
                "sysctl:net.ipv4.ip_forward = 0",
                "sysctl:net.ipv4.tcp_rmem = 4096 131072 6291456"
            ]
        );
        let (_, long) = listing.items.iter().find(|(item, _)| item.key.as_str() == "kernel.long").unwrap();
        assert!(long.fields.value("value").unwrap().to_string().len() < 4200);
    }

    #[test]
    fn a_name_reads_back_and_cannot_leave_the_settings() {
        let (_folder, root) = sample();
        let value = |name: &str| read_one(&root, &key(name)).unwrap().map(|reading| reading.fields.value("value").unwrap().to_string());
        assert_eq!(value("net.ipv4.conf.eth0/100.forwarding").as_deref(), Some("1"));
        assert_eq!(value("net.ipv4.absent"), None);
        std::fs::write(root.path("/proc/outside"), "x").unwrap();
        assert_eq!(value("//.outside"), None);
        assert_eq!(value("net..ipv4"), None);
        assert_eq!(name(Path::new("net/ipv4/conf/eth0.100/forwarding")), "net.ipv4.conf.eth0/100.forwarding");
    }

    #[test]
    fn this_machines_settings_can_be_read() {
        let listing = read_all(&Root::host(), &WatchPolicy::default()).unwrap();
        let forward = listing.items.iter().find(|(item, _)| item.key.as_str() == "kernel.randomize_va_space").unwrap();
        assert!(matches!(forward.1.fields.value("value"), Some(Value::Text(_))));
    }

    proptest! {
        #[test]
        fn no_name_leads_out(name in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(path) = path(&name) {
                prop_assert!(path.split(|byte| *byte == b'/').all(|part| part != b".." && !part.is_empty()));
            }
        }
    }
}
