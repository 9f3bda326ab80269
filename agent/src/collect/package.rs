//! Packages, from dpkg's own database and, where there are such, from apk's and rpm's.
//!
//! A package whose entry makes no sense is not gone: as long as its name can be told, what cannot be read
//! of it is unreadable.

mod origin;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read};

use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::{CollectError, Collector, Listing, Root, apk, listing, rpm};
use crate::kernel::file::{EntryType, Pinned};
pub use origin::Origins;

pub const STATUS: &str = "/var/lib/dpkg/status";

/// Many times what the largest known hosts have.
pub(super) const DATABASE_LIMIT: u64 = 256 * 1024 * 1024;
pub(super) const LINE_LIMIT: u64 = 16 * 1024;

/// Kept for as long as the version is: see [`origin`].
pub const ORIGIN: &str = "origin";

/// Most configuration files that a package has left behind.
const OBSOLETE_LIMIT: usize = 1024;

/// One installed package, as its manager tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Package {
    pub name: Vec<u8>,
    pub version: Vec<u8>,
    pub architecture: Vec<u8>,
    /// dpkg's three words, as in `install ok installed`; empty for apk and rpm.
    pub status: Vec<u8>,
    pub source: Vec<u8>,
    /// Of rpm: who made it, the key that signed it, and the stream of modules that it came by.
    pub vendor: Vec<u8>,
    pub signature_key: Vec<u8>,
    pub module: Vec<u8>,
    /// Of dpkg: the repositories that have its version.
    pub repositories: origin::Repositories,
    /// Configuration files that an earlier version brought and this one does not.
    pub obsolete_conffiles: Vec<Vec<u8>>,
    /// Fields that cannot be read, and why.
    pub unreadable: BTreeMap<&'static str, &'static str>,
}

pub const COLLECTOR: Collector = Collector {
    kind: ItemKind::Package,
    sources: &[STATUS, apk::DATABASES[0], apk::DATABASES[1], rpm::DATABASES[0], rpm::DATABASES[1]],
    poll: None,
    read: |place| read_all(place.root, &place.kept.origins),
};

