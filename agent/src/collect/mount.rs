//! What is mounted now, from the first process's table of mounts: the host's own view, which a sandbox of the agent's does not change.
//!
//! An item is a mount point. Of several mounts on one point the last counts, the only one that can be reached. What comes and goes by
//! itself is left out: a login's own folder, a service's credentials, the file systems of containers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use trueline_drift::text::printable;
use trueline_drift::{FieldName, Fields, ItemKind, Value};

use super::{CollectError, Collector, Listing, Root, listing};
use crate::mount_table::{Entry, entries};

/// Changes are told by the table itself, which can be waited for: see [`crate::sensor`].
pub const COLLECTOR: Collector =
    Collector { kind: ItemKind::Mount, sources: &[], poll: Some(std::time::Duration::from_secs(30)), read: |place| read_all(place.root) };

/// Where the first process's may not be read, the agent's own.
pub const TABLES: [&str; 2] = ["/proc/1/mountinfo", "/proc/self/mountinfo"];

/// File systems, and the folders where those of them are somebody's for a while.
const PASSING: &[(&str, &[&str])] = &[
    ("tmpfs", &["/run/user/", "/run/credentials/", "/var/lib/docker/containers/", "/var/lib/kubelet/pods/", "/run/containerd/"]),
    ("ramfs", &["/run/credentials/"]),
    ("overlay", &["/var/lib/docker/", "/var/lib/containers/storage/", "/run/containerd/"]),
    ("nsfs", &["/run/netns/", "/run/docker/netns/", "/var/run/netns/"]),
    ("fuse.gvfsd-fuse", &["/run/user/"]),
    ("fuse.portal", &["/run/user/"]),
    ("binfmt_misc", &["/proc/sys/fs/binfmt_misc"]),
];

fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let mut refused = None;
    for table in TABLES {
        // The kernel's table has no length, so it is no database as others are.
        match std::fs::File::open(root.path(table)).and_then(|file| {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(file, TABLE_LIMIT + 1), &mut bytes)?;
            if bytes.len() as u64 > TABLE_LIMIT { Err(io::Error::other("it is larger than is read of it")) } else { Ok(bytes) }
        }) {
            Ok(bytes) => return Ok(parse(&bytes)),
            Err(error) => refused = refused.or(Some(CollectError::database(table, &error))),
        }
    }
    refused.map_or_else(|| Ok(Listing::default()), Err)
}

/// The kernel allows 100,000 mounts.
const TABLE_LIMIT: u64 = 64 << 20;

fn parse(table: &[u8]) -> Listing {
    let (mut mounts, mut skipped) = (BTreeMap::<Vec<u8>, (Entry<'_>, i64)>::new(), 0);
    for entry in entries(table) {
        match entry {
            Some(entry) if is_passing(&entry) => {}
            Some(entry) => {
                let layers = mounts.get(&entry.point).map_or(1, |(_, layers)| layers + 1);
                mounts.insert(entry.point.clone(), (entry, layers));
            }
            None => skipped += 1,
        }
    }
    listing(ItemKind::Mount, mounts.into_iter().map(|(point, (entry, layers))| (point, fields(&entry, layers))), skipped)
}

fn is_passing(entry: &Entry<'_>) -> bool {
    let folders = PASSING.iter().find(|(kind, _)| kind.as_bytes() == entry.kind).map_or(&[][..], |(_, folders)| folders);
    folders.iter().any(|folder| entry.point.starts_with(folder.as_bytes()))
}

fn fields(entry: &Entry<'_>, layers: i64) -> Fields {
    let mut fields = Fields::new();
    let mut set = |name: &str, value: Value| fields.set(FieldName::new(name), value);
    let text = |bytes: &[u8]| Value::text(&printable(bytes));
    set("type", text(entry.kind));
    set("source", text(&entry.source));
    if entry.root != b"/" {
        set("root", text(&entry.root));
    }
    if layers > 1 {
        set("layers", Value::Integer(layers));
    }
    let options: BTreeSet<String> = [entry.options, entry.super_options]
        .iter()
        .flat_map(|options| options.split(|byte| *byte == b','))
        .filter(|option| !option.is_empty())
        .map(|option| printable(option).into_owned())
        .collect();
    set("options", Value::List(options.into_iter().collect()));
    let spreads = entry.tags.iter().any(|tag| tag.starts_with(b"shared:"));
    set("propagation", Value::text(if spreads { "shared" } else { "private" }));
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mount_of_a_point_counts_and_passing_ones_do_not() {
        let table = b"27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro\n\
            31 27 0:31 / /srv rw - tmpfs tmpfs rw,size=4k\n\
            32 31 0:32 /a\\040b /srv ro,nosuid - ext4 /dev/vdb rw\n\
            33 27 0:33 / /run/user/1000 rw - tmpfs tmpfs rw\n\
            34 27 0:34 / /run/user/1000x rw - ext4 /dev/vdc rw\n\
            broken\n";
        let listing = parse(table);
        let shown: Vec<String> = listing
            .items
            .iter()
            .map(|(item, reading)| {
                let fields: Vec<String> = reading.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("{item} {}", fields.join(" "))
            })
            .collect();
        assert_eq!(
            shown,
            [
                "mount:/ options=[errors=remount-ro, relatime, rw] propagation=shared source=/dev/vda type=ext4",
                "mount:/run/user/1000x options=[rw] propagation=private source=/dev/vdc type=ext4",
                "mount:/srv layers=2 options=[nosuid, ro, rw] propagation=private root=/a b source=/dev/vdb type=ext4",
            ]
        );
        assert_eq!(listing.skipped, 1);
    }

    #[test]
    fn this_machines_mounts_are_listed() {
        let listing = read_all(&Root::host()).unwrap();
        assert!(listing.items.iter().any(|(item, _)| item.to_string() == "mount:/"));
    }
}
