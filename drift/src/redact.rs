//! Keeps secrets on the host: what the agent applies to every value before it is diffed, stored or
//! spooled.
//!
//! A secret that must be comparable becomes a digest keyed by a key that never leaves the host, so
//! that a short one cannot be guessed back from it.
//!
//! In a command line the rule is this. What names itself a secret is masked whatever the program:
//! `--password x`, `TOKEN=x`, an `Authorization` header, the password in a URL, a key of a known shape. What
//! only a program can tell (`-p`, `-u`, the second argument) is masked for the programs in `redact/tool.rs`
//! and left readable for all others: `-p` is a password to few and a port, a path or a mode to many. The
//! argument after `--password` is masked unless it looks like another option, and masked all the same for a program
//! that is known to take a value there. An argument with blanks in it is read as a shell would read it, so that
//! the rules hold for the commands in it too, to a bounded depth.
//!
//! To mask what has been masked changes nothing. The names of options, the number of arguments and everything that is
//! not taken for a secret stay as they were.

mod argv;
mod entropy;
mod line;
mod name;
mod rules;
mod script;
mod setting;
mod text;
mod tool;

use std::borrow::Cow;
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use line::line;
pub(crate) use line::{names_secret_in, opens_secret};
pub use rules::{Rules, RulesError};
pub use setting::setting;

const MASK: &str = "[redacted]";
/// What a keyed digest begins with.
const DIGEST: &str = "keyed:";

/// Texts within texts that are read as a shell would.
const DEPTH: usize = 3;

/// Longest argument that is looked at, in bytes. What is not looked at is not told.
pub const LOOKED_AT: usize = 16 * 1024;

/// How often a line is gone over until nothing changes: what is masked can make another secret show.
const ROUNDS: usize = 4;

/// A process's arguments with the secrets in them masked, as many as there were. They are in the printable form of
/// [`crate::text`].
pub fn arguments(argv: &[String]) -> Vec<String> {
    let mut masked: Vec<String> = argv.iter().map(|argument| beginning(argument).into_owned()).collect();
    for _ in 0..ROUNDS {
        let again = argv::masked(&masked, 0);
        if again == masked {
            break;
        }
        masked = again;
    }
    masked
}

/// Masks the secrets in running text that belongs to no known program: assignments, headers, the passwords of
/// URLs, and keys of a known shape.
pub fn free_text(text: &str) -> Cow<'_, str> {
    match beginning(text) {
        Cow::Borrowed(text) => text::masked(text),
        Cow::Owned(text) => Cow::Owned(text::masked(&text).into_owned()),
    }
}

/// Whether a part of a text stands for a secret that was masked.
pub fn is_masked_in(text: &str) -> bool {
    text.contains(MASK)
        || text.match_indices(DIGEST).any(|(at, _)| setting::is_masked(text.get(at..at + DIGEST.len() + 32).unwrap_or_default()))
}

/// Whether a name says that what bears it is a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    name::names_secret(name)
}

fn beginning(argument: &str) -> Cow<'_, str> {
    crate::text::bounded(argument, LOOKED_AT)
}

/// What one host redacts by: the key of its digests, and what its operator adds to what is known of secrets.
#[derive(Clone)]
pub struct RedactionKey {
    bytes: [u8; 32],
    rules: Arc<Rules>,
}

impl RedactionKey {
    pub fn new(bytes: [u8; 32]) -> Self {
        Self { bytes, rules: Arc::default() }
    }

    pub fn with_rules(self, rules: Rules) -> Self {
        Self { rules: Arc::new(rules), ..self }
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Of key and rules: another one may mask otherwise. It gives neither away.
    pub fn fingerprint(&self) -> String {
        let rules = serde_json::to_vec(&*self.rules).expect("rules are lists of texts and numbers");
        self.digest(&[b"rules ", rules.as_slice()].concat())
    }

    /// A digest that is equal for equal secrets on this host and tells nothing elsewhere:
    /// HMAC-SHA-256 (RFC 2104), the first 16 bytes, as `keyed:hex`.
    pub fn digest(&self, secret: &[u8]) -> String {
        let pad = |byte: u8| {
            let mut block = [byte; 64];
            block.iter_mut().zip(self.bytes).for_each(|(pad, key)| *pad ^= key);
            block
        };
        let inner = Sha256::new().chain_update(pad(0x36)).chain_update(secret).finalize();
        let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
        format!("{DIGEST}{}", hex::encode(&outer[..16]))
    }
}

impl std::fmt::Debug for RedactionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedactionKey(..)")
    }
}

#[cfg(test)]
mod tests;
