//! Where output goes: its format, colours and width.
//!
//! Invariants: standard output carries results only, everything said about them goes to standard
//! error; without a terminal there are no colours and nothing is cut; and a reader that went away
//! (a closed pipe) is an ordinary end, not a panic.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ColorChoice {
    /// Colours on a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    Always,
    Never,
}

/// What a piece of text means; [`Paint`] turns it into colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    #[default]
    Plain,
    Heading,
    Dim,
    Good,
    Notable,
    Critical,
    Before,
    After,
    Actor,
}

impl Tone {
    const fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Heading => Style::new().bold(),
            Self::Dim => Style::new().dimmed(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Notable => AnsiColor::Yellow.on_default(),
            Self::Critical => AnsiColor::Red.on_default().bold(),
            Self::Before => AnsiColor::Red.on_default(),
            Self::After => AnsiColor::Green.on_default(),
            Self::Actor => AnsiColor::Cyan.on_default(),
        }
    }

    /// The tone of a verdict or a severity by its name.
    pub fn of_verdict(name: &str) -> Self {
        match name {
            "critical" => Self::Critical,
            "notable" | "warning" => Self::Notable,
            "expected" => Self::Good,
            _ => Self::Dim,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint(bool);

impl Paint {
    #[cfg(test)]
    pub const PLAIN: Self = Self(false);

    pub fn text(self, tone: Tone, text: &str) -> String {
        let style = tone.style();
        if !self.0 || style == Style::new() || text.is_empty() {
            return text.to_owned();
        }
        format!("{}{text}{}", style.render(), style.render_reset())
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Screen {
    pub format: Format,
    pub paint: Paint,
    /// Columns of the terminal; absent where output goes to a file or a pipe.
    pub width: Option<usize>,
}

impl Screen {
    pub fn new(format: Format, color: ColorChoice) -> Self {
        let terminal = io::stdout().is_terminal();
        let on = match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
                terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        };
        let width = terminal.then(|| terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0).max(40)));
        Self { format, paint: Paint(on), width }
    }

    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }

    pub fn is_terminal(self) -> bool {
        self.width.is_some()
    }

    pub fn line(self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }

    pub fn raw(self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// One document: spread out for a person at a terminal, on one line for a program.
    pub fn document(self, value: &Value) -> io::Result<()> {
        if self.is_terminal() { self.line(&format!("{value:#}")) } else { self.line(&value.to_string()) }
    }

    /// One of a stream of objects, always on a line of its own.
    pub fn json_line(self, value: &Value) -> io::Result<()> {
        self.line(&value.to_string())
    }

    /// Said to the person, not part of the result. A standard error that is closed is nobody's loss.
    pub fn note(self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}
