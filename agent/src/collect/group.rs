//! Groups, from /etc/group and /etc/gshadow. A password hash leaves only as a keyed digest.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::io;

use trueline_drift::redact::RedactionKey;
use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::account::{Misshapen, number_value, records};
use super::{CollectError, Collector, Listing, Root, listing, refusal};

const DATABASE_LIMIT: u64 = 16 * 1024 * 1024;

/// Many times what the largest known groups have.
const MEMBERS_LIMIT: usize = 256 * 1024;

pub const COLLECTOR: Collector = Collector {
    kind: ItemKind::Group,
    sources: &["/etc/group", "/etc/gshadow"],
    poll: None,
    read: |place| read_all(place.root, place.key),
};

pub fn read_all(root: &Root, key: &RedactionKey) -> Result<Listing, CollectError> {
    let failed = |error: io::Error| CollectError::database("/etc/group", &error);
    let database = root.read("/etc/group", DATABASE_LIMIT).map_err(failed)?;
    let shadow = root.read("/etc/gshadow", DATABASE_LIMIT);
    let shadow = match &shadow {
        Ok(shadow) => Ok(shadow.as_deref().unwrap_or_default()),
        Err(error) => Err(refusal::reason(error)),
    };
    parse(&database.unwrap_or_default(), shadow, key).map_err(failed)
}

/// `shadow` is the database, or why it could not be read.
pub fn parse(database: &[u8], shadow: Result<&[u8], String>, key: &RedactionKey) -> io::Result<Listing> {
    let mut lines = HashMap::new();
    for record in shadow.as_ref().map(|shadow| records(shadow)).into_iter().flatten() {
        if let Some(name) = record.first() {
            lines.entry(*name).or_insert(record);
        }
    }
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
        match (&shadow, lines.get(name)) {
            (Ok(_), line) => set_shadow(&mut fields, line.map_or(&[], Vec::as_slice), key),
            (Err(reason), _) => {
                ["administrators", "password"].into_iter().for_each(|field| fields.set(FieldName::known(field), Value::unreadable(reason)))
            }
        }
        groups.push((name.to_vec(), fields));
    }
    Ok(listing(ItemKind::Group, groups, 0))
}

/// Of a line of gshadow(5): who may change the members, and the password by which anybody may join.
fn set_shadow(fields: &mut Fields, line: &[&[u8]], key: &RedactionKey) {
    if let Some(administrators) = line.get(2) {
        let administrators: BTreeSet<_> =
            administrators.split(|byte| *byte == b',').filter(|name| !name.is_empty()).take(MEMBERS_LIMIT).map(text::printable).collect();
        // In a line of another shape this could be a hash.
        if administrators.iter().any(|name| name.trim_end_matches('$').contains('$')) {
            fields.set(FieldName::known("administrators"), Value::unreadable("it holds what is no name"));
        } else if !administrators.is_empty() {
            fields
                .set(FieldName::known("administrators"), Value::list(administrators.into_iter().map(Cow::into_owned).collect::<Vec<_>>()));
        }
    }
    // Without one, and with one that nothing fits, only members are let in.
    if let Some(hash) = line.get(1).filter(|hash| hash.len() >= 8 && !matches!(hash[0], b'!' | b'*')) {
        fields.set(FieldName::known("password"), Value::Text(key.digest(hash)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(database: &[u8]) -> io::Result<Listing> {
        parse(database, Ok(b""), &RedactionKey::new([7; 32]))
    }

    fn shown(database: &[u8]) -> Vec<String> {
        let listing = parsed(database).unwrap();
        listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect()
    }

    #[test]
    fn members_are_a_sorted_list() {
        let shown = shown(b"sudo:x:27:zoe,alice,alice\nroot:x:0:\n");
        assert_eq!(shown, [r#"group:root {"gid":0}"#, r#"group:sudo {"gid":27,"members":["alice","zoe"]}"#]);
        // Sorted as they are told.
        assert_eq!(self::shown(b"odd:x:7:a,Z,\xff\n"), [r#"group:odd {"gid":7,"members":["Z","\\xff","a"]}"#]);
    }

    #[test]
    fn who_may_change_a_group_or_join_it_by_password_is_told_without_the_hash() {
        let key = RedactionKey::new([7; 32]);
        let gshadow = b"sudo:!:zoe,alice:bob\nstaff:$6$salt$secrethash::\nplain:*::\n";
        let listing = parse(b"sudo:x:27:bob\nstaff:x:50:\nplain:x:60:\nbare:x:61:\n", Ok(gshadow), &key).unwrap();
        let shown: Vec<_> = listing
            .items
            .iter()
            .map(|(item, reading)| format!("{} {}", item.key, serde_json::to_string(&reading.fields).unwrap()))
            .collect();
        let digest = key.digest(b"$6$salt$secrethash");
        assert_eq!(
            shown,
            [
                r#"bare {"gid":61}"#.to_owned(),
                r#"plain {"gid":60}"#.to_owned(),
                format!(r#"staff {{"gid":50,"password":"{digest}"}}"#),
                r#"sudo {"administrators":["alice","zoe"],"gid":27,"members":["bob"]}"#.to_owned(),
            ]
        );
        let shifted = parse(b"sudo:x:27:\n", Ok(b"sudo:!:$6$salt$secrethash:\nplain::$6$salt$secrethash:\n"), &key).unwrap();
        assert!(!format!("{shifted:?}").contains("secrethash"), "{shifted:?}");
        let unread = parse(b"sudo:x:27:\n", Err("permission denied".into()), &key).unwrap();
        assert!(unread.items[0].1.fields.value("administrators").unwrap().is_unreadable());
    }

    /// A group that is left out would be told as removed.
    #[test]
    fn a_group_whose_line_makes_no_sense_is_unreadable_and_not_gone() {
        let four = r#""gid":{"unreadable":"its line has 5 fields between colons, not 4"}"#;
        let members = r#""members":{"unreadable":"its line has 5 fields between colons, not 4"}"#;
        assert_eq!(shown(b"sudo:x:27:zoe:\n"), [format!("group:sudo {{{four},{members}}}")]);
        assert_eq!(shown(b"bad:x:y:zoe\n"), [r#"group:bad {"gid":{"unreadable":"it is not a number"},"members":["zoe"]}"#]);
        let many = "a:b\n".repeat(1001);
        assert!(parsed(many.as_bytes()).unwrap_err().to_string().contains("not 4 fields"));
    }

    #[test]
    fn more_members_than_are_listed_are_told_by_number_and_digest() {
        let group = |count: usize| format!("big:x:7:{}\n", (0..count).map(|number| format!("member{number},")).collect::<String>());
        let members = |database: &str| match parsed(database.as_bytes()).unwrap().items.remove(0).1.fields.value("members") {
            Some(Value::List(members)) => members.clone(),
            other => panic!("{other:?}"),
        };
        let big = members(&group(10_000));
        assert!(big.last().unwrap().contains("10000 entries in all"), "{:?}", big.last());
        // The last in order, so that only the digest can tell.
        let other = members(&group(10_000).replace("member9999", "member999x"));
        assert_ne!(big, other);
        let all = parsed(group(300_000).as_bytes()).unwrap();
        assert!(all.items[0].1.fields.value("members").unwrap().is_unreadable());
    }

    proptest! {
        #[test]
        fn hostile_databases_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[a:0,\n]{0,80}") {
            let key = RedactionKey::new([7; 32]);
            let _ = parse(&bytes, Ok(text.as_bytes()), &key);
            let _ = parse(text.as_bytes(), Ok(&bytes), &key);
        }
    }
}
