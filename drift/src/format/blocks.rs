//! What nginx, Apache and logrotate have in common: statements with arguments, some with a block of more statements, and the
//! names that blocks get.
//!
//! Blocks in one block have different names: where what they say of themselves is alike, their place tells them apart. A name
//! can hold what an argument compared with: secrets that speak for themselves are masked in it.

use std::collections::BTreeMap;

use super::{DEPTH, FormatError, Settings};
use crate::{redact, text};

/// Longest name of one block.
const LABEL: usize = 120;
/// Longest path: it is cut by the field's name, and what lies deeper would not be told apart.
const PATH: usize = 400;

#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) statements: Vec<Statement>,
}

#[derive(Debug)]
pub(super) struct Statement {
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    pub(super) block: Option<Block>,
}

/// Takes one statement without a block: the name of the block that it stands in, and the path to that.
pub(super) type Take<'a> = &'a dyn Fn(&str, &Statement, &mut Settings, &str);

/// What a block may be called beside its statement's name, from the shortest to the most that there is to say.
pub(super) type Label<'a> = &'a dyn Fn(&Statement, &Block) -> Vec<String>;

pub(super) fn take(root: &Block, path: &str, settings: &mut Settings, take: Take<'_>, label: Label<'_>) -> Result<(), FormatError> {
    within(root, "", path, 0, settings, take, label).map_err(|reason| FormatError { line: 0, reason })
}

pub(super) fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn within(
    block: &Block,
    name: &str,
    path: &str,
    depth: usize,
    settings: &mut Settings,
    take: Take<'_>,
    label: Label<'_>,
) -> Result<(), &'static str> {
    if depth > DEPTH {
        return Err("blocks are nested more than 32 deep");
    }
    if path.len() > PATH {
        return Err("the names of blocks within each other are longer than 400 bytes");
    }
    let mut names = names(block, label).into_iter();
    for statement in &block.statements {
        match &statement.block {
            None => take(name, statement, settings, path),
            Some(inner) => {
                let called = names.next().unwrap_or_default();
                within(inner, &statement.name, &joined(path, &called), depth + 1, settings, take, label)?;
            }
        }
    }
    Ok(())
}

/// A name for each statement with a block, no two the same.
fn names(block: &Block, label: Label<'_>) -> Vec<String> {
    let mut choices: Vec<Vec<String>> = Vec::new();
    for statement in &block.statements {
        let Some(inner) = &statement.block else { continue };
        let called = |label: &String| {
            let whole = if label.is_empty() { statement.name.clone() } else { format!("{} {label}", statement.name) };
            text::bounded(&redact::free_text(&whole), LABEL).into_owned()
        };
        choices.push(label(statement, inner).iter().map(called).collect());
    }
    let mut shortest: BTreeMap<&str, usize> = BTreeMap::new();
    for choice in choices.iter().filter_map(|choice| choice.first()) {
        *shortest.entry(choice).or_insert(0) += 1;
    }
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    let pick = |choice: &Vec<String>| {
        let is_alone = choice.first().is_some_and(|first| shortest.get(first.as_str()) == Some(&1));
        let picked = if is_alone { choice.first() } else { choice.last() };
        picked.cloned().unwrap_or_default()
    };
    let mut names = Vec::with_capacity(choices.len());
    for picked in choices.iter().map(pick) {
        let times = used.entry(picked.clone()).or_insert(0);
        *times += 1;
        names.push(if *times == 1 { picked } else { format!("{picked} #{times}") });
    }
    names
}
