//! The host's name: as configured, from /etc/hostname, and as it runs, from the kernel.

use std::io;

use trueline_drift::{Fields, ItemKind, Value};

use super::{CollectError, Collector, Listing, Root, listing};

const LIMIT: u64 = 64 * 1024;

const STATIC: &str = "/etc/hostname";
const RUNNING: &str = "/proc/sys/kernel/hostname";

/// The kernel's own file tells of no change by an event of files: it is one small read.
pub const COLLECTOR: Collector = Collector {
    kind: ItemKind::Hostname,
    sources: &[STATIC],
    poll: Some(std::time::Duration::from_secs(30)),
    read: |place| read_all(place.root),
};

pub fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let mut found = Vec::new();
    for (key, path) in [("running", RUNNING), ("static", STATIC)] {
        let bytes = root.read(path, LIMIT).map_err(|error: io::Error| CollectError::database(path, &error))?;
        if let Some(name) = parse(&bytes.unwrap_or_default()) {
            found.push((key.as_bytes().to_vec(), Fields::new().with("name", Value::bytes(name))));
        }
    }
    Ok(listing(ItemKind::Hostname, found, 0))
}

/// The first line that is neither empty nor a comment, as hostname(5) has it.
fn parse(bytes: &[u8]) -> Option<&[u8]> {
    bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).find(|line| !line.is_empty() && !line.starts_with(b"#"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(root: &Root) -> Vec<String> {
        let listing = read_all(root).unwrap();
        listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect()
    }

    #[test]
    fn a_name_set_for_now_departs_from_the_configured_one() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        assert!(shown(&root).is_empty());
        std::fs::create_dir_all(folder.path().join("proc/sys/kernel")).unwrap();
        std::fs::create_dir_all(folder.path().join("etc")).unwrap();
        std::fs::write(root.path(RUNNING), "other\n").unwrap();
        std::fs::write(root.path(STATIC), "# ours\n\n web1 \n").unwrap();
        assert_eq!(shown(&root), [r#"hostname:running {"name":"other"}"#, r#"hostname:static {"name":"web1"}"#]);
        std::fs::write(root.path(STATIC), b"\x1b[2J\n").unwrap();
        assert!(!shown(&root)[1].contains('\u{1b}'));
    }
}
