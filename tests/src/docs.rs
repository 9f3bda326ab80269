//! What README and docs/ tell people to type, as it is written there: the one reading of it that all tests of the docs share.
//!
//! Invariant: the words come from the pages alone; a test may put values in the place of placeholders, and nothing else.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// Who is called, in commands that are looked for.
const PROGRAMS: [&str; 3] = ["trueline-agent ", "trueline-collector ", "trueline "];

/// What stands between two fences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// As named at the first fence; empty for what is typed.
    pub language: &'a str,
    pub text: &'a str,
}

pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A page, by its path in the repository.
pub fn read(name: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(repository().join(name)).with_context(|| format!("reading {name}"))
}

/// What stands beneath a heading of the second rank, given by its beginning, to the next one.
pub fn section<'a>(page: &'a str, heading: &str) -> anyhow::Result<&'a str> {
    let (_, rest) = page.split_once(&format!("\n{heading}")).with_context(|| format!("no heading `{heading}`"))?;
    Ok(rest.split("\n## ").next().unwrap_or(rest))
}

/// The blocks beneath a heading, in their order.
pub fn blocks<'a>(page: &'a str, heading: &str) -> anyhow::Result<Vec<Block<'a>>> {
    Ok(blocks_of(section(page, heading)?))
}

fn blocks_of(text: &str) -> Vec<Block<'_>> {
    let fenced = text.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    fenced.map(|(language, text)| Block { language, text }).collect()
}

/// The commands of our programs that a person would type, those that go on after a backslash as one.
pub fn commands(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for block in blocks_of(page) {
        // Where there is a prompt, lines without one are what came of it.
        let is_session = block.text.lines().any(|line| line.starts_with("$ "));
        for line in block.text.replace("\\\n", " ").lines() {
            let line = match line.strip_prefix("$ ") {
                Some(typed) => typed,
                None if is_session => continue,
                None => line,
            };
            let command = line.split_once("=$(").map_or(line, |(_, inner)| inner.trim_end_matches(')'));
            if PROGRAMS.iter().any(|program| command.starts_with(program)) {
                found.push(command.split('#').next().unwrap_or(command).trim().trim_end_matches('&').to_owned());
            }
        }
    }
    let prose: String = page.split("```").step_by(2).collect();
    for span in prose.split('`').skip(1).step_by(2) {
        if PROGRAMS.iter().any(|program| span.starts_with(program)) {
            found.push(span.replace('\n', " ").replace(" ID", " 1"));
        }
    }
    found
}
