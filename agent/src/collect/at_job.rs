//! Jobs that run once, as at(1) left them. The key is the number that atq(1) prints, and behind it the file's name where
//! a number stands twice, as at never makes it. A job's text begins with all
//! variables of whoever made it, secrets among them, and leaves only as a keyed digest.

use std::collections::{HashMap, HashSet};

use trueline_drift::redact::RedactionKey;
use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::account::{number, records};
use super::texts::{Entry, Links, files};
use super::{CollectError, Collector, Listing, Place, listing};

const DATABASE_LIMIT: u64 = 16 * 1024 * 1024;
const FILE_LIMIT: u64 = 1024 * 1024;

/// Debian's, and that of the Red Hat family.
const FOLDERS: [&str; 2] = ["/var/spool/cron/atjobs", "/var/spool/at"];

pub const COLLECTOR: Collector = Collector { kind: ItemKind::AtJob, sources: &FOLDERS, poll: None, read: read_all };

fn read_all(place: &Place<'_>) -> Result<Listing, CollectError> {
    let mut jobs = Vec::new();
    let mut skipped = 0;
    let found = |folder| files(place.root, folder, Links::Refused, FILE_LIMIT).map_err(|error| CollectError::database(folder, &error));
    let found = [found(FOLDERS[0])?, found(FOLDERS[1])?];
    if found.iter().all(Vec::is_empty) {
        return Ok(Listing::default());
    }
    let passwd = place.root.read("/etc/passwd", DATABASE_LIMIT).map_err(|error| CollectError::database("/etc/passwd", &error))?;
    let passwd = passwd.unwrap_or_default();
    let mut names = HashMap::new();
    for record in records(&passwd) {
        if let (Some(name), Some(uid)) = (record.first(), record.get(2).and_then(|uid| number(uid))) {
            names.entry(uid).or_insert(*name);
        }
    }
    let mut numbers = HashSet::new();
    for entry in found.into_iter().flatten() {
        match parse(&entry, &names, place.key) {
            Some((number, fields)) => {
                let key = if numbers.insert(number) { number.to_string() } else { format!("{number} {}", entry.path) };
                jobs.push((text::original(&key).into_owned(), fields));
            }
            // The lock and the sequence number of at, and what runs now.
            None => skipped += u64::from(!entry.name.starts_with(['.', '=']) && !entry.name.ends_with(".lock")),
        }
    }
    Ok(listing(ItemKind::AtJob, jobs, skipped))
}

/// The queue, the number and the minute since the epoch in a job's name: `a0000b01c2f3e4`.
fn name(name: &str) -> Option<(char, u32, i64)> {
    let queue = name.chars().next().filter(char::is_ascii_alphabetic)?;
    let digits = name.get(1..).filter(|digits| digits.len() == 13 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    let number = u32::from_str_radix(&digits[..5], 16).ok()?;
    Some((queue, number, i64::from(u32::from_str_radix(&digits[5..], 16).ok()?)))
}

fn parse(entry: &Entry, names: &HashMap<u32, &[u8]>, key: &RedactionKey) -> Option<(u32, Fields)> {
    let (queue, number, minute) = name(&entry.name)?;
    let at = jiff::Timestamp::from_second(minute * 60).ok()?;
    let contents = match &entry.text {
        Ok(contents) => Value::Text(key.digest(contents)),
        Err(reason) => Value::unreadable(reason),
    };
    let uid = entry.metadata.uid;
    let user = names.get(&uid).map_or_else(|| uid.to_string(), |name| text::printable(name).into_owned());
    let mut fields = Fields::new();
    fields.set(FieldName::known("at"), Value::text(&at.to_string()));
    fields.set(FieldName::known("contents"), contents);
    fields.set(FieldName::known("queue"), Value::text(&queue.to_string()));
    fields.set(FieldName::known("source"), Value::text(&entry.path));
    fields.set(FieldName::known("user"), Value::text(&user));
    Some((number, fields))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Root;
    use super::*;

    #[test]
    fn a_job_is_told_by_its_number_and_time_and_not_by_its_variables() {
        let folder = tempfile::tempdir().unwrap();
        let spool = folder.path().join("var/spool/cron/atjobs");
        std::fs::create_dir_all(&spool).unwrap();
        std::fs::write(spool.join("a0000b01c2f3e4"), "#!/bin/sh\n# atrun uid=0 gid=0\nTOKEN=hunter2secret; export TOKEN\nrm -rf /srv\n")
            .unwrap();
        std::fs::write(spool.join("b0000b01c2f3e5"), "#!/bin/sh\n").unwrap();
        std::fs::write(spool.join(".SEQ"), "0000b").unwrap();
        std::fs::write(spool.join("note"), "no job").unwrap();
        let root = Root::at(folder.path());
        let policy = trueline_drift::watch::WatchPolicy::default();
        let read = read_all(&Place {
            root: &root,
            policy: &policy,
            key: &RedactionKey::new([7; 32]),
            holders: &crate::collect::Holders::here(root.clone()),
            kept: &crate::collect::Kept::default(),
        })
        .unwrap();
        assert_eq!((read.items.len(), read.skipped), (2, 1));
        assert_eq!(read.items[1].0.to_string(), "at_job:11 /var/spool/cron/atjobs/b0000b01c2f3e5");
        let (item, reading) = &read.items[0];
        assert_eq!(item.to_string(), "at_job:11");
        assert_eq!(reading.fields.value("at"), Some(&Value::text("2026-03-11T08:36:00Z")));
        assert!(!serde_json::to_string(&reading.fields).unwrap().contains("hunter2"));
    }

    proptest! {
        #[test]
        fn hostile_names_never_panic(any in "\\PC{0,20}", near in "[a-z][0-9a-fé]{13}") {
            name(&any);
            name(&near);
        }
    }
}
