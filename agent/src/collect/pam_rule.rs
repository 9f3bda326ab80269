//! What PAM asks before it lets somebody in: one item for each service, with its stacks in order. A file of /etc hides that of
//! the vendor with the same name.

use std::collections::BTreeMap;

use trueline_drift::format::Format;
use trueline_drift::redact::{self, RedactionKey};
use trueline_drift::{FieldName, Fields, ItemKind, Value};

use super::texts::{Links, files};
use super::{CollectError, Collector, Listing, Place, listing};

const FILE_LIMIT: u64 = 1024 * 1024;

/// The vendor's first, so that the host's own replace them.
const FOLDERS: [&str; 2] = ["/usr/lib/pam.d", "/etc/pam.d"];

const STACKS: [&str; 4] = ["account", "auth", "password", "session"];

pub const COLLECTOR: Collector =
    Collector { kind: ItemKind::PamRule, sources: &["/etc/pam.d", "/usr/lib/pam.d"], poll: None, read: read_all };

fn read_all(place: &Place<'_>) -> Result<Listing, CollectError> {
    let mut services = BTreeMap::new();
    for folder in FOLDERS {
        let found = files(place.root, folder, Links::Followed, FILE_LIMIT).map_err(|error| CollectError::database(folder, &error))?;
        for entry in found {
            let mut fields = match entry.text {
                Ok(text) => parse(&text, place.key),
                Err(reason) => unreadable(&reason),
            };
            fields.set(FieldName::known("source"), Value::text(&entry.path));
            services.insert(trueline_drift::text::original(&entry.name).into_owned(), fields);
        }
    }
    Ok(listing(ItemKind::PamRule, services, 0))
}

/// The stacks of one service. Where it is not known what they are, none is told as empty.
pub fn parse(text: &[u8], key: &RedactionKey) -> Fields {
    let settings = match Format::Pam.read(text) {
        Ok(settings) => settings,
        Err(error) => return unreadable(&error.to_string()),
    };
    let stacks = settings.fields(|_, line| redact::line(line, key).into_owned());
    let stacks = stacks.into_iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix("config.").unwrap_or("left_out");
        let name = STACKS.iter().chain(&["left_out"]).find(|known| **known == name)?;
        Some((FieldName::known(name), value))
    });
    stacks.collect()
}

fn unreadable(reason: &str) -> Fields {
    STACKS.iter().map(|stack| (FieldName::known(stack), Value::unreadable(reason))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Root;
    use super::*;

    fn key() -> RedactionKey {
        RedactionKey::new([7; 32])
    }

    #[test]
    fn a_service_is_told_by_its_stacks_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("usr/lib/pam.d/sshd", "auth required pam_vendor.so\n"),
            ("etc/pam.d/sshd", "# login\nauth  required   pam_faildelay.so delay=3\n@include common-auth\n-session optional pam_x.so\n"),
            ("etc/pam.d/sshd.dpkg-old", "auth sufficient pam_permit.so\n"),
            ("etc/pam.d/torn", "a\0b"),
        ] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::at(folder.path());
        let policy = trueline_drift::watch::WatchPolicy::default();
        let read = read_all(&Place {
            root: &root,
            policy: &policy,
            key: &key(),
            holders: &crate::collect::Holders::here(root.clone()),
            kept: &crate::collect::Kept::default(),
        })
        .unwrap();
        let shown: Vec<_> =
            read.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect();
        assert_eq!(shown.len(), 2, "{shown:?}");
        let stacks = r#""auth":["required pam_faildelay.so delay=3","@include common-auth"]"#;
        assert!(shown[0].starts_with("pam_rule:sshd ") && shown[0].contains(stacks), "{shown:?}");
        assert!(shown[0].contains(r#""source":"/etc/pam.d/sshd""#) && shown[0].contains("-optional pam_x.so"), "{shown:?}");
        assert!(read.items[1].1.fields.value("auth").unwrap().is_unreadable());
    }

    #[test]
    fn a_secret_that_a_module_is_given_is_masked() {
        let fields = parse(b"auth required pam_mysql.so user=root passwd=hunter2secret host=db\n", &key());
        assert!(!serde_json::to_string(&fields).unwrap().contains("hunter2secret"), "{fields:?}");
    }

    proptest! {
        #[test]
        fn hostile_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(auth|@include|-|\\\\|\n|#| |a){0,40}") {
            let _ = parse(&bytes, &key());
            let _ = parse(text.as_bytes(), &key());
        }
    }
}
