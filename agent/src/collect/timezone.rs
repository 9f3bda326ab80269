//! The host's time zone: where /etc/localtime leads, and what /etc/timezone names.

use std::io;

use trueline_drift::{Fields, ItemKind, Value};

use super::{CollectError, Collector, Listing, Root, listing};
use crate::kernel::file::{EntryType, Pinned};

const LIMIT: u64 = 64 * 1024;

const LINK: &str = "/etc/localtime";
const NAME: &str = "/etc/timezone";
const ZONES: &[u8] = b"/zoneinfo/";

pub const COLLECTOR: Collector =
    Collector { kind: ItemKind::Timezone, sources: &[LINK, NAME], poll: None, read: |place| read_all(place.root) };

pub fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let failed = |path: &'static str| move |error: io::Error| CollectError::database(path, &error);
    let mut found = Vec::new();
    match Pinned::open(root.path(LINK).as_os_str().as_encoded_bytes()) {
        Ok(pinned) if pinned.metadata.entry_type == EntryType::Symlink => {
            let target = pinned.link_target().map_err(failed(LINK))?;
            found.push((LINK.as_bytes().to_vec(), Fields::new().with("zone", Value::bytes(zone(&target)))));
        }
        // A copy of a zone's file does not say of which.
        Ok(_) => found.push((LINK.as_bytes().to_vec(), Fields::new().with("zone", Value::unreadable("it is no link to a time zone")))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
        Err(error) => return Err(failed(LINK)(error)),
    }
    let bytes = root.read(NAME, LIMIT).map_err(failed(NAME))?.unwrap_or_default();
    let name = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).find(|line| !line.is_empty() && !line.starts_with(b"#"));
    if let Some(name) = name {
        found.push((NAME.as_bytes().to_vec(), Fields::new().with("zone", Value::bytes(name))));
    }
    Ok(listing(ItemKind::Timezone, found, 0))
}

/// The zone's name in a path beneath a zoneinfo folder; another path as it is.
fn zone(target: &[u8]) -> &[u8] {
    let at = target.windows(ZONES.len()).position(|part| part == ZONES);
    at.map_or(target, |at| &target[at + ZONES.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_and_the_name_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        let shown = || -> Vec<String> {
            let listing = read_all(&root).unwrap();
            listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect()
        };
        assert!(shown().is_empty());
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("../usr/share/zoneinfo/Europe/Paris", root.path(LINK)).unwrap();
        std::fs::write(root.path(NAME), "Etc/UTC\n").unwrap();
        assert_eq!(shown(), [r#"timezone:/etc/localtime {"zone":"Europe/Paris"}"#, r#"timezone:/etc/timezone {"zone":"Etc/UTC"}"#]);
        std::fs::remove_file(root.path(LINK)).unwrap();
        std::fs::write(root.path(LINK), "TZif2").unwrap();
        assert!(shown()[0].contains("unreadable"), "{:?}", shown());
    }
}
