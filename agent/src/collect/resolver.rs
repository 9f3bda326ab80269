//! How the host resolves names: what /etc/resolv.conf tells the C library.

use std::io;

use trueline_drift::{Fields, ItemKind, Value, text};

use super::{CollectError, Collector, Listing, Root, listing};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const LIMIT: u64 = 64 * 1024;

/// The file is often a link to one that a daemon writes elsewhere, of which no event tells here: it is one small read.
pub const COLLECTOR: Collector = Collector {
    kind: ItemKind::Resolver,
    sources: &[RESOLV_CONF],
    poll: Some(std::time::Duration::from_secs(30)),
    read: |place| read_all(place.root),
};

pub fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let bytes = root.read(RESOLV_CONF, LIMIT).map_err(|error: io::Error| CollectError::database(RESOLV_CONF, &error))?;
    let found = bytes.map(|bytes| (RESOLV_CONF.as_bytes().to_vec(), parse(&bytes)));
    Ok(listing(ItemKind::Resolver, found, 0))
}

/// Of several lines with domains the last counts, as resolv.conf(5) has it; servers and options add up.
fn parse(bytes: &[u8]) -> Fields {
    let (mut nameservers, mut search, mut options) = (Vec::new(), Vec::new(), Vec::new());
    for line in bytes.split(|byte| *byte == b'\n') {
        // A keyword stands at the beginning of its line, or the line means nothing.
        let mut words = line.split(u8::is_ascii_whitespace);
        let keyword = words.next().unwrap_or_default();
        let mut words = words.filter(|word| !word.is_empty()).map(|word| text::printable(word).into_owned());
        match keyword {
            b"nameserver" => nameservers.extend(words.next()),
            b"search" => search = words.collect(),
            b"domain" => search = words.take(1).collect(),
            b"options" => options.extend(words),
            _ => {}
        }
    }
    let mut fields = Fields::new();
    for (name, texts) in [("nameservers", nameservers), ("options", options), ("search", search)] {
        if !texts.is_empty() {
            fields = fields.with(name, Value::list(texts));
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn servers_and_options_add_up_and_the_last_domains_count() {
        let fields = parse(
            b"# by hand\nnameserver 9.9.9.9\nnameserver ::1 x\ndomain old.test\nsearch a.test b.test\noptions ndots:2\noptions rotate\n nameserver 6.6.6.6\n",
        );
        assert_eq!(
            serde_json::to_string(&fields).unwrap(),
            r#"{"nameservers":["9.9.9.9","::1"],"options":["ndots:2","rotate"],"search":["a.test","b.test"]}"#
        );
    }

    #[test]
    fn a_file_of_nothing_is_an_item_and_no_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        assert!(read_all(&root).unwrap().items.is_empty());
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        std::fs::write(root.path(RESOLV_CONF), "").unwrap();
        assert_eq!(read_all(&root).unwrap().items[0].0.to_string(), "resolver:/etc/resolv.conf");
    }

    proptest! {
        #[test]
        fn hostile_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(nameserver|search|options|[ a\n]){0,40}") {
            let _ = parse(&bytes);
            let _ = parse(text.as_bytes());
        }
    }
}
