//! Names that the host knows by itself, from /etc/hosts.
//!
//! An item is a name and not an address: a name is what programs ask for, and stays where its address changes.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use trueline_drift::{Fields, ItemKind, Value, text};

use super::{CollectError, Collector, Listing, Root, listing};

const HOSTS: &str = "/etc/hosts";
const LIMIT: u64 = 4 * 1024 * 1024;
/// Far more than a file that a person keeps; lists of names to be blocked have more.
const NAMES_LIMIT: usize = 10_000;
/// Of one name: each is looked for among those before it.
const ADDRESSES_LIMIT: usize = 256;

pub const COLLECTOR: Collector =
    Collector { kind: ItemKind::HostsEntry, sources: &[HOSTS], poll: None, read: |place| read_all(place.root) };

pub fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let failed = |error: io::Error| CollectError::database(HOSTS, &error);
    parse(&root.read(HOSTS, LIMIT).map_err(failed)?.unwrap_or_default()).map_err(failed)
}

fn parse(bytes: &[u8]) -> io::Result<Listing> {
    let mut names: BTreeMap<Vec<u8>, Vec<String>> = BTreeMap::new();
    let mut skipped = 0;
    for line in bytes.split(|byte| *byte == b'\n') {
        let line = line.split(|byte| *byte == b'#').next().unwrap_or_default();
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let Some(address) = words.next() else { continue };
        let shown = text::printable(address).into_owned();
        // An address of a link has the name of its interface behind it.
        if shown.split('%').next().is_none_or(|address| address.parse::<IpAddr>().is_err()) {
            skipped += 1;
            continue;
        }
        for name in words {
            // Names are the same in either case.
            let addresses = names.entry(name.to_ascii_lowercase()).or_default();
            if !addresses.contains(&shown) {
                addresses.push(shown.clone());
            }
            if addresses.len() > ADDRESSES_LIMIT {
                return Err(io::Error::other(format!("a name in it has more than {ADDRESSES_LIMIT} addresses")));
            }
            if names.len() > NAMES_LIMIT {
                return Err(io::Error::other(format!("it has more than {NAMES_LIMIT} names")));
            }
        }
    }
    let found = names.into_iter().map(|(name, addresses)| (name, Fields::new().with("addresses", Value::list(addresses))));
    Ok(listing(ItemKind::HostsEntry, found, skipped))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_has_all_its_addresses_in_the_order_of_the_file() {
        let listing =
            parse(b"127.0.0.1\tlocalhost\n::1 localhost ip6-localhost # ours\n#1.2.3.4 no\nfe80::1%eth0 Gate\nx.y bad\n").unwrap();
        let shown: Vec<_> =
            listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect();
        assert_eq!(
            shown,
            [
                r#"hosts_entry:gate {"addresses":["fe80::1%eth0"]}"#,
                r#"hosts_entry:ip6-localhost {"addresses":["::1"]}"#,
                r#"hosts_entry:localhost {"addresses":["127.0.0.1","::1"]}"#
            ]
        );
        assert_eq!(listing.skipped, 1);
    }

    #[test]
    fn more_names_than_are_read_are_an_error_and_not_a_part_of_them() {
        let many: String = (0..=NAMES_LIMIT).map(|number| format!("0.0.0.0 ad{number}\n")).collect();
        assert!(parse(many.as_bytes()).unwrap_err().to_string().contains("more than"));
        let many: String = (0..=ADDRESSES_LIMIT).map(|number| format!("::{number:x} gate\n")).collect();
        assert!(parse(many.as_bytes()).unwrap_err().to_string().contains("addresses"));
    }

    proptest! {
        #[test]
        fn hostile_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[1:. a%#\n]{0,80}") {
            let _ = parse(&bytes);
            let _ = parse(text.as_bytes());
        }
    }
}
