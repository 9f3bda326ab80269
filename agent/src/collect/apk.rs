//! Packages of apk (Alpine), from its own database: a stanza for each, of lines that begin with one letter and a colon.

use std::io::{self, BufRead, BufReader, Read};

use super::package::{DATABASE_LIMIT, LINE_LIMIT, Package};
use super::{CollectError, Root};
use crate::kernel::file::{EntryType, Pinned};

/// Where releases before and after the merge of /usr keep it.
pub const DATABASES: &[&str] = &["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];

/// The packages, and how many stanzas had no name. None where there is no such database.
pub fn read_all(root: &Root) -> Result<(Vec<Package>, u64), CollectError> {
    for path in DATABASES {
        let failed = |error: io::Error| CollectError::database(*path, &error);
        let pinned = match Pinned::follow(&root.path(path)) {
            Ok(pinned) => pinned,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(failed(error)),
        };
        if pinned.metadata.entry_type != EntryType::File {
            return Err(failed(io::Error::other("it is not a regular file")));
        }
        let mut file = pinned.contents().map_err(failed)?.into_file().take(DATABASE_LIMIT + 1);
        let found = parse(BufReader::with_capacity(64 * 1024, &mut file)).map_err(failed)?;
        // What lies beyond would be told as removed.
        if file.limit() == 0 {
            return Err(failed(io::Error::other(format!("it is larger than {DATABASE_LIMIT} bytes"))));
        }
        return Ok(found);
    }
    Ok((Vec::new(), 0))
}

fn parse(mut database: impl BufRead) -> io::Result<(Vec<Package>, u64)> {
    let (mut packages, mut skipped) = (Vec::new(), 0);
    let mut package = Package::default();
    let mut line = Vec::new();
    let mut is_started = false;
    loop {
        line.clear();
        let read = database.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line)?;
        let is_cut = line.len() as u64 == LINE_LIMIT && !line.ends_with(b"\n");
        if is_cut {
            database.skip_until(b'\n')?;
        }
        let text = line.trim_ascii_end();
        if text.is_empty() {
            let package = std::mem::take(&mut package);
            match std::mem::take(&mut is_started) {
                true if package.name.is_empty() => skipped += 1,
                true => packages.push(package),
                false => {}
            }
            if read == 0 {
                return Ok((packages, skipped));
            }
            continue;
        }
        is_started = true;
        let (place, field) = match text {
            [b'P', b':', ..] => (&mut package.name, "name"),
            [b'V', b':', ..] => (&mut package.version, "version"),
            [b'A', b':', ..] => (&mut package.architecture, "architecture"),
            [b'o', b':', ..] => (&mut package.source, "source"),
            _ => continue,
        };
        if is_cut {
            package.unreadable.insert(field, "its line is longer than any that is read");
        } else {
            *place = text[2..].trim_ascii().to_vec();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::package;
    use super::*;

    const SAMPLE: &str = "C:Q1qKcZ+j23xssAXmgQhkOO8dHnbWw=\nP:musl\nV:1.2.4-r2\nA:x86_64\nS:383304\no:musl\nt:1689000000\nF:lib\nR:ld-musl-x86_64.so.1\n\n\
        P:tzdata\nV:2023c-r1\nA:noarch\no:tzdata\n\nV:7\n\nP:last\nV:1-r0\nA:x86_64\n";

    #[test]
    fn a_host_with_apk_has_its_packages_among_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        std::fs::create_dir_all(root.path(DATABASES[0]).parent().unwrap()).unwrap();
        std::fs::write(root.path(DATABASES[0]), SAMPLE).unwrap();
        let listing = package::read_all(&root, &package::Origins::default()).unwrap();
        let shown: Vec<_> =
            listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect();
        assert_eq!(
            shown,
            [
                r#"package:last {"architecture":"x86_64","version":"1-r0"}"#,
                r#"package:musl {"architecture":"x86_64","source":"musl","version":"1.2.4-r2"}"#,
                r#"package:tzdata {"architecture":"noarch","source":"tzdata","version":"2023c-r1"}"#,
            ]
        );
        assert_eq!(listing.skipped, 1);
    }

    #[test]
    fn an_endless_line_is_not_held() {
        let database = format!("P:a\nV:{}\nA:x\n\n", "1".repeat(1 << 20));
        let (packages, _) = parse(BufReader::new(database.as_bytes())).unwrap();
        assert_eq!(packages[0].unreadable, BTreeMap::from([("version", "its line is longer than any that is read")]));
        assert_eq!(packages[0].architecture, b"x");
    }

    proptest! {
        #[test]
        fn hostile_databases_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "([PVAoF]:|a|\n){0,60}") {
            parse(bytes.as_slice()).unwrap();
            parse(text.as_bytes()).unwrap();
        }
    }
}
