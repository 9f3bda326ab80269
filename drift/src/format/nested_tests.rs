//! What the tests of nested formats share.

use super::Format;

/// Every setting as the fields that it becomes.
pub(super) fn told(format: Format, text: &str) -> String {
    match format.read(text.as_bytes()) {
        Ok(settings) => {
            let fields = settings.fields(|_, value| value.to_owned());
            fields.iter().map(|(name, value)| format!("{name}: {}\n", serde_json::to_string(value).expect("values are JSON"))).collect()
        }
        Err(error) => format!("refused: {error}\n"),
    }
}

/// Fails where the text is read.
pub(super) fn refused(format: Format, text: &str) {
    let read = format.read(text.as_bytes());
    assert!(read.is_err(), "{} was read", &text[..text.len().min(60)]);
}
