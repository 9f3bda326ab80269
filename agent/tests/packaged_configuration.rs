//! The configuration that the packages install says what is built in, key by key.

use trueline_agent::config::Config;
use trueline_drift::watch::WatchPolicy;

const PACKAGED: &str = include_str!("../../packaging/agent/agent.toml");

/// The file with its built-in values taken out of their comments: `#key = …`, and the indented lines of a list.
fn uncommented() -> String {
    let line = |line: &'static str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') || rest.starts_with("    ") => rest,
        _ => line,
    };
    PACKAGED.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The names of a struct's own fields.
fn fields(value: &impl std::fmt::Debug) -> Vec<String> {
    let text = format!("{value:#?}");
    let name = |line: &str| Some(line.strip_prefix("    ")?.split_once(':')?.0.to_owned()).filter(|name| !name.starts_with(' '));
    text.lines().filter_map(name).collect()
}

#[test]
fn as_installed_it_changes_nothing() {
    assert_eq!(Config::parse("agent.toml", PACKAGED).unwrap(), Config::default());
}

#[test]
fn what_it_says_is_built_in_is() {
    assert_eq!(Config::parse("agent.toml", &uncommented()).unwrap(), Config::default());
}

#[test]
fn every_key_is_in_it() {
    let keys = [fields(&Config::default()), fields(&WatchPolicy::default())].concat();
    assert!(keys.contains(&"data_dir".to_owned()) && keys.contains(&"full_scan_seconds".to_owned()), "{keys:?}");
    for key in keys {
        let is_there = PACKAGED.lines().any(|line| line.starts_with(&format!("#{key} = ")) || line == format!("[{key}]"));
        assert!(is_there, "{key} is missing");
    }
}

#[test]
fn what_the_documentation_gives_as_an_example_is_taken() {
    let page = include_str!("../../docs/formats.md");
    let (_, rest) = page.split_once("```toml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    assert_ne!(Config::parse("formats.md", example).unwrap().redaction, Config::default().redaction);
}
