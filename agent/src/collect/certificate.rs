//! Certificates that the host trusts, and those in the folders where its services keep theirs.
//!
//! A certificate is called by its subject's common name and the beginning of its fingerprint, whichever files hold it. Of a file
//! that holds a private key too nothing but the certificates is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use sha2::{Digest, Sha256};
use trueline_drift::{FieldName, Fields, ItemKind, Time, Value, text};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::{CollectError, Collector, Listing, Root, folder, listing};
use crate::kernel::file::EntryType;

/// Bundles of what is trusted, as Debian and as Red Hat make them.
const BUNDLES: &[&str] = &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"];

/// Folders of single certificates. Symbolic links in them lead to what is in a bundle.
const FOLDERS: &[&str] =
    &["/usr/local/share/ca-certificates", "/etc/pki/ca-trust/source/anchors", "/etc/ssl", "/etc/ssl/certs", "/etc/pki/tls/certs"];

const SUFFIXES: &[&str] = &[".pem", ".crt", ".cer"];

const FILE_LIMIT: u64 = 8 * 1024 * 1024;
const FILES_LIMIT: usize = 16 * 1024;
/// Many times what a trust store has.
const CERTIFICATES_LIMIT: usize = 16 * 1024;
/// Longest certificate in base64; longer than any that TLS would carry.
const BLOCK_LIMIT: usize = 64 * 1024;
const NAME_LIMIT: usize = 128;
const NAMES_LIMIT: usize = 1024;

/// `BEGIN CERTIFICATE`, and OpenSSL's own two names for it.
const LABELS: &[&str] = &["CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"];

pub const COLLECTOR: Collector = Collector {
    kind: ItemKind::Certificate,
    sources: &[BUNDLES[0], BUNDLES[1], FOLDERS[0], FOLDERS[1], FOLDERS[2], FOLDERS[4]],
    poll: None,
    read: |place| read_all(place.root),
};

fn read_all(root: &Root) -> Result<Listing, CollectError> {
    let mut paths: Vec<String> = BUNDLES.iter().map(|path| (*path).to_owned()).collect();
    for folder in FOLDERS {
        let names = folder::names(root, folder, FILES_LIMIT).map_err(|error| CollectError::database(*folder, &error))?;
        for (name, entry_type) in names {
            let is_one = entry_type == Some(EntryType::File) && SUFFIXES.iter().any(|suffix| name.ends_with(suffix.as_bytes()));
            paths.extend(folder::beneath(folder, &name).filter(|_| is_one));
        }
    }
    paths.sort_unstable();
    paths.dedup();
    let mut found = BTreeMap::<[u8; 32], (Vec<u8>, Fields, BTreeSet<String>)>::new();
    let mut skipped = 0;
    for path in paths {
        let failed = |error: io::Error| CollectError::database(&path, &error);
        let Some(bytes) = root.read(&path, FILE_LIMIT).map_err(failed)? else { continue };
        for block in blocks(&bytes) {
            let Some(der) = block.and_then(|block| pem::parse(block).ok()).map(pem::Pem::into_contents) else {
                skipped += 1;
                continue;
            };
            let Ok((rest, certificate)) = x509_parser::parse_x509_certificate(&der) else {
                skipped += 1;
                continue;
            };
            // Behind a trusted certificate OpenSSL writes what it is trusted for.
            let digest: [u8; 32] = Sha256::digest(&der[..der.len() - rest.len()]).into();
            if found.len() >= CERTIFICATES_LIMIT && !found.contains_key(&digest) {
                return Err(failed(io::Error::other("with it there are more certificates than are read")));
            }
            let entry = found.entry(digest).or_insert_with(|| {
                let (key, fields) = told(&certificate, &digest);
                (key, fields, BTreeSet::new())
            });
            entry.2.insert(text::printable(path.as_bytes()).into_owned());
        }
    }
    let items = found.into_values().map(|(key, mut fields, files)| {
        fields.set(FieldName::known("files"), Value::list(files.into_iter().collect()));
        (key, fields)
    });
    Ok(listing(ItemKind::Certificate, items, skipped))
}

