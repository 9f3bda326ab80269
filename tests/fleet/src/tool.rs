//! Programs of the machine that the test bed is made with, each run to its end within a limit.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Lines that an error shows of what a program said.
const TAIL: usize = 40;

/// A call of a program. Dropped while it runs, it is killed.
#[derive(Debug)]
pub struct Call {
    line: String,
    command: Command,
    input: Vec<u8>,
    limit: Duration,
}

impl Call {
    pub fn new(program: &str) -> Self {
        Self { line: program.to_owned(), command: Command::new(program), input: Vec::new(), limit: Duration::from_secs(60) }
    }

    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.line.push(' ');
        self.line.push_str(&argument.as_ref().to_string_lossy());
        self.command.arg(argument);
        self
    }

    #[must_use]
    pub fn args<Argument: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = Argument>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// On its standard input; nothing unless said.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// What it printed, or an error with all that it said.
    pub async fn run(self) -> anyhow::Result<String> {
        let line = self.line.clone();
        let output = self.output().await?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let said = format!("{printed}{}", String::from_utf8_lossy(&output.stderr));
            let lines: Vec<&str> = said.lines().collect();
            bail!("`{line}` ended with {}:\n{}", output.status, lines[lines.len().saturating_sub(TAIL)..].join("\n"));
        }
        Ok(printed)
    }

    /// How it ended and what it printed, whatever that is.
    pub async fn output(mut self) -> anyhow::Result<Output> {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = self.command.spawn().with_context(|| format!("starting `{}`", self.line))?;
        let stdin = child.stdin.take();
        let input = std::mem::take(&mut self.input);
        let feeding = async move {
            if let Some(mut stdin) = stdin {
                // A program that does not read its input to the end says by its status whether that was right.
                let _ = stdin.write_all(&input).await;
            }
        };
        let ended = tokio::time::timeout(self.limit, async { tokio::join!(feeding, child.wait_with_output()).1 });
        match ended.await {
            Ok(output) => output.with_context(|| format!("waiting for `{}`", self.line)),
            Err(_) => bail!("`{}` did not end within {} s", self.line, self.limit.as_secs()),
        }
    }
}

/// `ip` with these words.
pub async fn ip(words: &str) -> anyhow::Result<()> {
    Call::new("ip").args(words.split_whitespace()).run().await.map(drop)
}

/// A copy that has the same holes.
pub async fn copy_sparse(from: &Path, to: &Path) -> anyhow::Result<()> {
    Call::new("cp").args(["--sparse=always", "--reflink=auto", "--"]).arg(from).arg(to).run().await.map(drop)
}
