//! Room on the machine's disk for the disks of hosts, which are sparse and grow as their hosts write.
//!
//! Invariants: a run begins only where all that its disks may come to take is free, beside what other living runs have
//! reserved and not yet written; asking and noting are one step, so that no two runs count the same room as theirs.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::sys::statvfs::statvfs;

use crate::claim::{self, Claim};
use crate::root::Root;

pub const MIB: u64 = 1024 * 1024;
/// Less than this is as good as nothing: for whatever else the machine writes while hosts run.
pub const SPARE: u64 = 512 * MIB;

#[derive(Debug, thiserror::Error)]
#[error(
    "needs {needed} bytes ({} MiB) for the hosts' disks in {}, where {free} ({} MiB) are free{}: free some there (`cargo clean` in a \
     checkout that is done with, `fleet clean`), or set CARGO_TARGET_DIR to a larger disk",
    needed / MIB, folder.display(), free / MIB, of_others(*promised)
)]
pub struct Shortage {
    pub folder: PathBuf,
    pub needed: u64,
    pub free: u64,
    /// To other runs, of what is free.
    pub promised: u64,
}

fn of_others(promised: u64) -> String {
    if promised == 0 { String::new() } else { format!(", {promised} of them reserved by other runs") }
}

/// What disks that begin as these take at most, the making of roots that are not cached yet included.
fn needed(disks: &[Root]) -> anyhow::Result<u64> {
    let mut needed = SPARE + disks.iter().map(|root| root.disk_limit()).sum::<u64>();
    for root in Root::ALL {
        // The plain one is what each of the others is made of.
        let is_wanted = disks.contains(&root) || (root == Root::Plain && !disks.is_empty());
        if is_wanted && !root.is_cached()? {
            needed += root.building_room();
        }
    }
    Ok(needed)
}

/// Counts what disks that begin as these may take as the run's own from now on. How much that is; a [`Shortage`] where it is not
/// there.
pub fn reserve(claim: &mut Claim, folder: &Path, disks: &[Root]) -> anyhow::Result<u64> {
    let path = Path::new(claim::FOLDER).join("room");
    let lock = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
    lock.lock().with_context(|| format!("locking {}", path.display()))?;
    let mut promised = 0;
    for number in Claim::held()?.into_iter().filter(|number| *number != claim.number) {
        if let Some((folder, reserved)) = number.reservation() {
            promised += reserved.saturating_sub(taken(&folder));
        }
    }
    let (needed, free) = (needed(disks)?, free(folder)?);
    if free < needed.saturating_add(promised) {
        return Err(Shortage { folder: folder.to_owned(), needed, free, promised }.into());
    }
    claim.keeps(folder, needed)?;
    Ok(needed)
}

/// Bytes that the superuser can still write to the disk under this folder, which need not be there yet.
pub fn free(folder: &Path) -> anyhow::Result<u64> {
    let there = folder.ancestors().find(|path| path.exists()).with_context(|| format!("nothing is there of {}", folder.display()))?;
    let disk = statvfs(there).with_context(|| format!("asking for the room under {}", there.display()))?;
    Ok(disk.blocks_free() * disk.fragment_size())
}

/// Bytes on the disk of all that is in the folder, without the holes in files.
pub fn taken(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => taken(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        // Gone meanwhile.
        Err(_) => 0,
    };
    entries.map(of).sum()
}