pub fn read_all(root: &Root, origins: &Origins) -> Result<Listing, CollectError> {
    let failed = |error: io::Error| CollectError::database(STATUS, &error);
    let (mut packages, mut skipped) = (Vec::new(), 0);
    match Pinned::follow(&root.path(STATUS)) {
        Ok(pinned) if pinned.metadata.entry_type == EntryType::File => {
            let mut file = pinned.contents().map_err(failed)?.into_file().take(DATABASE_LIMIT + 1);
            (packages, skipped) = parse(BufReader::with_capacity(64 * 1024, &mut file)).map_err(failed)?;
            // What lies beyond would be told as removed.
            if file.limit() == 0 {
                return Err(failed(io::Error::other(format!("it is larger than {DATABASE_LIMIT} bytes"))));
            }
        }
        Ok(_) => return Err(failed(io::Error::other("it is not a regular file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let repositories = origins.of(root, &packages);
    for (package, repositories) in packages.iter_mut().zip(repositories) {
        package.repositories = repositories;
    }
    let (more, malformed) = apk::read_all(root)?;
    packages.extend(more);
    skipped += malformed;
    if let Some(database) = rpm::database(root) {
        let (more, malformed) = rpm::read_all(&database)?;
        packages.extend(more);
        skipped += malformed;
    }
    let mut listing = named(packages);
    listing.skipped += skipped;
    Ok(listing)
}

/// Streams dpkg's status file (deb-control(5) stanzas); keeps what is at least partly on the disk.
/// With the packages: how many stanzas had no name.
pub fn parse(mut status: impl BufRead) -> io::Result<(Vec<Package>, u64)> {
    let (mut packages, mut skipped) = (Vec::new(), 0);
    let mut line = Vec::new();
    let mut package = Package::default();
    let mut started = false;
    let mut is_among_conffiles = false;
    loop {
        line.clear();
        let read = status.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line)?;
        let is_cut = line.len() as u64 == LINE_LIMIT && !line.ends_with(b"\n");
        if is_cut {
            status.skip_until(b'\n')?;
        }
        let text = line.trim_ascii_end();
        if text.is_empty() {
            if started {
                started = false;
                let mut package = std::mem::take(&mut package);
                let is_present = is_present(&package.status);
                if is_present.is_none() {
                    package.unreadable.entry("status").or_insert("it is no status that dpkg has");
                }
                match is_present {
                    Some(false) => {}
                    _ if package.name.is_empty() => skipped += 1,
                    _ => packages.push(package),
                }
            }
            if read == 0 {
                return Ok((packages, skipped));
            }
            continue;
        }
        started = true;
        if text[0] == b' ' {
            if is_among_conffiles && !is_cut {
                package.obsolete_conffiles.extend(obsolete_conffile(text).filter(|_| package.obsolete_conffiles.len() < OBSOLETE_LIMIT));
            }
            continue;
        }
        is_among_conffiles = text == b"Conffiles:";
        let Some(colon) = text.iter().position(|byte| *byte == b':') else { continue };
        let (place, field) = match &text[..colon] {
            b"Package" => (&mut package.name, "name"),
            b"Version" => (&mut package.version, "version"),
            b"Architecture" => (&mut package.architecture, "architecture"),
            b"Status" => (&mut package.status, "status"),
            b"Source" => (&mut package.source, "source"),
            _ => continue,
        };
        if is_cut {
            package.unreadable.insert(field, "its line is longer than any that is read");
        } else {
            *place = text[colon + 1..].trim_ascii().to_vec();
        }
    }
}

/// ` /etc/x 0123… obsolete`, with or without another word behind it.
fn obsolete_conffile(line: &[u8]) -> Option<Vec<u8>> {
    let words: Vec<_> = line.trim_ascii().split(|byte| *byte == b' ').collect();
    let at = words.iter().skip(2).position(|word| *word == b"obsolete")?;
    Some(words[..=at].join(&b' '))
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
pub fn named(packages: Vec<Package>) -> Listing {
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
    let mut set = |name: &'static str, values: Vec<&Vec<u8>>| {
        if let Some(reason) = group.iter().find_map(|package| package.unreadable.get(name)) {
            return fields.set(FieldName::known(name), Value::unreadable(reason));
        }
        let mut texts: Vec<String> =
            values.into_iter().filter(|value| !value.is_empty()).map(|value| Value::bytes(value).to_string()).collect();
        texts.sort_unstable();
        texts.dedup();
        match texts.len() {
            0 => {}
            1 => fields.set(FieldName::known(name), Value::Text(texts.remove(0))),
            _ => fields.set(FieldName::known(name), Value::list(texts)),
        }
    };
    set("version", group.iter().map(|package| &package.version).collect());
    set("architecture", group.iter().map(|package| &package.architecture).collect());
    set("status", group.iter().map(|package| &package.status).collect());
    set("source", group.iter().map(|package| &package.source).collect());
    set("vendor", group.iter().map(|package| &package.vendor).collect());
    set("signature_key", group.iter().map(|package| &package.signature_key).collect());
    set("module", group.iter().map(|package| &package.module).collect());
    let repositories: BTreeSet<_> = group.iter().flat_map(|package| package.repositories.iter()).map(ToString::to_string).collect();
    if !repositories.is_empty() {
        fields.set(FieldName::known(ORIGIN), Value::list(repositories.into_iter().collect()));
    }
    // What upgrades leave alone. Nearly all are not held, and have no such field.
    if group.iter().any(|package| package.status.starts_with(b"hold ")) {
        fields.set(FieldName::known("hold"), true.into());
    }
    let obsolete: BTreeSet<_> =
        group.iter().flat_map(|package| &package.obsolete_conffiles).map(|path| text::printable(path).into_owned()).collect();
    if !obsolete.is_empty() {
        fields.set(FieldName::known("obsolete_conffiles"), Value::list(obsolete.into_iter().collect()));
    }
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
        assert_eq!(skipped, 1);
        assert_eq!(
            shown(&named(packages)),
            [
                r#"package:dpkg {"architecture":"amd64","status":"install ok installed","version":"1.21.22"}"#,
                r#"package:libc6 {"architecture":"amd64","hold":true,"source":"glibc (2.36)","status":"hold ok installed","version":"2.36-9"}"#,
                r#"package:libc6:i386 {"architecture":"i386","source":"glibc","status":"install ok installed","version":"2.36-9"}"#,
                // Left out, it would be told as removed.
                r#"package:odd {"status":{"unreadable":"it is no status that dpkg has"}}"#,
                r#"package:torn {"architecture":"all","status":"install reinstreq half-installed","version":"3"}"#,
            ]
        );
    }

    /// Held back, such a file goes on deciding what happens although no package knows of it any more.
    #[test]
    fn configuration_files_that_a_package_left_behind_are_told() {
        let status = "Package: a\nStatus: install ok installed\nConffiles:\n /etc/a.conf 0123\n /etc/b c.conf 4567 obsolete\n \
            /etc/a.d 89ab obsolete remove-on-upgrade\nDescription: x\n /etc/no 1 obsolete\nVersion: 1\n";
        let (packages, _) = parse(status.as_bytes()).unwrap();
        let obsolete = r#""obsolete_conffiles":["/etc/a.d","/etc/b c.conf"]"#;
        assert_eq!(shown(&named(packages)), [format!(r#"package:a {{{obsolete},"status":"install ok installed","version":"1"}}"#)]);
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
        let status = format!("Package: a\nStatus: install ok installed\nVersion: {}\nSource: s\n\n", "1".repeat(1 << 20));
        let (packages, _) = parse(BufReader::new(status.as_bytes())).unwrap();
        let version = r#"{"unreadable":"its line is longer than any that is read"}"#;
        let expected = format!(r#"package:a {{"source":"s","status":"install ok installed","version":{version}}}"#);
        assert_eq!(shown(&named(packages)), [expected]);
    }

    #[test]
    fn a_database_that_is_larger_than_what_is_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("var/lib/dpkg")).unwrap();
        let file = std::fs::File::create(folder.path().join(&STATUS[1..])).unwrap();
        file.set_len(DATABASE_LIMIT + 1).unwrap();
        let error = read_all(&Root::at(folder.path()), &Origins::default()).unwrap_err().to_string();
        assert!(error.contains("larger than"), "{error}");
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
