//! Packages, from dpkg's own database and, where there is one, from rpm's.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use trueline_drift::{FieldName, Fields, ItemKind, Value};

use super::{CollectError, Listing, Root, listing, rpm};
use crate::kernel::file::{EntryType, Pinned};

pub const STATUS: &str = "/var/lib/dpkg/status";

/// Many times what the largest known hosts have.
const DATABASE_LIMIT: u64 = 256 * 1024 * 1024;
const LINE_LIMIT: u64 = 16 * 1024;

/// One installed package, as its manager tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Package {
    pub name: Vec<u8>,
    pub version: Vec<u8>,
    pub architecture: Vec<u8>,
    /// dpkg's three words, as in `install ok installed`; empty for rpm.
    pub status: Vec<u8>,
    pub source: Vec<u8>,
}

pub fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let failed = |error: io::Error| CollectError::database(STATUS, &error);
    let (mut packages, mut skipped) = (Vec::new(), 0);
    match Pinned::follow(&root.path(STATUS)) {
        Ok(pinned) if pinned.metadata.entry_type == EntryType::File => {
            let file = pinned.contents().map_err(failed)?.into_file();
            (packages, skipped) = parse(BufReader::with_capacity(64 * 1024, file.take(DATABASE_LIMIT))).map_err(failed)?;
        }
        Ok(_) => return Err(failed(io::Error::other("it is not a regular file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    if rpm::has_database(root) {
        let (more, malformed) = rpm::read_all(root)?;
        packages.extend(more);
        skipped += malformed;
    }
    let mut listing = named(packages);
    listing.skipped += skipped;
    Ok(listing)
}

/// Streams dpkg's status file (deb-control(5) stanzas); keeps what is at least partly on the disk.
/// With the packages: how many stanzas made no sense.
pub fn parse(mut status: impl BufRead) -> io::Result<(Vec<Package>, u64)> {
    let (mut packages, mut skipped) = (Vec::new(), 0);
    let mut line = Vec::new();
    let mut package = Package::default();
    let mut started = false;
    loop {
        line.clear();
        let read = status.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line)?;
        if line.len() as u64 == LINE_LIMIT && !line.ends_with(b"\n") {
            // No field that is taken here is as long: what follows on this line belongs to another.
            status.skip_until(b'\n')?;
        }
        let text = line.trim_ascii_end();
        if text.is_empty() {
            if started {
                started = false;
                let package = std::mem::take(&mut package);
                match is_present(&package.status) {
                    Some(true) if !package.name.is_empty() => packages.push(package),
                    Some(false) => {}
                    _ => skipped += 1,
                }
            }
            if read == 0 {
                return Ok((packages, skipped));
            }
            continue;
        }
        started = true;
        let Some(colon) = text.iter().position(|byte| *byte == b':') else { continue };
        let place = match &text[..colon] {
            b"Package" => &mut package.name,
            b"Version" => &mut package.version,
            b"Architecture" => &mut package.architecture,
            b"Status" => &mut package.status,
            b"Source" => &mut package.source,
            _ => continue,
        };
        *place = text[colon + 1..].trim_ascii().to_vec();
    }
}

/// Whether a package with this status has files on the disk; `None` for what is no status.
fn is_present(status: &[u8]) -> Option<bool> {
    let mut words = status.split(|byte| *byte == b' ');
    match words.nth(2)? {
        b"not-installed" | b"config-files" => Some(false),
        b"installed" | b"unpacked" | b"half-installed" | b"half-configured" | b"triggers-awaited" | b"triggers-pending" => Some(true),
        _ => None,
    }
}

/// Gives each package its key: the name, with the architecture where it is not the host's own. A
/// package installed in several versions (kernels under rpm) is one item with a list of them.
fn named(packages: Vec<Package>) -> Listing {
    let own = own_architecture(&packages).map(<[u8]>::to_vec);
    let mut groups = BTreeMap::<Vec<u8>, Vec<Package>>::new();
    for package in packages {
        let arch = &package.architecture;
        let is_foreign = !arch.is_empty() && own.as_ref() != Some(arch) && !matches!(arch.as_slice(), b"all" | b"noarch");
        let mut key = package.name.clone();
        if is_foreign {
            key.push(b':');
            key.extend(arch);
        }
        groups.entry(key).or_default().push(package);
    }
    listing(ItemKind::Package, groups.into_iter().map(|(key, group)| (key, fields(&group))), 0)
}

fn own_architecture(packages: &[Package]) -> Option<&[u8]> {
    let of = |name: &[u8]| packages.iter().find(|package| package.name == name).map(|package| package.architecture.as_slice());
    of(b"dpkg").or_else(|| of(b"glibc")).or_else(|| {
        let mut specific = packages.iter().map(|package| package.architecture.as_slice());
        specific.find(|arch| !matches!(*arch, b"all" | b"noarch" | b"(none)" | b""))
    })
}

fn fields(group: &[Package]) -> Fields {
    let mut fields = Fields::new();
    let mut set = |name, values: Vec<&Vec<u8>>| {
        let mut texts: Vec<String> =
            values.into_iter().filter(|value| !value.is_empty()).map(|value| Value::bytes(value).to_string()).collect();
        texts.sort_unstable();
        texts.dedup();
        match texts.len() {
            0 => {}
            1 => fields.set(FieldName::known(name), Value::Text(texts.remove(0))),
            _ => fields.set(FieldName::known(name), Value::List(texts)),
        }
    };
    set("version", group.iter().map(|package| &package.version).collect());
    set("architecture", group.iter().map(|package| &package.architecture).collect());
    set("status", group.iter().map(|package| &package.status).collect());
    set("source", group.iter().map(|package| &package.source).collect());
    fields
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE: &str = "Package: dpkg\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.21.22\nDescription: x\n Version: not this\n\n\
        Package: libc6\nStatus: install ok installed\nArchitecture: i386\nMulti-Arch: same\nSource: glibc\nVersion: 2.36-9\n\n\
        Package: libc6\nStatus: hold ok installed\nArchitecture: amd64\nMulti-Arch: same\nSource: glibc (2.36)\nVersion: 2.36-9\n\n\
        Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\n\
        Package: torn\nStatus: install reinstreq half-installed\nArchitecture: all\nVersion: 3\n\n\
        Package: odd\nStatus: what\n\nVersion: 9\n";

    fn shown(listing: &Listing) -> Vec<String> {
        listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect()
    }

    #[test]
    fn what_dpkg_has_on_the_disk_is_listed_by_name_and_foreign_architecture() {
        let (packages, skipped) = parse(SAMPLE.as_bytes()).unwrap();
        assert_eq!(skipped, 2);
        assert_eq!(
            shown(&named(packages)),
            [
                r#"package:dpkg {"architecture":"amd64","status":"install ok installed","version":"1.21.22"}"#,
                r#"package:libc6 {"architecture":"amd64","source":"glibc (2.36)","status":"hold ok installed","version":"2.36-9"}"#,
                r#"package:libc6:i386 {"architecture":"i386","source":"glibc","status":"install ok installed","version":"2.36-9"}"#,
                r#"package:torn {"architecture":"all","status":"install reinstreq half-installed","version":"3"}"#,
            ]
        );
    }

    #[test]
    fn versions_side_by_side_are_one_item() {
        let kernel = |version: &[u8]| Package {
            name: b"kernel".to_vec(),
            version: version.to_vec(),
            architecture: b"x86_64".to_vec(),
            ..Package::default()
        };
        let listing = named(vec![kernel(b"6.2"), kernel(b"6.1")]);
        assert_eq!(shown(&listing), [r#"package:kernel {"architecture":"x86_64","version":["6.1","6.2"]}"#]);
    }

    #[test]
    fn an_endless_line_is_not_held() {
        let status = format!("Package: a\nStatus: install ok installed\nJunk: {}\nVersion: 1\n\n", "x".repeat(1 << 20));
        let (packages, _) = parse(BufReader::new(status.as_bytes())).unwrap();
        assert_eq!(packages[0].version, b"1");
    }

    proptest! {
        #[test]
        fn hostile_status_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "(Package|Status|: |a|\n| ok installed){0,20}") {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                named(parse(bytes).unwrap().0);
                named(rpm::parse(bytes).0);
            }
        }
    }
}
