//! The binary as its users run it: as a process, on its output and exit code.

mod command_line;
mod quickstart;
mod running;
