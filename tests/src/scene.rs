//! A collector, a real agent and the folder that it watches.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::agent::{Agent, Watch};
use crate::collector::{Collector, Setting};
use crate::daemon::write;
use crate::database::{Database, Engine};
use crate::state::{self, item};
use crate::wait;

/// For any wait within a scene: far beyond what a loaded machine needs.
pub const LIMIT: Duration = Duration::from_secs(240);

pub struct Scene {
    pub collector: Collector,
    pub agent: Agent,
    pub watched: PathBuf,
    pub database: Database,
    folder: tempfile::TempDir,
}

impl Scene {
    /// With this many files in the folder, and the first inventory done.
    pub async fn new(engine: Engine, setting: Setting, files: usize) -> anyhow::Result<Self> {
        Self::of(engine, setting, Watch::default(), |watched| fill(watched, files)).await
    }

    /// With what is put into the folder, and an agent that watches in this way and nothing else.
    pub async fn of(
        engine: Engine,
        setting: Setting,
        watch: Watch,
        prepare: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let watched = folder.path().canonicalize()?.join("watched");
        std::fs::create_dir(&watched)?;
        prepare(&watched)?;
        let database = Database::start(engine, folder.path()).await?;
        let collector = Collector::start(&database, setting).await?;
        let agent = Agent::start(&collector, &Watch { paths: vec![watched.clone()], ..watch }).await?;
        agent.inventoried(&collector, LIMIT).await?;
        Ok(Self { collector, agent, watched, database, folder })
    }

    /// Where the database of SQLite lies.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn file(&self, number: usize) -> PathBuf {
        file(&self.watched, number)
    }

    pub async fn equals_disk(&self) -> anyhow::Result<()> {
        state::equals_disk(&self.collector, &self.agent, &self.watched, LIMIT).await
    }

    /// Oldest first.
    pub async fn changes(&self) -> anyhow::Result<Vec<Value>> {
        let mut changes = self.collector.rest().all("/changes", &[("host", self.agent.host())]).await?;
        changes.reverse();
        Ok(changes)
    }

    /// Waits until a change of this file has reached the collector.
    pub async fn changed(&self, path: &Path) -> anyhow::Result<Value> {
        changed(&self.collector, &self.agent, path).await
    }
}

/// Puts so many files into a folder.
pub fn fill(folder: &Path, files: usize) -> anyhow::Result<()> {
    (0..files).try_for_each(|number| write(&file(folder, number), "before\n"))
}

/// A file of a watched folder.
pub fn file(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("file-{number:05}.conf"))
}

/// Waits until a change of this file has reached the collector; the newest.
pub async fn changed(collector: &Collector, agent: &Agent, path: &Path) -> anyhow::Result<Value> {
    let item = item(path);
    wait::until(&format!("a change of {item}"), LIMIT, async || {
        agent.shown(collector).await?;
        let changes = collector.rest().all("/changes", &[("host", agent.host()), ("item", &item)]).await?;
        Ok(changes.into_iter().next())
    })
    .await
    .with_context(|| format!("the agent's log:\n{}", agent.log_tail()))
}
