//! Secrets in the settings of configuration files: by the setting's name, by shape, and by the look of chance.
//!
//! A secret gives way to a digest keyed by the host ([`RedactionKey::digest`]), so that it shows THAT it changed and that two
//! are equal, and not what it is. Unlike in a command line, where a mask does. To mask what has been masked changes nothing.

use std::borrow::Cow;
use std::ops::Range;

use super::name::{is_harmless, is_secret_header, names_secret, words};
use super::{DIGEST, LOOKED_AT, MASK, ROUNDS, RedactionKey, Rules, entropy, text};

/// Last words of settings that tell of passwords without being one, besides those in a command line.
const ABOUT: &[&str] = &[
    "age",
    "algorithm",
    "algorithms",
    "attempts",
    "attribute",
    "backend",
    "bits",
    "change",
    "charset",
    "check",
    "column",
    "count",
    "days",
    "delay",
    "encoding",
    "encryption",
    "expire",
    "expired",
    "expiration",
    "expires",
    "field",
    "format",
    "hash",
    "hashing",
    "helper",
    "history",
    "interval",
    "label",
    "len",
    "level",
    "lookup",
    "manager",
    "map",
    "maps",
    "max",
    "mechanism",
    "mechanisms",
    "method",
    "min",
    "minlen",
    "mode",
    "module",
    "options",
    "plugin",
    "program",
    "provider",
    "quality",
    "query",
    "requirements",
    "retries",
    "retry",
    "rounds",
    "rules",
    "scheme",
    "schemes",
    "service",
    "size",
    "source",
    "storage",
    "store",
    "strength",
    "timeout",
    "tries",
    "use",
    "user",
    "username",
    "validation",
    "validity",
    "warn",
    "weeks",
];

/// Names of settings that sound like secrets and are none: where nginx passes requests on.
const OTHERS: &[&str] = &["fastcgi_pass", "grpc_pass", "memcached_pass", "proxy_pass", "scgi_pass", "uwsgi_pass"];

/// Ends of the names of tables in which each value is a secret, and what stands beside one in such a table.
const HOLDERS: &[&str] = &["api_keys", "apikeys", "credentials", "passwords", "secrets", "tokens"];
const BESIDE: &[&str] =
    &["address", "description", "driver", "email", "expires", "external", "host", "label", "port", "realm", "user", "username", "version"];

/// Values that say that there is no secret, or that there is one.
const STATES: &[&str] = &["!", "!!", "*", "disabled", "empty", "enabled", "locked", "none", "null", "set", "unset"];

/// Components that stand for the value of what lies around them.
const VALUES: &[&str] = &["content", "data", "default", "stringdata", "text", "text()", "value"];

/// What nsswitch.conf(5) has behind `passwd:`, and pam.conf(5) behind `password`.
const SERVICES: &[&str] =
    &["cache", "compat", "db", "extrausers", "files", "hesiod", "ldap", "mymachines", "nis", "nisplus", "sss", "systemd", "winbind"];
const CONTROLS: &[&str] = &["binding", "include", "optional", "required", "requisite", "substack", "sufficient"];

/// Names of schemes of password hashes between two `$`.
const SCHEMES: &[&str] = &[
    "1",
    "2",
    "2a",
    "2b",
    "2x",
    "2y",
    "5",
    "6",
    "7",
    "8",
    "9",
    "apr1",
    "argon2d",
    "argon2i",
    "argon2id",
    "bcrypt-sha256",
    "gy",
    "md5",
    "pbkdf2",
    "pbkdf2-sha256",
    "pbkdf2-sha512",
    "scrypt",
    "sha1",
    "y",
];

/// Names of schemes between braces (slapd, Dovecot), in the beginning of which any scheme's name starts.
const BRACED: &[&str] = &["ARGON2", "BLF-CRYPT", "CRAM-MD5", "CRYPT", "MD5", "PBKDF2", "SCRAM", "SHA", "SMD5", "SSHA"];

/// The value of a setting with what is secret in it masked: all of it where the name says so.
pub fn setting<'a>(name: &str, value: &'a str, key: &RedactionKey) -> Cow<'a, str> {
    if value.is_empty() || is_masked(value) {
        return Cow::Borrowed(value);
    }
    let names = Names::of(name);
    let rules = key.rules();
    let is_kept = names.all().any(|name| rules.keeps(name));
    let is_among = names.is_among_secrets && can_be_secret(names.last, value);
    if !is_kept && (is_among || names.all().any(|name| is_secret(name, value, rules))) {
        return Cow::Owned(key.digest(value.as_bytes()));
    }
    let last = if is_kept { None } else { Some(names.last) };
    within(last, value, key)
}

