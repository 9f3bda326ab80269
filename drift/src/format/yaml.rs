//! YAML 1.2 (yaml.org). A repeated key is an error to some readers and the last counts to others: it counts here, and a conflict
//! is shown. An alias is told as `*name` and never put in its place, so that no file grows when it is read; what it
//! stands for shows where it is anchored. Of several documents each is one entry of a list.

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};

use super::tree::{self, Count, Node};
use super::{FormatError, Settings};

pub(super) fn covers(path: &str) -> bool {
    super::has_suffix(path, &[".yaml", ".yml"])
}

/// A list or table that is not closed yet.
enum Open {
    List(Vec<Node>),
    /// With the key that waits for its value.
    Table(Vec<(String, Node)>, Option<String>),
}

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    let mut open: Vec<Open> = Vec::new();
    let mut documents: Vec<Node> = Vec::new();
    let mut count = Count::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| FormatError { line: error.marker().line(), reason: "it is no YAML" })?;
        let fail = |reason| FormatError { line: span.start.line(), reason };
        let done = match event {
            Event::Scalar(text, style, _, _) => {
                count.one(open.len()).map_err(fail)?;
                Node::Scalar(if style == ScalarStyle::Plain { text.into_owned() } else { tree::quoted(&text) })
            }
            Event::Alias(_) => {
                count.one(open.len()).map_err(fail)?;
                Node::Scalar(span.slice(text).unwrap_or("*").to_owned())
            }
            Event::SequenceStart(..) => {
                count.one(open.len()).map_err(fail)?;
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                count.one(open.len()).map_err(fail)?;
                open.push(Open::Table(Vec::new(), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(entries)) => Node::List(entries),
                Some(Open::Table(entries, _)) => Node::Table(entries),
                None => return Err(fail("it is no YAML")),
            },
            _ => continue,
        };
        match open.last_mut() {
            None => documents.push(done),
            Some(Open::List(entries)) => entries.push(done),
            Some(Open::Table(entries, key)) => match key.take() {
                Some(key) => entries.push((key, done)),
                None => match done {
                    Node::Scalar(text) => *key = Some(text),
                    _ => return Err(fail("a list or a table is a key in it")),
                },
            },
        }
    }
    match documents.len() {
        0 => Ok(()),
        1 => tree::take(&documents[0], settings),
        _ => tree::take(&Node::List(documents), settings),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::nested_tests::{refused, told};

    #[test]
    fn values_are_told_by_their_path() {
        let text = "# netplan\nnetwork:\n  version: 2\n  ethernets:\n    eth0: {dhcp4: no, addresses: [10.0.0.1/24, '10.0.0.2/24']}\n  base: &base {mtu: 1500, name: \"1\"}\n  other:\n    <<: *base\n    note: |\n      two\n      lines\nusers:\n- name: bob\n  shell: /bin/sh\n- name: eve\na: 1\na: 2\n";
        insta::assert_snapshot!(told(Format::Yaml, text));
    }

    #[test]
    fn documents_are_told_apart() {
        insta::assert_snapshot!(told(Format::Yaml, "kind: A\n---\nkind: B\n"));
    }

    #[test]
    fn hostile_documents_end() {
        for text in [
            "[".repeat(1 << 20),
            "- ".repeat(1 << 19),
            format!("{}1{}", "[".repeat(40), "]".repeat(40)),
            "a: *b".to_owned(),
            "a: [".to_owned(),
            "? [a]\n: b".to_owned(),
        ] {
            refused(Format::Yaml, &text);
        }
        let laughs = format!("a: &a [x, x]\n{}", (0..30).map(|n| format!("b{n}: &b{n} [*a, *a]\n")).collect::<String>());
        assert!(told(Format::Yaml, &laughs).contains("config.b29: [\"*a\",\"*a\"]"));
        assert!(told(Format::Yaml, "a: \"\\e[31m\"").contains("\\\\x1b[31m"));
    }
}
