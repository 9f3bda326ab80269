//! Which fields an item of each kind has, and of what type: what an agent reports and a written baseline may
//! ask for. The one table of it.
//!
//! Invariant: it holds every field with a value that the collectors of the agent set; a field that is not here is
//! one that no host will ever report.

use crate::document::nearest;
use crate::format::{CONFIG, CONFLICT};
use crate::{ItemKind, Value};

mod shapes;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    Text,
    /// A kernel setting: text that may be empty, blanks around it and tabs in it as the agent reads them.
    Setting,
    /// Text that may be empty. Any other text field is left out by the agent then.
    AnyText,
    /// Four octal digits.
    Mode,
    /// 64 hexadecimal digits.
    Digest,
    Number,
    Boolean,
    /// One of these.
    Word(&'static [&'static str]),
    /// Texts in an order that means something.
    List,
    /// Texts that the agent sorts.
    Set,
    /// A text, or where there are several, texts that the agent sorts.
    TextOrSet,
    /// What a configuration file sets: a text that may be empty, or texts where all count. Which of those the agent sorts is
    /// known to it alone: they are written as it tells them.
    Config,
}

use FieldType::{AnyText, Boolean, Config, Digest, List, Mode, Number, Set, Setting, Text, TextOrSet, Word};

/// Fields of a file whose names begin so are its extended attributes: `xattr.user.note`.
const XATTR: &str = "xattr.";

/// What items of a kind look like.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Sorted by name.
    pub fields: &'static [(&'static str, FieldType)],
    /// Something that a baseline may expect of one.
    pub example: &'static str,
}

/// The fields of a kind, sorted by name. A file has one more for each extended attribute and each setting.
pub fn fields_of(kind: ItemKind) -> &'static [(&'static str, FieldType)] {
    shapes::of(kind).fields
}

pub fn example_of(kind: ItemKind) -> &'static str {
    shapes::of(kind).example
}

/// The type of a kind's field, or what to say of a name that is none.
pub fn type_of(kind: ItemKind, name: &str) -> Result<FieldType, String> {
    let fields = fields_of(kind);
    if let Ok(at) = fields.binary_search_by_key(&name, |(name, _)| name) {
        return Ok(fields[at].1);
    }
    if kind == ItemKind::File && name.strip_prefix(XATTR).is_some_and(|rest| !rest.is_empty()) {
        return Ok(AnyText);
    }
    if matches!(kind, ItemKind::File | ItemKind::Sshd | ItemKind::Unit)
        && [CONFIG, CONFLICT].iter().any(|start| name.strip_prefix(start).is_some_and(|rest| !rest.is_empty()))
    {
        return Ok(Config);
    }
    let mut known: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let abbreviated = || known.iter().copied().find(|known| !name.is_empty() && known.starts_with(&name.to_lowercase()));
    let near = abbreviated().or_else(|| nearest(&name.to_lowercase(), &known));
    if kind == ItemKind::File {
        known.extend(["config.NAME", "xattr.NAME"]);
    } else if matches!(kind, ItemKind::Sshd | ItemKind::Unit) {
        known.push("config.NAME");
    }
    let hint = near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_else(|| ".".to_owned());
    Err(format!("a {kind} has no field `{name}`{hint} Known here: {}", known.join(", ")))
}

impl FieldType {
    /// The value as an agent would report it, or what to write instead. `name` and `written` are for the message: the
    /// field, and the value as it stands in the document.
    pub fn check(self, name: &str, value: Value, written: impl FnOnce() -> String) -> Result<Value, String> {
        match (self, value) {
            (Text | Mode | Digest | Word(_) | TextOrSet, Value::Text(text)) if text.is_empty() => {
                Err(format!("{name}: no host reports an empty text; leave the field out"))
            }
            (Text | AnyText | TextOrSet | Config, Value::Text(text)) => Ok(Value::Text(text)),
            (Setting, Value::Text(text)) => Ok(Value::Text(text.trim_matches(|c: char| c.is_ascii_whitespace()).replace('\t', " "))),
            (Mode, Value::Text(text)) => match octal(&text) {
                Some(mode) if mode == text => Ok(Value::Text(text)),
                Some(mode) => Err(format!("{name}: a mode has four octal digits; write {name}: \"{mode}\"")),
                None => Err(format!("{name}: `{text}` is no mode; write four octal digits, as in {name}: \"0644\"")),
            },
            (Digest, Value::Text(text)) => {
                let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
                let lower = text.to_ascii_lowercase();
                match is_hex {
                    true if lower == text => Ok(Value::Text(text)),
                    true => Err(format!("{name}: write its digits in lower case, {name}: {lower}")),
                    false => Err(format!("{name}: a SHA-256 has 64 hexadecimal digits")),
                }
            }
            (Word(words), Value::Text(text)) if words.contains(&text.as_str()) => Ok(Value::Text(text)),
            (Word(words), Value::Text(text)) => {
                let hint = nearest(&text, words).map(|near| format!(" did you mean `{near}`?")).unwrap_or_default();
                Err(format!("{name}: `{text}` is none of {};{hint}", words.join(", ")).trim_end_matches(';').to_owned())
            }
            (Number, Value::Integer(number)) if number >= 0 => Ok(Value::Integer(number)),
            (Boolean, Value::Boolean(boolean)) => Ok(Value::Boolean(boolean)),
            (List | Config, Value::List(list)) if !list.is_empty() => Ok(Value::List(list)),
            (Set, Value::List(list)) if !list.is_empty() => Ok(Value::List(sorted(list))),
            (TextOrSet, Value::List(list)) if !list.is_empty() => {
                let mut list = sorted(list);
                Ok(if list.len() == 1 { Value::Text(list.remove(0)) } else { Value::List(list) })
            }
            (List | Set | TextOrSet | Config, Value::List(_)) => Err(format!("{name}: no host reports an empty list; leave the field out")),
            (_, value) => Err(self.mistaken(name, &value, &written())),
        }
    }