/// `keyed:` and a digest, or the mask of command lines, and nothing else.
pub(super) fn is_masked(value: &str) -> bool {
    let is_digest = |digest: &str| digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
    value == MASK || value.strip_prefix(DIGEST).is_some_and(is_digest)
}

/// Masks what is secret by its shape or look. Without a name nothing is one by its look.
pub(super) fn within<'a>(name: Option<&str>, value: &'a str, key: &RedactionKey) -> Cow<'a, str> {
    let whole = || Cow::Owned(key.digest(value.as_bytes()));
    if value.len() > LOOKED_AT {
        return whole();
    }
    let mut masked = Cow::Borrowed(value);
    for _ in 0..ROUNDS {
        let mut spans = text::spans(&masked);
        hashes(&masked, &mut spans);
        keys(&masked, key.rules(), &mut spans);
        if let Some(name) = name {
            entropy::spans(name, &masked, &mut spans);
        }
        spans.retain(|span| !is_masked(&masked[span.clone()]) && !is_of_masked(&masked, span) && !is_tagged(&masked, span));
        if spans.is_empty() {
            return masked;
        }
        let again = text::replaced(&masked, spans, |secret| key.digest(secret.as_bytes())).into_owned();
        if again.len() > LOOKED_AT {
            return whole();
        }
        masked = Cow::Owned(again);
    }
    // One mask makes the next: none of it is told.
    whole()
}

/// Whether all that a span holds is a digest told before, and what parts it from its neighbours: `keyed:…;`.
fn is_of_masked(text: &str, span: &Range<usize>) -> bool {
    let (start, end) = (span.start, span.end);
    let is_tail = start >= 6 && text.is_char_boundary(start - 6) && is_masked(&text[start - 6..end]);
    is_tail || is_masked(text[start..end].trim_matches([' ', ';', ',', '"', '\'']))
}

/// `PASSWD: /bin/su` of sudoers(5): commands for which sudo asks.
fn is_tagged(text: &str, span: &Range<usize>) -> bool {
    text[..span.start].trim_end().ends_with("PASSWD:") && ["/", "ALL"].iter().any(|start| text[span.start..].starts_with(start))
}

/// Under which names a setting's value may be a secret.
struct Names<'a> {
    last: &'a str,
    others: Vec<&'a str>,
    /// It stands in a table of secrets: `secrets.db`.
    is_among_secrets: bool,
}

impl<'a> Names<'a> {
    /// Of a name such as `http.server example.org.proxy_set_header Authorization` or `env[name=DB_PASSWORD].value`.
    fn of(name: &'a str) -> Self {
        let components = components(name);
        let last = components.last().copied().unwrap_or("");
        let mut others = Vec::new();
        let mut took = |component: &'a str| {
            let (base, inside) = component.split_once('[').map_or((component, ""), |(base, inside)| (base, inside.trim_end_matches(']')));
            others.push(base);
            others.extend(inside.split_once('=').map(|(_, name)| name));
            others.extend(base.rsplit_once(' ').map(|(_, last)| last));
        };
        took(last);
        let base = last.split('[').next().unwrap_or(last).trim_start_matches('@');
        if base.is_empty() || VALUES.contains(&base.to_ascii_lowercase().as_str()) {
            let parent = components.iter().rev().nth(1).copied();
            parent.into_iter().for_each(&mut took);
            return Self { last: parent.unwrap_or(last), others, is_among_secrets: false };
        }
        let holder = components.iter().rev().nth(1).map(|holder| holder.split('[').next().unwrap_or(holder));
        let is_among_secrets = holder.is_some_and(|holder| HOLDERS.iter().any(|known| holder.to_ascii_lowercase().ends_with(known)))
            && !words(last).last().is_some_and(|last| BESIDE.contains(&last.as_str()))
            && names_secret(&format!("secret {last}"));
        Self { last, others, is_among_secrets }
    }

    fn all(&self) -> impl Iterator<Item = &'a str> {
        self.others.iter().copied().filter(|name| !name.is_empty())
    }
}

