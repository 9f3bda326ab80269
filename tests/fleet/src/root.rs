//! The file systems that hosts begin with: Debian, made once by debootstrap and kept under `target/fleet/`.
//!
//! Invariants: a cached root is whole (it is built aside and renamed) and is what the text of its recipe
//! says (its name holds that text's digest); two runs that need the same one build it once.

use std::fs::File;
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
        loop {
            let lock = lock_of(&cache, &self.key())?;
            let lock = tokio::task::spawn_blocking(move || lock.lock_shared().map(|()| lock)).await?.context("locking the cache")?;
            if kept.exists() {
                return Ok(CachedRoot { image: kept.join("image"), key: kept.join("key"), lock: Arc::new(lock) });
            }
            drop(lock);
            // Where another run builds this root, all there is to do is to wait for it.
            let lock = lock_of(&cache, &self.key())?;
            let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await?.context("locking the cache")?;
            if !kept.exists() {
                self.make(&cache, &kept).await?;
                self.remove_outdated(&cache)?;
            }
            drop(lock);
        }
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
            let lock = lock_of(cache, key)?;
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
fn lock_of(cache: &Path, key: &str) -> anyhow::Result<File> {
    let path = cache.join(format!("{key}.lock"));
    File::create(&path).with_context(|| format!("opening {}", path.display()))
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
