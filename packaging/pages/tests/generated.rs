//! The generator as a process: every command has a page, pages are clean, completions parse, twice is the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;

fn generate(out: &Path) -> BTreeMap<String, String> {
    let mut generator = Command::new(env!("CARGO_BIN_EXE_trueline-pages"));
    let output = generator.arg(out).env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut files = BTreeMap::new();
    for folder in ["man", "completions/bash", "completions/zsh", "completions/fish"] {
        for entry in std::fs::read_dir(out.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{folder}/{}", path.file_name().unwrap().to_str().unwrap());
            files.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
    files
}

fn pages_of(command: &clap::Command, parent: Option<&str>, section: u8, into: &mut Vec<String>) {
    let name = parent.map_or_else(|| command.get_name().to_owned(), |parent| format!("{parent}-{}", command.get_name()));
    command.get_subcommands().for_each(|command| pages_of(command, Some(&name), section, into));
    into.push(format!("man/{name}.{section}"));
}

#[test]
fn every_command_has_its_page_and_every_shell_its_completion_and_twice_is_the_same() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = generate(first.path());
    assert_eq!(files, generate(second.path()));
    let mut expected = Vec::new();
    pages_of(&trueline_agent::arguments::CommandLine::command(), None, 8, &mut expected);
    pages_of(&trueline_collector::arguments::CommandLine::command(), None, 8, &mut expected);
    pages_of(&trueline_cli::arguments::Arguments::command(), None, 1, &mut expected);
    for program in ["trueline-agent", "trueline-collector", "trueline"] {
        expected.extend([
            format!("completions/bash/{program}"),
            format!("completions/fish/{program}.fish"),
            format!("completions/zsh/_{program}"),
        ]);
    }
    expected.sort();
    assert_eq!(files.keys().cloned().collect::<Vec<_>>(), expected);
    for (name, text) in files.iter().filter(|(name, _)| name.starts_with("man/")) {
        for part in [".TH ", "2023-11-14", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH \"EXIT STATUS\""] {
            assert!(text.contains(part), "{name} has no {part}");
        }
    }
}

#[test]
fn an_option_without_help_is_on_no_page() {
    fn check(command: &clap::Command) {
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{}: {} has no help", command.get_name(), argument.get_id());
        }
        assert!(command.get_about().is_some(), "{} does not say what it is for", command.get_name());
        command.get_subcommands().for_each(check);
    }
    check(&trueline_agent::arguments::CommandLine::command());
    check(&trueline_collector::arguments::CommandLine::command());
    check(&trueline_cli::arguments::Arguments::command());
}

/// `true` where the program is there. What is missing is said by name, or is a failure where `TRUELINE_TEST_REQUIRE` is set.
fn need(program: &str, package: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
        return true;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("skipped in part: {test}: needs {program}: apt-get install {package}\n");
    assert!(std::env::var_os("TRUELINE_TEST_REQUIRE").is_none(), "{line}");
    let _ = std::io::stderr().write_all(line.as_bytes());
    false
}

fn accepts(program: &str, arguments: &[&str], file: &Path) {
    let output = Command::new(program).args(arguments).arg(file).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.is_empty(), "{program} {arguments:?} {}: {said}", file.display());
}

#[test]
fn pages_are_clean_to_mandoc_and_completions_parse_in_their_shells() {
    let out = tempfile::tempdir().unwrap();
    let files = generate(out.path());
    let lints = need("mandoc", "mandoc");
    for (name, _) in files {
        let path = out.path().join(&name);
        match name.split('/').nth(usize::from(name.starts_with("completions/"))) {
            Some("man") if lints => accepts("mandoc", &["-T", "lint", "-W", "warning"], &path),
            Some("bash") if need("bash", "bash") => accepts("bash", &["-n"], &path),
            Some("zsh") if need("zsh", "zsh") => accepts("zsh", &["-n"], &path),
            Some("fish") if need("fish", "fish") => accepts("fish", &["--no-execute"], &path),
            _ => {}
        }
    }
}
