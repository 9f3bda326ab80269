//! Baselines, watch lists and the agent's configuration: what is read is written and read again as the
//! same; a fault names a place in the document, in one printable line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trueline_agent::config::{Config, ConfigError};
use trueline_drift::baseline::BaselineDocument;
use trueline_drift::document::{DocumentError, parse_toml, parse_yaml, to_yaml};
use trueline_drift::watch::WatchPolicy;
use trueline_fuzz::{assert_shown, within};

const MEMORY: usize = 32 << 20;

fuzz_target!(|text: &str| {
    match within(MEMORY, || BaselineDocument::parse("a.yaml", text)) {
        Ok(document) => {
            let written = to_yaml(&document);
            let again = BaselineDocument::parse("again", &written).unwrap_or_else(|faults| panic!("{faults} in\n{written}"));
            assert_eq!(again, document, "by way of\n{written}");
        }
        Err(faults) => faults.0.iter().for_each(|fault| check_error(text, fault)),
    }
    check::<WatchPolicy>(text, within(MEMORY, || parse_yaml("a.yaml", text)));
    check::<WatchPolicy>(text, within(MEMORY, || parse_toml("a.toml", text)));
    if let Err(ConfigError::Document(error)) = within(MEMORY, || Config::parse("a.toml", text)) {
        check_error(text, &error);
    }
});

fn check<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(text: &str, read: Result<T, DocumentError>) {
    match read {
        Ok(value) => {
            let written = to_yaml(&value);
            let again = parse_yaml::<T>("again", &written).unwrap_or_else(|error| panic!("{error} in\n{written}"));
            assert_eq!(again, value, "by way of\n{written}");
        }
        Err(error) => check_error(text, &error),
    }
}

fn check_error(text: &str, error: &DocumentError) {
    // YAML also ends lines with a carriage return alone.
    let lines = text.split(['\n', '\r']).count();
    assert!((1..=lines + 1).contains(&error.line) && error.column >= 1, "{error} in {text:?}");
    assert!(!error.message.is_empty());
    assert_shown(&error.message);
}
