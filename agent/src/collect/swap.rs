//! Swap space in use, from /proc/swaps.

use std::io;
use std::time::Duration;

use trueline_drift::{FieldName, Fields, ItemKind, Value};

use super::fstab::plain;
use super::{CollectError, Collector, Listing, Root, listing};

const TABLE: &str = "/proc/swaps";
const LIMIT: u64 = 1024 * 1024;

/// The kernel tells of swapon(2) and swapoff(2) by no event on a file; the table is one small read.
const POLL: Duration = Duration::from_secs(30);

pub const COLLECTOR: Collector = Collector { kind: ItemKind::Swap, sources: &[], poll: Some(POLL), read: |place| read_all(place.root) };

fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let failed = |error: io::Error| CollectError::database(TABLE, &error);
    Ok(parse(&root.read(TABLE, LIMIT).map_err(failed)?.unwrap_or_default()))
}

fn parse(table: &[u8]) -> Listing {
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
    listing(ItemKind::Swap, areas, skipped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/dm-1                               partition\t4194300\t\t1024\t\t-2\n\
        /srv/my\\040swap                         file\t\t524284\t\t0\t\t10\n";

    fn shown(listing: &Listing) -> Vec<String> {
        listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect()
    }

    #[test]
    fn areas_are_told_without_what_is_used_of_them() {
        assert_eq!(
            shown(&parse(SAMPLE.as_bytes())),
            [
                r#"swap:/dev/dm-1 {"size":4294963200,"type":"partition"}"#,
                r#"swap:/srv/my swap {"priority":10,"size":536866816,"type":"file"}"#
            ]
        );
        assert_eq!(parse(SAMPLE.as_bytes()), parse(SAMPLE.replace("1024\t\t-2", "4096\t\t-3").as_bytes()));
    }

    #[test]
    fn a_line_that_makes_no_sense_is_counted() {
        let listing = parse(b"Filename Type Size Used Priority\n/dev/sda2 partition x 0 1\n/dev/sda3\n");
        assert_eq!((listing.items.len(), listing.skipped), (0, 2));
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