    /// What to write instead of a value of another type.
    fn mistaken(self, name: &str, value: &Value, written: &str) -> String {
        let scalar = !matches!(value, Value::List(_) | Value::Unreadable { .. });
        match self {
            Mode => match octal(written).filter(|_| scalar) {
                Some(mode) => format!("{name} is text, four octal digits in quotes; write {name}: \"{mode}\""),
                None => format!("{name} is text, four octal digits in quotes, as in {name}: \"0644\""),
            },
            Text | AnyText | Setting | TextOrSet | Config if scalar => format!("{name} is text; write {name}: \"{written}\""),
            Text | AnyText | Setting | TextOrSet | Config => format!("{name} is text, as in {name}: \"…\""),
            Digest => format!("{name} is text, 64 hexadecimal digits in quotes"),
            Word(words) => format!("{name} is one of {}", words.join(", ")),
            Number => match value {
                Value::Text(text) if text.trim().parse::<u32>().is_ok() => {
                    format!("{name} is a number, without quotes; write {name}: {}", text.trim())
                }
                _ => format!("{name} is a whole number, as in {name}: 0"),
            },
            Boolean => format!("{name} is true or false, without quotes"),
            List | Set => match value {
                Value::Text(text) => format!("{name} is a list; write {name}: [{text}]"),
                _ => format!("{name} is a list of texts, as in {name}: [a, b]"),
            },
        }
    }
}

/// The mode that a person means by one to five octal digits, or `0o644`.
fn octal(text: &str) -> Option<String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let is_octal = (1..=5).contains(&digits.len()) && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| is_octal && *mode <= 0o7777)?;
    Some(format!("{mode:04o}"))
}

/// In the order of the agent, which appends what stands for the entries that it cuts after it has sorted.
fn sorted(mut texts: Vec<String>) -> Vec<String> {
    let is_cut = |text: &String| text.starts_with("… (") && text.contains(" entries in all, sha256 ");
    texts.sort_unstable_by(|a, b| is_cut(a).cmp(&is_cut(b)).then_with(|| a.cmp(b)));
    texts.dedup();
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_for_the_search() {
        for kind in ItemKind::ALL {
            assert!(fields_of(kind).is_sorted_by_key(|(name, _)| *name), "{kind}");
        }
    }

    #[test]
    fn a_name_that_no_host_reports_is_refused_with_the_nearest_one() {
        for (kind, given, near) in [
            (ItemKind::File, "mod", "`mode`?"),
            (ItemKind::File, "UID", "`uid`?"),
            (ItemKind::Sysctl, "val", "`value`?"),
            (ItemKind::Package, "verison", "`version`?"),
        ] {
            let fault = type_of(kind, given).unwrap_err();
            assert!(fault.contains(near), "{fault}");
        }
        assert!(type_of(ItemKind::File, "value").is_err(), "each kind has its own fields");
        assert_eq!(type_of(ItemKind::File, "xattr.user.note"), Ok(AnyText));
        assert!(type_of(ItemKind::User, "xattr.user.note").is_err());
        assert_eq!(type_of(ItemKind::File, "config.Match User bob.PermitRootLogin"), Ok(Config));
        assert!(type_of(ItemKind::File, "config.").is_err() && type_of(ItemKind::User, "config.a").is_err());
    }

    #[test]
    fn lists_that_the_agent_sorts_are_sorted() {
        let list = |texts: &[&str]| Value::List(texts.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(Set.check("members", list(&["b", "a", "b"]), String::new), Ok(list(&["a", "b"])));
        assert_eq!(TextOrSet.check("version", list(&["1"]), String::new), Ok(Value::text("1")));
        assert_eq!(List.check("dropins", list(&["b", "a"]), String::new), Ok(list(&["b", "a"])));
        // What stands for the entries that were cut comes last, whatever sorts after it.
        let Value::List(cut) = Value::list((0..2000).map(|number| format!("語{number:04}")).collect()) else { panic!() };
        assert!(cut[1022] > cut[1023], "{cut:?}");
        assert_eq!(Set.check("members", Value::List(cut.clone()), String::new), Ok(Value::List(cut)));
    }

    #[test]
    fn a_setting_loses_the_blanks_that_the_agent_takes_away_and_no_others() {
        assert_eq!(Setting.check("value", Value::text(" 4096\t87380\n"), String::new), Ok(Value::text("4096 87380")));
        assert_eq!(Setting.check("value", Value::text("\u{a0}x\u{3000}"), String::new), Ok(Value::text("\u{a0}x\u{3000}")));
    }
}
