//! The configuration that the packages install says what is built in, key by key.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use trueline_collector::config::Settings;
use trueline_drift::document::parse_toml;

const PACKAGED: &str = include_str!("../../packaging/collector/collector.toml");

/// Its lines with the comment sign taken off where `is_wanted` says so of what follows the sign.
fn uncommented(is_wanted: impl Fn(&str) -> bool) -> Settings {
    let line = |line: &'static str| line.strip_prefix('#').filter(|rest| is_wanted(rest)).unwrap_or(line);
    parse_toml("collector.toml", &PACKAGED.lines().map(line).collect::<Vec<_>>().join("\n")).unwrap()
}

fn is_value(rest: &str) -> bool {
    !rest.starts_with(' ')
}

/// ` key = …`, of a key that has no value of its own.
fn is_example(rest: &str) -> bool {
    rest.strip_prefix(' ').and_then(|rest| rest.split_once(" = ")).is_some_and(|(key, _)| !key.contains(' ') && key != "database")
}

/// Everything that was asked for, as text: the type has no equality.
fn shown(value: &impl std::fmt::Debug) -> String {
    format!("{value:#?}")
}

#[test]
fn as_installed_it_changes_nothing() {
    assert_eq!(shown(&uncommented(|_| false)), shown(&Settings::default()));
}

#[test]
fn what_it_says_is_built_in_is() {
    let built_in = shown(&Settings::default().into_config().unwrap());
    assert_eq!(shown(&uncommented(is_value).into_config().unwrap()), built_in);
}

#[test]
fn every_key_is_in_it_and_the_examples_can_be_used() {
    let all = uncommented(|rest| is_value(rest) || is_example(rest));
    let text = shown(&all);
    let missing: Vec<_> = text.lines().filter(|line| line.ends_with(": None,")).collect();
    assert!(missing.is_empty() && text.contains("watch_policy: Some("), "{missing:?}");
    all.into_config().unwrap();
}
