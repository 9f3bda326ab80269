//! Where packages come from: the sources of apt, dnf, yum, zypper and apk, and the key rings that vouch for them.
//!
//! A source of apt is called by its address and suite, whichever file names it; one of dnf by its id; a key ring by its path.
//! Passwords in addresses are masked; that one has changed shows in `credentials`.

mod apt;
mod dnf;
mod openpgp;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use sha2::{Digest, Sha256};
use trueline_drift::redact::{self, RedactionKey};
use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::{CollectError, Collector, Listing, Place, Root, folder, listing, refusal};

const APT_LIST: &str = "/etc/apt/sources.list";
const APT_PARTS: &str = "/etc/apt/sources.list.d";
const APK_LIST: &str = "/etc/apk/repositories";
/// Of dnf and yum, and of zypper.
const DNF_PARTS: &[&str] = &["/etc/yum.repos.d", "/etc/zypp/repos.d"];
const APT_TRUSTED: &str = "/etc/apt/trusted.gpg";
/// Every key ring in them is trusted. Others count where a source names them.
const TRUSTED_PARTS: &[&str] = &["/etc/apt/trusted.gpg.d", "/etc/pki/rpm-gpg"];

const FILE_LIMIT: u64 = 1024 * 1024;
const FILES_LIMIT: usize = 4096;
const KEY_RING_LIMIT: u64 = 16 * 1024 * 1024;

pub const COLLECTOR: Collector = Collector {
    kind: ItemKind::Repository,
    sources: &[
        APT_LIST,
        APT_PARTS,
        APT_TRUSTED,
        TRUSTED_PARTS[0],
        "/etc/apt/keyrings",
        "/usr/share/keyrings",
        DNF_PARTS[0],
        DNF_PARTS[1],
        TRUSTED_PARTS[1],
        APK_LIST,
    ],
    poll: None,
    read: read_all,
};

/// What has been found, before it is told.
struct Found<'a> {
    key: &'a RedactionKey,
    /// By address and suite, with the file that has each.
    apt: BTreeMap<String, Vec<(String, apt::Source)>>,
    items: Vec<(Vec<u8>, Fields)>,
    key_rings: BTreeSet<String>,
    skipped: u64,
}

fn read_all(place: &Place<'_>) -> Result<Listing, CollectError> {
    let root = place.root;
    let mut found = Found { key: place.key, apt: BTreeMap::new(), items: Vec::new(), key_rings: BTreeSet::new(), skipped: 0 };
    if let Some(text) = read(root, APT_LIST)? {
        found.take_apt(APT_LIST, apt::one_line(&text))?;
    }
    for path in files(root, APT_PARTS)? {
        let parse = match path.rsplit_once('.') {
            Some((_, "list")) => apt::one_line,
            Some((_, "sources")) => apt::deb822,
            _ => continue,
        };
        if let Some(text) = read(root, &path)? {
            found.take_apt(&path, parse(&text))?;
        }
    }
    for path in DNF_PARTS.iter().map(|folder| all_files(root, folder)).collect::<Result<Vec<_>, _>>()?.concat() {
        if path.ends_with(".repo")
            && let Some(text) = read(root, &path)?
        {
            found.take_dnf(&path, &text);
        }
    }
    if let Some(text) = read(root, APK_LIST)? {
        found.take_apk(&text);
    }
    found.tell_apt();
    found.key_rings.insert(APT_TRUSTED.to_owned());
    for folder in TRUSTED_PARTS {
        found.key_rings.extend(files(root, folder)?.into_iter().filter(|path| !is_leftover(path)));
    }
    for path in std::mem::take(&mut found.key_rings).into_iter().take(FILES_LIMIT) {
        found.items.extend(key_ring(root, &path).map(|fields| (text::original(&path).into_owned(), fields)));
    }
    Ok(listing(ItemKind::Repository, found.items, found.skipped))
}

