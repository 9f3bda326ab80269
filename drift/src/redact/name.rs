//! Which names of options, variables and settings say that their value is a secret.

/// Parts of one word of a name.
const WITHIN: &[&str] = &["password", "passwd", "passphrase", "secret", "credential", "apikey"];
const ENDINGS: &[&str] = &["token", "pass", "pwd"];
const WORDS: &[&str] = &["bearer", "jwt", "pass", "psk", "pw", "pwd"];
/// Words that end in `pass` and have nothing to do with it, and a tag of sudoers(5).
const ROUTES: &[&str] =
    &["bypass", "compass", "encompass", "highpass", "lowpass", "multipass", "nopasswd", "overpass", "surpass", "trespass", "underpass"];
/// Before `key`.
const KEYS: &[&str] =
    &["access", "account", "api", "auth", "encryption", "master", "private", "secret", "session", "shared", "signing", "storage"];
/// Last words of names whose value tells of a secret without being it.
const ABOUT: &[&str] = &[
    "arn",
    "authentication",
    "cmd",
    "command",
    "dir",
    "directory",
    "endpoint",
    "expiry",
    "fd",
    "file",
    "folder",
    "id",
    "length",
    "lifetime",
    "name",
    "path",
    "policy",
    "prompt",
    "stdin",
    "ttl",
    "type",
    "uri",
    "url",
];
/// First words of switches that take no value.
const SWITCHES: &[&str] = &[
    "allow", "ask", "disable", "enable", "generate", "hide", "list", "no", "print", "prompt", "require", "show", "skip", "with", "without",
];

const LONGEST: usize = 256;

/// Names of headers whose whole line is a secret, besides those that [`names_secret`].
pub(super) fn is_secret_header(name: &str) -> bool {
    ["authorization", "proxy-authorization", "cookie", "set-cookie"].iter().any(|header| name.eq_ignore_ascii_case(header))
}

/// `--api-token`, `PGPASSWORD`, `AccountKey`; not `--password-file` and not `PWD`.
pub(super) fn names_secret(name: &str) -> bool {
    let name = name.trim_start_matches(['-', '+']);
    if name.is_empty() || name.contains('/') || matches!(name, "PWD" | "OLDPWD") {
        return false;
    }
    if name.len() > LONGEST {
        let lower = name.to_ascii_lowercase();
        return WITHIN.iter().chain(ENDINGS).any(|part| lower.contains(part));
    }
    // AppRole of HashiCorp Vault.
    if name == "secret_id" {
        return true;
    }
    let words = words(name);
    if words.last().is_some_and(|last| ABOUT.contains(&last.as_str())) {
        return false;
    }
    let is_key = |pair: &[String]| KEYS.contains(&pair[0].as_str()) && pair[1] == "key";
    words.iter().any(|word| is_secret_word(word)) || words.windows(2).any(is_key)
}

fn is_secret_word(word: &str) -> bool {
    if ROUTES.contains(&word) {
        return false;
    }
    WORDS.contains(&word)
        || WITHIN.iter().any(|part| word.contains(part))
        || ENDINGS.iter().any(|ending| word.ends_with(ending))
        || KEYS.iter().any(|key| word.strip_prefix(key) == Some("key"))
}

/// A switch such as `--ask-password`: the argument after it is not its value.
pub(super) fn is_switch(name: &str) -> bool {
    words(name.trim_start_matches('-')).first().is_some_and(|first| SWITCHES.contains(&first.as_str()))
}

/// A value that is no secret whatever it is called: none, yes or no, or where a key or credentials lie.
pub(super) fn is_harmless(name: &str, value: &str) -> bool {
    const ANSWERS: &[&str] = &["0", "1", "false", "no", "off", "on", "true", "yes"];
    let lower = name.to_ascii_lowercase();
    let is_place = ["/", "./", "../", "~/"].iter().any(|start| value.starts_with(start));
    let can_be_place = lower.contains("credential") || lower.contains("private") || lower == "pwd";
    value.is_empty() || ANSWERS.contains(&value.to_ascii_lowercase().as_str()) || (is_place && can_be_place)
}

/// A name in its words: in lower case, parted at anything but letters and digits and where small letters turn into capitals.
pub(super) fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_small = false;
    for c in name.chars() {
        let starts = was_small && c.is_ascii_uppercase();
        was_small = c.is_ascii_lowercase() || c.is_ascii_digit();
        if starts || !c.is_alphanumeric() {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.push(c.to_ascii_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
