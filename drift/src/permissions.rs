//! What a file's mode means to whoever looks for ways to more rights, as fields of their own: a baseline or a search can ask for
//! them by name. They follow from `type` and `mode` alone, so that they can be told of what was read before they were.

use crate::{FieldName, Fields, Value};

/// A program that runs with its owner's rights, whoever starts it.
const SETUID: FieldName = FieldName::known("setuid");
/// The same with its group's. Of a folder the bit says only whose its entries become.
const SETGID: FieldName = FieldName::known("setgid");
/// Anybody may write the file, or make and remove entries of the folder. Of a folder with the sticky bit entries are their owners'.
const WORLD_WRITABLE: FieldName = FieldName::known("world_writable");

/// Sets what holds to `true`, and leaves the others out.
pub fn derive(fields: &mut Fields) {
    let text = |name| match fields.value(name) {
        Some(Value::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    let Some(mode) = text("mode").and_then(|mode| u32::from_str_radix(mode, 8).ok()) else { return };
    let (is_file, is_folder) = (text("type") == Some("file"), text("type") == Some("folder"));
    let is_open = mode & 0o002 != 0 && (is_file || (is_folder && mode & 0o1000 == 0));
    for (name, holds) in [(SETUID, is_file && mode & 0o4000 != 0), (SETGID, is_file && mode & 0o2000 != 0), (WORLD_WRITABLE, is_open)] {
        if holds {
            fields.set(name, Value::Boolean(true));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derived(kind: &str, mode: &str) -> String {
        let mut fields = Fields::new().with("type", kind).with("mode", mode);
        derive(&mut fields);
        fields
            .into_iter()
            .filter(|(_, value)| *value == Value::Boolean(true))
            .map(|(name, _)| name.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn rights_that_a_mode_gives_away_are_named() {
        assert_eq!(derived("file", "4755"), "setuid");
        assert_eq!(derived("file", "6777"), "setgid setuid world_writable");
        assert_eq!(derived("file", "0666"), "world_writable");
        assert_eq!(derived("folder", "0777"), "world_writable");
    }

    #[test]
    fn what_gives_nothing_away_is_not() {
        assert_eq!(derived("file", "1755"), "");
        assert_eq!(derived("folder", "1777"), "", "in a sticky folder each removes his own alone");
        assert_eq!(derived("folder", "2775"), "", "its entries get its group");
        assert_eq!(derived("symlink", "0777"), "", "the mode of a link means nothing");
        assert_eq!(derived("char", "0666"), "", "/dev/null");
        assert_eq!(derived("file", "nonsense"), "");
    }
}
