//! What an operator adds to the built-in knowledge of secrets: names whose values are masked, names that are not taken for
//! secrets, and beginnings of keys.
//!
//! Names are compared by their letters and digits alone, in lower case: `api-key`, `API_KEY` and `apiKey` are one. A `*` at
//! either end stands for anything. Rules come from a configuration file, so that their number and length are bounded and a
//! rule that would hide everything is refused when it is read.

use serde::{Deserialize, Serialize};

/// Most rules of one kind.
pub const RULES_LIMIT: usize = 256;
/// Longest name or beginning, in bytes.
const RULE_LENGTH: usize = 128;
/// Fewest letters and digits of a name, and bytes of a beginning: less would be found nearly anywhere.
const RULE_LEAST: usize = 3;

/// Names of settings that hold secrets, besides those that are secrets in a command line too (`name.rs`).
const NAMES: &[&str] = &[
    "apikeys",
    "authcommunity",
    "bearertoken*",
    "bindpw",
    "clientkeydata",
    "community",
    "connectionstring",
    "hmackey",
    "presharedkey",
    "preshared",
    "rocommunity*",
    "rootpw",
    "rwcommunity*",
    "secretkeys",
    "trapcommunity",
    "wepkey*",
];

/// Beginnings of keys and tokens, and the least length of the whole, besides those that are known in running text (`text.rs`).
const PREFIXES: &[(&str, usize)] = &[
    ("AGE-SECRET-KEY-1", 40),
    ("ATATT3", 40),
    ("GOCSPX-", 20),
    // `openssh-key-v1`, and `-----BEGIN` before PRIVATE, RSA, EC, DSA, OPENSSH and ENCRYPTED, in base64.
    ("b3BlbnNzaC1rZXktdjE", 40),
    ("LS0tLS1CRUdJTiBQUklW", 40),
    ("LS0tLS1CRUdJTiBSU0Eg", 40),
    ("LS0tLS1CRUdJTiBFQyBQ", 40),
    ("LS0tLS1CRUdJTiBEU0Eg", 40),
    ("LS0tLS1CRUdJTiBPUEVO", 40),
    ("LS0tLS1CRUdJTiBFTkNS", 40),
    ("dckr_pat_", 20),
    ("doo_v1_", 30),
    ("eyJrIjoi", 30),
    ("glptt-", 20),
    ("glrt-", 20),
    ("glsa_", 20),
    ("grub.pbkdf2.", 30),
    ("hvb.", 20),
    ("pypi-", 40),
    ("shpat_", 20),
    ("sk_test_", 16),
    ("tskey-", 20),
    ("whsec_", 20),
    ("xapp-", 20),
    ("ya29.", 20),
];

/// What an operator adds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Document", into = "Document")]
pub struct Rules {
    document: Document,
    masked: Vec<Name>,
    kept: Vec<Name>,
}

/// The rules as they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Document {
    mask_names: Vec<String>,
    keep_names: Vec<String>,
    prefixes: Vec<Prefix>,
}

