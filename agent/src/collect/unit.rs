//! systemd's unit files, and whether they are enabled, from the folders alone: a manager that is
//! asked may not be there, and says what it loaded, not what it will load.
//!
//! `enabled` follows systemctl is-enabled: enabled, enabled-runtime, linked, linked-runtime, alias,
//! masked, masked-runtime, static, indirect, disabled. Presets and generators are not considered.

pub mod activity;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use trueline_drift::format::unit::effective;
use trueline_drift::redact::RedactionKey;
use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::{CollectError, Collector, Listing, Root, listing, refusal, root, settings};
use activity::Activity;

/// In the order of priority, as in systemd.unit(5).
pub const FOLDERS: &[&str] =
    &["/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

const SUFFIXES: &[&str] =
    &[".service", ".socket", ".timer", ".path", ".mount", ".automount", ".swap", ".target", ".slice", ".scope", ".device"];

pub(super) const FRAGMENT_LIMIT: u64 = 1024 * 1024;
const DROPINS_LIMIT: usize = 64;
const INSTANCES_LIMIT: usize = 256;

/// What the folders hold, before it is judged.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The entry that counts for each unit, and the entry's own path.
    pub units: BTreeMap<Vec<u8>, PathBuf>,
    /// By unit and then by file name; the first folder's counts. Those for all units of a type are named as it is: `timer`.
    pub dropins: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, PathBuf>>,
    /// Units that a link in a .wants, .requires or .upholds folder, or an alias, of /etc or /run names.
    wanted: BTreeSet<Vec<u8>>,
    wanted_at_runtime: BTreeSet<Vec<u8>>,
    /// And of their packages.
    wanted_by_packages: BTreeSet<Vec<u8>>,
}

pub const COLLECTOR: Collector =
    Collector { kind: ItemKind::Unit, sources: FOLDERS, poll: None, read: |place| read_all(place.root, place.key) };

pub const ACTIVE: &str = "active";

pub fn read_all(root: &Root, key: &RedactionKey) -> Result<Listing, CollectError> {
    let found = found(root)?;
    let activity = Activity::read(root);
    let units = found.units.iter().map(|(name, path)| (name.clone(), fields(root, key, &found, name, path, activity.as_ref())));
    Ok(listing(ItemKind::Unit, units, 0))
}

pub(super) fn found(root: &Root) -> Result<Found, CollectError> {
    let mut found = Found::default();
    let mut seen = BTreeSet::new();
    for folder in FOLDERS {
        let place = root.path(folder);
        // With merged /usr, /lib/systemd/system is /usr/lib/systemd/system.
        let Ok(place) = place.canonicalize() else { continue };
        if seen.insert(place.clone()) {
            survey(&place, folder, &mut found).map_err(|error| CollectError::database(*folder, &error))?;
        }
    }
    Ok(found)
}

fn survey(place: &Path, folder: &str, found: &mut Found) -> io::Result<()> {
    for entry in std::fs::read_dir(place)? {
        let entry = entry?;
        let name = entry.file_name().as_bytes().to_vec();
        // Removed since it was listed.
        let Ok(kind) = entry.file_type() else { continue };
        if is_unit(&name) && !kind.is_dir() {
            if kind.is_symlink()
                && let Ok(target) = std::fs::read_link(entry.path())
                && let Some(target) = target.file_name().map(|target| target.as_bytes().to_vec())
                && target != name
                && is_unit(&target)
            {
                want(found, folder, &target);
            }
            found.units.entry(name).or_insert_with(|| entry.path());
        } else if let Some(unit) = name.strip_suffix(b".d").filter(|unit| is_unit(unit) || is_type(unit)) {
            let dropins = found.dropins.entry(unit.to_vec()).or_default();
            for dropin in std::fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                let file = dropin.file_name().as_bytes().to_vec();
                if file.ends_with(b".conf") && dropins.len() < DROPINS_LIMIT {
                    dropins.entry(file).or_insert_with(|| dropin.path());
                }
            }
        } else if [".wants", ".requires", ".upholds"].iter().any(|suffix| name.ends_with(suffix.as_bytes())) {
            for link in std::fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                want(found, folder, link.file_name().as_bytes());
            }
        }
    }
    Ok(())
}

