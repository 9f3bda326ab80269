//! Linux security modules: which are on (`list`), and what SELinux and AppArmor enforce.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use trueline_drift::format::Format;
use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::{CollectError, Collector, Listing, Root, folder, listing, refusal};

const LIST: &str = "/sys/kernel/security/lsm";
const SELINUX_CONFIG: &str = "/etc/selinux/config";
const SELINUX_ENFORCE: &str = "/sys/fs/selinux/enforce";
const APPARMOR_ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const APPARMOR_PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
/// The same as folders, each with the files `name` and `mode`, and a folder `profiles` for those within it.
const APPARMOR_POLICY: &str = "/sys/kernel/security/apparmor/policy/profiles";

const LIMIT: u64 = 4 * 1024 * 1024;

/// Modes and profiles are the kernel's, and neither securityfs nor selinuxfs tells of a change. Four small reads, and where only
/// root may read the list of AppArmor's profiles two more for each of them.
const POLL: Duration = Duration::from_secs(30);

/// Many times what a distribution ships.
const PROFILES_LIMIT: usize = 4096;
/// How deep profiles may lie in each other; the kernel itself has one within another.
const DEPTH: usize = 4;

/// What a profile can be in.
const MODES: &[&str] = &["complain", "enforce", "kill", "prompt", "unconfined"];

pub const COLLECTOR: Collector =
    Collector { kind: ItemKind::Lsm, sources: &[SELINUX_CONFIG], poll: Some(POLL), read: |place| read_all(place.root) };

fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let mut skipped = 0;
    let modules = [("list", modules(root)), ("selinux", selinux(root)), ("apparmor", apparmor(root, &mut skipped))];
    let mut items = Vec::new();
    for (name, fields) in modules {
        let fields = fields.map_err(|error| CollectError::database(format!("the security module {name}"), &error))?;
        items.extend(fields.map(|fields| (name.as_bytes().to_vec(), fields)));
    }
    Ok(listing(ItemKind::Lsm, items, skipped))
}

/// In the order in which the kernel asks them.
fn modules(root: &Root) -> io::Result<Option<Fields>> {
    let list = folder::word(root, LIST)?.map(|list| list.split(',').map(str::to_owned).collect());
    Ok(list.map(|list| [(FieldName::known("modules"), Value::list(list))].into_iter().collect()))
}

fn selinux(root: &Root) -> io::Result<Option<Fields>> {
    let config = root.read(SELINUX_CONFIG, LIMIT)?;
    let enforce = folder::word(root, SELINUX_ENFORCE)?;
    if config.is_none() && enforce.is_none() {
        return Ok(None);
    }
    let mut fields = Fields::new();
    match config.map(|config| Format::KeyValue.read(&config)) {
        Some(Ok(settings)) => {
            for (name, value) in settings.fields(|_, value| value.to_owned()) {
                match name.as_str() {
                    "config.SELINUX" => fields.set(FieldName::known("configured"), value),
                    "config.SELINUXTYPE" => fields.set(FieldName::known("policy"), value),
                    _ => {}
                }
            }
        }
        Some(Err(error)) => fields.set(FieldName::known("configured"), Value::unreadable(error)),
        None => {}
    }
    let mode = match enforce.as_deref() {
        Some("1") => "enforcing".into(),
        Some("0") => "permissive".into(),
        Some(_) => Value::unreadable("the kernel tells neither 0 nor 1"),
        None => "disabled".into(),
    };
    fields.set(FieldName::known("mode"), mode);
    Ok(Some(fields))
}

fn apparmor(root: &Root, skipped: &mut u64) -> io::Result<Option<Fields>> {
    let Some(enabled) = folder::word(root, APPARMOR_ENABLED)? else { return Ok(None) };
    let mut fields = Fields::new();
    fields.set(FieldName::known("enabled"), (enabled == "Y").into());
    let list = match root.read(APPARMOR_PROFILES, LIMIT) {
        // Only who may see the policy as a whole may read the list.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let mut list = Vec::new();
            survey(root, APPARMOR_POLICY, "", DEPTH, &mut list).map(|()| Some(list))
        }
        other => other,
    };
    match list {
        Ok(list) => {
            let (profiles, malformed) = profiles(&list.unwrap_or_default());
            *skipped += malformed;
            for (mode, names) in profiles {
                fields.set(FieldName::known(mode), Value::list(names));
            }
        }
        Err(error) => {
            let reason = Value::unreadable(refusal::reason(&error));
            ["complain", "enforce"].iter().for_each(|mode| fields.set(FieldName::known(mode), reason.clone()));
        }
    }
    Ok(Some(fields))
}

