//! Public keys of OpenPGP (RFC 9580, and RFC 4880 before it), as far as one asks who signs packages: fingerprint, user and
//! expiry of the primary keys. Nothing is verified: whether a signature holds is for who uses the key.
//!
//! Invariants: time and memory grow with the length of the file alone; what is no key ring is counted, never a panic.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use sha2::{Digest, Sha256};
use trueline_drift::Time;

/// Most primary keys of one file.
const KEYS_LIMIT: usize = 256;
/// Longest user id that is kept, in bytes.
const USER_LIMIT: usize = 512;

const SIGNATURE: u8 = 2;
const PRIMARY_KEY: u8 = 6;
const USER_ID: u8 = 13;
const SUBKEY: u8 = 14;

/// Types of signature by which a key speaks of itself: on its user ids, on itself, and to take itself back.
const CERTIFICATIONS: std::ops::RangeInclusive<u8> = 0x10..=0x13;
const DIRECT: u8 = 0x1f;
const REVOCATION: u8 = 0x20;

const ARMOR_BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const ARMOR_END: &str = "-----END PGP PUBLIC KEY BLOCK-----";

/// A primary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// In capital hexadecimal digits, as gpg(1) writes it.
    pub fingerprint: String,
    /// The first of its users.
    pub user: Option<Vec<u8>>,
    /// By its own latest word; absent where it never ends.
    pub expires_at: Option<Time>,
    pub revoked: bool,
}

/// A primary key whose packets are still being read.
struct Open {
    key: PublicKey,
    id: [u8; 8],
    created: u32,
    /// When the certification was made that `expires_at` is from.
    told: u32,
    /// As it says of itself directly, which counts before what it says with a user id.
    direct: Option<u32>,
    /// A subkey has begun: what follows is not about the primary key.
    is_past: bool,
}

/// The primary keys of a file, in armour or not, and how much of it made no sense.
pub fn keys(bytes: &[u8]) -> (Vec<PublicKey>, u64) {
    match std::str::from_utf8(bytes).ok().filter(|text| text.contains(ARMOR_BEGIN)) {
        Some(text) => {
            let (mut keys, mut malformed) = (Vec::new(), 0);
            for block in text.split(ARMOR_BEGIN).skip(1) {
                let Some(packets) = unarmored(block) else {
                    malformed += 1;
                    continue;
                };
                let (more, faults) = packets_of(&packets, KEYS_LIMIT - keys.len());
                keys.extend(more);
                malformed += faults;
            }
            (keys, malformed)
        }
        None => packets_of(bytes, KEYS_LIMIT),
    }
}

/// What an armour holds: base64 among headers (`Version: …`), empty lines, and a checksum behind `=`.
fn unarmored(block: &str) -> Option<Vec<u8>> {
    let (body, _) = block.split_once(ARMOR_END)?;
    let mut wrapped = String::from("-----BEGIN KEY-----\n");
    for line in body.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('=') && !line.contains([':', '.'])) {
        wrapped.push_str(line);
        wrapped.push('\n');
    }
    wrapped.push_str("-----END KEY-----\n");
    pem::parse(wrapped).ok().map(pem::Pem::into_contents)
}

fn packets_of(bytes: &[u8], limit: usize) -> (Vec<PublicKey>, u64) {
    let (mut keys, mut malformed) = (Vec::new(), 0);
    let mut open = None::<Open>;
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some((tag, body, after)) = packet(rest) else {
            malformed += 1;
            break;
        };
        rest = after;
        if tag == PRIMARY_KEY {
            keys.extend(open.take().map(|open| open.key));
            if keys.len() >= limit {
                return (keys, malformed + 1);
            }
            open = opened(body);
            malformed += u64::from(open.is_none());
            continue;
        }
        let Some(open) = open.as_mut().filter(|open| !open.is_past) else { continue };
        match tag {
            SUBKEY => open.is_past = true,
            USER_ID if open.key.user.is_none() => open.key.user = Some(body[..body.len().min(USER_LIMIT)].to_vec()),
            SIGNATURE => {
                if let Some(signature) = signature(body) {
                    heed(open, &signature);
                }
            }
            _ => {}
        }
    }
    keys.extend(open.map(|open| open.key));
    (keys, malformed)
}

/// The first packet: its type, its body, and what follows it.
fn packet(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (tag, length, rest) = match first {
        0xc0.. => {
            let (length, rest) = length(rest, 224)?;
            (first & 0x3f, length, rest)
        }
        0x80.. => {
            let size = [1, 2, 4].get(usize::from(first & 3)).copied();
            // Without a length it is the last.
            let Some(size) = size else { return Some((first >> 2 & 0xf, rest, &[])) };
            (first >> 2 & 0xf, number(rest.get(..size)?), &rest[size..])
        }
        _ => return None,
    };
    Some((tag, rest.get(..length)?, &rest[length..]))
}

