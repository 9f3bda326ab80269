//! What a start finds on disk: whose it is, the key of its digests, state and spool, brought up to each other.
//!
//! Invariant: nothing outside the data directory is written, so that it can be done by a confined thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};
use trueline_drift::redact::RedactionKey;
use trueline_drift::{Epoch, Time};

use super::RunError;
use crate::clock;
use crate::config::Config;
use crate::enrol::unsent;
use crate::identity::Identity;
use crate::observer::catch_up;
use crate::spool::{Recovery, Spool, SpoolError, SpoolLimit};
use crate::state::State;

const STATE_CACHE: usize = 2 * 1024 * 1024;

/// All of it, open and locked.
pub struct Opened {
    pub(super) config: Config,
    pub(super) identity: Identity,
    pub(super) key: RedactionKey,
    pub(super) state: Arc<State>,
    pub(super) spool: Arc<Spool>,
    pub(super) recovery: Recovery,
    /// Touched while the agent lives.
    pub(super) alive_file: PathBuf,
    /// Since when nobody looked.
    pub(super) since: Time,
    /// Records of the identity before that were dropped.
    pub(super) dropped: u64,
}

/// Opens what is on disk for an enrolled host.
pub fn open(config: Config) -> Result<Opened, RunError> {
    let identity = Identity::load(&config.data_dir)?;
    let dropped = belong_to(&config.data_dir, &identity)?;
    let alive_file = config.data_dir.join("alive");
    let since = modified(&alive_file).map_or_else(clock::now, |alive| alive.min(clock::now()));
    let key = redaction_key(&config.data_dir)?.with_rules(config.redaction.clone());

    let mark = clock::now().micros().to_string();
    let (state, set_aside) = State::open(&config.data_dir.join("state.redb"), STATE_CACHE, &mark)?;
    let state = Arc::new(state);
    let known = Some(state.spooled()).filter(|(epoch, _)| *epoch != Epoch::default());
    let limit = SpoolLimit { bytes: config.spool_mib * 1024 * 1024, ..SpoolLimit::default() };
    let new_epoch = || Epoch(u64::try_from(clock::now().micros()).unwrap_or(1));
    let folder = config.data_dir.join("spool");
    let (mut spool, mut recovery) = Spool::open(&folder, limit, known, new_epoch)?;
    if let Some(aside) = &set_aside {
        warn!(to = %aside.to.display(), reason = %aside.reason, "the state was damaged and set aside; taking the inventory again");
        // What was removed while nobody remembers it is told by an inventory in a new epoch alone.
        spool.begin_anew_after(recovery.epoch)?;
        drop(spool);
        (spool, recovery) = Spool::open(&folder, limit, None, new_epoch)?;
        // For the state's sake, and not because of the collector's numbers.
        recovery.renumbered = false;
    }
    let spool = Arc::new(spool);
    if recovery.truncated_bytes > 0 {
        info!(bytes = recovery.truncated_bytes, "the torn end of the spool was cut off; its changes are found again");
    }
    let replayed = catch_up(&spool, &state)?;
    if replayed > 0 {
        info!(records = replayed, "the state was brought up to the spool");
    }
    Ok(Opened { config, identity, key, state, spool, recovery, alive_file, since, dropped })
}

/// State and spool belong to one identity: a host that was enrolled anew is a new host, and its
/// collector knows nothing of it. How many records of the host before are dropped.
fn belong_to(data_dir: &Path, identity: &Identity) -> Result<u64, RunError> {
    let path = data_dir.join("belongs_to");
    let owner = identity.host.to_string();
    let mut dropped = 0;
    match std::fs::read_to_string(&path) {
        Ok(text) if text == owner => return Ok(0),
        // A file that a power cut left empty says nothing.
        Ok(text) if text.is_empty() => {}
        Ok(_) => {
            dropped = match unsent(data_dir) {
                Ok(count) => count,
                Err(error @ SpoolError::InUse { .. }) => return Err(error.into()),
                Err(error) => {
                    warn!(%error, "how many records of the host before are dropped is not known");
                    0
                }
            };
            info!(dropped, "the host was enrolled anew: its inventory is taken again");
            for name in ["spool", "state.redb"] {
                let old = data_dir.join(name);
                let removed = if old.is_dir() { std::fs::remove_dir_all(&old) } else { std::fs::remove_file(&old) };
                match removed {
                    Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                        return Err(RunError::Io { operation: "remove", path: old, source });
                    }
                    _ => {}
                }
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(RunError::Io { operation: "read", path, source }),
    }
    replace(&path, owner.as_bytes()).map_err(|source| RunError::Io { operation: "write", path, source })?;
    Ok(dropped)
}

/// Writes a file whole or not at all, readable by its owner alone.
fn replace(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

/// The key of this host's redaction digests, made once.
pub fn redaction_key(data_dir: &Path) -> Result<RedactionKey, RunError> {
    let path = data_dir.join("redaction.key");
    let fail = |operation, source| RunError::Io { operation, path: path.clone(), source };
    match std::fs::read(&path) {
        Ok(bytes) => match <[u8; 32]>::try_from(bytes) {
            Ok(key) => return Ok(RedactionKey::new(key)),
            Err(_) => warn!(path = %path.display(), "the redaction key is damaged; making another, which shows as changed passwords"),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail("read", error)),
    }
    let key: [u8; 32] = rand::random();
    replace(&path, &key).map_err(|error| fail("write", error))?;
    Ok(RedactionKey::new(key))
}

/// When the file was last touched: the agent was alive then.
fn modified(path: &Path) -> Option<Time> {
    let modified = std::fs::metadata(path).ok()?.modified().ok()?;
    let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_micros()).ok().map(Time::from_micros)
}
