//! Reading what people write: YAML baselines and policies, TOML configuration.
//!
//! Parse, don't validate: a key that is unknown or mistyped is an error that names file, line and
//! the nearest known key. No reading of files here; the text and its name are given.

use serde::de::DeserializeOwned;

/// Largest document taken, in bytes.
pub const DOCUMENT_LIMIT: usize = 64 * 1024 * 1024;

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
        DocumentError { source_name: source_name.to_owned(), line, column, message: teach(error.message()) }
    })
}

pub fn parse_yaml<T: DeserializeOwned>(source_name: &str, text: &str) -> Result<T, DocumentError> {
    use serde_saphyr::Error;
    let fail = |line, column, message: String| DocumentError { source_name: source_name.to_owned(), line, column, message };
    if text.len() > DOCUMENT_LIMIT {
        return Err(fail(1, 1, format!("the document has {} bytes; {DOCUMENT_LIMIT} is the limit", text.len())));
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |location| (location.line() as usize, location.column() as usize));
        match error.without_snippet() {
            Error::SerdeUnknownField { field, expected, .. } => fail(line, column, unknown_key(field, expected)),
            Error::SerdeUnknownVariant { variant, expected, .. } => fail(line, column, unknown_key(variant, expected)),
            other => fail(line, column, first_line(&other.to_string()).to_owned()),
        }
    })
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

/// Recognises serde's "unknown field `x`, expected one of `a`, `b`" in a message of the TOML reader.
fn teach(message: &str) -> String {
    let first = first_line(message);
    let quoted: Vec<&str> = first.split('`').skip(1).step_by(2).collect();
    match quoted.split_first() {
        Some((given, known)) if first.contains("unknown field") || first.contains("unknown variant") => unknown_key(given, known),
        _ => first.to_owned(),
    }
}

fn first_line(message: &str) -> &str {
    message.lines().next().unwrap_or(message).trim()
}

fn unknown_key(given: &str, known: &[&str]) -> String {
    let given = crate::text::printable(given.as_bytes());
    match nearest(&given, known) {
        Some(near) => format!("unknown key `{given}`: did you mean `{near}`? Known here: {}", known.join(", ")),
        None => format!("unknown key `{given}`. Known here: {}", known.join(", ")),
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
}