/// Only what lies in /etc and /run is somebody's decision.
fn want(found: &mut Found, folder: &str, unit: &[u8]) {
    let wanted = match folder {
        "/etc/systemd/system" => &mut found.wanted,
        "/run/systemd/system" => &mut found.wanted_at_runtime,
        _ => &mut found.wanted_by_packages,
    };
    wanted.insert(unit.to_vec());
}

/// A unit's own file.
pub(super) struct Fragment {
    pub link: Option<PathBuf>,
    pub at_runtime: bool,
    /// Empty where the unit is masked; `None` where a link leads nowhere.
    pub contents: io::Result<Option<Vec<u8>>>,
}

impl Fragment {
    pub fn read(root: &Root, path: &Path) -> Self {
        let link = std::fs::read_link(path).ok();
        let contents = match &link {
            Some(target) if target == Path::new("/dev/null") => Ok(Some(Vec::new())),
            Some(target) => root::read(&resolved(root, path, target), FRAGMENT_LIMIT),
            None => root::read(path, FRAGMENT_LIMIT),
        };
        Self { link, at_runtime: root.host_path(path).starts_with("/run"), contents }
    }
}

pub(super) fn enabled(found: &Found, name: &[u8], fragment: &Fragment) -> Value {
    match &fragment.contents {
        Ok(Some(bytes)) if bytes.is_empty() => Value::text(if fragment.at_runtime { "masked-runtime" } else { "masked" }),
        Ok(Some(bytes)) => Value::text(state(found, name, fragment.link.as_deref(), fragment.at_runtime, &install(bytes))),
        Ok(None) => Value::unreadable("the link leads nowhere"),
        Err(error) => Value::unreadable(refusal::reason(error)),
    }
}

fn fields(root: &Root, key: &RedactionKey, found: &Found, name: &[u8], path: &Path, activity: Option<&Activity>) -> Fields {
    let host = |path: &Path| text::printable(root.host_path(path).as_os_str().as_bytes()).into_owned();
    let mut fields = Fields::new();
    fields.set(FieldName::known("path"), Value::text(&host(path)));
    let fragment = Fragment::read(root, path);
    if let Some(target) = &fragment.link {
        fields.set(FieldName::known("link_target"), Value::bytes(target.as_os_str().as_bytes()));
    }
    if let Ok(Some(bytes)) = &fragment.contents
        && !bytes.is_empty()
    {
        fields.set(FieldName::known("sha256"), Value::Text(hex::encode(Sha256::digest(bytes))));
    }
    let enabled = enabled(found, name, &fragment);
    let instances = instances(found, name);
    if !instances.is_empty() {
        fields.set(FieldName::known("instances"), Value::list(instances));
    }
    let mut files = vec![fragment.contents.ok().flatten().unwrap_or_default()];
    let dropins = dropins(found, name);
    if !dropins.is_empty() {
        fields.set(FieldName::known("dropins"), Value::list(dropins.values().map(|path| host(path)).collect()));
        let mut hasher = Sha256::new();
        let digest = dropins.values().try_for_each(|path| {
            let bytes = root::read(path, FRAGMENT_LIMIT)?.unwrap_or_default();
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(&bytes);
            files.push(bytes);
            io::Result::Ok(())
        });
        match digest {
            Ok(()) => {
                fields.set(FieldName::known("dropins_sha256"), Value::Text(hex::encode(hasher.finalize())));
                set_effective(&mut fields, &files, key);
            }
            Err(error) => fields.set(FieldName::known("dropins_sha256"), Value::unreadable(refusal::reason(&error))),
        }
    }
    if let Some(active) = activity.and_then(|activity| activity.of(name, &enabled, found, &files)) {
        fields.set(FieldName::known(ACTIVE), active);
    }
    fields.set(FieldName::known("enabled"), enabled);
    fields
}