/// The beginning of a key, and how long such a key is at least.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prefix {
    starts_with: String,
    at_least: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    #[error("there are {count} {what}; {RULES_LIMIT} is the limit")]
    TooMany { what: &'static str, count: usize },
    #[error("the name `{name}` needs {RULE_LEAST} letters or digits and {RULE_LENGTH} bytes at most, with `*` at its ends alone")]
    Name { name: String },
    #[error("the beginning `{prefix}` needs {RULE_LEAST} to {RULE_LENGTH} bytes, all of them letters, digits, `_`, `.` or `-`")]
    Prefix { prefix: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    plain: String,
    open_start: bool,
    open_end: bool,
}

impl Name {
    fn new(name: &str) -> Option<Self> {
        let (open_start, open_end) = (name.starts_with('*'), name.len() > 1 && name.ends_with('*'));
        let inner = name.strip_prefix('*').unwrap_or(name);
        let inner = inner.strip_suffix('*').unwrap_or(inner);
        let plain = plain(inner);
        let is_sound = !inner.contains('*') && plain.len() >= RULE_LEAST && name.len() <= RULE_LENGTH;
        is_sound.then_some(Self { plain, open_start, open_end })
    }

    fn matches(&self, plain: &str) -> bool {
        match (self.open_start, self.open_end) {
            (false, false) => plain == self.plain,
            (true, false) => plain.ends_with(&self.plain),
            (false, true) => plain.starts_with(&self.plain),
            (true, true) => plain.contains(&self.plain),
        }
    }
}

/// Letters and digits alone, in lower case.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

impl TryFrom<Document> for Rules {
    type Error = RulesError;

    fn try_from(document: Document) -> Result<Self, RulesError> {
        let counts = [
            ("names to mask", document.mask_names.len()),
            ("names to keep", document.keep_names.len()),
            ("beginnings of keys", document.prefixes.len()),
        ];
        if let Some((what, count)) = counts.into_iter().find(|(_, count)| *count > RULES_LIMIT) {
            return Err(RulesError::TooMany { what, count });
        }
        let shown = |text: &str| crate::text::bounded(&crate::text::printable(text.as_bytes()), RULE_LENGTH).into_owned();
        let names = |names: &[String]| -> Result<Vec<Name>, RulesError> {
            names.iter().map(|name| Name::new(name).ok_or_else(|| RulesError::Name { name: shown(name) })).collect()
        };
        for Prefix { starts_with, .. } in &document.prefixes {
            let is_sound = (RULE_LEAST..=RULE_LENGTH).contains(&starts_with.len()) && starts_with.bytes().all(super::text::is_name);
            if !is_sound {
                return Err(RulesError::Prefix { prefix: shown(starts_with) });
            }
        }
        Ok(Self { masked: names(&document.mask_names)?, kept: names(&document.keep_names)?, document })
    }
}

impl From<Rules> for Document {
    fn from(rules: Rules) -> Self {
        rules.document
    }
}

impl Rules {
    /// Whether the operator says that settings of this name hold secrets, or the table of names does.
    pub(super) fn masks(&self, name: &str) -> bool {
        let name = plain(name);
        let is_built_in = |known: &&str| match known.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == **known,
        };
        NAMES.iter().any(is_built_in) || self.masked.iter().any(|rule| rule.matches(&name))
    }

    /// Whether the operator says that settings of this name hold no secrets.
    pub(super) fn keeps(&self, name: &str) -> bool {
        let name = plain(name);
        self.kept.iter().any(|rule| rule.matches(&name))
    }

    /// Whether a word is as long as a key that begins as it does.
    pub(super) fn is_key(&self, word: &str) -> bool {
        PREFIXES.iter().any(|(start, least)| word.len() >= *least && word.starts_with(start))
            || self.document.prefixes.iter().any(|prefix| word.len() >= prefix.at_least && word.starts_with(&prefix.starts_with))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Rules, String> {
        crate::document::parse_toml("agent.toml", text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_operators_rules_are_read_and_written_back() {
        let text =
            "mask_names = ['x-door-code', 'corp*']\nkeep_names = ['tokenizer']\nprefixes = [{ starts_with = 'corp_', at_least = 12 }]\n";
        let rules = rules(text).unwrap();
        assert!(rules.masks("X_Door_Code") && rules.masks("corp.anything") && !rules.masks("door"));
        assert!(rules.keeps("Tokenizer") && !rules.keeps("token"));
        assert!(rules.is_key("corp_0123456789") && !rules.is_key("corp_01"));
        let back: Rules = serde_json::from_str(&serde_json::to_string(&rules).unwrap()).unwrap();
        assert_eq!(back, rules);
    }

    #[test]
    fn a_rule_that_would_hide_everything_is_refused_when_it_is_read() {
        for text in
            ["mask_names = ['*']", "mask_names = ['a']", "keep_names = ['a*b-c']", "prefixes = [{ starts_with = '', at_least = 3 }]"]
        {
            assert!(rules(text).is_err(), "{text}");
        }
        assert!(rules("mask_name = ['token']").unwrap_err().contains("did you mean `mask_names`"));
        let many = format!("mask_names = [{}]", "'abc',".repeat(RULES_LIMIT + 1));
        assert!(rules(&many).unwrap_err().contains("256 is the limit"));
    }
}
