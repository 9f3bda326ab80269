//! The hosts of one run, and what they share: a number, a network, a folder for their disks.
//!
//! Invariant: the last of a fleet and its hosts that is dropped takes everything with it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;

use crate::cgroup::Cgroup;
use crate::claim::{Claim, RunNumber};
use crate::guest;
use crate::host::Host;
use crate::keeper::Keeper;
use crate::network::{self, Port};
use crate::room::{self, MIB};
use crate::root::{self, CachedRoot, Root};
use crate::teardown;

/// Lines of each host's journal that a failure shows.
const TAIL: usize = 80;

#[derive(Debug)]
pub struct Fleet(Arc<Run>);

/// What all hosts of a run hold together.
#[derive(Debug)]
pub struct Run {
    pub number: RunNumber,
    folder: PathBuf,
    /// Bytes that the hosts' disks may come to take.
    reserved: u64,
    claim: Option<Claim>,
    /// Until it has done its work.
    keeper: Option<Keeper>,
    hosts: Mutex<Vec<(String, Cgroup)>>,
    made: AtomicU8,
}

impl Fleet {
    /// Removes what dead runs left, and makes an empty network. `disks`: what each disk begins as that there will be, snapshots
    /// among them; where the machine has no room for them the error is a [`room::Shortage`].
    pub async fn create(disks: &[Root]) -> anyhow::Result<Self> {
        let abandoned = tokio::task::spawn_blocking(teardown::remove_abandoned);
        if let Err(error) = abandoned.await? {
            eprintln!("of a dead run something stays, see `fleet clean`: {error:#}");
        }
        let mut claim = Claim::take(teardown::remove)?;
        let number = claim.number;
        let folder = root::folder()?.join("runs").join(number.to_string());
        teardown::remove_unclaimed(&root::folder()?.join("runs"), number)?;
        let reserved = match room::reserve(&mut claim, &folder, disks) {
            Ok(reserved) => reserved,
            Err(error) => {
                claim.forget()?;
                return Err(error);
            }
        };
        let keeper = Keeper::start(number)?;
        let run =
            Run { number, folder, reserved, claim: Some(claim), keeper: Some(keeper), hosts: Mutex::default(), made: AtomicU8::new(0) };
        let fleet = Self(Arc::new(run));
        std::fs::create_dir_all(&fleet.0.folder).with_context(|| format!("making {}", fleet.0.folder.display()))?;
        network::make_bridge(number).await?;
        Ok(fleet)
    }

    /// Removes everything, and says what could not be. No host of it may be held any more.
    pub fn finish(self) -> anyhow::Result<()> {
        let mut run = Arc::into_inner(self.0).context("a host of the run is still held")?;
        run.finish()
    }

    /// A new host that is off.
    pub async fn host(&self, name: &str, root: Root) -> anyhow::Result<Host> {
        self.make(name, root.cached().await?).await
    }

    /// A new host that is off, with the disk that another one had: nothing but name and address are its own.
    pub async fn copy(&self, name: &str, of: &Host, snapshot: &str) -> anyhow::Result<Host> {
        self.make(name, of.as_root(snapshot)).await
    }

    async fn make(&self, name: &str, root: CachedRoot) -> anyhow::Result<Host> {
        let port = Port::new(self.0.number, self.0.made.fetch_add(1, Ordering::Relaxed));
        let cgroup = Cgroup::of_host(self.0.number, name)?;
        self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), cgroup.clone()));
        Host::make(Arc::clone(&self.0), name, root, port, cgroup).await
    }

    /// A new host that runs.
    pub async fn running(&self, name: &str, root: Root) -> anyhow::Result<Host> {
        let mut host = self.host(name, root).await?;
        host.boot().await?;
        Ok(host)
    }

    pub fn number(&self) -> RunNumber {
        self.0.number
    }

    /// Where the hosts' disks are, while the run lasts.
    pub fn folder(&self) -> &Path {
        self.0.folder()
    }

    /// Bytes that the hosts' disks may come to take, and those that they take now.
    pub fn room(&self) -> (u64, u64) {
        (self.0.reserved, room::taken(self.folder()))
    }

    /// What a failure shows: first whether the disk under the hosts gave out, then the end of every host's journal.
    pub fn evidence(&self) -> String {
        self.0.evidence()
    }
}

impl Run {
    fn finish(&mut self) -> anyhow::Result<()> {
        let Some(mut keeper) = self.keeper.take() else { return Ok(()) };
        // The keeper takes it over, and with it the work.
        drop(self.claim.take());
        keeper.finish()
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn evidence(&self) -> String {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let free = room::free(&self.folder).unwrap_or(0);
        let place = self.folder.display();
        let mut said = Vec::new();
        if free < room::SPARE {
            said.push(format!("--- the disk under {place} is full, or as good as: {free} bytes ({} MiB) are free ---", free / MIB));
        }
        let refused = hosts.iter().filter(|(_, cgroup)| guest::is_read_only(cgroup));
        said.extend(refused.map(|(name, _)| {
            format!(
                "--- {name} can write no more: its disk refused a write, as it does where the disk under {place} is full; {} MiB are free there now ---",
                free / MIB
            )
        }));
        said.extend(hosts.iter().map(|(name, cgroup)| format!("--- journal of {name} ---\n{}", guest::journal_tail(cgroup, TAIL))));
        said.join("\n")
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.evidence());
        }
        if let Err(error) = self.finish() {
            eprintln!("run {} may not be removed: {error:#}", self.number);
        }
    }
}