fn read(root: &Root, path: &str) -> Result<Option<String>, CollectError> {
    let bytes = root.read(path, FILE_LIMIT).map_err(|error| CollectError::database(path, &error))?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The files of a folder whose names apt takes.
fn files(root: &Root, folder: &str) -> Result<Vec<String>, CollectError> {
    Ok(all_files(root, folder)?.into_iter().filter(|path| path.bytes().all(|byte| byte.is_ascii_graphic())).collect())
}

/// The files of a folder but hidden ones, as dnf takes them.
fn all_files(root: &Root, folder: &str) -> Result<Vec<String>, CollectError> {
    let names = folder::names(root, folder, FILES_LIMIT).map_err(|error| CollectError::database(folder, &error))?;
    Ok(names.iter().filter(|(name, _)| !name.starts_with(b".")).filter_map(|(name, _)| folder::beneath(folder, name)).collect())
}

fn is_leftover(path: &str) -> bool {
    path.ends_with('~') || path.contains(".dpkg-") || path.contains(".rpm")
}

impl Found<'_> {
    fn take_apt(&mut self, path: &str, (sources, malformed): (Vec<apt::Source>, u64)) -> Result<(), CollectError> {
        self.skipped += malformed;
        for source in sources {
            let name = format!("{} {}", address(&source.address), source.suite);
            self.apt.entry(name).or_default().push((path.to_owned(), source));
            // What lies beyond would be told as removed.
            if self.apt.len() > apt::SOURCES_LIMIT {
                return Err(CollectError::database("the sources of apt", &io::Error::other("there are more of them than are read")));
            }
        }
        Ok(())
    }

    /// Of several sources of one address and suite apt takes all that are on; those that are off show where none is on.
    fn tell_apt(&mut self) {
        for (name, sources) in std::mem::take(&mut self.apt) {
            let is_enabled = sources.iter().any(|(_, source)| source.is_enabled);
            let mut sets = BTreeMap::<&'static str, BTreeSet<String>>::new();
            for (path, source) in sources.into_iter().filter(|(_, source)| source.is_enabled == is_enabled) {
                sets.entry("files").or_default().insert(path);
                sets.entry("types").or_default().extend(source.types);
                sets.entry("components").or_default().extend(source.components);
                sets.entry("credentials").or_default().extend(credentials(&source.address).map(|user| self.key.digest(user.as_bytes())));
                for (option, value) in source.options {
                    if option == "signed-by" {
                        sets.entry("signed_by").or_default().extend(self.signers(&value));
                    } else {
                        sets.entry("options").or_default().insert(self.masked(&option, &value));
                    }
                }
            }
            self.tell(&name, "apt", is_enabled, sets, Fields::new());
        }
    }

    /// Paths of key rings and fingerprints as they stand, and of keys that are written out the fingerprints.
    fn signers(&mut self, value: &str) -> Vec<String> {
        if value.contains("-----BEGIN") {
            let (keys, malformed) = openpgp::keys(value.as_bytes());
            self.skipped += malformed;
            return keys.into_iter().map(|key| key.fingerprint).collect();
        }
        let signers: Vec<_> = value.split(',').filter(|signer| !signer.is_empty()).map(str::to_owned).collect();
        self.key_rings.extend(signers.iter().filter(|signer| is_path(signer)).cloned());
        signers
    }

    fn take_dnf(&mut self, path: &str, text: &str) {
        let (sections, malformed) = dnf::sections(text);
        self.skipped += malformed;
        for (id, settings) in sections.into_iter().filter(|(id, _)| id != "main") {
            let is_on = |value: &str| matches!(value.to_ascii_lowercase().as_str(), "1" | "yes" | "true" | "on");
            let mut fields = Fields::new();
            let mut sets = BTreeMap::from([("files", BTreeSet::from([path.to_owned()]))]);
            let mut is_enabled = true;
            for (name, value) in settings {
                let values = || value.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|value| !value.is_empty());
                match name.as_str() {
                    "name" => {}
                    "enabled" => is_enabled = is_on(&value),
                    "gpgcheck" => fields.set(FieldName::known("gpgcheck"), is_on(&value).into()),
                    "repo_gpgcheck" => fields.set(FieldName::known("repo_gpgcheck"), is_on(&value).into()),
                    "baseurl" | "mirrorlist" | "metalink" => {
                        sets.entry("addresses").or_default().extend(values().map(address));
                        sets.entry("credentials")
                            .or_default()
                            .extend(values().filter_map(credentials).map(|user| self.key.digest(user.as_bytes())));
                    }
                    "gpgkey" => {
                        let rings = values().filter_map(|value| value.strip_prefix("file://")).filter(|path| is_path(path));
                        self.key_rings.extend(rings.map(str::to_owned));
                        sets.entry("signed_by").or_default().extend(values().map(address));
                    }
                    name => drop(sets.entry("options").or_default().insert(self.masked(name, &value))),
                }
            }
            self.tell(&id, "dnf", is_enabled, sets, fields);
        }
    }

    fn take_apk(&mut self, text: &str) {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).take(apt::SOURCES_LIMIT) {
            let (tag, given) = match line.strip_prefix('@').and_then(|line| line.split_once(char::is_whitespace)) {
                Some((tag, address)) => (Some(tag), address.trim()),
                None => (None, line),
            };
            let mut sets = BTreeMap::from([("files", BTreeSet::from([APK_LIST.to_owned()]))]);
            sets.insert("options", tag.map(|tag| format!("tag={tag}")).into_iter().collect());
            sets.insert("credentials", credentials(given).map(|user| self.key.digest(user.as_bytes())).into_iter().collect());
            self.tell(&address(given), "apk", true, sets, Fields::new());
        }
    }

    fn tell(
        &mut self,
        name: &str,
        manager: &'static str,
        is_enabled: bool,
        sets: BTreeMap<&'static str, BTreeSet<String>>,
        mut fields: Fields,
    ) {
        fields.set(FieldName::known("type"), manager.into());
        fields.set(FieldName::known("enabled"), is_enabled.into());
        for (field, texts) in sets {
            set(&mut fields, field, texts);
        }
        self.items.push((name.as_bytes().to_vec(), fields));
    }

    fn masked(&self, name: &str, value: &str) -> String {
        format!("{name}={}", redact::setting(name, value, self.key))
    }
}

