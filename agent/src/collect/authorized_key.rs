//! Keys that let somebody in over ssh: from every file in which sshd looks for a user's, as its configuration names them (sshd(8)).
//!
//! Homes belong to users: no link beneath one is followed and nothing but a regular file is opened. A file that is there
//! and cannot be read is an item of its own, since it may let anybody in; one user's cannot hide another's.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use sha2::{Digest, Sha256};
use trueline_drift::redact::RedactionKey;
use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::account::records;
use super::texts::{Links, read};
use super::{CollectError, Collector, Listing, Place, Root, command, filesystem, listing, refusal, sshd};
use crate::mount_table;

const DATABASE_LIMIT: u64 = 16 * 1024 * 1024;
const FILE_LIMIT: u64 = 1024 * 1024;
/// Many times what the largest known files hold.
const KEYS_LIMIT: usize = 4096;

/// Which homes there are stands in /etc/passwd, so that they cannot be sources; most need not be watched either.
pub const COLLECTOR: Collector = Collector {
    kind: ItemKind::AuthorizedKey,
    sources: &["/etc/passwd", "/root/.ssh", "/etc/ssh"],
    poll: Some(Duration::from_secs(60)),
    read: read_all,
};

#[derive(Debug, Default)]
struct Keys {
    items: BTreeMap<Vec<u8>, Fields>,
    /// How often each name was wanted.
    wanted: HashMap<Vec<u8>, u32>,
}

fn read_all(place: &Place<'_>) -> Result<Listing, CollectError> {
    let passwd = place.root.read("/etc/passwd", DATABASE_LIMIT).map_err(|error| CollectError::database("/etc/passwd", &error))?;
    let mut keys = Keys::default();
    let mut skipped = 0;
    let passwd = passwd.unwrap_or_default();
    let mut users = HashSet::new();
    let remote = remote_mounts(place.root);
    let names = sshd::key_files(place.root);
    for record in records(&passwd) {
        let [user, _, uid, _, _, home, _] = record[..] else { continue };
        if home.first() != Some(&b'/') || !users.insert(user) {
            continue;
        }
        if let Err(reason) = near(place.root, home, &remote) {
            unread(user, &text::printable(home), reason, &mut keys);
            continue;
        }
        let home = settled(place.root, home);
        let paths: BTreeSet<Vec<u8>> = names.iter().map(|name| path(name, user, uid, &home)).collect();
        for path in paths {
            if !path.starts_with(&home)
                && let Err(reason) = near(place.root, &path, &remote)
            {
                unread(user, &text::printable(&path), reason, &mut keys);
                continue;
            }
            let shown = text::printable(&path);
            match read(place.root, &path, Links::Refused, FILE_LIMIT) {
                Ok(None) => {}
                Ok(Some(contents)) => skipped += take(user, &shown, &contents, place.key, &mut keys),
                Err(error) => unread(user, &shown, &refusal::reason(&error), &mut keys),
            }
        }
    }
    Ok(listing(ItemKind::AuthorizedKey, keys.items, skipped))
}

/// A user's file of keys: `%h`, `%u` and `%U` are the home, the name and the number (sshd_config(5), TOKENS).
fn path(name: &str, user: &[u8], uid: &[u8], home: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(home.len() + name.len() + 1);
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        match (byte, byte == b'%') {
            (_, false) => path.push(byte),
            (_, true) => match bytes.next() {
                Some(b'h') => path.extend(home),
                Some(b'u') => path.extend(user),
                Some(b'U') => path.extend(uid),
                Some(b'%') => path.push(b'%'),
                // sshd would not start.
                other => path.extend([Some(b'%'), other].into_iter().flatten()),
            },
        }
    }
    if path.first() == Some(&b'/') { path } else { [home, b"/", path.as_slice()].concat() }
}

/// Where another machine or a process answers for files: looking at one may hang for ever.
fn remote_mounts(root: &Root) -> HashSet<Vec<u8>> {
    let table = std::fs::read(root.path("/proc/self/mountinfo")).unwrap_or_default();
    mount_table::entries(&table).flatten().filter(|entry| filesystem::is_remote(entry.kind)).map(|entry| entry.point).collect()
}

/// Whether a home can be looked at without asking another machine. Where such file systems are mounted, no link is followed: it may
/// lead to one.
fn near(root: &Root, home: &[u8], remote: &HashSet<Vec<u8>>) -> Result<(), &'static str> {
    if remote.is_empty() {
        return Ok(());
    }
    let ends = home.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    for end in ends.chain([home.len()]) {
        let above = &home[..end];
        if remote.contains(above) {
            return Err("it lies on a file system that another machine or a process answers for");
        }
        if std::fs::symlink_metadata(root.path("/").join(std::ffi::OsStr::from_bytes(&above[1..]))).is_ok_and(|there| there.is_symlink()) {
            return Err("a link leads to it, and file systems of other machines are mounted, which it may lead to");
        }
    }
    Ok(())
}

