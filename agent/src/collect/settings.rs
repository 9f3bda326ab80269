//! What a configuration file sets, as fields beside its digest: `config.PermitRootLogin`.
//!
//! Invariant: every file that was read by a format says so in `format`, also where nothing is set or the text is not of the
//! format: so a state from an agent that knew no formats is told from a file that sets nothing. What is not told by its settings is
//! told by its lines.

use trueline_drift::format::lines::masked;
use trueline_drift::format::{Format, Settings};
use trueline_drift::redact::{RedactionKey, setting};
use trueline_drift::{FieldName, Fields, Value};

use super::Lines;

/// Longest file that is read as settings: the contents are held for it.
pub const LIMIT: usize = 256 * 1024;

/// Most fields, names and values together: a change carries those before and after, and must be one that a collector takes.
const FIELDS: usize = 480;
const BYTES: usize = 64 * 1024;

/// Most bytes of all lines of one file: masks are longer than short secrets.
const LINES_BYTES: usize = 4 * LIMIT;

/// Sets the fields of a file with these contents, and yields its lines where they tell what the fields do not. Secrets give way to digests
/// by this host's key.
pub fn set(fields: &mut Fields, format: Format, contents: &[u8], key: &RedactionKey) -> Option<Lines> {
    fields.set(FieldName::known("format"), Value::text(format.name()));
    let told = read(format, contents).and_then(|settings| told(&settings, key).map_err(str::to_owned));
    match told {
        Ok(told) if format != Format::Text => {
            told.into_iter().for_each(|(name, value)| fields.set(name, value));
            return None;
        }
        Ok(_) => {}
        Err(fault) => fields.set(FieldName::known("format_error"), Value::text(&fault)),
    }
    lines(contents, key)
}

fn lines(contents: &[u8], key: &RedactionKey) -> Option<Lines> {
    let lines = if contents.len() > LIMIT { None } else { masked(contents, key) }?;
    (lines.iter().map(String::len).sum::<usize>() <= LINES_BYTES).then(|| lines.into())
}

fn read(format: Format, contents: &[u8]) -> Result<Settings, String> {
    if contents.len() > LIMIT {
        return Err(format!("it is longer than {} KiB", LIMIT / 1024));
    }
    format.read(contents).map_err(|error| error.to_string())
}

/// The fields of settings, with their secrets masked; or why there are too many to be told.
pub fn told(settings: &Settings, key: &RedactionKey) -> Result<Vec<(FieldName, Value)>, &'static str> {
    let told = settings.fields(|name, value| setting(name, value, key).into_owned());
    if told.len() > FIELDS {
        return Err("it sets more than is told of one file");
    }
    let bytes: usize = told.iter().map(|(name, value)| name.as_str().len() + value.size()).sum();
    if bytes > BYTES { Err("what it sets takes more than 64 KiB") } else { Ok(told) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_as(format: Format, contents: &[u8]) -> Fields {
        let mut fields = Fields::new();
        drop(set(&mut fields, format, contents, &RedactionKey::new([7; 32])));
        fields
    }

    fn shown(fields: &Fields, name: &str) -> String {
        fields.value(name).map_or_else(|| "-".to_owned(), ToString::to_string)
    }

    #[test]
    fn settings_are_told_and_secrets_among_them_are_not() {
        let sshd = read_as(Format::SshdConfig, b"# hello\nPermitRootLogin no\nMatch User bob\nPermitRootLogin yes\n");
        assert_eq!(shown(&sshd, "config.PermitRootLogin"), "no");
        assert_eq!(shown(&sshd, "config.Match User bob.PermitRootLogin"), "yes");
        let of = |text: &str| shown(&read_as(Format::KeyValue, text.as_bytes()), "config.DB_PASSWORD");
        let (one, other) = (of("DB_PASSWORD=correct-horse\n"), of("DB_PASSWORD=battery-staple\n"));
        assert!(one.starts_with("keyed:") && other.starts_with("keyed:") && one != other, "{one} {other}");
    }

    #[test]
    fn what_cannot_be_told_as_settings_says_why_and_of_which_format_it_is() {
        let broken = read_as(Format::Json, b"{ \"a\": ");
        assert_eq!((shown(&broken, "format").as_str(), broken.len()), ("json", 2));
        assert!(shown(&broken, "format_error").ends_with("it is no JSON"), "{broken:?}");
        let long = read_as(Format::Sysctl, &vec![b'#'; LIMIT + 1]);
        assert_eq!(shown(&long, "format_error"), "it is longer than 256 KiB");
        let wide: String = (0..100).map(|number| format!("a.b{number} = {}\n", "x".repeat(1000))).collect();
        let wide = read_as(Format::Sysctl, wide.as_bytes());
        assert_eq!((shown(&wide, "format_error").as_str(), wide.len()), ("what it sets takes more than 64 KiB", 2));
        let many: String = (0..500).map(|number| format!("a.b{number} = 1\n")).collect();
        assert_eq!(shown(&read_as(Format::Sysctl, many.as_bytes()), "format_error"), "it sets more than is told of one file");
        assert_eq!(read_as(Format::Sysctl, b"# nothing\n").len(), 1, "the format is told where nothing is set");
    }

    #[test]
    fn what_its_settings_do_not_tell_is_told_by_lines() {
        let lines =
            |format, contents: &[u8]| set(&mut Fields::new(), format, contents, &RedactionKey::new([7; 32])).map(|lines| lines.join("|"));
        assert_eq!(lines(Format::Text, b"a\nb\n").as_deref(), Some("a|b"));
        assert_eq!(lines(Format::Json, b"{ \"a\": ").as_deref(), Some("{ \"a\": "));
        assert_eq!(lines(Format::Json, b"{ \"a\": 1 }"), None);
        assert_eq!(lines(Format::Text, b"a\0b"), None);
        assert_eq!(shown(&read_as(Format::Text, b"a\0b"), "format_error"), "line 0: it holds a NUL byte");
        assert_eq!(lines(Format::Text, &vec![b'\n'; LIMIT + 1]), None);
    }

    proptest! {
        #[test]
        fn what_is_told_is_bounded(contents in proptest::collection::vec(any::<u8>(), 0..2000), at in 0..Format::ALL.len()) {
            let fields = read_as(Format::ALL[at], &contents);
            prop_assert!(fields.value("format").is_some());
            prop_assert!(fields.len() <= FIELDS + 1 && fields.size() <= BYTES + 1024);
        }
    }
}
