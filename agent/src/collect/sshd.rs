//! What sshd is told by its configuration and all that it includes, as it would be after a restart: for everybody (`sshd:global`), and beside
//! that for whom a `Match` holds (`sshd:Match User alice`).
//!
//! What no file sets is not told: it differs from version to version of sshd. So does which keywords a `Match` may have. sshd itself is not
//! asked (`sshd -T`): it would have to read the host's private keys.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use trueline_drift::format::sshd_config::{Part, PartError, effective};
use trueline_drift::format::{self, Settings};
use trueline_drift::pattern::Pattern;
use trueline_drift::redact::setting;
use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::{CollectError, Collector, Listing, Place, Root, folder, listing};

const CONFIG: &str = "/etc/ssh/sshd_config";
/// Where names in `Include` that do not begin at the root are looked for.
const FOLDER: &str = "/etc/ssh";
const GLOBAL: &[u8] = b"global";

pub const COLLECTOR: Collector =
    Collector { kind: ItemKind::Sshd, sources: &[CONFIG, "/etc/ssh/sshd_config.d"], poll: None, read: read_all };

const FILE_LIMIT: u64 = 1024 * 1024;
const NAMES_LIMIT: usize = 1024;
/// Files that are read in all.
const FILES_LIMIT: usize = 256;
/// Each `Match` has fields of its own.
const MATCHES_LIMIT: usize = 256;

/// Where nothing says otherwise (sshd_config(5)).
const KEY_FILES: [&str; 2] = [".ssh/authorized_keys", ".ssh/authorized_keys2"];
const KEY_FILES_LIMIT: usize = 64;

/// All files of the configuration together.
struct Configuration {
    settings: Result<Settings, PartError>,
    /// In the order in which they were first read.
    files: Vec<String>,
    trouble: Option<String>,
}

/// `None` where there is no configuration.
fn configuration(root: &Root) -> io::Result<Option<Configuration>> {
    let Some(first) = part(root, CONFIG)? else { return Ok(None) };
    let mut files = vec![CONFIG.to_owned()];
    let mut trouble = None;
    let settings = effective(&first, &mut |pattern| {
        let found = included(root, pattern, FILES_LIMIT.saturating_sub(files.len())).unwrap_or_else(|error| {
            trouble.get_or_insert(format!("Include {}: {error}", text::bounded(pattern, 200)));
            Vec::new()
        });
        for part in &found {
            if !files.contains(&part.path) {
                files.push(part.path.clone());
            }
        }
        found
    });
    Ok(Some(Configuration { settings, files, trouble }))
}

/// The names under which sshd looks for keys that let somebody in, as they are written: for everybody, and for whom a `Match` holds.
pub(super) fn key_files(root: &Root) -> Vec<String> {
    let settings = configuration(root).ok().flatten().and_then(|configuration| configuration.settings.ok());
    let (mut names, mut is_for_all) = (BTreeSet::new(), false);
    for (name, value) in settings.iter().flat_map(|settings| settings.fields(|_, value| value.to_owned())) {
        let split = split(name.as_str());
        let keyword = split.as_ref().map_or(name.as_str(), |(_, keyword)| keyword).rsplit('.').next().unwrap_or_default();
        if keyword.eq_ignore_ascii_case("AuthorizedKeysFile") && name.as_str().starts_with(format::CONFIG) {
            is_for_all |= split.is_none();
            let words = match &value {
                Value::List(lines) => lines.join(" "),
                value => value.to_string(),
            };
            names.extend(words.split_ascii_whitespace().map(|word| word.trim_matches('"').to_owned()).take(KEY_FILES_LIMIT));
        }
    }
    if !is_for_all {
        names.extend(KEY_FILES.map(str::to_owned));
    }
    names.into_iter().filter(|name| name != "none").take(KEY_FILES_LIMIT).collect()
}

fn read_all(place: &Place<'_>) -> Result<Listing, CollectError> {
    let configuration = configuration(place.root).map_err(|error| CollectError::database(CONFIG, &error))?;
    let Some(Configuration { settings, files, mut trouble }) = configuration else { return Ok(Listing::default()) };
    let mut items: BTreeMap<Vec<u8>, Fields> = BTreeMap::new();
    match settings {
        Ok(settings) => {
            for (name, value) in settings.fields(|name, value| setting(name, value, place.key).into_owned()) {
                let (key, name) = split(name.as_str()).unwrap_or((GLOBAL.to_vec(), name.as_str().to_owned()));
                if items.len() < MATCHES_LIMIT || items.contains_key(&key) {
                    items.entry(key).or_default().set(FieldName::new(&name), value);
                } else {
                    trouble.get_or_insert(format!("there are more than {MATCHES_LIMIT} blocks of Match"));
                }
            }
        }
        Err(error) => trouble = Some(error.to_string()),
    }
    let global = items.entry(GLOBAL.to_vec()).or_default();
    global.set(FieldName::known("files"), Value::list(files.iter().map(|path| text::printable(path.as_bytes()).into_owned()).collect()));
    if let Some(trouble) = trouble {
        global.set(FieldName::known("error"), Value::text(&text::printable(trouble.as_bytes())));
    }
    Ok(listing(ItemKind::Sshd, items, 0))
}

