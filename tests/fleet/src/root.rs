//! The file systems that hosts begin with: Debian, made once by debootstrap and kept under `target/fleet/`.
//!
//! Invariants: a cached root is whole (it is built aside and renamed) and is what the text of its recipe
//! says (its name holds that text's digest); two runs that need the same one build it once.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sha2::{Digest, Sha256};

use crate::room::MIB;
use crate::tool::Call;

const RECIPE: &str = include_str!("root.sh");
/// Sparse: what a host has not written takes no space.
const IMAGE_SIZE: &str = "4G";
/// debootstrap downloads and unpacks for a minute or two on a fast line.
const BUILD_LIMIT: Duration = Duration::from_secs(900);
/// Before a root that another one is making or looking at is asked for again.
const LOOKING: Duration = Duration::from_millis(50);
/// Ends the name of a root that is being made.
const BUILDING: &str = ".building";
/// A small journal: all its blocks are written in time, on the machine's disk, for each host.
const FORMAT: [&str; 4] = ["-q", "-F", "-J", "size=16"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// sshd, sudo, cron; no more.
    Plain,
    /// And PostgreSQL, for a collector.
    Collector,
    /// And what changes hosts by itself: Python for Ansible, cloud-init, Puppet, unattended-upgrades, systemd-nspawn.
    Managed,
}

impl Root {
    pub const ALL: [Self; 3] = [Self::Plain, Self::Collector, Self::Managed];

    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Collector => "collector",
            Self::Managed => "managed",
        }
    }

    /// The most that a disk takes on the machine's that began as this root, with what else its host keeps there: half as much
    /// again as the largest that any story left (265, 675 and 495 MiB).
    pub const fn disk_limit(self) -> u64 {
        match self {
            Self::Plain => 400 * MIB,
            Self::Collector => 1024 * MIB,
            Self::Managed => 744 * MIB,
        }
    }

    /// What it takes to make: downloads, the unpacked root and the image beside it.
    pub const fn building_room(self) -> u64 {
        match self {
            Self::Plain => 640 * MIB,
            Self::Collector => 1536 * MIB,
            Self::Managed => 1280 * MIB,
        }
    }

    pub fn is_cached(self) -> anyhow::Result<bool> {
        Ok(cache()?.join(self.key()).exists())
    }

    fn key(self) -> String {
        let recipe = format!("{}\0{IMAGE_SIZE}\0{FORMAT:?}\0{RECIPE}", self.name());
        format!("{}-{}", self.name(), &hex::encode(Sha256::digest(recipe))[..12])
    }

    /// From the cache, or made now.
    pub async fn cached(self) -> anyhow::Result<CachedRoot> {
        let cache = cache()?;
        std::fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
        let kept = cache.join(self.key());
        let lock = made_once(&lock_path(&cache, &self.key()), &kept, async || {
            self.make(&cache, &kept).await?;
            self.remove_outdated(&cache)
        })
        .await?;
        Ok(CachedRoot { image: kept.join("image"), key: kept.join("key"), lock: Arc::new(lock) })
    }

    async fn make(self, cache: &Path, kept: &Path) -> anyhow::Result<()> {
        let building = cache.join(format!("{}{BUILDING}", self.key()));
        // Of a build that was killed.
        if building.exists() {
            std::fs::remove_dir_all(&building).with_context(|| format!("removing {}", building.display()))?;
        }
        let line = format!("making the Debian root `{}` in {}; this takes a minute or two, once\n", self.name(), cache.display());
        let _ = std::io::stderr().write_all(line.as_bytes());
        if let Err(error) = self.build(&building, &cache.join("debs")).await {
            let _ = std::fs::remove_dir_all(&building);
            return Err(error.context(format!("making the Debian root `{}`", self.name())));
        }
        std::fs::rename(&building, kept).with_context(|| format!("keeping {}", kept.display()))
    }

    /// Roots of this kind that an earlier recipe made, unless a run still has hosts of them.
    fn remove_outdated(self, cache: &Path) -> anyhow::Result<()> {
        let (beginning, own) = (format!("{}-", self.name()), self.key());
        for entry in std::fs::read_dir(cache).context("listing the cache")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let key = name.strip_suffix(BUILDING).unwrap_or(&name);
            if !key.starts_with(&beginning) || key == own || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let lock = open_lock(&lock_path(cache, key))?;
            if lock.try_lock().is_ok() {
                std::fs::remove_dir_all(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
            }
        }
        Ok(())
    }

    async fn build(self, building: &Path, debs: &Path) -> anyhow::Result<()> {
        let (root, image, key) = (building.join("root"), building.join("image"), building.join("key"));
        for folder in [building, debs] {
            std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        Call::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "fleet", "-f"]).arg(&key).run().await?;
        // What it mounts and starts ends with it, and it ends with this process.
        let alone = ["--pdeathsig", "KILL", "--", "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"];
        let script = ["--mount-proc", "sh", "-c", RECIPE, "root.sh"];
        let call = Call::new("setpriv").args(alone).args(script).arg(&root).arg(self.name()).arg(building.join("key.pub")).arg(debs);
        // Held until the new one is made of it.
        let plain = if self == Self::Plain { None } else { Some(Box::pin(Self::Plain.cached()).await?) };
        let call = call.args(plain.as_ref().map(|plain| &plain.image));
        call.within(BUILD_LIMIT).run().await?;
        Call::new("truncate").args(["-s", IMAGE_SIZE]).arg(&image).run().await?;
        Call::new("mkfs.ext4").args(FORMAT).arg("-d").arg(&root).arg(&image).within(BUILD_LIMIT).run().await?;
        std::fs::remove_dir_all(&root).context("removing the unpacked root")
    }
}

