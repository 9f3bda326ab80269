//! What the tests of nested formats share.

use proptest::prelude::*;

use super::{Format, SETTINGS_LIMIT};
use crate::FieldName;
use crate::redact::{RedactionKey, line, setting};

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

/// Texts of the pieces that these formats are made of.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[ -~é\u{202e}\u{1b}\n]{0,8}",
        proptest::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            "(",
            ")",
            "<",
            ">",
            "</a>",
            "<a>",
            "<a b='c'>",
            "/>",
            "\"",
            "'",
            "\\",
            "\\\n",
            "\n",
            "\n  ",
            ": ",
            "- ",
            "=",
            ";",
            ",",
            "#",
            "&",
            "&a",
            "*a",
            "$",
            "${",
            "|\n",
            "---\n",
            "<<: ",
            "server",
            "listen 80;",
            "if ",
            "then",
            "module(",
            "type=\"",
            "postrotate\n",
            "endscript\n",
            "/var/log {\n",
            "*.* ",
            "/*",
            "*/",
            "<!--",
            "-->",
            "<![CDATA[",
            "]]>",
            "&amp;",
            "&#x41;",
            "null",
            "1e999",
            "\\ud800",
            "password",
            "Zq9",
            "map $apikey $b {",
            "\u{feff}",
            "\t",
        ])
        .prop_map(str::to_owned),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_the_same_way_each_time_and_bounded(text in texts()) {
        let key = RedactionKey::new([7; 32]);
        for format in Format::ALL {
            let Ok(settings) = format.read(text.as_bytes()) else { continue };
            let fields = settings.fields(|name, value| setting(name, value, &key).into_owned());
            prop_assert!(fields.len() <= 2 * SETTINGS_LIMIT + 1);
            for (name, value) in &fields {
                prop_assert!(name.as_str().len() <= FieldName::LIMIT);
                let shown = format!("{name}{value}");
                prop_assert!(!shown.chars().any(char::is_control));
            }
            let again = format.read(text.as_bytes()).expect("it was read once");
            prop_assert_eq!(&again, &settings);
        }
    }

    #[test]
    fn whatever_stands_around_it_masking_does_nothing_twice(name in texts(), value in texts()) {
        let key = RedactionKey::new([7; 32]);
        let once = setting(&name, &value, &key);
        prop_assert_eq!(&setting(&name, &once, &key), &once);
        let once = line(&value, &key);
        prop_assert_eq!(&line(&once, &key), &once);
    }
}
