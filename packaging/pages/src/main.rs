//! Writes the manual pages and shell completions of the three programs, from the definitions that they themselves read.
//!
//! `trueline-pages OUT_DIR` makes `OUT_DIR/man/` and `OUT_DIR/completions/{bash,zsh,fish}/`. Invariant: the same source
//! gives the same bytes; the only date is that of `$SOURCE_DATE_EPOCH`, and without it there is none.

mod completion;
mod manual;
mod words;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser};

/// A program with its manual section.
struct Program {
    command: clap::Command,
    section: u8,
}

/// Writes manual pages and shell completions.
#[derive(Parser)]
#[command(name = "trueline-pages")]
struct CommandLine {
    /// Folder that is made or added to: man/, completions/
    #[arg(value_name = "OUT_DIR")]
    out: PathBuf,
}

fn programs() -> Vec<Program> {
    vec![
        Program { command: trueline_agent::arguments::CommandLine::command(), section: 8 },
        Program { command: trueline_collector::arguments::CommandLine::command(), section: 8 },
        Program { command: trueline_cli::arguments::Arguments::command(), section: 1 },
    ]
}

fn main() -> ExitCode {
    match write(&CommandLine::parse()) {
        Ok(pages) => {
            println!("{pages} manual pages and the completions of 3 shells");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("trueline-pages: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn write(line: &CommandLine) -> anyhow::Result<usize> {
    let date = date()?;
    let mut pages = 0;
    for program in programs() {
        pages += manual::write(&program, &date, &line.out.join("man"))?;
        completion::write(&program.command, &line.out.join("completions"))?;
    }
    Ok(pages)
}

/// The day that a reproducible build stands for, as 2026-11-22; empty where none is given.
fn date() -> anyhow::Result<String> {
    let Ok(epoch) = std::env::var("SOURCE_DATE_EPOCH") else { return Ok(String::new()) };
    let seconds = epoch.parse().with_context(|| format!("SOURCE_DATE_EPOCH: `{epoch}` is no number of seconds"))?;
    let day = jiff::Timestamp::from_second(seconds).with_context(|| format!("SOURCE_DATE_EPOCH: {epoch}"))?;
    Ok(day.strftime("%Y-%m-%d").to_string())
}
