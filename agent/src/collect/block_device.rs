//! Block devices with a size, from /sys/class/block: disks, their partitions, and what the device mapper makes of them.
//!
//! A device is called by its name. One of the device mapper is called by the name it was given, as in `mapper/vg-root`, and a loop
//! device by its file, as in `loop/srv/disk.img`: their numbers depend on the order in which they were made.

use std::io;
use std::time::Duration;

use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::{CollectError, Collector, Listing, Root, folder, listing};

const DEVICES: &str = "/sys/class/block";
/// Many times what the largest known hosts have.
const DEVICES_LIMIT: usize = 16 * 1024;

/// sysfs tells of nothing by itself. Each device with a size costs about eight small reads.
const POLL: Duration = Duration::from_secs(60);

/// The unit of `size`, whatever the device's own is.
const SECTOR: u64 = 512;

pub const COLLECTOR: Collector =
    Collector { kind: ItemKind::BlockDevice, sources: &[], poll: Some(POLL), read: |place| read_all(place.root) };

fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let names = folder::names(root, DEVICES, DEVICES_LIMIT).map_err(|error| CollectError::database(DEVICES, &error))?;
    let mut skipped = 0;
    let mut devices = Vec::new();
    for (name, _) in names {
        let Some(place) = folder::beneath(DEVICES, &name) else {
            skipped += 1;
            continue;
        };
        match device(root, &name, &place) {
            Ok(Some(found)) => devices.push(found),
            // No medium, a loop device without a file, or gone since it was listed.
            Ok(None) => {}
            Err(error) => return Err(CollectError::database(place, &error)),
        }
    }
    Ok(listing(ItemKind::BlockDevice, devices, skipped))
}

fn device(root: &Root, name: &[u8], place: &str) -> io::Result<Option<(Vec<u8>, Fields)>> {
    let word = |file: &str| match folder::word(root, &format!("{place}/{file}")) {
        // The device is being removed.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) => Ok(None),
        other => other,
    };
    let sectors = word("size")?.and_then(|size| size.parse::<u64>().ok()).unwrap_or(0);
    if sectors == 0 {
        return Ok(None);
    }
    let mut fields = Fields::new();
    let size = i64::try_from(sectors.saturating_mul(SECTOR)).unwrap_or(i64::MAX);
    fields.set(FieldName::known("size"), Value::Integer(size));
    let flag = |file: &str| Ok::<_, io::Error>(word(file)?.map(|word| word == "1"));
    if let Some(read_only) = flag("ro")? {
        fields.set(FieldName::known("read_only"), read_only.into());
    }
    if let Some(removable) = flag("removable")? {
        fields.set(FieldName::known("removable"), removable.into());
    }
    if let Some(model) = word("device/model")? {
        fields.set(FieldName::known("model"), Value::text(&model));
    }
    if word("dm/name")?.is_some() {
        fields.set(FieldName::known("type"), "mapper".into());
        if let Some(uuid) = word("dm/uuid")? {
            // `CRYPT-LUKS2-…`, `LVM-…`, `part1-mpath-…`: who made it, before what is its own.
            fields.set(FieldName::known("made_by"), Value::text(uuid.split('-').next().unwrap_or_default()));
            fields.set(FieldName::known("encrypted"), uuid.starts_with("CRYPT-").into());
            fields.set(FieldName::known("luks"), uuid.starts_with("CRYPT-LUKS").into());
        }
    } else if word("partition")?.is_some() {
        fields.set(FieldName::known("type"), "partition".into());
        if let Some(disk) = disk(root, place) {
            fields.set(FieldName::known("partition_of"), Value::bytes(&disk));
        }
    } else if let Some(file) = word("loop/backing_file")? {
        fields.set(FieldName::known("type"), "loop".into());
        fields.set(FieldName::known("backing_file"), Value::text(&file));
    } else {
        fields.set(FieldName::known("type"), "disk".into());
    }
    let lower = folder::names(root, &format!("{place}/slaves"), DEVICES_LIMIT)?;
    if !lower.is_empty() {
        let mut lower: Vec<_> = lower.iter().map(|(name, _)| called(root, name)).collect();
        lower.sort_unstable();
        fields.set(FieldName::known("lies_on"), Value::list(lower));
    }
    Ok(Some((text::original(&called(root, name)).into_owned(), fields)))
}

