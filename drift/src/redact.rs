//! Keeps secrets on the host: what the agent applies to every value before it is diffed, stored or
//! spooled.
//!
//! A secret that must be comparable becomes a digest keyed by a key that never leaves the host, so
//! that a short one cannot be guessed back from it.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

const MASK: &str = "[redacted]";

/// Words that mark the value beside them as a secret, in arguments and in setting names.
const SECRET_WORDS: &[&str] =
    &["password", "passwd", "passphrase", "secret", "token", "apikey", "api-key", "api_key", "private-key", "private_key", "credential"];

fn names_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| lower.contains(word))
}

/// A process's arguments with the secrets in them masked: `--password=x`, `--token x`, `PGPASSWORD=x`,
/// `https://user:x@host`, `-pX` of the MySQL tools, `Authorization: Bearer x`.
pub fn arguments(argv: &[String]) -> Vec<String> {
    let program = argv.first().map(|first| first.rsplit('/').next().unwrap_or(first)).unwrap_or("");
    let glued_password = program.starts_with("mysql") || program.starts_with("mariadb");
    let mut next_is_secret = false;
    argv.iter()
        .map(|argument| {
            if std::mem::take(&mut next_is_secret) && !argument.starts_with('-') {
                return MASK.to_owned();
            }
            if glued_password && argument.len() > 2 && argument.starts_with("-p") {
                return format!("-p{MASK}");
            }
            if let Some((name, _)) = argument.split_once('=')
                && names_secret(name)
            {
                return format!("{name}={MASK}");
            }
            if argument.starts_with('-') && names_secret(argument) {
                next_is_secret = true;
            }
            free_text(argument).into_owned()
        })
        .collect()
}

/// Masks credentials inside running text: URL passwords and authorisation headers.
pub fn free_text(text: &str) -> Cow<'_, str> {
    let lower = text.to_ascii_lowercase();
    for marker in ["authorization: ", "bearer "] {
        if let Some(at) = lower.find(marker) {
            return Cow::Owned(format!("{}{MASK}", &text[..at + marker.len()]));
        }
    }
    if let Some(scheme) = text.find("://") {
        let rest = &text[scheme + 3..];
        let authority = rest.split('/').next().unwrap_or(rest);
        if let Some(at) = authority.rfind('@')
            && let Some(colon) = authority[..at].find(':')
        {
            let start = scheme + 3 + colon + 1;
            let end = scheme + 3 + at;
            return Cow::Owned(format!("{}{MASK}{}", &text[..start], &text[end..]));
        }
    }
    Cow::Borrowed(text)
}

/// The key of one host's redaction digests.
#[derive(Clone)]
pub struct RedactionKey([u8; 32]);

impl RedactionKey {
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A digest that is equal for equal secrets on this host and tells nothing elsewhere:
    /// HMAC-SHA-256 (RFC 2104), the first 16 bytes, as `keyed:hex`.
    pub fn digest(&self, secret: &[u8]) -> String {
        let pad = |byte: u8| {
            let mut block = [byte; 64];
            block.iter_mut().zip(self.0).for_each(|(pad, key)| *pad ^= key);
            block
        };
        let inner = Sha256::new().chain_update(pad(0x36)).chain_update(secret).finalize();
        let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
        format!("keyed:{}", hex::encode(&outer[..16]))
    }
}

impl std::fmt::Debug for RedactionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedactionKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(line: &str) -> String {
        arguments(&line.split(' ').map(str::to_owned).collect::<Vec<_>>()).join(" ")
    }

    #[test]
    fn secrets_in_arguments_are_masked() {
        assert_eq!(redacted("tool --password=hunter2 file"), "tool --password=[redacted] file");
        assert_eq!(redacted("tool --api-token hunter2 file"), "tool --api-token [redacted] file");
        assert_eq!(redacted("env PGPASSWORD=hunter2 psql"), "env PGPASSWORD=[redacted] psql");
        assert_eq!(redacted("/usr/bin/mysql -phunter2 -u root"), "/usr/bin/mysql -p[redacted] -u root");
        assert_eq!(redacted("git clone https://bob:hunter2@example.org/x"), "git clone https://bob:[redacted]@example.org/x");
        assert_eq!(free_text("Authorization: Bearer abc"), "Authorization: [redacted]");
    }

    #[test]
    fn ordinary_arguments_stay() {
        let line = "cp -p /etc/hosts https://example.org/a@b";
        assert_eq!(redacted(line), line);
    }

    /// RFC 4231, test case 2 has a short key; a 32-byte key checks the same construction.
    #[test]
    fn the_digest_is_hmac_sha256() {
        let key = RedactionKey::new([0x0b; 32]);
        // python3 -c "import hmac,hashlib;print(hmac.new(b'\x0b'*32,b'Hi There',hashlib.sha256).hexdigest()[:32])"
        assert_eq!(key.digest(b"Hi There"), "keyed:198a607eb44bfbc69903a0f1cf2bbdc5");
    }
}
