//! What is mounted when the host starts, from /etc/fstab, by mount point. Of several lines for one mount point the last
//! counts: it lies on top.

use std::collections::BTreeMap;
use std::io;

use trueline_drift::format::Format;
use trueline_drift::redact::{self, RedactionKey};
use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::{CollectError, Collector, Listing, Place, listing};

const TABLE: &str = "/etc/fstab";
const LIMIT: u64 = 1024 * 1024;

pub const COLLECTOR: Collector = Collector { kind: ItemKind::Fstab, sources: &[TABLE], poll: None, read: read_all };

fn read_all(place: &Place<'_>) -> Result<Listing, CollectError> {
    let failed = |error: io::Error| CollectError::database(TABLE, &error);
    let table = place.root.read(TABLE, LIMIT).map_err(failed)?.unwrap_or_default();
    parse(&table, place.key).map_err(failed)
}

fn parse(table: &[u8], key: &RedactionKey) -> io::Result<Listing> {
    let settings = Format::Fstab.read(table).map_err(io::Error::other)?;
    let told = settings.fields(|name, value| match name.rsplit_once('.') {
        Some((_, "options")) => value.split(',').map(|option| masked(option, key)).collect::<Vec<_>>().join(","),
        _ => redact::setting("source", value, key).into_owned(),
    });
    let mut places = BTreeMap::<Vec<u8>, Fields>::new();
    let mut skipped = 0;
    for (name, value) in told {
        let named = name.as_str().strip_prefix("config.").and_then(|name| name.rsplit_once('.'));
        let Some((target, column)) = named else {
            // Mount points that are left out would be told as removed.
            if name.as_str() == "config_left_out" {
                return Err(io::Error::other("it has more lines than are read"));
            }
            skipped += u64::from(!name.as_str().starts_with("conflict."));
            continue;
        };
        let fields = places.entry(plain(&text::original(target))).or_insert_with(|| Fields::new().with("dump", 0i64).with("pass", 0i64));
        match (column, value) {
            ("source", Value::Text(source)) => fields.set(FieldName::known("source"), Value::text(&source)),
            ("type", Value::Text(name)) => fields.set(FieldName::known("type"), Value::text(&name)),
            ("options", Value::Text(options)) => {
                fields.set(FieldName::known("options"), Value::list(options.split(',').map(str::to_owned).collect()));
            }
            ("dump", value) => fields.set(FieldName::known("dump"), number(&value)),
            ("pass", value) => fields.set(FieldName::known("pass"), number(&value)),
            _ => {}
        }
    }
    Ok(listing(ItemKind::Fstab, places, skipped))
}

fn masked(option: &str, key: &RedactionKey) -> String {
    match option.split_once('=') {
        Some((name, value)) => format!("{name}={}", redact::setting(name, value, key)),
        None => option.to_owned(),
    }
}

fn number(value: &Value) -> Value {
    match value {
        Value::Text(text) => {
            text.parse::<u32>().map_or_else(|_| Value::unreadable("it is not a number"), |number| Value::Integer(number.into()))
        }
        other => other.clone(),
    }
}

/// A path of a table as the kernel and fstab(5) write it: blanks and the like as a backslash and three octal digits.
pub(super) fn plain(written: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(written.len());
    let mut rest = written;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                plain.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            _ => plain.push(*first),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> RedactionKey {
        RedactionKey::new([1; 32])
    }

    fn shown(table: &str) -> Vec<String> {
        let listing = parse(table.as_bytes(), &key()).unwrap();
        listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect()
    }

    #[test]
    fn a_line_is_an_item_by_its_mount_point() {
        let table = "# <file system> <mount point>\nUUID=1b2c / ext4 errors=remount-ro 0 1\nUUID=77 none swap sw 0 0\n\
            tmpfs\t/tmp\ttmpfs\tnosuid,nodev\n/dev/sdb1 /srv/old\\040data xfs defaults,noatime x 2\n";
        assert_eq!(
            shown(table),
            [
                r#"fstab:/ {"dump":0,"options":["errors=remount-ro"],"pass":1,"source":"UUID=1b2c","type":"ext4"}"#,
                r#"fstab:/srv/old data {"dump":{"unreadable":"it is not a number"},"options":["defaults","noatime"],"pass":2,"source":"/dev/sdb1","type":"xfs"}"#,
                r#"fstab:/tmp {"dump":0,"options":["nodev","nosuid"],"pass":0,"source":"tmpfs","type":"tmpfs"}"#,
                r#"fstab:none UUID=77 {"dump":0,"options":["sw"],"pass":0,"source":"UUID=77","type":"swap"}"#,
            ]
        );
    }

    #[test]
    fn a_password_among_the_options_is_not_told() {
        assert!(shown("//nas/x /x cifs credentials=/etc/nas.cred\n")[0].contains(r#"["credentials=/etc/nas.cred"]"#));
        let shown = shown("//nas/backup /mnt/b.d cifs username=backup,password=hunter2secret,uid=33 0 0\n");
        assert!(!shown[0].contains("hunter2"), "{shown:?}");
        assert!(
            shown[0].starts_with("fstab:/mnt/b.d ") && shown[0].contains("password=keyed:") && shown[0].contains("uid=33"),
            "{shown:?}"
        );
    }

    #[test]
    fn a_table_that_is_longer_than_what_is_read_is_an_error() {
        let table: String = (0..600).map(|number| format!("tmpfs /mnt/{number} tmpfs defaults 0 0\n")).collect();
        assert!(parse(table.as_bytes(), &key()).unwrap_err().to_string().contains("more lines"));
    }

    #[test]
    fn octal_digits_are_the_bytes_that_they_stand_for() {
        assert_eq!(plain(br"/a\040b\011\1\400\134"), b"/a b\t\\1\\400\\");
    }

    proptest! {
        #[test]
        fn hostile_tables_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "([a/.= ,\\\\0]|none|\n){0,80}") {
            let _ = parse(&bytes, &key());
            let _ = parse(text.as_bytes(), &key());
        }
    }
}
