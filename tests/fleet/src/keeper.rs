//! The process that removes a run when the run's own process has ended, however that happened: it waits for
//! the end of its standard input, which the kernel closes with the run.
//!
//! Where the keeper is killed too, the next run and `fleet clean` remove what both left: the lock of the
//! run's number is free then.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

use crate::claim::{Claim, RunNumber};
use crate::teardown;

/// Of the hidden subcommand of `fleet`.
pub const SUBCOMMAND: &str = "keep";

#[derive(Debug)]
pub struct Keeper(Child);

impl Keeper {
    pub fn start(run: RunNumber) -> anyhow::Result<Self> {
        let mut command = Command::new(program()?);
        command.arg(SUBCOMMAND).arg(run.to_string()).stdin(Stdio::piped()).stdout(Stdio::null());
        // Ctrl-C reaches all of a terminal's process group, and is when the keeper is needed.
        command.process_group(0);
        Ok(Self(command.spawn().context("starting the run's keeper")?))
    }

    /// Lets it do its work, and waits until it is done. The claim must have been let go.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        drop(self.0.stdin.take());
        let status = self.0.wait().context("waiting for the run's keeper")?;
        if status.success() {
            Ok(())
        } else {
            bail!("the run's keeper ended with {status}: see what it said above, then run `fleet clean`")
        }
    }
}

/// What the keeper's process does.
pub fn keep(run: RunNumber) -> anyhow::Result<()> {
    // Whatever comes, nothing is said on it but its end.
    let mut ignored = Vec::new();
    std::io::stdin().read_to_end(&mut ignored).context("waiting for the end of the run")?;
    let Some(claim) = Claim::inherit(run)? else { return Ok(()) };
    teardown::remove(run, claim.folder()?.as_deref())?;
    claim.forget()
}

/// The program `fleet`, which cargo builds beside this one.
fn program() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe().context("asking for the running program's path")?;
    let folder = here.parent().context("the running program has no folder")?;
    let profile = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let path = profile.join("fleet");
    if !path.is_file() {
        bail!("{} is missing: `cargo build -p trueline-fleet` makes it", path.display());
    }
    Ok(path)
}
