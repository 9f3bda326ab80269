//! Kernel settings, from /proc/sys. Settings that the policy leaves out are not even opened:
//! reading some of them has an effect, and others hold keys. Beside the value that is in force stands what the host's files set.

mod configured;

use std::io;
use std::path::Path;
use std::time::Duration;

use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Fields, ItemKey, ItemKind, Value, text};

use super::{CollectError, Collector, Listing, Reading, Root, listing, refusal};
use crate::kernel::file::{EntryType, Pinned, entries};
pub use configured::LastConfigured;

const SETTINGS: &str = "/proc/sys";
/// For what the kernel changes by itself, and for where no sensor hears of writes.
const EVERY: Duration = Duration::from_secs(30);
/// Room for the first read of a value, and the most there ever is for one.
const FIRST_ROOM: usize = 64 * 1024;
const VALUE_LIMIT: usize = 1024 * 1024;
const DEPTH_LIMIT: usize = 16;

pub const COLLECTOR: Collector = Collector {
    kind: ItemKind::Sysctl,
    sources: &configured::FOLDERS,
    poll: Some(EVERY),
    read: |place| read_all(place.root, place.policy, &place.kept.configured),
};

pub fn read_all(root: &Root, policy: &WatchPolicy, configured: &LastConfigured) -> Result<Listing, CollectError> {
    let mut found = Vec::new();
    let top = Pinned::follow(&root.path(SETTINGS)).map_err(|error| CollectError::database(SETTINGS, &error))?;
    walk(&top, "", DEPTH_LIMIT, policy, &mut found).map_err(|error| CollectError::database(SETTINGS, &error))?;
    let configured = configured.anew(root)?;
    for (name, fields) in &mut found {
        configured.set(&text::printable(name), fields);
    }
    Ok(listing(ItemKind::Sysctl, found, 0))
}

/// One setting by its name. `None`: there is none, or it can only be written.
pub fn read_one(root: &Root, name: &ItemKey, configured: &LastConfigured) -> Result<Option<Reading>, CollectError> {
    let Some(path) = path(&name.bytes()) else { return Ok(None) };
    let mut place = root.path(SETTINGS).into_os_string().into_encoded_bytes();
    place.push(b'/');
    place.extend(path);
    match Pinned::open(&place) {
        Ok(pinned) => {
            let Some(mut fields) = setting(&pinned) else { return Ok(None) };
            configured.last(root)?.set(name.as_str(), &mut fields);
            Ok(Some(Reading::of(fields)))
        }
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
    let value = match pinned.contents().and_then(|contents| whole(|buffer, offset| contents.read_at(buffer, offset))) {
        Ok(bytes) => {
            let shown: Vec<u8> = bytes.trim_ascii().iter().map(|byte| if *byte == b'\t' { b' ' } else { *byte }).collect();
            Value::bytes(&shown)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => Value::unreadable(refusal::reason(&error)),
    };
    Some([(trueline_drift::FieldName::known("value"), value)].into_iter().collect())
}

/// All of a value. What answers for numbers and bitmaps tells as much as there is room for and nothing from any later offset, so
/// that only a read from the beginning with room to spare has told everything.
fn whole(mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; FIRST_ROOM];
    loop {
        let mut filled = 0;
        while filled < bytes.len() {
            match read(&mut bytes[filled..], filled as u64) {
                Ok(0) => {
                    bytes.truncate(filled);
                    return Ok(bytes);
                }
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if bytes.len() >= VALUE_LIMIT {
            return Err(io::Error::other(format!("it is longer than {VALUE_LIMIT} bytes")));
        }
        bytes.resize(bytes.len() * 4, 0);
    }
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
        let listing = read_all(&root, &policy, &LastConfigured::default()).unwrap();
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
        let long = long.fields.value("value").unwrap().to_string();
        // The digest is of all of it.
        assert!(long.len() < 4200 && long.contains("… (10000 bytes in all"), "{long}");
    }

    /// As proc_do_large_bitmap of the kernel answers.
    #[test]
    fn a_value_that_is_told_only_from_its_beginning_is_read_whole() {
        let handler = |size: usize| {
            move |buffer: &mut [u8], offset: u64| {
                let told = if offset > 0 { 0 } else { buffer.len().min(size) };
                buffer[..told].fill(b'7');
                Ok(told)
            }
        };
        for size in [0, 33, 4097, FIRST_ROOM - 1, FIRST_ROOM, 3 * FIRST_ROOM, VALUE_LIMIT - 1] {
            assert_eq!(whole(handler(size)).unwrap().len(), size);
        }
        assert!(whole(handler(VALUE_LIMIT)).is_err());
        assert!(whole(|buffer: &mut [u8], _| Ok(buffer.len())).is_err(), "one that never ends");
    }

    #[test]
    fn a_name_reads_back_and_cannot_leave_the_settings() {
        let (_folder, root) = sample();
        let value = |name: &str| {
            read_one(&root, &key(name), &LastConfigured::default())
                .unwrap()
                .map(|reading| reading.fields.value("value").unwrap().to_string())
        };
        assert_eq!(value("net.ipv4.conf.eth0/100.forwarding").as_deref(), Some("1"));
        assert_eq!(value("net.ipv4.absent"), None);
        std::fs::write(root.path("/proc/outside"), "x").unwrap();
        assert_eq!(value("//.outside"), None);
        assert_eq!(value("net..ipv4"), None);
        assert_eq!(name(Path::new("net/ipv4/conf/eth0.100/forwarding")), "net.ipv4.conf.eth0/100.forwarding");
    }

    #[test]
    fn this_machines_settings_can_be_read() {
        let listing = read_all(&Root::host(), &WatchPolicy::default(), &LastConfigured::default()).unwrap();
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
