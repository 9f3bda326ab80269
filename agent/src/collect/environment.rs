//! Variables that every login begins with, from /etc/environment and pam_env.conf(5). What a shell's profile sets is a file's
//! matter: only a shell can tell what it comes to.

use std::collections::BTreeMap;

use trueline_drift::format::Format;
use trueline_drift::redact::{self, RedactionKey};
use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::{CollectError, Collector, Listing, Place, listing};

const FILE: &str = "/etc/environment";
const PAM_ENV: &str = "/etc/security/pam_env.conf";
const FILE_LIMIT: u64 = 1024 * 1024;
const VARIABLES_LIMIT: usize = 4096;

pub const COLLECTOR: Collector = Collector { kind: ItemKind::Environment, sources: &[FILE, PAM_ENV], poll: None, read: read_all };

type Variables = BTreeMap<Vec<u8>, Fields>;

fn read_all(place: &Place<'_>) -> Result<Listing, CollectError> {
    let read = |path: &str| place.root.read(path, FILE_LIMIT).map_err(|error| CollectError::database(path, &error));
    let mut variables = Variables::new();
    let mut skipped = take_pam_env(&read(PAM_ENV)?.unwrap_or_default(), place.key, &mut variables);
    let settings = Format::KeyValue
        .read(&read(FILE)?.unwrap_or_default())
        .map_err(|error| CollectError::Database { subject: FILE.to_owned(), reason: error.to_string() })?;
    for (name, value) in settings.fields(|name, value| redact::setting(name, value, place.key).into_owned()) {
        match name.as_str().strip_prefix("config.") {
            Some(name) => {
                let fields = variables.entry(text::original(name).into_owned()).or_default();
                fields.set(FieldName::known("source"), Value::text(FILE));
                fields.set(FieldName::known("value"), value);
            }
            None => skipped += 1,
        }
    }
    Ok(listing(ItemKind::Environment, variables, skipped))
}

/// `VARIABLE [DEFAULT=value] [OVERRIDE=value]`, each value in quotes where it holds blanks. Tells how many lines make no sense.
fn take_pam_env(contents: &[u8], key: &RedactionKey, variables: &mut Variables) -> u64 {
    let mut skipped = 0;
    let mut joined = Vec::new();
    let mut lines = contents.split(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let is_comment = joined.is_empty() && line.trim_ascii_start().starts_with(b"#");
        let begun = line.strip_suffix(b"\\").filter(|_| !is_comment && lines.peek().is_some());
        joined.extend_from_slice(begun.unwrap_or(line));
        if begun.is_some() {
            joined.push(b' ');
            continue;
        }
        let line = std::mem::take(&mut joined);
        let line = line.trim_ascii();
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
        let (name, mut rest) = (&line[..end], line[end..].trim_ascii_start());
        let mut fields = Fields::new();
        let mut makes_sense = !name.contains(&b'=') && variables.len() < VARIABLES_LIMIT;
        while makes_sense && !rest.is_empty() {
            let (field, after) = if let Some(after) = rest.strip_prefix(b"DEFAULT=") {
                ("default", after)
            } else if let Some(after) = rest.strip_prefix(b"OVERRIDE=") {
                ("override", after)
            } else {
                makes_sense = rest[0] == b'#';
                break;
            };
            let quoted = after.first() == Some(&b'"');
            let start = usize::from(quoted);
            let ends = |byte: &u8| if quoted { *byte == b'"' } else { byte.is_ascii_whitespace() };
            let length = after[start..].iter().position(ends).unwrap_or(after.len() - start);
            let value = text::printable(&after[start..start + length]);
            let name = text::printable(name);
            if !value.is_empty() {
                fields.set(FieldName::known(field), Value::text(&redact::setting(&name, &value, key)));
            }
            rest = after[(start + length + start).min(after.len())..].trim_ascii_start();
        }
        if makes_sense {
            fields.set(FieldName::known("source"), Value::text(PAM_ENV));
            variables.insert(name.to_vec(), fields);
        } else {
            skipped += 1;
        }
    }
    skipped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Root;
    use super::*;

    #[test]
    fn variables_are_told_by_name_and_secrets_are_not() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("etc/security")).unwrap();
        let write = |path: &str, text: &str| std::fs::write(folder.path().join(path), text).unwrap();
        write("etc/environment", "PATH=\"/usr/bin:/bin\"\nDB_PASSWORD=hunter2secret\n# no\n");
        write(
            "etc/security/pam_env.conf",
            "REMOTEHOST DEFAULT=localhost OVERRIDE=\"@{PAM RHOST}\"\nAPI_TOKEN \\\n  DEFAULT=hunter2secret\n# no \\\n= x\n",
        );
        let root = Root::at(folder.path());
        let policy = trueline_drift::watch::WatchPolicy::default();
        let key = RedactionKey::new([7; 32]);
        let read = read_all(&Place {
            root: &root,
            policy: &policy,
            key: &key,
            holders: &crate::collect::Holders::here(root.clone()),
            kept: &crate::collect::Kept::default(),
        })
        .unwrap();
        let shown: Vec<_> =
            read.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect();
        assert_eq!((shown.len(), read.skipped), (4, 1), "{shown:?}");
        assert!(!shown.join("").contains("hunter2secret"), "{shown:?}");
        assert_eq!(shown[2], r#"environment:PATH {"source":"/etc/environment","value":"/usr/bin:/bin"}"#);
        let host = r#"environment:REMOTEHOST {"default":"localhost","override":"@{PAM RHOST}","source":"/etc/security/pam_env.conf"}"#;
        assert_eq!(shown[3], host);
    }

    proptest! {
        #[test]
        fn hostile_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(A|DEFAULT=|OVERRIDE=|\"| |\n|x){0,40}") {
            let key = RedactionKey::new([7; 32]);
            take_pam_env(&bytes, &key, &mut Variables::new());
            take_pam_env(text.as_bytes(), &key, &mut Variables::new());
        }
    }
}
