//! What a login may use at most, from limits.conf(5) and limits.d. Of two lines for the same limit the later counts, as pam_limits reads
//! them: /etc/security/limits.conf, then the folder by name.

use std::collections::BTreeMap;

use trueline_drift::format::{Format, FormatError};
use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::texts::{Links, files};
use super::{CollectError, Collector, Listing, Place, listing};

const FILE: &str = "/etc/security/limits.conf";
const FOLDER: &str = "/etc/security/limits.d";
const FILE_LIMIT: u64 = 1024 * 1024;

pub const COLLECTOR: Collector = Collector { kind: ItemKind::Limits, sources: &[FILE, FOLDER], poll: None, read: read_all };

/// The limits by key, `@admin hard nofile`: who, which of the two, what.
type Limits = BTreeMap<Vec<u8>, Fields>;

fn read_all(place: &Place<'_>) -> Result<Listing, CollectError> {
    let mut limits = Limits::new();
    let mut skipped = 0;
    if let Some(contents) = place.root.read(FILE, FILE_LIMIT).map_err(|error| CollectError::database(FILE, &error))? {
        skipped += take(&contents, FILE, &mut limits).map_err(|error| misread(FILE, &error.to_string()))?;
    }
    let found = files(place.root, FOLDER, Links::Followed, FILE_LIMIT).map_err(|error| CollectError::database(FOLDER, &error))?;
    for entry in found.into_iter().filter(|entry| entry.name.ends_with(".conf")) {
        let contents = entry.text.map_err(|reason| misread(&entry.path, &reason))?;
        skipped += take(&contents, &entry.path, &mut limits).map_err(|error| misread(&entry.path, &error.to_string()))?;
    }
    Ok(listing(ItemKind::Limits, limits, skipped))
}

fn misread(path: &str, reason: &str) -> CollectError {
    CollectError::Database { subject: path.to_owned(), reason: reason.to_owned() }
}

/// Takes the limits of one file, and tells how many it has beyond what is read.
fn take(contents: &[u8], path: &str, limits: &mut Limits) -> Result<u64, FormatError> {
    let mut left_out = 0;
    for (name, value) in Format::Limits.read(contents)?.fields(|_, value| value.to_owned()) {
        if let (None, Value::Integer(count)) = (name.as_str().strip_prefix("config."), &value) {
            left_out += count.unsigned_abs();
        }
        // Who may hold dots; the other two have none.
        let Some(name) = name.as_str().strip_prefix("config.") else { continue };
        let mut words = name.rsplitn(3, '.');
        let limit = match (name.strip_suffix(".-"), words.next(), words.next(), words.next()) {
            // All limits of somebody are lifted.
            (Some(who), ..) => format!("{who} -"),
            (_, Some(what), Some(which), Some(who)) => format!("{who} {which} {what}"),
            _ => {
                left_out += 1;
                continue;
            }
        };
        let mut fields = Fields::new();
        fields.set(FieldName::known("source"), Value::text(path));
        fields.set(FieldName::known("value"), value);
        limits.insert(text::original(&limit).into_owned(), fields);
    }
    Ok(left_out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Root;
    use super::*;

    #[test]
    fn the_later_file_counts() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("etc/security/limits.d")).unwrap();
        let write = |path: &str, text: &str| std::fs::write(folder.path().join("etc/security").join(path), text).unwrap();
        write("limits.conf", "# none\n*   soft  core 0\nj.doe hard nproc 50\n");
        write("limits.d/20-core.conf", "* soft core unlimited\n@admin - nofile 4096\n");
        write("limits.d/30-core.conf.bak", "* soft core 7\n");
        let root = Root::at(folder.path());
        let policy = trueline_drift::watch::WatchPolicy::default();
        let key = trueline_drift::redact::RedactionKey::new([7; 32]);
        let read = read_all(&Place {
            root: &root,
            policy: &policy,
            key: &key,
            holders: &crate::collect::Holders::here(root.clone()),
            kept: &crate::collect::Kept::default(),
        })
        .unwrap();
        let shown: Vec<_> =
            read.items.iter().map(|(item, reading)| format!("{item} = {}", reading.fields.value("value").unwrap())).collect();
        assert_eq!(shown, ["limits:* soft core = unlimited", "limits:@admin - nofile = 4096", "limits:j.doe hard nproc = 50"]);
        assert_eq!(read.items[0].1.fields.value("source"), Some(&Value::text("/etc/security/limits.d/20-core.conf")));
    }

    #[test]
    fn what_pam_takes_is_told_however_it_is_spelt() {
        let mut limits = Limits::new();
        assert_eq!(take(b"m.allory -\nbob hard nofile 5 more # x\n", "/x", &mut limits).unwrap(), 0);
        let shown: Vec<_> = limits.keys().map(|key| String::from_utf8_lossy(key)).collect();
        assert_eq!(shown, ["bob hard nofile", "m.allory -"]);
    }

    proptest! {
        #[test]
        fn hostile_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[a*.@ #\n-]{0,80}") {
            let _ = take(&bytes, "/x", &mut Limits::new());
            let _ = take(text.as_bytes(), "/x", &mut Limits::new());
        }
    }
}