/// What a unit's own file and its drop-ins come to. Without drop-ins the file says so itself. Those of a masked unit set nothing.
fn set_effective(fields: &mut Fields, files: &[Vec<u8>], key: &RedactionKey) {
    if files[0].is_empty() {
        return;
    }
    let settings = effective(files.iter().map(Vec::as_slice)).map_err(|error| error.to_string());
    match settings.and_then(|settings| settings::told(&settings, key).map_err(str::to_owned)) {
        Ok(told) => told.into_iter().for_each(|(name, value)| fields.set(name, value)),
        Err(fault) => fields.set(FieldName::known("error"), Value::text(&fault)),
    }
}

/// By file name. Those for `a-b.timer` come before those for `a-.timer`, and these before those for all timers.
pub(super) fn dropins<'a>(found: &'a Found, name: &[u8]) -> BTreeMap<&'a [u8], &'a PathBuf> {
    let (stem, suffix) = name.split_at(name.iter().rposition(|byte| *byte == b'.').unwrap_or(name.len()));
    let dashes = stem.iter().enumerate().rev().filter(|(at, byte)| **byte == b'-' && at + 1 < stem.len()).map(|(at, _)| at);
    let prefixes = dashes.map(|at| [&stem[..=at], suffix].concat());
    let of_type = suffix.get(1..).unwrap_or_default().to_vec();
    let mut dropins = BTreeMap::new();
    for unit in std::iter::once(name.to_vec()).chain(prefixes).chain(std::iter::once(of_type)) {
        for (file, path) in found.dropins.get(&unit).into_iter().flatten() {
            dropins.entry(file.as_slice()).or_insert(path);
        }
    }
    dropins
}

/// An absolute target is one of the host's, which in a test is not this machine.
fn resolved(root: &Root, link: &Path, target: &Path) -> PathBuf {
    match target.to_str() {
        Some(absolute) if target.is_absolute() => root.path(absolute),
        _ => link.parent().unwrap_or(Path::new("/")).join(target),
    }
}

fn state(found: &Found, name: &[u8], link: Option<&Path>, at_runtime: bool, install: &Install) -> &'static str {
    let is_alias = link.and_then(Path::file_name).is_some_and(|target| target.as_bytes() != name);
    let is_named = |wanted: &BTreeSet<Vec<u8>>| wanted.contains(name) || instance_range(wanted, name).next().is_some();
    if is_alias {
        "alias"
    } else if is_named(&found.wanted) {
        "enabled"
    } else if is_named(&found.wanted_at_runtime) {
        "enabled-runtime"
    } else if link.is_some_and(|target| !FOLDERS.iter().any(|folder| target.starts_with(folder)) && target.is_absolute()) {
        if at_runtime { "linked-runtime" } else { "linked" }
    } else if install.wanted_by {
        "disabled"
    } else if install.also {
        "indirect"
    } else {
        "static"
    }
}

/// The instances of a template that links name: `getty@tty1.service` of `getty@.service`.
pub(super) fn instances(found: &Found, name: &[u8]) -> Vec<String> {
    let named = instance_range(&found.wanted, name).chain(instance_range(&found.wanted_at_runtime, name));
    let named: BTreeSet<_> = named.take(INSTANCES_LIMIT).map(|instance| text::printable(instance).into_owned()).collect();
    named.into_iter().collect()
}

fn instance_range<'a>(wanted: &'a BTreeSet<Vec<u8>>, template: &[u8]) -> impl Iterator<Item = &'a Vec<u8>> {
    let at = template.iter().position(|byte| *byte == b'@').filter(|at| template.get(at + 1) == Some(&b'.'));
    let (prefix, suffix) = match at {
        Some(at) => (template[..=at].to_vec(), template[at + 1..].to_vec()),
        None => (Vec::new(), Vec::new()),
    };
    let is_template = at.is_some();
    let start = prefix.clone();
    wanted.range(start..).take_while(move |unit| is_template && unit.starts_with(&prefix)).filter(move |unit| unit.ends_with(&suffix))
}

fn is_type(name: &[u8]) -> bool {
    SUFFIXES.iter().any(|suffix| &suffix.as_bytes()[1..] == name)
}

fn is_unit(name: &[u8]) -> bool {
    SUFFIXES.iter().any(|suffix| name.len() > suffix.len() && name.ends_with(suffix.as_bytes()))
}