/// Where a home lies: an administrator may have put a link in its place, as /home itself often is one.
fn settled(root: &Root, home: &[u8]) -> Vec<u8> {
    let relative = std::ffi::OsStr::from_bytes(home.strip_prefix(b"/").unwrap_or(home));
    let resolved = std::fs::canonicalize(root.path("/").join(relative)).map(|place| root.host_path(&place));
    let settled = resolved.map_or_else(|_| home.to_vec(), |home| home.as_os_str().as_bytes().to_vec());
    settled.strip_suffix(b"/").map_or(settled.clone(), <[u8]>::to_vec)
}

fn unread(user: &[u8], path: &str, reason: &str, keys: &mut Keys) {
    let mut fields = Fields::new();
    for field in ["fingerprint", "options", "type"] {
        fields.set(FieldName::known(field), Value::unreadable(reason));
    }
    fields.set(FieldName::known("source"), Value::text(path));
    fields.set(FieldName::known("user"), Value::bytes(user));
    keys.items.insert([user, b" ", text::original(path).as_ref()].concat(), fields);
}

/// Takes the keys of one file. Tells how many of its lines are no key, which sshd passes over too.
fn take(user: &[u8], path: &str, contents: &[u8], key: &RedactionKey, keys: &mut Keys) -> u64 {
    let mut skipped = 0;
    let mut taken = 0;
    for line in contents.split(|byte| *byte == b'\n') {
        // To sshd a line ends at a NUL byte, so that what stands before one lets somebody in.
        let line = line.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        let Some(entry) = parse(line) else {
            skipped += 1;
            continue;
        };
        taken += 1;
        if taken > KEYS_LIMIT {
            unread(user, path, &format!("it holds more than {KEYS_LIMIT} keys; the rest is not read"), keys);
            break;
        }
        let mut fields = Fields::new();
        if !entry.comment.is_empty() {
            fields.set(FieldName::known("comment"), Value::bytes(entry.comment));
        }
        if !entry.options.is_empty() {
            fields.set(FieldName::known("options"), Value::list(entry.options.iter().map(|option| told(option, key)).collect()));
        }
        fields.set(FieldName::known("fingerprint"), Value::text(&entry.fingerprint));
        fields.set(FieldName::known("source"), Value::text(path));
        fields.set(FieldName::known("type"), Value::bytes(entry.algorithm));
        fields.set(FieldName::known("user"), Value::bytes(user));
        // sshd goes on to the next line with the same key where the options of the first refuse.
        let name = [user, b" ", entry.fingerprint.as_bytes()].concat();
        let wanted = keys.wanted.entry(name.clone()).and_modify(|count| *count += 1).or_insert(1);
        let name = if *wanted == 1 { name } else { [name.as_slice(), format!(" ({wanted})").as_bytes()].concat() };
        keys.items.insert(name, fields);
    }
    skipped
}

/// An option as it may be told: a forced command or a variable may hold a secret.
fn told(option: &[u8], key: &RedactionKey) -> String {
    let shown = text::printable(option);
    let Some((name, value)) = shown.split_once('=') else { return shown.into_owned() };
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    format!("{name}={}", command::masked(value, key))
}

struct Entry<'a> {
    options: Vec<&'a [u8]>,
    algorithm: &'a [u8],
    /// As ssh-keygen -l prints it.
    fingerprint: String,
    comment: &'a [u8],
}

/// One line: `[options] type base64 [comment]`. `None` where it is no key.
fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let of = |options, line| {
        let (algorithm, rest) = word(line);
        let (encoded, comment) = word(rest);
        let blob = decoded(encoded)?;
        // The key says itself of what type it is (RFC 4253, 6.6).
        let length = usize::try_from(u32::from_be_bytes(*blob.first_chunk()?)).ok()?;
        let key_type = blob.get(4..4usize.checked_add(length)?)?;
        let is_of_type = key_type == algorithm || ALIASES.contains(&(algorithm, key_type));
        (!algorithm.is_empty() && is_of_type).then(|| {
            let fingerprint = format!("SHA256:{}", encoded_bare(&Sha256::digest(&blob)));
            Entry { options, algorithm, fingerprint, comment }
        })
    };
    of(Vec::new(), line).or_else(|| {
        let (options, rest) = options(line);
        of(options, rest)
    })
}

