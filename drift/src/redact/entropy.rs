//! Which words look as if chance had made them: keys that neither a name nor a known shape gives away.
//!
//! What is public and looks the same is left readable: digests and fingerprints, UUIDs, the blobs of public keys, paths,
//! identifiers made of words. Where it cannot be told apart, as with hexadecimal text as long as a digest, the name of the
//! setting decides.

use std::ops::Range;

use super::name::words;
use super::text::runs;

/// Shortest word that is looked at: 20 characters of base64 are 15 bytes.
const LEAST: usize = 20;
const LEAST_HEX: usize = 24;
/// Longest part of a word that is counted: more would not make it more or less likely.
const COUNTED: usize = 512;

/// Lengths of digests in hexadecimal.
const DIGESTS: &[usize] = &[32, 40, 48, 56, 64, 96, 128];

/// Words of names whose values are made by chance, or look like it, and are public.
const PUBLIC: &[&str] = &[
    "assertion",
    "build",
    "cert",
    "certificate",
    "certificates",
    "certs",
    "checksum",
    "cid",
    "commit",
    "crc",
    "digest",
    "etag",
    "fingerprint",
    "guid",
    "hash",
    "hashes",
    "identity",
    "image",
    "integrity",
    "keygrip",
    "keyid",
    "md5",
    "pem",
    "pin256",
    "public",
    "pub",
    "pubkey",
    "rev",
    "revision",
    "sha",
    "sha1",
    "sha256",
    "sha384",
    "sha512",
    "sum",
    "thumbprint",
    "uuid",
    "uri",
    "url",
    "version",
    "x509",
];

/// Last words of names whose values are secret where they look made by chance.
const LIKELY: &[&str] =
    &["auth", "code", "cookie", "hmac", "iv", "key", "keys", "nonce", "otp", "pepper", "salt", "seed", "sig", "signature"];

/// Beginnings of what is public: blobs of SSH's public keys, digests in the forms of web pages and package managers.
const PUBLIC_STARTS: &[&str] = &["AAAA", "md5-", "sha1-", "sha256-", "sha384-", "sha512-"];

/// Where such words lie in the value of a setting.
pub(super) fn spans(name: &str, value: &str, spans: &mut Vec<Range<usize>>) {
    let words = words(name);
    let is_public = words.iter().any(|word| PUBLIC.contains(&word.as_str()));
    let is_likely = words.last().is_some_and(|last| LIKELY.contains(&last.as_str()));
    if is_public {
        return;
    }
    for run in runs(value, is_word) {
        let before = &value[..run.start];
        let told = before.ends_with("keyed:") || before.ends_with("SHA256:") || before.ends_with("sha256:") || before.ends_with("MD5:");
        // A word within a longer text: an escape, a path, an address, a file's name.
        let is_part = before.ends_with(['/', '\\', '.', '@', '%', '~', '$', '{']) || value[run.end..].starts_with(['.', '@', '}', '(']);
        if !told && !is_part && is_random(&value[run.clone()], is_likely) {
            spans.push(run);
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'_' | b'-')
}

fn is_random(word: &str, is_likely: bool) -> bool {
    // The `=` of an assignment; padding stands at the end.
    let body = word.trim_end_matches('=');
    let body = body.rsplit('=').next().unwrap_or(body);
    if body.len() < LEAST || PUBLIC_STARTS.iter().any(|start| body.starts_with(start)) || is_uuid(body) || body.starts_with('/') {
        return false;
    }
    if body.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let is_mixed = body.bytes().filter(u8::is_ascii_digit).count() >= 4 && body.bytes().filter(u8::is_ascii_alphabetic).count() >= 4;
        let is_one_case = !(body.bytes().any(|byte| byte.is_ascii_uppercase()) && body.bytes().any(|byte| byte.is_ascii_lowercase()));
        return body.len() >= LEAST_HEX && is_mixed && is_one_case && entropy(body) >= 3.0 && (is_likely || !DIGESTS.contains(&body.len()));
    }
    looks_random(body)
}

/// 8-4-4-4-12 hexadecimal digits.
fn is_uuid(word: &str) -> bool {
    let mut parts = word.split('-');
    let is_of =
        |part: Option<&str>, length| part.is_some_and(|part| part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit()));
    [8, 4, 4, 4].into_iter().all(|length| is_of(parts.next(), length)) && parts.next().is_some_and(|last| last.len() >= 12)
}

