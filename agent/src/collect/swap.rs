//! Swap space in use, from /proc/swaps.

use std::io;
use std::time::Duration;

use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::fstab::plain;
use super::{CollectError, Collector, Listing, Root, folder, listing};

const TABLE: &str = "/proc/swaps";
const LIMIT: u64 = 1024 * 1024;

/// The kernel tells of swapon(2) and swapoff(2) by no event on a file; the table is one small read.
const POLL: Duration = Duration::from_secs(30);

pub const COLLECTOR: Collector = Collector { kind: ItemKind::Swap, sources: &[], poll: Some(POLL), read: |place| read_all(place.root) };

fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let failed = |error: io::Error| CollectError::database(TABLE, &error);
    let (areas, skipped) = parse(&root.read(TABLE, LIMIT).map_err(failed)?.unwrap_or_default());
    let named = areas.into_iter().map(|(name, fields)| (mapped(root, &name).unwrap_or(name), fields));
    Ok(listing(ItemKind::Swap, named, skipped))
}

/// `/dev/mapper/vg-swap` for `/dev/dm-1`, whose number depends on the order in which devices were found.
fn mapped(root: &Root, name: &[u8]) -> Option<Vec<u8>> {
    let device = folder::beneath("/sys/class/block", name.strip_prefix(b"/dev/").filter(|device| device.starts_with(b"dm-"))?)?;
    let mapper = folder::word(root, &format!("{device}/dm/name")).ok()??;
    Some([b"/dev/mapper/", text::original(&mapper).as_ref()].concat())
}

/// The areas, and how many lines made no sense.
fn parse(table: &[u8]) -> (Vec<(Vec<u8>, Fields)>, u64) {
    let mut skipped = 0;
    let mut areas = Vec::new();
    for line in table.split(|byte| *byte == b'\n').skip(1).filter(|line| !line.trim_ascii().is_empty()) {
        let columns: Vec<_> = line.split(u8::is_ascii_whitespace).filter(|column| !column.is_empty()).collect();
        let [name, area_type, size, _, priority] = columns[..] else {
            skipped += 1;
            continue;
        };
        let number = |column: &[u8]| std::str::from_utf8(column).ok()?.parse::<i64>().ok();
        let (Some(size), Some(priority)) = (number(size), number(priority)) else {
            skipped += 1;
            continue;
        };
        let mut fields = Fields::new();
        fields.set(FieldName::known("type"), Value::bytes(area_type));
        fields.set(FieldName::known("size"), Value::Integer(size.saturating_mul(1024)));
        // Below zero the kernel has numbered the areas by itself, in the order in which they came.
        if priority >= 0 {
            fields.set(FieldName::known("priority"), Value::Integer(priority));
        }
        areas.push((plain(name), fields));
    }
    (areas, skipped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/dm-1                               partition\t4194300\t\t1024\t\t-2\n\
        /srv/my\\040swap                         file\t\t524284\t\t0\t\t10\n";

    #[test]
    fn areas_are_told_without_what_is_used_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        let write = |path: &str, text: &str| {
            std::fs::create_dir_all(root.path(path).parent().unwrap()).unwrap();
            std::fs::write(root.path(path), text).unwrap();
        };
        write(TABLE, SAMPLE);
        let shown = || -> Vec<_> {
            let listing = read_all(&root).unwrap();
            listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect()
        };
        let file = r#"swap:/srv/my swap {"priority":10,"size":536866816,"type":"file"}"#;
        assert_eq!(shown(), [r#"swap:/dev/dm-1 {"size":4294963200,"type":"partition"}"#, file]);
        write(TABLE, &SAMPLE.replace("1024\t\t-2", "4096\t\t-3"));
        write("/sys/class/block/dm-1/dm/name", "vg-swap\n");
        assert_eq!(shown(), [r#"swap:/dev/mapper/vg-swap {"size":4294963200,"type":"partition"}"#, file]);
    }

    #[test]
    fn a_line_that_makes_no_sense_is_counted() {
        assert_eq!(parse(b"Filename Type Size Used Priority\n/dev/sda2 partition x 0 1\n/dev/sda3\n"), (vec![], 2));
    }

    #[test]
    fn this_machines_table_can_be_read() {
        assert_eq!(read_all(&Root::host()).unwrap().skipped, 0);
    }

    proptest! {
        #[test]
        fn hostile_tables_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "([a\\\\0-9 \t-]|\n){0,80}") {
            parse(&bytes);
            parse(text.as_bytes());
        }
    }
}