/// The certificates of a PEM file as they stand, each from its first line to its last; `None` for one that does not end.
fn blocks(bytes: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        loop {
            let at = find(rest, b"-----BEGIN ")?;
            let block = &rest[at..];
            let after = &block[b"-----BEGIN ".len()..];
            rest = after;
            let Some(label) = LABELS.iter().find(|label| after.starts_with(label.as_bytes()) && after[label.len()..].starts_with(b"-----"))
            else {
                continue;
            };
            let end = format!("-----END {label}-----");
            let next = find(after, b"-----BEGIN ").unwrap_or(after.len());
            let Some(length) = find(&after[..next.min(BLOCK_LIMIT)], end.as_bytes()) else { return Some(None) };
            let whole = &block[..b"-----BEGIN ".len() + length + end.len()];
            return Some(Some(whole));
        }
    })
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let mut from = 0;
    // A jump from dash to dash: what lies between is base64.
    while let Some(at) = bytes.get(from..)?.iter().position(|byte| *byte == b'-').map(|at| from + at) {
        if bytes[at..].starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// What a certificate is called, and its fields but the files that hold it.
fn told(certificate: &X509Certificate<'_>, digest: &[u8; 32]) -> (Vec<u8>, Fields) {
    let subject = text::printable(certificate.subject().to_string().as_bytes()).into_owned();
    let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let name = name.map(|name| text::printable(name.as_bytes()).into_owned()).filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| if subject.is_empty() { "no subject".to_owned() } else { subject.clone() });
    let key = format!("{} {}", text::bounded(&name, NAME_LIMIT), hex::encode(&digest[..8]));
    let mut fields = Fields::new();
    let mut set = |name: &'static str, value: String| {
        if !value.is_empty() {
            fields.set(FieldName::known(name), Value::text(&value));
        }
    };
    set("subject", subject);
    set("issuer", text::printable(certificate.issuer().to_string().as_bytes()).into_owned());
    set("sha256", hex::encode(digest));
    let validity = certificate.validity();
    set("begins_at", Time::from_seconds(validity.not_before.timestamp()).to_string());
    set("expires_at", Time::from_seconds(validity.not_after.timestamp()).to_string());
    fields.set(FieldName::known("ca"), certificate.is_ca().into());
    let names = names(certificate);
    if !names.is_empty() {
        fields.set(FieldName::known("names"), Value::list(names.into_iter().collect()));
    }
    (text::original(&key).into_owned(), fields)
}

/// Hosts that it speaks for.
fn names(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return BTreeSet::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(text::printable(name.as_bytes()).into_owned()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(a, b, c, d).to_string()),
            ref bytes => <[u8; 16]>::try_from(bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    };
    names.value.general_names.iter().take(NAMES_LIMIT).filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of a key of its own, for a host and an address, valid in 2030 alone.
    fn made(name: &str) -> String {
        let mut params = rcgen::CertificateParams::new(vec!["www.example".to_owned(), "192.0.2.7".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Example");
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2030, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 12, 31);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn sample(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        for (path, text) in files {
            std::fs::create_dir_all(root.path(path).parent().unwrap()).unwrap();
            std::fs::write(root.path(path), text).unwrap();
        }
        (folder, root)
    }

    #[test]
    fn a_certificate_is_one_item_whichever_files_hold_it() {
        let (one, other) = (made("one"), made("two\x1b[2J"));
        let bundle = format!("# One\n{one}junk\n{other}-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n");
        let (_folder, root) = sample(&[(BUNDLES[0], &bundle), ("/etc/ssl/one.pem", &one), ("/etc/ssl/readme", &other)]);
        std::os::unix::fs::symlink("../one.pem", root.path("/etc/ssl/certs/link.pem")).unwrap();
        let listing = read_all(&root).unwrap();
        assert_eq!((listing.items.len(), listing.skipped), (2, 0));
        let (item, reading) = &listing.items[0];
        let told = |name: &str| reading.fields.value(name).unwrap().to_string();
        assert_eq!(told("files"), "[/etc/ssl/certs/ca-certificates.crt, /etc/ssl/one.pem]");
        assert_eq!(told("subject"), "O=Example, CN=one");
        assert_eq!(
            (told("begins_at").as_str(), told("expires_at").as_str()),
            ("2030-01-01T00:00:00.000000Z", "2030-12-31T00:00:00.000000Z")
        );
        assert_eq!((told("names").as_str(), told("ca").as_str()), ("[192.0.2.7, www.example]", "false"));
        assert_eq!(item.key.as_str(), format!("one {}", &told("sha256")[..16]));
        let digest = Sha256::digest(pem::parse(&one).unwrap().contents());
        assert_eq!(told("sha256"), hex::encode(digest));
        assert!(listing.items[1].0.key.as_str().starts_with(r"two\x1b[2J "), "{}", listing.items[1].0);
    }

    #[test]
    fn what_is_no_certificate_is_counted() {
        let broken = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nMIIB\n";
        let (_folder, root) = sample(&[(BUNDLES[0], &format!("{broken}{}", made("one")))]);
        let listing = read_all(&root).unwrap();
        assert_eq!((listing.items.len(), listing.skipped), (1, 2));
    }

    #[test]
    fn this_machines_trust_store_can_be_read() {
        let Ok(bundle) = std::fs::read_to_string(BUNDLES[0]) else {
            return super::super::skipped("this_machines_trust_store_can_be_read", "there is no bundle of certificates");
        };
        let listing = read_all(&Root::host()).unwrap();
        assert!(listing.items.len() >= bundle.matches("-----BEGIN CERTIFICATE").count(), "{}", listing.items.len());
        assert_eq!(listing.skipped, 0);
    }

    proptest! {
        #[test]
        fn hostile_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "(-----BEGIN |-----END |CERTIFICATE|-----|-|\n|MIIB){0,40}") {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                prop_assert!(blocks(bytes).flatten().all(|block| block.starts_with(b"-----BEGIN ")));
            }
        }
    }
}
