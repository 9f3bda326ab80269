//! Groups, from /etc/group.

use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::account::{number, overlong, records};
use super::{CollectError, Listing, Root, listing};

const DATABASE_LIMIT: u64 = 16 * 1024 * 1024;

pub fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let database = root.read("/etc/group", DATABASE_LIMIT).map_err(|error| CollectError::database("/etc/group", &error))?;
    Ok(parse(&database.unwrap_or_default()))
}

pub fn parse(database: &[u8]) -> Listing {
    let mut skipped = overlong(database);
    let mut groups = Vec::new();
    for record in records(database) {
        let [name, _, gid, members] = record[..] else {
            skipped += 1;
            continue;
        };
        let Some(gid) = number(gid) else {
            skipped += 1;
            continue;
        };
        let mut fields = Fields::new().with("gid", i64::from(gid));
        let mut members: Vec<_> = members
            .split(|byte| *byte == b',')
            .filter(|member| !member.is_empty())
            .map(|member| text::bounded(&text::printable(member), 256).into_owned())
            .collect();
        members.sort_unstable();
        members.dedup();
        if !members.is_empty() {
            fields.set(FieldName::known("members"), Value::List(members));
        }
        groups.push((name.to_vec(), fields));
    }
    listing(ItemKind::Group, groups, skipped)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_are_a_sorted_list() {
        let listing = parse(b"sudo:x:27:zoe,alice,alice\nroot:x:0:\nbad:x:y:\n");
        let shown: Vec<_> =
            listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect();
        assert_eq!(shown, [r#"group:root {"gid":0}"#, r#"group:sudo {"gid":27,"members":["alice","zoe"]}"#]);
        assert_eq!(listing.skipped, 1);
    }

    proptest! {
        #[test]
        fn hostile_databases_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[a:0,\n]{0,80}") {
            parse(&bytes);
            parse(text.as_bytes());
        }
    }
}
