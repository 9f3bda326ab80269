//! Reading what people write: YAML baselines and policies, TOML configuration.
//!
//! Parse, don't validate: a key that is unknown or mistyped is an error that names file, line and
//! the nearest known key. No reading of files here; the text and its name are given.

use serde::de::DeserializeOwned;
use serde_saphyr::budget::BudgetBreach;

use crate::text::{self, printable};

/// Largest document taken, in bytes.
pub const DOCUMENT_LIMIT: usize = 64 * 1024 * 1024;

/// Largest written baseline, in bytes: twice what a host with many items comes to.
pub const BASELINE_LIMIT: usize = 32 * 1024 * 1024;

/// Most keys, values, lists and tables of one YAML document. A captured item has some twenty of them in three hundred bytes,
/// so that a whole [`BASELINE_LIMIT`] of them fits; a document of nothing but brackets stays within some hundred MiB of memory.
const NODE_LIMIT: usize = 4_000_000;

#[derive(Debug, thiserror::Error)]
#[error("{source_name}:{line}:{column}: {message}")]
pub struct DocumentError {
    pub source_name: String,
    pub line: usize,
    pub column: usize,
    pub message: String,
}

pub fn parse_toml<T: DeserializeOwned>(source_name: &str, text: &str) -> Result<T, DocumentError> {
    toml::from_str(text).map_err(|error| {
        let (line, column) = error.span().map_or((1, 1), |span| position(text, span.start));
        DocumentError {
            source_name: source_name.to_owned(),
            line,
            column,
            message: printable(toml_fault(error.message()).as_bytes()).into_owned(),
        }
    })
}

pub fn parse_yaml<T: DeserializeOwned>(source_name: &str, text: &str) -> Result<T, DocumentError> {
    let fail = |line, column, message: String| DocumentError { source_name: source_name.to_owned(), line, column, message };
    if text.len() > DOCUMENT_LIMIT {
        return Err(fail(1, 1, format!("the document has {} bytes; {DOCUMENT_LIMIT} is the limit", text.len())));
    }
    let options = serde_saphyr::options! {
        // A list or table has a second event, its end.
        budget: serde_saphyr::budget! { max_nodes: NODE_LIMIT, max_events: 2 * NODE_LIMIT },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |location| (location.line() as usize, location.column() as usize));
        fail(line.max(1), column.max(1), printable(yaml_fault(error.without_snippet()).as_bytes()).into_owned())
    })
}

/// What is wrong, without its place: that is told once, before it.
fn yaml_fault(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error {
        Error::SerdeUnknownField { field, expected, .. } => unknown("key", field, expected),
        Error::SerdeUnknownVariant { variant, expected, .. } => unknown("word", variant, expected),
        Error::SerdeMissingField { field, .. } => format!("the key `{field}` is missing"),
        Error::SerdeInvalidType { unexpected, expected, .. } | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            mismatch(unexpected, expected)
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("`{}` stands here a second time: keep one of the two", text::bounded(key, 80))
        }
        Error::DuplicateMappingKey { key: None, .. } => "this key stands here a second time: keep one of the two".to_owned(),
        Error::NullIntoString { .. } => "nothing stands here: write a text".to_owned(),
        Error::InvalidScalar { ty, .. } => format!("write {} here", in_words(ty)),
        Error::Unexpected { expected, .. } => format!("write {} here", in_words(expected)),
        Error::MultipleDocuments { .. } => {
            "a second document begins here: only one is read, so take away the `---` and what follows".to_owned()
        }
        Error::Eof { .. } => "the document ends here, before it is whole".to_owned(),
        Error::UnknownAnchor { .. } => {
            "this alias (`*name`) stands for nothing: no `&name` comes before it. Text that begins with `*` needs quotes".to_owned()
        }
        Error::Budget { breach, .. } => over_budget(breach),
        other => without_place(first_line(&other.to_string())).to_owned(),
    }
}

/// What there is too much of in a document.
fn over_budget(breach: &BudgetBreach) -> String {
    match breach {
        BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => {
            format!("the document has more than {NODE_LIMIT} keys and values, the limit: divide it")
        }
        BudgetBreach::Depth { .. } => "lists and tables stand within each other too deeply here".to_owned(),
        BudgetBreach::Aliases { .. }
        | BudgetBreach::Anchors { .. }
        | BudgetBreach::AliasAnchorRatio { .. }
        | BudgetBreach::MergeKeys { .. }
        | BudgetBreach::RecordedAnchorEvents { .. }
        | BudgetBreach::RecordedAnchorBytes { .. } => {
            "the document has too many aliases (`*name`) and anchors (`&name`): write out what they stand for".to_owned()
        }
        BudgetBreach::Documents { .. } => "the document has too many parts between `---`: only one is read".to_owned(),
        _ => "the document is too large to be read: divide it".to_owned(),
    }
}