/// What the [Install] section asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Install {
    pub wanted_by: bool,
    pub also: bool,
}

pub fn install(fragment: &[u8]) -> Install {
    let mut install = Install::default();
    let mut inside = false;
    for line in fragment.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if line.starts_with(b"[") {
            inside = line == b"[Install]";
            continue;
        }
        if let Some(equals) = line.iter().position(|byte| *byte == b'=').filter(|_| inside) {
            let is_set = !line[equals + 1..].trim_ascii().is_empty();
            match line[..equals].trim_ascii() {
                b"WantedBy" | b"RequiredBy" | b"UpheldBy" | b"Alias" => install.wanted_by |= is_set,
                b"Also" => install.also |= is_set,
                _ => {}
            }
        }
    }
    install
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;
    use trueline_drift::ItemId;

    use super::*;
    use crate::collect::Reading;

    #[test]
    fn units_are_told_as_systemctl_would() {
        let folder = tempfile::tempdir().unwrap();
        let place = |path: &str| folder.path().join(path.trim_start_matches('/'));
        let write = |path: &str, text: &str| {
            std::fs::create_dir_all(place(path).parent().unwrap()).unwrap();
            std::fs::write(place(path), text).unwrap();
        };
        let link = |target: &str, path: &str| {
            std::fs::create_dir_all(place(path).parent().unwrap()).unwrap();
            symlink(target, place(path)).unwrap();
        };
        let wanted = "[Unit]\n[Install]\nWantedBy=multi-user.target\n";
        for unit in ["ssh.service", "off.service", "shadowed.service", "getty@.service", "mask.service"] {
            write(&format!("/usr/lib/systemd/system/{unit}"), wanted);
        }
        symlink("usr/lib", place("/lib")).unwrap();
        write("/usr/lib/systemd/system/plain.service", "[Service]\nExecStart=/bin/true\nWantedBy=no\n");
        write("/usr/lib/systemd/system/also.service", "[Install]\nAlso=ssh.service\n");
        write("/etc/systemd/system/shadowed.service", "[Service]\n");
        write("/etc/systemd/system/ssh.service.d/limits.conf", "[Service]\nLimitNOFILE=1\n");
        write("/opt/app/app.service", wanted);
        link("/usr/lib/systemd/system/ssh.service", "/etc/systemd/system/multi-user.target.wants/ssh.service");
        link("/usr/lib/systemd/system/getty@.service", "/etc/systemd/system/getty.target.wants/getty@tty1.service");
        link("/usr/lib/systemd/system/ssh.service", "/etc/systemd/system/sshd.service");
        link("/dev/null", "/etc/systemd/system/mask.service");
        link("/opt/app/app.service", "/etc/systemd/system/app.service");
        link("/nowhere/x.service", "/etc/systemd/system/x.service");

        let listing = read_all(&Root::at(folder.path()), &RedactionKey::new([7; 32])).unwrap();
        let shown: Vec<_> = listing
            .items
            .iter()
            .map(|(item, reading)| {
                let field = |name: &str| reading.fields.value(name).map_or_else(|| "-".to_owned(), ToString::to_string);
                format!("{} {} {} {} {}", item.key, field("enabled"), field("path"), field("dropins"), field("instances"))
            })
            .collect();
        assert_eq!(
            shown,
            [
                "also.service indirect /usr/lib/systemd/system/also.service - -",
                "app.service linked /etc/systemd/system/app.service - -",
                "getty@.service enabled /usr/lib/systemd/system/getty@.service - [getty@tty1.service]",
                "mask.service masked /etc/systemd/system/mask.service - -",
                "off.service disabled /usr/lib/systemd/system/off.service - -",
                "plain.service static /usr/lib/systemd/system/plain.service - -",
                "shadowed.service static /etc/systemd/system/shadowed.service - -",
                "ssh.service enabled /usr/lib/systemd/system/ssh.service [/etc/systemd/system/ssh.service.d/limits.conf] -",
                "sshd.service alias /etc/systemd/system/sshd.service - -",
                "x.service unreadable: the link leads nowhere /etc/systemd/system/x.service - -",
            ]
        );
    }

    #[test]
    fn what_is_active_is_told_of_services_that_last() {
        let folder = tempfile::tempdir().unwrap();
        let place = |path: &str| folder.path().join(path.trim_start_matches('/'));
        let write = |path: &str, text: &str| {
            std::fs::create_dir_all(place(path).parent().unwrap()).unwrap();
            std::fs::write(place(path), text).unwrap();
        };
        let install = "[Install]\nWantedBy=multi-user.target\n";
        for unit in ["ssh.service", "off.service", "fstrim.timer", "asked.service", "asked.socket"] {
            write(&format!("/usr/lib/systemd/system/{unit}"), install);
        }
        write("/usr/lib/systemd/system/once.service", &format!("[Service]\nType=oneshot\n{install}"));
        write("/usr/lib/systemd/system/rules.service", &format!("[Service]\nType=oneshot\nRemainAfterExit=yes\n{install}"));
        write("/usr/lib/systemd/system/dropped-once.service", install);
        write("/usr/lib/systemd/system/dropped-.service.d/once.conf", "[Service]\nType=oneshot\n");
        write("/usr/lib/systemd/system/called.service", "[Service]\nType=dbus\n");
        write("/usr/lib/systemd/system/journal.service", "[Service]\n");
        write("/usr/lib/systemd/system/journal.socket", "[Socket]\n");
        write("/usr/lib/systemd/system/getty@.service", install);
        std::fs::create_dir_all(place("/usr/lib/systemd/system/sysinit.target.wants")).unwrap();
        symlink("../journal.service", place("/usr/lib/systemd/system/sysinit.target.wants/journal.service")).unwrap();
        let told = || -> Vec<String> {
            let listing = read_all(&Root::at(folder.path()), &RedactionKey::new([7; 32])).unwrap();
            let active = |(item, reading): &(ItemId, Reading)| Some(format!("{} {}", item.key, reading.fields.value(ACTIVE)?));
            listing.items.iter().filter_map(active).collect()
        };
        assert_eq!(told(), [""; 0], "no systemd, or an older one");
        std::fs::create_dir_all(place("/run/systemd/units")).unwrap();
        for unit in ["ssh.service", "rules.service"] {
            symlink("4c1d", place(&format!("/run/systemd/units/invocation:{unit}"))).unwrap();
        }
        assert_eq!(told(), ["journal.service false", "off.service false", "rules.service true", "ssh.service true"]);
    }

    #[test]
    fn what_a_unit_comes_to_with_its_drop_ins_is_told_and_secrets_in_it_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let place = folder.path().join(path);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, text).unwrap();
        };
        write("usr/lib/systemd/system/web.service", "[Service]\nExecStart=/bin/a\nUser=web\n");
        write("usr/lib/systemd/system/plain.service", "[Service]\nExecStart=/bin/a\n");
        write(
            "etc/systemd/system/web.service.d/20.conf",
            "[Service]\nExecStart=\nExecStart=/bin/b\nEnvironment=DB_PASSWORD=hunter2secret\n",
        );
        write("usr/lib/systemd/system/service.d/10.conf", "[Service]\nTimeoutStopSec=5\n");
        let listing = read_all(&Root::at(folder.path()), &RedactionKey::new([7; 32])).unwrap();
        let told = |unit: &str| {
            let (_, reading) = listing.items.iter().find(|(item, _)| item.key.as_str() == unit).unwrap();
            let set = reading.fields.iter().filter(|(name, _)| name.as_str().starts_with("config."));
            set.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join("; ")
        };
        let secret = RedactionKey::new([7; 32]).digest(b"hunter2secret");
        assert_eq!(
            told("web.service"),
            format!(
                "config.Service.Environment [DB_PASSWORD={secret}]; config.Service.ExecStart [/bin/b]; config.Service.TimeoutStopSec 5; config.Service.User web"
            )
        );
        assert_eq!(told("plain.service"), "config.Service.ExecStart [/bin/a]; config.Service.TimeoutStopSec 5");
    }

    proptest! {
        #[test]
        fn hostile_fragments_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(\\[Install\\]|WantedBy|=|\n|a| ){0,20}") {
            install(&bytes);
            install(text.as_bytes());
        }
    }
}
