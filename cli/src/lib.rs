//! `trueline`: what an operator types. Reads and writes through the collector's REST API; only
//! `quickstart` runs a collector and an agent of its own.

mod age;
mod api;
pub mod arguments;
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

use std::process::ExitCode;

use crate::arguments::{Arguments, Command};
use crate::failure::Failure;
use crate::screen::Screen;

/// Does what was typed, and says how it ended.
pub fn answer(arguments: Arguments) -> ExitCode {
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
                    Command::Sessions(verb) => commands::sessions::run(&session, verb).await,
                    Command::Transactions(verb) => commands::transactions::run(&session, verb).await,
                    Command::Baseline(verb) => commands::baseline::run(&session, verb).await,
                    Command::Coverage(verb) => commands::coverage::run(&session, verb).await,
                    Command::Tokens(verb) => commands::tokens::run(&session, verb).await,
                }
            }
        }
    }))
}