/// Without the ` at line 1, column 2` that the reader appends.
fn without_place(message: &str) -> &str {
    match message.rsplit_once(" at line ") {
        Some((fault, place)) if place.bytes().all(|byte| byte.is_ascii_digit() || b", column".contains(&byte)) => fault,
        _ => message,
    }
}

/// A type as a person names it, from the words of serde and of the readers.
fn in_words(expected: &str) -> String {
    match expected {
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "usize" | "u128" => "a whole number that is not negative".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "bool" | "boolean" | "a boolean" => "true or false".to_owned(),
        "string scalar" | "string" | "a string" | "str" => "a text".to_owned(),
        "sequence start" | "a sequence" => "a list, as in [a, b]".to_owned(),
        "mapping start" | "a map" => "keys with values, as in `key: value`,".to_owned(),
        shape if shape.starts_with("struct ") => "a table of keys with values".to_owned(),
        other => other.to_owned(),
    }
}

/// What stands there, from the words of serde: `string "x"`, `integer `3``.
fn found_in_words(unexpected: &str) -> String {
    let (kind, rest) = unexpected.split_once(' ').unwrap_or((unexpected, ""));
    let value = rest.trim_matches('`');
    match kind {
        "string" => format!("the text {rest}"),
        "integer" => format!("the number {value}"),
        "floating" => format!("the number {}", rest.trim_start_matches("point ").trim_matches('`')),
        "boolean" => format!("the word {value}"),
        "sequence" => "a list".to_owned(),
        "map" => "keys with values".to_owned(),
        "unit" | "Option" => "nothing".to_owned(),
        _ => unexpected.to_owned(),
    }
}

fn mismatch(unexpected: &str, expected: &str) -> String {
    format!("{} stands here: write {} instead", text::bounded(&found_in_words(unexpected), 120), in_words(expected).trim_end_matches(','))
}

/// The YAML of a value that [`parse_yaml`] reads back.
pub fn to_yaml<T: serde::Serialize>(value: &T) -> String {
    serde_saphyr::to_string(value).expect("the domain's documents hold only strings, numbers, lists and maps")
}

/// Line and column, from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset.min(text.len()))];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(1, |tail| tail.chars().count() + 1);
    (line, column)
}

/// What is wrong, from a message of the TOML reader, which has serde's own words in it.
fn toml_fault(message: &str) -> String {
    let first = first_line(message);
    let quoted: Vec<&str> = first.split('`').skip(1).step_by(2).collect();
    let wrong = first.strip_prefix("invalid type: ").or_else(|| first.strip_prefix("invalid value: "));
    match (quoted.split_first(), wrong.and_then(|wrong| wrong.rsplit_once(", expected "))) {
        (_, Some((unexpected, expected))) => mismatch(unexpected, expected),
        (Some((given, known)), _) if first.starts_with("unknown field") => unknown("key", given, known),
        (Some((given, known)), _) if first.starts_with("unknown variant") => unknown("word", given, known),
        (Some((field, _)), _) if first.starts_with("missing field") => format!("the key `{field}` is missing"),
        _ if first == "duplicate key" => "this key stands here a second time: keep one of the two".to_owned(),
        _ => first.to_owned(),
    }
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or(message).trim()
}

fn unknown(what: &str, given: &str, known: &[&str]) -> String {
    let given = printable(given.as_bytes());
    let given = text::bounded(&given, 120);
    match nearest(&given, known) {
        Some(near) => format!("unknown {what} `{given}`: did you mean `{near}`? Known here: {}", known.join(", ")),
        None => format!("unknown {what} `{given}`. Known here: {}", known.join(", ")),
    }
}

