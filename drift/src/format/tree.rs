//! What JSON, YAML, TOML and XML have in common: tables, lists and scalars, and the names that they get as settings.
//!
//! A setting's name is the path to it: `log.level`, `"registry.example.org".auth` where a key has a dot of its own. A list of
//! scalars is one setting with its values in order; the entries of any other list are told apart by their `name` or `id` where all have
//! one and no two the same (`users[name=bob].shell`), and else by place, from 0. A key that stands in a table twice is never hidden: two
//! scalars conflict, and anything else is numbered (`a#2.x`).

use std::collections::BTreeMap;

use super::{DEPTH, FormatError, Repeat, Settings};
use crate::redact;

/// Most scalars, lists and tables of one file.
pub(super) const NODES: usize = 64 * 1024;
/// Longest path: what lies deeper or has longer keys is cut by the field's name and would not be told apart.
const PATH: usize = 400;
/// Longest name that tells an entry of a list from others.
const LABEL: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Scalar(String),
    List(Vec<Node>),
    /// In the order of the file, with the keys that stand twice.
    Table(Vec<(String, Node)>),
}

/// Counts what is read, so that a file cannot take more memory than in proportion to [`NODES`].
#[derive(Debug, Default)]
pub(super) struct Count(usize);

impl Count {
    pub(super) fn one(&mut self, depth: usize) -> Result<(), &'static str> {
        self.0 += 1;
        match (self.0 > NODES, depth > DEPTH) {
            (true, _) => Err("it holds more than 65536 values"),
            (_, true) => Err("it is nested more than 32 deep"),
            _ => Ok(()),
        }
    }
}

/// A text that was quoted: in quotes still where it would otherwise read as a number, a boolean or nothing.
pub(super) fn quoted(text: &str) -> String {
    let is_other = matches!(text, "true" | "false" | "null" | "~" | "yes" | "no" | "on" | "off" | "[]" | "{}")
        || (text.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.') && text.parse::<f64>().is_ok());
    if is_other { format!("\"{text}\"") } else { text.to_owned() }
}

pub(super) fn take(root: &Node, settings: &mut Settings) -> Result<(), FormatError> {
    let fail = |reason| FormatError { line: 0, reason };
    take_at(root, &mut String::new(), 0, settings).map_err(fail)
}

/// Recursion goes as deep as [`DEPTH`], which the readers keep.
fn take_at(node: &Node, path: &mut String, depth: usize, settings: &mut Settings) -> Result<(), &'static str> {
    if path.len() > PATH {
        return Err("a path to a value is longer than 400 bytes");
    }
    if depth > DEPTH + 1 {
        return Err("it is nested more than 32 deep");
    }
    let name = if path.is_empty() { "value" } else { path.as_str() };
    match node {
        Node::Scalar(text) => settings.take(Repeat::Last, name, text),
        Node::List(entries) if entries.is_empty() => settings.take(Repeat::Last, name, "[]"),
        Node::List(entries) if entries.iter().all(|entry| matches!(entry, Node::Scalar(_))) => {
            for entry in entries {
                if let Node::Scalar(text) = entry {
                    settings.take(Repeat::Ordered, name, text);
                }
            }
        }
        Node::List(entries) => {
            let label = ["name", "@name", "id", "@id"].into_iter().find(|label| tells_apart(label, entries));
            for (place, entry) in entries.iter().enumerate() {
                let length = path.len();
                match label.and_then(|label| Some((label, label_of(label, entry)?))) {
                    Some((label, value)) => path.push_str(&format!("[{}={value}]", label.trim_start_matches('@'))),
                    None => path.push_str(&format!("[{place}]")),
                }
                take_at(entry, path, depth + 1, settings)?;
                path.truncate(length);
            }
        }
        Node::Table(entries) if entries.is_empty() => settings.take(Repeat::Last, name, "{}"),
        Node::Table(entries) => {
            let outer = path.len();
            // `{name: DB_PASSWORD, value: x}`: the path says that the value is a secret.
            let named = ["name", "@name", "key", "@key"].into_iter().find_map(|label| label_of(label, node));
            if let Some(named) = named.filter(|named| redact::is_secret_name(named) && !path.ends_with(&format!("={named}]"))) {
                path.push_str(&format!("[name={named}]"));
            }
            // How often a key stands there, and whether as scalars alone.
            let mut seen: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
            for (key, value) in entries {
                let (count, scalars) = seen.entry(key).or_insert((0, true));
                *count += 1;
                *scalars &= matches!(value, Node::Scalar(_));
            }
            let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
            for (key, value) in entries {
                let length = path.len();
                if !path.is_empty() {
                    path.push('.');
                }
                push_key(path, key);
                if seen.get(key.as_str()).is_some_and(|(count, scalars)| *count > 1 && !scalars) {
                    let number = numbers.entry(key).or_insert(0);
                    *number += 1;
                    path.push_str(&format!("#{number}"));
                }
                take_at(value, path, depth + 1, settings)?;
                path.truncate(length);
            }
            path.truncate(outer);
        }
    }
    Ok(())
}