/// `config.Match User alice.X11Forwarding`: for whom, and `config.X11Forwarding`. No keyword of a `Match` has a dot.
fn split(name: &str) -> Option<(Vec<u8>, String)> {
    let (start, rest) = name.split_once('.')?;
    let (of, keyword) = rest.rsplit_once('.').filter(|(of, _)| of.starts_with("Match "))?;
    Some((of.as_bytes().to_vec(), format!("{start}.{keyword}")))
}

fn part(root: &Root, path: &str) -> io::Result<Option<Part>> {
    let bytes = root.read(path, FILE_LIMIT)?;
    Ok(bytes.map(|contents| Part { path: path.to_owned(), contents }))
}

/// The files of one pattern, at most so many, in the order of their names.
fn included(root: &Root, pattern: &str, most: usize) -> io::Result<Vec<Part>> {
    let path = if pattern.starts_with('/') { pattern.to_owned() } else { format!("{FOLDER}/{pattern}") };
    let (place, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let unknown = |what: &str| io::Error::other(format!("{what} is not followed here"));
    if place.contains(['*', '?', '[']) {
        return Err(unknown("a pattern of folders"));
    }
    if name.contains(['?', '[', '{']) {
        return Err(unknown("a pattern with more than *"));
    }
    let pattern = Pattern::new(name);
    // As glob(7): what begins with a dot only where that is asked for.
    let is_meant = |file: &str| pattern.matches(file) && (!file.starts_with('.') || name.starts_with('.'));
    let mut parts = Vec::new();
    for (file, _) in folder::names(root, place, NAMES_LIMIT)? {
        let Some(path) = folder::beneath(place, &file).filter(|_| std::str::from_utf8(&file).is_ok_and(is_meant)) else { continue };
        if parts.len() >= most {
            return Err(io::Error::other(format!("there are more than {FILES_LIMIT} files")));
        }
        parts.extend(part(root, &path)?);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use trueline_drift::redact::RedactionKey;
    use trueline_drift::watch::WatchPolicy;

    use super::*;
    use crate::collect::Holders;

    fn shown(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join("etc/ssh").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::at(folder.path());
        let holders = Holders::here(root.clone());
        let place = Place {
            root: &root,
            policy: &WatchPolicy::default(),
            key: &RedactionKey::new([1; 32]),
            holders: &holders,
            kept: &crate::collect::Kept::default(),
        };
        let items = read_all(&place).unwrap().items;
        items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect()
    }

    #[test]
    fn the_first_value_counts_over_all_files_and_a_match_ends_with_its_file() {
        let config = "Include sshd_config.d/*.conf\nPermitRootLogin no\nX11Forwarding no\n\
                      Match Address 10.0.0.0/8\n  PasswordAuthentication yes\n  Include extra\n";
        let first = "permitrootlogin yes\nMatch User alice\nX11Forwarding yes\n";
        let shown = shown(&[
            ("sshd_config", config),
            ("sshd_config.d/10-first.conf", first),
            ("sshd_config.d/20-second.conf", "MaxSessions 3\n"),
            ("sshd_config.d/off", "MaxSessions 4\n"),
            ("extra", "AllowTcpForwarding no\n"),
        ]);
        assert_eq!(
            shown,
            [
                r#"sshd:Match Address 10.0.0.0/8 {"config.AllowTcpForwarding":"no","config.PasswordAuthentication":"yes"}"#,
                r#"sshd:Match User alice {"config.X11Forwarding":"yes"}"#,
                r#"sshd:global {"config.MaxSessions":"3","config.PermitRootLogin":"yes","config.X11Forwarding":"no","conflict.PermitRootLogin":["yes","no"],"files":["/etc/ssh/sshd_config","/etc/ssh/sshd_config.d/10-first.conf","/etc/ssh/sshd_config.d/20-second.conf","/etc/ssh/extra"]}"#,
            ]
        );
    }

    #[test]
    fn what_sshd_would_not_start_with_is_an_error_and_no_silence() {
        assert_eq!(
            shown(&[("sshd_config", "Include deep\n"), ("deep", "\nBanner \"open\nInclude deep\n")]),
            [r#"sshd:global {"error":"/etc/ssh/deep, line 2: a quote is not closed","files":["/etc/ssh/sshd_config","/etc/ssh/deep"]}"#]
        );
        let endless = shown(&[("sshd_config", "Include sshd_config\n")]);
        assert!(endless[0].contains("files include each other too deep"), "{endless:?}");
        let unknown = shown(&[("sshd_config", "Include conf.?\nPort 22\n")]);
        assert!(unknown[0].contains("Include conf.?: a pattern with more than * is not followed here"), "{unknown:?}");
        let hostile = shown(&[("sshd_config", "Include ?\u{1b}[31m/*.conf\n")]);
        assert!(hostile[0].contains(r"Include ?\\x1b[31m/*.conf: a pattern of folders"), "{hostile:?}");
        assert!(shown(&[]).is_empty(), "without a configuration there is no sshd");
    }
}