/// What a host begins with: copied, never written.
#[derive(Debug, Clone)]
pub struct CachedRoot {
    /// An ext4 file system.
    pub image: PathBuf,
    /// The private key that its users let in.
    pub key: PathBuf,
    #[expect(dead_code, reason = "held for as long as a host uses any of it")]
    pub(crate) lock: Arc<File>,
}

/// The lock of a root: shared while it is used, whole while it is made or removed.
fn lock_path(cache: &Path, key: &str) -> PathBuf {
    cache.join(format!("{key}.lock"))
}

fn open_lock(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("opening {}", path.display()))
}

/// The lock, shared, once `kept` is there: one of those who come makes it, and the others wait.
async fn made_once(lock: &Path, kept: &Path, make: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<File> {
    loop {
        let shared = open_lock(lock)?;
        let shared = tokio::task::spawn_blocking(move || shared.lock_shared().map(|()| shared)).await?.context("locking the cache")?;
        if kept.exists() {
            return Ok(shared);
        }
        drop(shared);
        // Never waited for: who waited for the whole of it would wait until all that use what was made meanwhile have ended.
        let whole = open_lock(lock)?;
        match whole.try_lock() {
            Ok(()) if !kept.exists() => make().await?,
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOOKING).await,
            Err(TryLockError::Error(error)) => return Err(error).context("locking the cache"),
        }
    }
}

fn cache() -> anyhow::Result<PathBuf> {
    Ok(folder()?.join("cache"))
}

/// `target/fleet`, which must be on a disk.
pub fn folder() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe().context("asking for the running program's path")?;
    let folder = here.parent().context("the running program has no folder")?;
    let profile = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(profile.parent().context("the running program is not in target/PROFILE")?.join("fleet"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Hosts of one test that begin with the same root at once: who comes late must not wait for the others to end.
    #[tokio::test]
    async fn those_who_need_it_at_once_have_it_made_once_and_use_it_together() {
        let folder = tempfile::tempdir().unwrap();
        let (lock, kept, made) = (folder.path().join("lock"), folder.path().join("kept"), AtomicUsize::new(0));
        let make = async || {
            made.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(LOOKING).await;
            Ok(std::fs::create_dir(&kept)?)
        };
        let come = || made_once(&lock, &kept, make);
        let using = tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(come(), come(), come()) }).await.unwrap();
        assert!(using.0.is_ok() && using.1.is_ok() && using.2.is_ok());
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }
}
