//! Where the built daemons are: beside the running test or benchmark, in the same profile.

use std::path::PathBuf;

use anyhow::{Context, bail};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    Agent,
    Collector,
    CommandLine,
}

impl Program {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "trueline-agent",
            Self::Collector => "trueline-collector",
            Self::CommandLine => "trueline",
        }
    }

    /// The built binary. Tests run from `target/PROFILE/deps`, benchmarks from `target/PROFILE`.
    pub fn path(self) -> anyhow::Result<PathBuf> {
        let here = std::env::current_exe().context("asking for the running program's path")?;
        let folder = here.parent().context("the running program has no folder")?;
        let profile = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
        let path = profile.join(self.name());
        if !path.is_file() {
            let release = if profile.ends_with("release") { " --release" } else { "" };
            bail!("{} is not built: run `cargo build --workspace{release}` first ({} is missing)", self.name(), path.display());
        }
        Ok(path)
    }
}