/// A length of one, two or five bytes. Two-byte lengths begin below `end`: above, a packet would come in parts, as none of a key does.
fn length(bytes: &[u8], end: u8) -> Option<(usize, &[u8])> {
    match *bytes {
        [first @ ..192, ref rest @ ..] => Some((first.into(), rest)),
        [255, a, b, c, d, ref rest @ ..] => Some((number(&[a, b, c, d]), rest)),
        [first, second, ref rest @ ..] if first < end => Some(((usize::from(first) - 192) * 256 + usize::from(second) + 192, rest)),
        _ => None,
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

fn opened(body: &[u8]) -> Option<Open> {
    let (version, rest) = body.split_first()?;
    let created = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?);
    let length = u32::try_from(body.len()).ok()?;
    let fingerprint = match version {
        4 => {
            let length = u16::try_from(length).ok()?;
            digest(&SHA1_FOR_LEGACY_USE_ONLY, &[&[0x99], &length.to_be_bytes()[..], body].concat()).as_ref().to_vec()
        }
        5 | 6 => {
            let mark = if *version == 5 { 0x9a } else { 0x9b };
            Sha256::new().chain_update([mark]).chain_update(length.to_be_bytes()).chain_update(body).finalize().to_vec()
        }
        _ => return None,
    };
    let id = if *version == 4 { &fingerprint[fingerprint.len() - 8..] } else { &fingerprint[..8] };
    let id = id.try_into().ok()?;
    let key = PublicKey { fingerprint: hex::encode_upper(&fingerprint), user: None, expires_at: None, revoked: false };
    Some(Open { key, id, created, told: 0, direct: None, is_past: false })
}

#[derive(Debug, Default)]
struct Signature {
    kind: u8,
    created: u32,
    /// Seconds after the key was made; 0 says that it never ends, and absence nothing.
    key_expires: Option<u32>,
    issuer: Option<[u8; 8]>,
}

fn signature(body: &[u8]) -> Option<Signature> {
    let [version, kind, _, _, rest @ ..] = body else { return None };
    let size = match version {
        4 | 5 => 2,
        6 => 4,
        _ => return None,
    };
    let mut signature = Signature { kind: *kind, ..Signature::default() };
    let mut rest = rest;
    // What is not within the signed part anybody may have added: it tells the issuer and no more.
    for is_signed in [true, false] {
        let length = number(rest.get(..size)?);
        let mut area = rest.get(size..)?.get(..length)?;
        rest = &rest[size + length..];
        while !area.is_empty() {
            let (length, after) = self::length(area, 255)?;
            let (subpacket, after) = after.split_at_checked(length)?;
            area = after;
            let Some((name, value)) = subpacket.split_first() else { continue };
            let seconds = || value.try_into().ok().map(u32::from_be_bytes);
            match name & 0x7f {
                2 if is_signed => signature.created = seconds()?,
                9 if is_signed => signature.key_expires = Some(seconds()?),
                16 => signature.issuer = value.try_into().ok(),
                33 => {
                    let (version, fingerprint) = value.split_first()?;
                    let id = if *version == 4 { fingerprint.get(fingerprint.len().checked_sub(8)?..) } else { fingerprint.get(..8) };
                    signature.issuer = id?.try_into().ok();
                }
                _ => {}
            }
        }
    }
    Some(signature)
}

/// Takes what a key says of itself; others may have signed it too.
fn heed(open: &mut Open, signature: &Signature) {
    if signature.issuer != Some(open.id) {
        return;
    }
    match (signature.kind, signature.key_expires) {
        (REVOCATION, _) => open.key.revoked = true,
        // Most that are direct name who may revoke the key, and no expiry.
        (DIRECT, Some(expires)) if signature.created >= open.direct.unwrap_or(0) => {
            open.direct = Some(signature.created);
            open.expire(expires);
        }
        (kind, expires) if CERTIFICATIONS.contains(&kind) && open.direct.is_none() && signature.created >= open.told => {
            open.told = signature.created;
            open.expire(expires.unwrap_or(0));
        }
        _ => {}
    }
}

impl Open {
    fn expire(&mut self, after: u32) {
        let end = i64::from(self.created) + i64::from(after);
        self.key.expires_at = (after > 0).then(|| Time::from_seconds(end));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Debian's key of bookworm's stable releases, as the distribution ships it.
    pub const STABLE: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n\
        mDMEY865UxYJKwYBBAHaRw8BAQdAd7Z0srwuhlB6JKFkcf4HU4SSS/xcRfwEQWzr\n\
        crf6AEq0SURlYmlhbiBTdGFibGUgUmVsZWFzZSBLZXkgKDEyL2Jvb2t3b3JtKSA8\n\
        ZGViaWFuLXJlbGVhc2VAbGlzdHMuZGViaWFuLm9yZz6IlgQTFggAPhYhBE1k/sEZ\n\
        wgKQZ9bnkfjSWFuHg9SBBQJjzrlTAhsDBQkPCZwABQsJCAcCBhUKCQgLAgQWAgMB\n\
        Ah4BAheAAAoJEPjSWFuHg9SBSgwBAP9qpeO5z1s5m4D4z3TcqDo1wez6DNya27QW\n\
        WoG/4oBsAQCEN8Z00DXagPHbwrvsY2t9BCsT+PgnSn9biobwX7bDDg==\n=5NZE\n\
        -----END PGP PUBLIC KEY BLOCK-----\n";

    #[test]
    fn a_key_is_told_as_gpg_tells_it() {
        let (keys, malformed) = keys(STABLE.as_bytes());
        assert_eq!((keys.len(), malformed), (1, 0));
        assert_eq!(keys[0].fingerprint, "4D64FEC119C2029067D6E791F8D2585B8783D481");
        assert_eq!(keys[0].user.as_deref(), Some(&b"Debian Stable Release Key (12/bookworm) <debian-release@lists.debian.org>"[..]));
        // gpg --show-keys --with-colons: created 1674492243, expires 1926780243.
        assert_eq!(keys[0].expires_at, Some(Time::from_seconds(1_926_780_243)));
        assert!(!keys[0].revoked);
    }

    #[test]
    fn armour_with_headers_and_bare_packets_tell_the_same() {
        let (expected, _) = keys(STABLE.as_bytes());
        let headed = STABLE.replacen("\n\n", "\nVersion: GnuPG v2\nComment: x\n\n", 1);
        assert_eq!(keys(headed.as_bytes()), (expected.clone(), 0));
        let packets = unarmored(STABLE.strip_prefix(ARMOR_BEGIN).unwrap()).unwrap();
        assert_eq!(keys(&packets), (expected.clone(), 0));
        // As within a deb822 source.
        let stanza = STABLE.lines().map(|line| if line.is_empty() { " .\n".to_owned() } else { format!(" {line}\n") }).collect::<String>();
        assert_eq!(keys(stanza.as_bytes()), (expected.clone(), 0));
        let twice = packets.repeat(2);
        assert_eq!(keys(&twice).0.len(), 2);
    }

    #[test]
    fn a_key_that_is_cut_short_is_counted() {
        let packets = unarmored(STABLE.strip_prefix(ARMOR_BEGIN).unwrap()).unwrap();
        let (keys_of_half, malformed) = keys(&packets[..packets.len() / 2]);
        assert_eq!((keys_of_half.len(), malformed), (1, 1));
        assert_eq!(keys(b"not a key"), (vec![], 1));
    }

    #[test]
    fn what_another_signs_does_not_count() {
        let mut open = Open {
            key: PublicKey { fingerprint: String::new(), user: None, expires_at: None, revoked: false },
            id: [1; 8],
            created: 100,
            told: 0,
            direct: None,
            is_past: false,
        };
        let own = Signature { kind: 0x13, created: 5, key_expires: Some(50), issuer: Some([1; 8]) };
        heed(&mut open, &own);
        heed(&mut open, &Signature { key_expires: Some(9), created: 9, kind: DIRECT, issuer: Some([2; 8]) });
        heed(&mut open, &Signature { kind: REVOCATION, issuer: None, ..Signature::default() });
        heed(&mut open, &Signature { created: 4, key_expires: None, ..own });
        assert_eq!(open.key.expires_at, Some(Time::from_seconds(150)));
        // It names who may revoke the key, as Debian's own keys do, and says nothing of expiry.
        heed(&mut open, &Signature { kind: DIRECT, created: 6, key_expires: None, issuer: Some([1; 8]) });
        assert_eq!(open.key.expires_at, Some(Time::from_seconds(150)));
        heed(&mut open, &Signature { kind: DIRECT, created: 6, key_expires: Some(7), issuer: Some([1; 8]) });
        heed(&mut open, &Signature { kind: 0x13, created: 8, key_expires: None, issuer: Some([1; 8]) });
        assert_eq!(open.key.expires_at, Some(Time::from_seconds(107)));
        assert!(!open.key.revoked);
        heed(&mut open, &Signature { kind: REVOCATION, issuer: Some([1; 8]), ..Signature::default() });
        assert!(open.key.revoked);
    }

    proptest! {
        #[test]
        fn hostile_keys_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..500, byte: u8) {
            keys(&bytes);
            let mut packets = unarmored(STABLE.strip_prefix(ARMOR_BEGIN).unwrap()).unwrap();
            let at = at % packets.len();
            packets[at] = byte;
            prop_assert!(keys(&packets).0.len() <= KEYS_LIMIT);
        }
    }
}