/// Capitals, small letters and digits in a mixture that words and numbers joined together do not show.
fn looks_random(word: &str) -> bool {
    let counted = &word.as_bytes()[..word.len().min(COUNTED)];
    let class = |byte: u8| match byte {
        b'A'..=b'Z' => Some(0),
        b'a'..=b'z' => Some(1),
        b'0'..=b'9' => Some(2),
        _ => None,
    };
    let (mut counts, mut turns, mut pairs) = ([0_usize; 3], 0_usize, 0_usize);
    let mut last = None;
    for class in counted.iter().map(|byte| class(*byte)) {
        if let Some(class) = class {
            counts[class] += 1;
            if let Some(last) = last {
                pairs += 1;
                turns += usize::from(last != class);
            }
        }
        last = class;
    }
    let [capitals, small, digits] = counts;
    // Signs among letters: words joined by `-` or a path, not base64.
    let signs = counted.len() - capitals - small - digits;
    if signs * 8 > counted.len() || pairs == 0 {
        return false;
    }
    let share = turns as f64 / pairs as f64;
    if capitals >= 3 && small >= 3 && digits >= 2 {
        return share >= 0.42 && entropy(word) >= 3.7;
    }
    // One case and digits (base 32, base 36).
    let letters = capitals.max(small);
    capitals.min(small) == 0 && digits >= 4 && letters >= 8 && signs == 0 && counted.len() >= 24 && share >= 0.3 && entropy(word) >= 3.6
}

/// Bits for each character, by how often each occurs.
fn entropy(word: &str) -> f64 {
    let counted = &word.as_bytes()[..word.len().min(COUNTED)];
    let mut counts = [0_usize; 256];
    for byte in counted {
        counts[usize::from(*byte)] += 1;
    }
    let total = counted.len() as f64;
    let share = |count: &usize| *count as f64 / total;
    counts.iter().filter(|count| **count > 0).map(|count| -share(count) * share(count).log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, value: &str) -> Vec<String> {
        let mut found = Vec::new();
        spans(name, value, &mut found);
        found.into_iter().map(|span| value[span].to_owned()).collect()
    }

    #[test]
    fn keys_made_by_chance_are_found_without_a_name() {
        for key in [
            "wJa7rXUt9FEMI/K7MdE2G/bPxRfiCY3xkM4LqKzY7",
            "8Zq3vKpL0xWm2TnB7yRc",
            "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=",
            "k7q2m9x4b8v3n6c1z5l0p8w2",
            "4f8a1c9e2b7d6053f8e1a9c4b7",
        ] {
            assert_eq!(found("x", &format!("a {key} b")).concat(), key);
        }
        assert_eq!(found("tls.key", "d41d8cd98f00b204e9800998ecf8427e").len(), 1);
    }

    #[test]
    fn what_is_public_is_left_readable() {
        for value in [
            "d41d8cd98f00b204e9800998ecf8427e",
            "6f1ed002ab5595859014ebf0951522d9e3b0c44298fc1c149afbf4c8996fb924",
            "123e4567-e89b-12d3-a456-426614174000",
            "SHA256:uNiVztksCsDhcc0u9e8BrrJXVDjJ4kZQxFOpkqIYjCY",
            "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
            "AAAAC3NzaC1lZDI1NTE5AAAAIJ7Vx2l5kqYh3YHn8bD1mR4c0eH2L9sT6uPqWzXvKfNa",
            "/usr/lib/x86_64-linux-gnu/libsystemd-shared-252.so",
            "org.freedesktop.NetworkManager1.Settings",
            "ecdsa-sha2-nistp256-cert-v01@openssh.com,ssh-ed25519-cert-v01@openssh.com",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384",
            "ThisIsACamelCaseIdentifierOfManyWords",
        ] {
            assert_eq!(found("x", value), Vec::<String>::new(), "{value}");
        }
        assert!(found("PublicKey", "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=").is_empty());
    }

    /// Of keys that chance made nearly all are found; those that happen to look like words are not.
    #[test]
    fn nearly_all_random_keys_are_found() {
        use sha2::{Digest, Sha256};
        const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for (length, least) in [(20, 700), (32, 900), (43, 950)] {
            let key = |number: u32| -> String {
                let bytes =
                    [Sha256::digest(number.to_le_bytes()), Sha256::digest([b"x".as_slice(), &number.to_le_bytes()].concat())].concat();
                bytes.iter().take(length).map(|byte| char::from(BASE64[usize::from(byte & 63)])).collect()
            };
            let count = (0..1000).filter(|number| found("x", &key(*number)).len() == 1).count();
            assert!(count >= least, "{count} of 1000 keys of {length} characters");
        }
    }
}