/// What a device is called, in its printable form.
fn called(root: &Root, name: &[u8]) -> String {
    let word = |file: &str| folder::beneath(DEVICES, name).and_then(|place| folder::word(root, &format!("{place}/{file}")).ok().flatten());
    match (word("dm/name"), word("loop/backing_file")) {
        (Some(mapper), _) => format!("mapper/{mapper}"),
        // Of a file there may be several, each from another place of it.
        (None, Some(file)) => match word("loop/offset").filter(|offset| offset != "0") {
            Some(offset) => format!("loop{file} at {offset}"),
            None => format!("loop{file}"),
        },
        (None, None) => text::printable(name).into_owned(),
    }
}

/// The disk in whose folder a partition lies: `../../devices/…/block/sda/sda1`.
fn disk(root: &Root, place: &str) -> Option<Vec<u8>> {
    let target = std::fs::read_link(root.path(place)).ok()?;
    Some(target.parent()?.file_name()?.as_encoded_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join("sys/devices").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for (path, text) in [
            ("pci/block/sda/size", "2048\n"),
            ("pci/block/sda/ro", "0\n"),
            ("pci/block/sda/removable", "0\n"),
            ("pci/block/sda/device/model", "QEMU HARD\x1b[2JDISK \n"),
            ("pci/block/sda/sda1/size", "1024\n"),
            ("pci/block/sda/sda1/ro", "0\n"),
            ("pci/block/sda/sda1/partition", "1\n"),
            ("virtual/block/dm-0/size", "512\n"),
            ("virtual/block/dm-0/ro", "1\n"),
            ("virtual/block/dm-0/removable", "0\n"),
            ("virtual/block/dm-0/dm/name", "sda1_crypt\n"),
            ("virtual/block/dm-0/dm/uuid", "CRYPT-LUKS2-0123-sda1_crypt\n"),
            ("virtual/block/dm-0/slaves/sda1/x", ""),
            ("virtual/block/loop0/size", "0\n"),
            ("virtual/block/loop7/size", "8\n"),
            ("virtual/block/loop7/ro", "1\n"),
            ("virtual/block/loop7/loop/backing_file", "/srv/disk.img\n"),
        ] {
            write(path, text);
        }
        let class = folder.path().join("sys/class/block");
        std::fs::create_dir_all(&class).unwrap();
        for (name, target) in [
            ("sda", "pci/block/sda"),
            ("sda1", "pci/block/sda/sda1"),
            ("dm-0", "virtual/block/dm-0"),
            ("loop0", "virtual/block/loop0"),
            ("loop7", "virtual/block/loop7"),
        ] {
            std::os::unix::fs::symlink(format!("../../devices/{target}"), class.join(name)).unwrap();
        }
        let root = Root::at(folder.path());
        (folder, root)
    }

    #[test]
    fn disks_partitions_and_mapped_devices_are_told_apart() {
        let (_folder, root) = sample();
        let listing = read_all(&root).unwrap();
        let shown: Vec<_> =
            listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect();
        assert_eq!(
            shown,
            [
                r#"block_device:loop/srv/disk.img {"backing_file":"/srv/disk.img","read_only":true,"size":4096,"type":"loop"}"#,
                r#"block_device:mapper/sda1_crypt {"encrypted":true,"lies_on":["sda1"],"luks":true,"made_by":"CRYPT","read_only":true,"removable":false,"size":262144,"type":"mapper"}"#,
                r#"block_device:sda {"model":"QEMU HARD\\x1b[2JDISK","read_only":false,"removable":false,"size":1048576,"type":"disk"}"#,
                r#"block_device:sda1 {"partition_of":"sda","read_only":false,"size":524288,"type":"partition"}"#,
            ]
        );
    }

    #[test]
    fn a_host_without_sysfs_has_no_items() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_all(&Root::at(folder.path())).unwrap(), Listing::default());
    }

    #[test]
    fn this_machines_devices_can_be_read() {
        let listing = read_all(&Root::host()).unwrap();
        if listing.items.is_empty() {
            return super::super::skipped("this_machines_devices_can_be_read", "there is no block device with a size");
        }
        assert!(listing.items.iter().all(|(_, reading)| matches!(reading.fields.value("size"), Some(Value::Integer(size)) if *size > 0)));
    }
}