/// The profiles beneath a folder, written as the kernel's own list has them.
fn survey(root: &Root, place: &str, parent: &str, depth: usize, list: &mut Vec<u8>) -> io::Result<()> {
    for (entry, _) in folder::names(root, place, PROFILES_LIMIT)? {
        let Some(profile) = folder::beneath(place, &entry) else { continue };
        let (name, mode) = (root.read(&format!("{profile}/name"), LIMIT), root.read(&format!("{profile}/mode"), LIMIT));
        // Unloaded since it was listed.
        let (Some(name), Some(mode)) = (name?, mode?) else { continue };
        let name = String::from_utf8_lossy(name.trim_ascii()).into_owned();
        let name = if parent.is_empty() { name } else { format!("{parent}//{name}") };
        list.extend_from_slice(name.as_bytes());
        list.extend_from_slice(b" (");
        list.extend_from_slice(mode.trim_ascii());
        list.extend_from_slice(b")\n");
        if list.len() as u64 > LIMIT {
            return Err(io::Error::other(format!("its profiles are longer than {LIMIT} bytes")));
        }
        if depth > 0 {
            survey(root, &format!("{profile}/profiles"), &name, depth - 1, list)?;
        }
    }
    Ok(())
}

/// `name (mode)` by line. What a profile that complains learns by itself is not among them.
fn profiles(list: &[u8]) -> (BTreeMap<&'static str, Vec<String>>, u64) {
    let mut profiles = BTreeMap::<_, Vec<String>>::new();
    let mut malformed = 0;
    for line in list.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line = text::printable(line);
        let parts = line.rsplit_once(" (").and_then(|(name, mode)| Some((name, mode.strip_suffix(')')?)));
        let known = parts.and_then(|(name, mode)| Some((name, MODES.iter().find(|known| **known == mode)?)));
        match known {
            Some((name, _)) if name.contains("//null-") => {}
            Some((name, mode)) => profiles.entry(*mode).or_default().push(name.to_owned()),
            None => malformed += 1,
        }
    }
    profiles.values_mut().for_each(|names| names.sort_unstable());
    (profiles, malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        for (path, text) in files {
            std::fs::create_dir_all(root.path(path).parent().unwrap()).unwrap();
            std::fs::write(root.path(path), text).unwrap();
        }
        (folder, root)
    }

    fn shown(root: &Root) -> Vec<String> {
        let listing = read_all(root).unwrap();
        listing.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect()
    }

    #[test]
    fn a_host_with_apparmor_tells_its_profiles_by_mode() {
        let (_folder, root) = sample(&[
            (LIST, "lockdown,capability,yama,apparmor"),
            (APPARMOR_ENABLED, "Y\n"),
            (
                APPARMOR_PROFILES,
                "/usr/sbin/ntpd (enforce)\n/usr/bin/man (enforce)\n/usr/bin/man//filter (enforce)\nfirefox (paths) (complain)\n\
                firefox (paths)//null-/usr/bin/id (complain)\nodd\n",
            ),
        ]);
        assert_eq!(
            shown(&root),
            [
                r#"lsm:apparmor {"complain":["firefox (paths)"],"enabled":true,"enforce":["/usr/bin/man","/usr/bin/man//filter","/usr/sbin/ntpd"]}"#,
                r#"lsm:list {"modules":["lockdown","capability","yama","apparmor"]}"#,
            ]
        );
        assert_eq!(read_all(&root).unwrap().skipped, 1);
    }

    #[test]
    fn profiles_are_the_same_where_only_root_may_read_their_list() {
        let policy = |file: &str| format!("{APPARMOR_POLICY}/{file}");
        let files = [
            ("usr.bin.man.7/name", "/usr/bin/man\n"),
            ("usr.bin.man.7/mode", "enforce\n"),
            ("usr.bin.man.7/profiles/filter.1/name", "filter\n"),
            ("usr.bin.man.7/profiles/filter.1/mode", "complain\n"),
            ("gone.2/name", "gone\n"),
        ]
        .map(|(file, text)| (policy(file), text));
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        let (_folder, root) = sample(&files);
        let mut list = Vec::new();
        survey(&root, APPARMOR_POLICY, "", DEPTH, &mut list).unwrap();
        assert_eq!(String::from_utf8(list).unwrap(), "/usr/bin/man (enforce)\n/usr/bin/man//filter (complain)\n");
    }

    #[test]
    fn what_selinux_is_set_to_and_what_it_does_are_two_fields() {
        let config = "# comment\nSELINUX=enforcing\nSELINUXTYPE=targeted\n";
        let (_folder, root) = sample(&[(SELINUX_CONFIG, config), (SELINUX_ENFORCE, "0")]);
        assert_eq!(shown(&root), [r#"lsm:selinux {"configured":"enforcing","mode":"permissive","policy":"targeted"}"#]);
        let (_folder, root) = sample(&[(SELINUX_CONFIG, config)]);
        assert_eq!(shown(&root), [r#"lsm:selinux {"configured":"enforcing","mode":"disabled","policy":"targeted"}"#]);
    }

    #[test]
    fn this_machines_modules_are_told_where_its_kernel_tells_them() {
        let listing = read_all(&Root::host()).unwrap();
        let is_told = std::path::Path::new("/sys/kernel/security/lsm").exists();
        assert_eq!(listing.items.iter().any(|(item, _)| item.to_string() == "lsm:list"), is_told, "{listing:?}");
    }

    proptest! {
        #[test]
        fn hostile_lists_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "([a()/ ]|enforce|\n){0,60}") {
            profiles(&bytes);
            profiles(text.as_bytes());
        }
    }
}
