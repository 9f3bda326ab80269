//! TOML 1.1 (toml.io). A key that stands twice makes a file that no reader takes, and is refused here too. Numbers stay as
//! they are written.

use ::toml::de::{DeTable, DeValue};

use super::tree::{self, Count, Node};
use super::{FormatError, Settings};

pub(super) fn covers(path: &str) -> bool {
    super::has_suffix(path, &[".toml"])
}

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    let root = DeTable::parse(text).map_err(|error| FormatError {
        line: error.span().map_or(0, |span| text[..text.floor_char_boundary(span.start.min(text.len()))].matches('\n').count() + 1),
        reason: if error.message() == "duplicate key" { "a key stands in it twice" } else { "it is no TOML" },
    })?;
    let node = table(root.get_ref(), 0, &mut Count::default()).map_err(|reason| FormatError { line: 0, reason })?;
    tree::take(&node, settings)
}

fn table(table: &DeTable<'_>, depth: usize, count: &mut Count) -> Result<Node, &'static str> {
    count.one(depth)?;
    let entries: Result<_, _> =
        table.iter().map(|(key, value)| Ok((key.get_ref().to_string(), node(value.get_ref(), depth + 1, count)?))).collect();
    entries.map(Node::Table)
}

fn node(value: &DeValue<'_>, depth: usize, count: &mut Count) -> Result<Node, &'static str> {
    count.one(depth)?;
    Ok(Node::Scalar(match value {
        DeValue::String(text) => tree::quoted(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(is) => is.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(list) => {
            let entries: Result<_, _> = list.iter().map(|entry| node(entry.get_ref(), depth + 1, count)).collect();
            return entries.map(Node::List);
        }
        DeValue::Table(inner) => return table(inner, depth, count),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::nested_tests::{refused, told};

    #[test]
    fn values_are_told_by_their_path() {
        let text = "listen = '0.0.0.0:1'\n[log]\nlevel = 'info' # why\nmax = 0x1F\nat = 2020-01-02\n[[user]]\nname = 'bob'\nid = 1\n[[user]]\nname = 'eve'\nid = 2\n[a.\"b.c\"]\nd = ['x', 'y']\n";
        insta::assert_snapshot!(told(Format::Toml, text));
    }

    #[test]
    fn hostile_documents_end() {
        for text in [
            "a = ".to_owned() + &"[".repeat(1 << 20),
            format!("{}b = 1", "a.".repeat(1 << 19)),
            "a = 1\na = 2".to_owned(),
            format!("[{}a]", "a.".repeat(1 << 19)),
        ] {
            refused(Format::Toml, &text);
        }
        assert!(told(Format::Toml, "a = \"\\u001b\"").contains("\\\\x1b"));
    }
}
