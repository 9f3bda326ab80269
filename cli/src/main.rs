//! `trueline`: what an operator types. Reads and writes through the collector's REST API; only
//! `quickstart` runs a collector and an agent of its own.

mod age;
mod api;
mod commands;
mod context;
mod counted;
mod failure;
mod feed;
mod listing;
mod progress;
mod quickstart;
mod screen;
mod shape;
mod sse;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::failure::Failure;
use crate::screen::{ColorChoice, Format, Screen};

/// Finds host drift and says who caused it.
///
/// Exit codes: 0 fine, 1 drift or refusal, 2 usage, 3 cannot reach the collector.
#[derive(Debug, Parser)]
#[command(name = "trueline", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command has stand by themselves in its help.
const GLOBAL: &str = "Global options";

#[derive(Debug, Args)]
struct Global {
    /// How results are printed
    #[arg(long, short, global = true, value_enum, default_value_t, value_name = "FORMAT", help_heading = GLOBAL)]
    output: Format,
    /// File with the collector's URL and a token
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    context: Option<PathBuf>,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", help_heading = GLOBAL)]
    color: ColorChoice,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine: collector, agent, baseline, live feed
    Quickstart(quickstart::Options),
    /// Watch what happens, live
    Events,
    /// Ask whether a host agrees with its baseline; exit 1 if it does not
    Check(commands::check::Options),
    /// Hosts and their agents
    #[command(subcommand)]
    Hosts(commands::hosts::Verb),
    /// Where hosts depart from their baselines
    #[command(subcommand)]
    Drift(commands::drift::Verb),
    /// What changed, when and by whom
    #[command(subcommand)]
    Changes(commands::changes::Verb),
    /// Desired states, captured from a host or written as YAML
    #[command(subcommand)]
    Baseline(commands::baseline::Verb),
    /// Intervals in which changes may have been missed
    #[command(subcommand)]
    Coverage(commands::coverage::Verb),
    /// Tokens that let hosts join and programs ask
    #[command(subcommand)]
    Tokens(commands::tokens::Verb),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let screen = Screen::new(arguments.global.output, arguments.global.color);
    match run(arguments, screen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                screen.note(&format!("trueline: {}", table::lines_visible(&message)));
            }
            failure.exit_code()
        }
    }
}

fn run(arguments: Arguments, screen: Screen) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::Refused(format!("cannot start: {error}")))?;
    runtime.block_on(Box::pin(async {
        match arguments.command {
            Command::Quickstart(options) => quickstart::run(options, screen).await,
            Command::Baseline(commands::baseline::Verb::Lint { file }) => commands::baseline::lint(&file, screen),
            command => {
                let session = commands::Session::open(arguments.global.context, screen)?;
                match command {
                    Command::Quickstart(_) => Ok(()),
                    Command::Events => commands::events::run(&session).await,
                    Command::Check(options) => commands::check::run(&session, options).await,
                    Command::Hosts(verb) => commands::hosts::run(&session, verb).await,
                    Command::Drift(verb) => commands::drift::run(&session, verb).await,
                    Command::Changes(verb) => commands::changes::run(&session, verb).await,
                    Command::Baseline(verb) => commands::baseline::run(&session, verb).await,
                    Command::Coverage(verb) => commands::coverage::run(&session, verb).await,
                    Command::Tokens(verb) => commands::tokens::run(&session, verb).await,
                }
            }
        }
    }))
}