/// Names of signatures that sshd takes for the type of a key that makes them.
const ALIASES: [(&[u8], &[u8]); 5] = [
    (b"rsa-sha2-256", b"ssh-rsa"),
    (b"rsa-sha2-512", b"ssh-rsa"),
    (b"rsa-sha2-256-cert-v01@openssh.com", b"ssh-rsa-cert-v01@openssh.com"),
    (b"rsa-sha2-512-cert-v01@openssh.com", b"ssh-rsa-cert-v01@openssh.com"),
    (b"webauthn-sk-ecdsa-sha2-nistp256@openssh.com", b"sk-ecdsa-sha2-nistp256@openssh.com"),
];

/// What parts words for sshd. Other white space it passes over within a key.
fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn word(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(is_blank).unwrap_or(line.len());
    (&line[..end], line[end..].trim_ascii_start())
}

/// Options up to the first blank outside quotes, and what follows. A quote within quotes stands behind a backslash.
fn options(line: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut options = Vec::new();
    let (mut start, mut quoted, mut at) = (0, false, 0);
    while at < line.len() {
        match line[at] {
            b'\\' if line.get(at + 1) == Some(&b'"') => at += 1,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                options.push(&line[start..at]);
                start = at + 1;
            }
            byte if is_blank(&byte) && !quoted => break,
            _ => {}
        }
        at += 1;
    }
    let end = at.min(line.len());
    options.push(&line[start.min(end)..end]);
    options.retain(|option| !option.is_empty());
    (options, line[end..].trim_ascii_start())
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn decoded(encoded: &[u8]) -> Option<Vec<u8>> {
    let is_digit = |byte: &&u8| !byte.is_ascii_whitespace() && **byte != 0x0b;
    let end = encoded.iter().rposition(|byte| *byte != b'=' && is_digit(&byte)).map_or(0, |last| last + 1);
    let digits = encoded[..end].iter().filter(is_digit);
    if digits.clone().count() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(end / 4 * 3 + 2);
    let (mut bits, mut held) = (0_u32, 0);
    for digit in digits {
        let six = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 & 0xffff | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    Some(bytes)
}

/// Without the padding.
fn encoded_bare(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..=chunk.len() {
            out.push(ALPHABET[(bits >> (18 - 6 * digit) & 63) as usize] as char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEWbQ0lmbb26exwp9gj55u57cSnANZ09u1x9VRjzz/FH";

    fn read_at(folder: &std::path::Path) -> Listing {
        let root = Root::at(folder);
        let policy = trueline_drift::watch::WatchPolicy::default();
        read_all(&Place {
            root: &root,
            policy: &policy,
            key: &RedactionKey::new([7; 32]),
            holders: &crate::collect::Holders::here(root.clone()),
            kept: &crate::collect::Kept::default(),
        })
        .unwrap()
    }

    fn host(passwd: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("etc")).unwrap();
        std::fs::write(folder.path().join("etc/passwd"), passwd).unwrap();
        for name in ["alice", "bob"] {
            std::fs::create_dir_all(folder.path().join("home").join(name).join(".ssh")).unwrap();
        }
        folder
    }

    const PASSWD: &str =
        "alice:x:1000:1000::/home/alice:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\nnone:x:9:9::/nonexistent:/bin/false\n";

    #[test]
    fn homes_of_another_machine_are_not_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        std::fs::create_dir_all(folder.path().join("proc/self")).unwrap();
        std::fs::create_dir_all(folder.path().join("home/local")).unwrap();
        std::os::unix::fs::symlink("/net/far", folder.path().join("home/linked")).unwrap();
        let local = "27 1 254:0 / / rw - ext4 /dev/vda rw\n";
        let table = |more: &str| std::fs::write(folder.path().join("proc/self/mountinfo"), format!("{local}{more}")).unwrap();
        let is_near = |home: &str| near(&root, home.as_bytes(), &remote_mounts(&root)).is_ok();
        table("");
        assert!(is_near("/net/far") && is_near("/home/linked") && is_near("/home/local"));
        table("30 27 0:30 / /net rw - nfs4 server:/net rw\n");
        assert!(!is_near("/net/far") && !is_near("/net") && !is_near("/home/linked") && is_near("/home/local") && is_near("/nets/a"));
    }

    #[test]
    fn a_key_is_told_by_its_fingerprint_and_options_without_secrets() {
        let host = host(PASSWD);
        let text = format!(
            "# mine\n{ED25519} alice@laptop\nrestrict,command=\"/usr/bin/backup --password hunter2secret \\\"x y\\\"\" {ED25519}\nssh-rsa AAAA broken\n"
        );
        std::fs::write(host.path().join("home/alice/.ssh/authorized_keys"), text).unwrap();
        let read = read_at(host.path());
        let shown: Vec<_> =
            read.items.iter().map(|(item, reading)| format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())).collect();
        assert_eq!((shown.len(), read.skipped), (2, 1), "{shown:?}");
        // As ssh-keygen -l says of this key.
        let fingerprint = "SHA256:YJXjNnmOkamrxasMmdPvZQhMi1I9obFj5QgZte6LiV4";
        assert!(shown[0].starts_with(&format!("authorized_key:alice {fingerprint} {{")), "{shown:?}");
        assert!(shown[0].contains(r#""comment":"alice@laptop""#) && shown[0].contains(r#""type":"ssh-ed25519""#), "{shown:?}");
        assert!(shown[1].contains(r#""options":["restrict","command=/usr/bin/backup"#) && !shown[1].contains("hunter2"), "{shown:?}");
    }

    #[test]
    fn keys_are_looked_for_where_sshd_looks_for_them() {
        let host = host(PASSWD);
        let write = |path: &str, text: &str| {
            let path = host.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for path in ["home/alice/.ssh/authorized_keys", "etc/ssh/keys/alice", "srv/1001.keys", "home/bob/keys"] {
            write(path, &format!("{ED25519}\n"));
        }
        let told = || -> Vec<String> {
            let source =
                |(_, reading): &(trueline_drift::ItemId, crate::collect::Reading)| reading.fields.value("source").unwrap().to_string();
            read_at(host.path()).items.iter().map(source).collect()
        };
        assert_eq!(told(), ["/home/alice/.ssh/authorized_keys"]);
        write("etc/ssh/sshd_config", "Match User bob\n  AuthorizedKeysFile \"/srv/%U.keys\" %h/keys\n");
        assert_eq!(told(), ["/home/alice/.ssh/authorized_keys", "/home/bob/keys", "/srv/1001.keys"]);
        write("etc/ssh/sshd_config", "authorizedkeysfile /etc/ssh/keys/%u\n");
        assert_eq!(told(), ["/etc/ssh/keys/alice"], "the others let nobody in any more");
        write("etc/ssh/sshd_config", "AuthorizedKeysFile none\n");
        assert_eq!(told(), [""; 0]);
    }

    /// sshd lets in with every one of these.
    #[test]
    fn a_key_that_sshd_takes_is_told_however_its_line_is_spelt() {
        let (name, encoded) = ED25519.split_once(' ').unwrap();
        let (start, end) = encoded.split_at(20);
        let rsa = encoded_bare(&[b"\x00\x00\x00\x07ssh-rsa".as_slice(), &[0, 0, 0, 1, 3]].concat());
        for line in [
            format!("{ED25519}\0 x"),
            format!("{ED25519}\0"),
            format!("{name} {start}\x0c{end}"),
            format!("{name}\t{start}\x0b{end}\r comment\r"),
            format!("no-pty {name} {start}\r{end}"),
            format!("rsa-sha2-256 {rsa}"),
            format!("no-pty rsa-sha2-512 {rsa}== x"),
        ] {
            let mut keys = Keys::default();
            assert_eq!(take(b"u", "/f", line.as_bytes(), &RedactionKey::new([7; 32]), &mut keys), 0, "{line:?}");
            assert_eq!(keys.items.len(), 1, "{line:?}");
        }
    }

    /// One that is not told would be taken for none.
    #[test]
    fn a_file_that_a_user_made_unreadable_is_an_item_and_hides_no_other_users_keys() {
        let host = host(PASSWD);
        let ssh = |name: &str| host.path().join("home").join(name).join(".ssh");
        std::os::unix::fs::symlink("/etc/shadow", ssh("alice").join("authorized_keys")).unwrap();
        nix::unistd::mkfifo(&ssh("alice").join("authorized_keys2"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(ssh("bob").join("authorized_keys"), vec![b'x'; FILE_LIMIT as usize + 1]).unwrap();
        std::fs::write(ssh("bob").join("authorized_keys2"), format!("{ED25519}\n")).unwrap();
        let read = read_at(host.path());
        let shown: Vec<_> = read.items.iter().map(|(item, _)| item.key.as_str().split_once(' ').unwrap()).collect();
        assert_eq!(shown.len(), 4, "{shown:?}");
        let unreadable = |(_, reading): &&(trueline_drift::ItemId, crate::collect::Reading)| {
            reading.fields.value("fingerprint").unwrap().is_unreadable()
        };
        assert_eq!(read.items.iter().filter(unreadable).count(), 3);
        assert_eq!(shown[3].0, "bob");
    }

    proptest! {
        #[test]
        fn hostile_lines_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(a|\"|\\\\|,|=| |AAAA|ssh-rsa){0,40}") {
            let key = RedactionKey::new([7; 32]);
            take(b"u", "/f", &bytes, &key, &mut Keys::default());
            take(b"u", "/f", text.as_bytes(), &key, &mut Keys::default());
        }

        #[test]
        fn what_is_encoded_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decoded(encoded_bare(&bytes).as_bytes()), Some(bytes));
        }
    }
}
