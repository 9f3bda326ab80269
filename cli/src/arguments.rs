//! The command line: its commands, flags and help.
//!
//! In the library, so that manual pages and completions are made from the definitions that the program itself reads.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::screen::{ColorChoice, Format};
use crate::{commands, quickstart};

/// Finds host drift and says who caused it.
#[derive(Debug, Parser)]
#[command(
    name = "trueline",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 fine, 1 drift or refusal, 2 usage, 3 cannot reach the collector."
)]
pub struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command has stand by themselves in its help.
const GLOBAL: &str = "Global options";

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// How results are printed
    #[arg(long, short, global = true, value_enum, default_value_t, value_name = "FORMAT", help_heading = GLOBAL)]
    pub output: Format,
    /// File with the collector's URL and a token
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    pub context: Option<PathBuf>,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", help_heading = GLOBAL)]
    pub color: ColorChoice,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
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
    /// Who was logged in where, and through su and sudo as whom
    #[command(subcommand)]
    Sessions(commands::sessions::Verb),
    /// Which runs made changes together: of apt, Ansible, Puppet, a job; and what they say of themselves
    #[command(subcommand)]
    Transactions(commands::transactions::Verb),
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
