//! Modules that are loaded into the kernel, from /proc/modules; see proc_modules(5).
//!
//! A module counts once it is at work: while it is being loaded its author has not been told yet, and it may still fail.

use std::io;
use std::time::Duration;

use trueline_drift::text::printable;
use trueline_drift::{FieldName, Fields, ItemKind, Value};

use super::{CollectError, Collector, Listing, Root, listing};

/// The kernel tells of each that comes and goes; this is for where it cannot be heard.
pub const COLLECTOR: Collector =
    Collector { kind: ItemKind::KernelModule, sources: &[], poll: Some(Duration::from_secs(30)), read: |place| read_all(place.root) };

const MODULES: &str = "/proc/modules";
const LIMIT: u64 = 4 << 20;
/// Of what /sys says of one.
const TEXT_LIMIT: u64 = 4096;

fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let table = match read(root, MODULES, LIMIT) {
        Ok(table) => table,
        // A kernel without modules.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Listing::default()),
        Err(error) => return Err(CollectError::database(MODULES, &error)),
    };
    let (mut modules, mut skipped) = (Vec::new(), 0);
    for line in table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match parse(line) {
            Some(Module { is_live: false, .. }) => {}
            Some(Module { name, taint, .. }) => {
                let of_sys = |what| read(root, &format!("/sys/module/{}/{what}", printable(name)), TEXT_LIMIT).ok();
                modules.push((name.to_vec(), fields(taint, of_sys("version"), of_sys("srcversion"))));
            }
            None => skipped += 1,
        }
    }
    Ok(listing(ItemKind::KernelModule, modules, skipped))
}

/// Files of procfs and sysfs have no length, and nobody but the kernel makes them.
fn read(root: &Root, path: &str, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(std::fs::File::open(root.path(path))?, limit), &mut bytes)?;
    Ok(bytes)
}

#[derive(Debug, PartialEq, Eq)]
struct Module<'a> {
    name: &'a [u8],
    is_live: bool,
    /// Letters: out of tree, unsigned, proprietary.
    taint: Option<&'a [u8]>,
}

/// `nf_tables 286720 3 nft_ct,nft_masq, Live 0x0000000000000000 (OE)`.
fn parse(line: &[u8]) -> Option<Module<'_>> {
    let mut fields = line.split(|byte| *byte == b' ');
    let name = fields.next().filter(|name| !name.is_empty() && !name.contains(&b'/') && *name != b"..")?;
    let state = fields.nth(3)?;
    let taint = fields.nth(1).and_then(|taint| taint.strip_prefix(b"(")?.strip_suffix(b")"));
    Some(Module { name, is_live: state == b"Live", taint })
}

fn fields(taint: Option<&[u8]>, version: Option<Vec<u8>>, source_version: Option<Vec<u8>>) -> Fields {
    let mut fields = Fields::new();
    let mut set = |name: &str, bytes: Option<&[u8]>| {
        if let Some(bytes) = bytes.map(<[u8]>::trim_ascii).filter(|bytes| !bytes.is_empty()) {
            fields.set(FieldName::new(name), Value::text(&printable(bytes)));
        }
    };
    set("taint", taint);
    set("version", version.as_deref());
    set("source_version", source_version.as_deref());
    fields
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn modules_at_work_are_listed_with_their_version_and_taint() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "proc/modules",
            "nf_tables 286720 3 nft_ct,nft_masq, Live 0x0000000000000000\n\
             rootkit 16384 0 - Live 0x0000000000000000 (OE)\n\
             half 16384 0 - Loading 0x0000000000000000\n\
             ../../etc 1 0 - Live 0x0\nshort\n",
        );
        write("sys/module/rootkit/version", "1.2\n");
        write("sys/module/nf_tables/srcversion", "ABCDEF\n");
        let listing = read_all(&Root::at(folder.path())).unwrap();
        let shown: Vec<String> = listing
            .items
            .iter()
            .map(|(item, reading)| {
                format!("{item} {:?}", reading.fields.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(shown, ["kernel_module:nf_tables [\"source_version=ABCDEF\"]", "kernel_module:rootkit [\"taint=OE\", \"version=1.2\"]"]);
        assert_eq!(listing.skipped, 2);
    }

    #[test]
    fn a_kernel_without_modules_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_all(&Root::at(folder.path())).unwrap().items.is_empty());
    }

    proptest! {
        #[test]
        fn no_name_leads_out_of_its_folder(line in proptest::collection::vec(any::<u8>(), 0..80), text in "([a-z./]{0,4} ){0,7}") {
            for module in [parse(&line), parse(text.as_bytes())].into_iter().flatten() {
                prop_assert!(!module.name.contains(&b'/') && module.name != b"..");
            }
        }
    }
}