/// In quotes where it would not stand for one part of a path.
fn push_key(path: &mut String, key: &str) {
    if key.is_empty() || key.contains(['.', '"', '[', ']', '#']) {
        path.push('"');
        path.push_str(&key.replace('"', "\"\""));
        path.push('"');
    } else {
        path.push_str(key);
    }
}

fn label_of<'a>(label: &str, entry: &'a Node) -> Option<&'a str> {
    let Node::Table(entries) = entry else { return None };
    let is_plain = |text: &str| {
        let is_word = |c: char| c.is_alphanumeric() || "_-/:@ ".contains(c);
        !text.is_empty() && text.len() <= LABEL && text.chars().all(|c| is_word(c) || c == '.')
    };
    let mut found = entries.iter().filter(|(key, _)| key == label);
    match (found.next(), found.next()) {
        (Some((_, Node::Scalar(text))), None) if is_plain(text) => Some(text),
        _ => None,
    }
}

fn tells_apart(label: &str, entries: &[Node]) -> bool {
    let mut labels: Vec<&str> = Vec::new();
    for entry in entries {
        match label_of(label, entry) {
            Some(found) => labels.push(found),
            None => return false,
        }
    }
    labels.sort_unstable();
    labels.windows(2).all(|pair| pair[0] != pair[1])
}

#[cfg(test)]
mod tests {
    use crate::format::Format;
    use crate::format::nested_tests::told;
    use crate::redact::{RedactionKey, setting};

    /// Whatever the form in which a document gives a secret its name, the setting's name says it too.
    #[test]
    fn a_secret_named_beside_its_value_is_masked() {
        let key = RedactionKey::new([7; 32]);
        for (format, text) in [
            (Format::Json, r#"{"env": [{"name": "DB_PASSWORD", "value": "Zq9"}, {"name": "A", "value": "b"}]}"#),
            (Format::Json, r#"{"env": [{"name": "DB_PASSWORD", "value": "Zq9"}, {"name": "DB_PASSWORD", "value": "Zq9"}]}"#),
            (Format::Yaml, "a:\n  key: api_token\n  value: Zq9\n"),
            (Format::Xml, "<a><property name='x.password' value='Zq9'/></a>"),
            (Format::Xml, "<a><property name='x.password'>Zq9</property><property name='b'>c</property></a>"),
            (Format::Xml, "<a><password kind='b'>Zq9</password></a>"),
            (Format::Toml, "[a.\"b.c\"]\nclient_secret = ['Zq9', 'Zq9x']\n"),
            (Format::Json, r#"{"passwords": ["Zq9"], "auths": {"h.org": {"password": "Zq9"}}}"#),
            (Format::Nginx, "http { map $http_apikey $client { Zq9 bob; } server { proxy_set_header Authorization \"Basic Zq9\"; } }"),
            (Format::Apache, "SetEnv DB_PASSWORD Zq9\nRequestHeader set Authorization \"Basic Zq9\""),
        ] {
            assert!(told(format, text).contains("Zq9"), "nothing to mask: {text}");
            let settings = format.read(text.as_bytes()).unwrap();
            for (name, value) in settings.fields(|name, value| setting(name, value, &key).into_owned()) {
                assert!(!format!("{name} {value:?}").contains("Zq9"), "{text}: {name} {value:?}");
            }
        }
    }

    #[test]
    fn a_secret_that_a_block_compares_with_is_masked_in_its_name() {
        let told = told(Format::Nginx, "if ($http_x_token = \"Zq9\") { return 403; }");
        assert_eq!(told, "config.if ($http_x_token = [redacted] ).return: [\"403\"]\n");
    }
}