/// The known name most like the given one, if any is like it at all.
pub fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(given, name), *name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fields;
    use crate::baseline::{BaselineDocument, ExpectedItem};
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only its name matters")]
        listen: Option<String>,
        #[expect(dead_code, reason = "only its name matters")]
        heartbeat_seconds: Option<u32>,
    }

    #[test]
    fn a_mistyped_toml_key_names_file_line_and_the_nearest_key() {
        let error = parse_toml::<Sample>("agent.toml", "listen = 'x'\nheartbeat_second = 3\n").unwrap_err().to_string();
        assert!(error.starts_with("agent.toml:2:1: unknown key `heartbeat_second`: did you mean `heartbeat_seconds`?"), "{error}");
    }

    #[test]
    fn a_mistyped_yaml_key_names_file_line_and_the_nearest_key() {
        let error = parse_yaml::<Sample>("web.yaml", "heartbeat_seconds: 3\nlisen: x\n").unwrap_err().to_string();
        assert!(error.starts_with("web.yaml:2:1: unknown key `lisen`: did you mean `listen`?"), "{error}");
    }

    #[test]
    fn a_wrong_type_names_the_line() {
        let error = parse_toml::<Sample>("agent.toml", "heartbeat_seconds = 'often'\n").unwrap_err().to_string();
        assert!(error.starts_with("agent.toml:1:"), "{error}");
        let error = parse_yaml::<Sample>("web.yaml", "listen: x\nheartbeat_seconds: often\n").unwrap_err().to_string();
        assert!(error.starts_with("web.yaml:2:"), "{error}");
    }

    #[test]
    fn slips_are_told_in_plain_words_and_their_place_once() {
        let toml = |text: &str| parse_toml::<Sample>("a.toml", text).unwrap_err().to_string();
        assert_eq!(
            toml("heartbeat_seconds = 'x'"),
            "a.toml:1:21: the text \"x\" stands here: write a whole number from 0 to 4294967295 instead"
        );
        assert_eq!(
            toml("heartbeat_seconds = -1"),
            "a.toml:1:21: the number -1 stands here: write a whole number from 0 to 4294967295 instead"
        );
        assert_eq!(toml("listen = 3"), "a.toml:1:10: the number 3 stands here: write a text instead");
        assert_eq!(toml("listen = 'a'\nlisten = 'b'"), "a.toml:2:1: this key stands here a second time: keep one of the two");
        let yaml = |text: &str| parse_yaml::<Sample>("a.yaml", text).unwrap_err().to_string();
        assert_eq!(yaml("listen: a\nlisten: b"), "a.yaml:2:1: `listen` stands here a second time: keep one of the two");
        assert_eq!(yaml("listen: [a]"), "a.yaml:1:9: write a text here");
        assert_eq!(yaml("heartbeat_seconds: often"), "a.yaml:1:20: write a whole number from 0 to 4294967295 here");
        assert_eq!(yaml("- a"), "a.yaml:1:1: write keys with values, as in `key: value`, here");
        for text in ["listen: {", "listen: *a", "listen: a\n---\nlisten: b", "listen: 'a", "listen: \tb\n\tc: d"] {
            let error = yaml(text);
            for jargon in ["at line", "Options", "from_str", "Option<", "enum", "scalar into"] {
                assert!(!error.contains(jargon), "{text:?}: {error}");
            }
        }
    }

    /// More than a host with many items comes to, as `baseline show` writes it.
    #[test]
    fn a_captured_baseline_of_a_large_host_reads_back_the_same() {
        let mut large = BaselineDocument::parse("large.yaml", "name: large").unwrap();
        for number in 0..60_000 {
            let fields = Fields::new()
                .with("gid", 0)
                .with("group", "root")
                .with("mode", "0644")
                .with("owner", "root")
                .with("sha256", "01234567".repeat(8).as_str())
                .with("size", number)
                .with("type", "file")
                .with("uid", 0);
            large.items.insert(format!("file:/usr/share/folder/{number}").parse().unwrap(), ExpectedItem::Fields(fields));
        }
        let written = to_yaml(&large);
        assert!(written.len() < BASELINE_LIMIT, "{}", written.len());
        // No assert_eq: it would print all of it.
        assert!(BaselineDocument::parse("large.yaml", &written).unwrap() == large);
    }

    #[test]
    fn a_document_with_too_much_in_it_is_refused_in_plain_words() {
        let refused = |text: &str| parse_yaml::<Vec<Vec<u8>>>("a.yaml", text).unwrap_err().to_string();
        let wide = refused(&format!("[[{}]]", "1,".repeat(NODE_LIMIT)));
        assert!(wide.ends_with("the document has more than 4000000 keys and values, the limit: divide it"), "{wide}");
        let aliases = refused(&format!("- &a [1]\n{}", "- *a\n".repeat(60_000)));
        assert!(aliases.contains("write out what they stand for"), "{aliases}");
        let deep = parse_yaml::<serde_json::Value>("a.yaml", &format!("{}{}", "[".repeat(70), "]".repeat(70))).unwrap_err().to_string();
        assert!(deep.contains("within each other too deeply"), "{deep}");
    }
}