/// The parts of a name between dots that stand neither in quotes nor in brackets; between any dots where those are not closed.
fn components(name: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut depth) = (Vec::new(), 0, false, 0_usize);
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'[' if !quoted => depth += 1,
            b']' if !quoted => depth = depth.saturating_sub(1),
            b'.' if !quoted && depth == 0 => {
                parts.push(&name[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if quoted || depth > 0 {
        return name.split('.').collect();
    }
    parts.push(&name[start..]);
    parts
}

fn is_secret(name: &str, value: &str, rules: &Rules) -> bool {
    let words = words(name);
    let is_about = words.last().is_some_and(|last| ABOUT.contains(&last.as_str()));
    let is_other = OTHERS.iter().any(|other| name.eq_ignore_ascii_case(other));
    let named = rules.masks(name) || is_secret_header(name) || (names_secret(name) && !is_about && !is_other);
    named && can_be_secret(name, value) && !is_of_system(name, value)
}

/// Whether the value is more than yes, no, or where a secret lies.
fn can_be_secret(name: &str, value: &str) -> bool {
    !is_harmless(name, value) && !is_state(value) && !is_reference(value)
}

fn is_state(value: &str) -> bool {
    let value = value.trim_matches(['"', '\'']).to_ascii_lowercase();
    value.is_empty() || STATES.contains(&value.as_str())
}

/// `${NAME}`, `{{ name }}`: where the secret is taken from.
fn is_reference(value: &str) -> bool {
    let is_plain = |inner: &str| inner.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.: ".contains(&byte));
    let inner = |start, end| value.strip_prefix(start).and_then(|rest: &str| rest.strip_suffix(end));
    [inner("${", "}"), inner("{{", "}}"), inner("%(", ")s")].into_iter().flatten().any(is_plain)
}

/// The user database and the stack named `passwd` and `password`.
fn is_of_system(name: &str, value: &str) -> bool {
    let is_service = |word: &str| word.starts_with('[') || word.ends_with(']') || SERVICES.contains(&word);
    match name {
        "passwd" | "passwd_compat" => value.split_whitespace().all(is_service),
        "password" | "-password" => {
            let first = value.split_whitespace().next().unwrap_or_default();
            let is_module = |word: &str| word.ends_with(".so") || (first == "include" || first == "substack");
            (CONTROLS.contains(&first) || first.starts_with('[')) && value.split_whitespace().skip(1).any(is_module)
        }
        _ => false,
    }
}

/// Hashes of passwords: `$6$salt$…`, `{SSHA}…`.
fn hashes(text: &str, spans: &mut Vec<Range<usize>>) {
    let is_of_hash = |byte: u8| byte.is_ascii_alphanumeric() || b"./+=$,-_".contains(&byte);
    let length = |rest: &str| rest.bytes().take_while(|byte| is_of_hash(*byte)).count();
    let mut at = 0;
    while let Some(found) = text[at..].find(['$', '{']) {
        let start = at + found;
        at = start + 1;
        let rest = &text[at..];
        let scheme = if text[start..].starts_with('$') {
            SCHEMES
                .iter()
                .filter(|scheme| rest.starts_with(**scheme) && rest[scheme.len()..].starts_with('$'))
                .map(|scheme| scheme.len() + 1)
                .max()
        } else {
            let name = rest.bytes().take(24).take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'.').count();
            let is_known = BRACED.iter().any(|known| rest.get(..known.len()).is_some_and(|start| start.eq_ignore_ascii_case(known)));
            (is_known && rest[name..].starts_with('}')).then_some(name + 1)
        };
        if let Some(scheme) = scheme {
            let length = length(&rest[scheme..]);
            if length >= 8 {
                at += scheme + length;
                spans.push(start..at);
            }
        }
    }
}

/// Keys by how they begin, as [`Rules`] knows them.
fn keys(text: &str, rules: &Rules, spans: &mut Vec<Range<usize>>) {
    for run in text::runs(text, text::is_name) {
        let more = text[run.end..].bytes().take_while(|byte| text::is_name(*byte) || b"+/=".contains(byte)).count();
        if rules.is_key(&text[run.start..run.end + more]) {
            spans.push(run.start..run.end + more);
        }
    }
}

#[cfg(test)]
mod tests;
