//! Groups, from /etc/group.

use std::io;

use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::account::{Misshapen, number_value, records};
use super::{CollectError, Collector, Listing, Root, listing};

const DATABASE_LIMIT: u64 = 16 * 1024 * 1024;

/// Many times what the largest known groups have.
const MEMBERS_LIMIT: usize = 256 * 1024;

pub const COLLECTOR: Collector =
    Collector { kind: ItemKind::Group, sources: &["/etc/group"], poll: None, read: |place| read_all(place.root) };

pub fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let failed = |error: io::Error| CollectError::database("/etc/group", &error);
    let database = root.read("/etc/group", DATABASE_LIMIT).map_err(failed)?;
    parse(&database.unwrap_or_default()).map_err(failed)
}

pub fn parse(database: &[u8]) -> io::Result<Listing> {
    let mut misshapen = Misshapen::default();
    let mut groups = Vec::new();
    for record in records(database) {
        let [name, _, gid, members] = record[..] else {
            groups.push(misshapen.account(&record, 4, &["gid", "members"])?);
            continue;
        };
        let mut fields = Fields::new();
        fields.set(FieldName::known("gid"), number_value(gid));
        let mut members: Vec<_> = members.split(|byte| *byte == b',').filter(|member| !member.is_empty()).collect();
        members.sort_unstable();
        members.dedup();
        if members.len() > MEMBERS_LIMIT {
            fields.set(FieldName::known("members"), Value::unreadable(format!("it has {} members, more than are read", members.len())));
        } else if !members.is_empty() {
            let mut members: Vec<_> = members.into_iter().map(|member| text::printable(member).into_owned()).collect();
            // In the order of what is told, by which a written baseline is sorted too.
            members.sort_unstable();
            fields.set(FieldName::known("members"), Value::list(members));
        }
        groups.push((name.to_vec(), fields));
    }
    Ok(listing(ItemKind::Group, groups, 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(database: &[u8]) -> Vec<String> {
        let listing = parse(database).unwrap();
        listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect()
    }

    #[test]
    fn members_are_a_sorted_list() {
        let shown = shown(b"sudo:x:27:zoe,alice,alice\nroot:x:0:\n");
        assert_eq!(shown, [r#"group:root {"gid":0}"#, r#"group:sudo {"gid":27,"members":["alice","zoe"]}"#]);
        // Sorted as they are told.
        assert_eq!(self::shown(b"odd:x:7:a,Z,\xff\n"), [r#"group:odd {"gid":7,"members":["Z","\\xff","a"]}"#]);
    }

    /// A group that is left out would be told as removed.
    #[test]
    fn a_group_whose_line_makes_no_sense_is_unreadable_and_not_gone() {
        let four = r#""gid":{"unreadable":"its line has 5 fields between colons, not 4"}"#;
        let members = r#""members":{"unreadable":"its line has 5 fields between colons, not 4"}"#;
        assert_eq!(shown(b"sudo:x:27:zoe:\n"), [format!("group:sudo {{{four},{members}}}")]);
        assert_eq!(shown(b"bad:x:y:zoe\n"), [r#"group:bad {"gid":{"unreadable":"it is not a number"},"members":["zoe"]}"#]);
        let many = "a:b\n".repeat(1001);
        assert!(parse(many.as_bytes()).unwrap_err().to_string().contains("not 4 fields"));
    }

    #[test]
    fn more_members_than_are_listed_are_told_by_number_and_digest() {
        let group = |count: usize| format!("big:x:7:{}\n", (0..count).map(|number| format!("member{number},")).collect::<String>());
        let members = |database: &str| match parse(database.as_bytes()).unwrap().items.remove(0).1.fields.value("members") {
            Some(Value::List(members)) => members.clone(),
            other => panic!("{other:?}"),
        };
        let big = members(&group(10_000));
        assert!(big.last().unwrap().contains("10000 entries in all"), "{:?}", big.last());
        // The last in order, so that only the digest can tell.
        let other = members(&group(10_000).replace("member9999", "member999x"));
        assert_ne!(big, other);
        let all = parse(group(300_000).as_bytes()).unwrap();
        assert!(all.items[0].1.fields.value("members").unwrap().is_unreadable());
    }

    proptest! {
        #[test]
        fn hostile_databases_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[a:0,\n]{0,80}") {
            let _ = parse(&bytes);
            let _ = parse(text.as_bytes());
        }
    }
}