fn set(fields: &mut Fields, name: &'static str, texts: BTreeSet<String>) {
    let mut texts: Vec<_> = texts.iter().map(|text| text::printable(text.as_bytes()).into_owned()).collect();
    texts.sort_unstable();
    if !texts.is_empty() {
        fields.set(FieldName::known(name), Value::list(texts));
    }
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.contains(['$', '\0']) && !text.split('/').any(|part| part == "..")
}

/// The user and password of an address.
fn credentials(address: &str) -> Option<&str> {
    let (_, rest) = address.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    authority.rsplit_once('@').map(|(user, _)| user).filter(|user| !user.is_empty())
}

/// An address without what lets somebody in: a user alone may be a token.
fn address(address: &str) -> String {
    let shown = match credentials(address) {
        Some(user) => address.replacen(&format!("{user}@"), "[redacted]@", 1),
        None => address.to_owned(),
    };
    redact::free_text(&shown).into_owned()
}

/// `None` where there is no such file.
fn key_ring(root: &Root, path: &str) -> Option<Fields> {
    let mut fields = Fields::new().with("type", "keyring");
    let bytes = match root.read(path, KEY_RING_LIMIT) {
        Ok(bytes) => bytes?,
        Err(error) => {
            fields.set(FieldName::known("sha256"), Value::unreadable(refusal::reason(&error)));
            return Some(fields);
        }
    };
    fields.set(FieldName::known("sha256"), Value::Text(hex::encode(Sha256::digest(&bytes))));
    let (keys, _) = openpgp::keys(&bytes);
    if keys.is_empty() {
        fields.set(FieldName::known("fingerprints"), Value::unreadable("no public key of OpenPGP is in it"));
        return Some(fields);
    }
    let told = |tell: &dyn Fn(&openpgp::PublicKey) -> Option<String>| keys.iter().filter_map(tell).collect::<BTreeSet<_>>();
    set(&mut fields, "fingerprints", told(&|key| Some(key.fingerprint.clone())));
    set(&mut fields, "users", told(&|key| key.user.as_ref().map(|user| String::from_utf8_lossy(user).into_owned())));
    set(&mut fields, "expires", told(&|key| key.expires_at.map(|time| format!("{} {time}", key.fingerprint))));
    set(&mut fields, "revoked", told(&|key| key.revoked.then(|| key.fingerprint.clone())));
    Some(fields)
}

#[cfg(test)]
#[path = "repository/tests.rs"]
mod tests;
