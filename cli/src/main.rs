//! The `trueline` program: the command line, handed to the library.

use std::process::ExitCode;

use clap::Parser;
use trueline_cli::arguments::Arguments;

fn main() -> ExitCode {
    trueline_cli::answer(Arguments::parse())
}
