//! How many hosts start at once on this machine, in all runs together: what boots wants all processors.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use trueline_tests::wait;

use crate::claim;

const SLOTS: usize = 2;
/// For other hosts to be up.
const LIMIT: Duration = Duration::from_secs(300);

/// Held while a host starts. Its lock goes with the process that holds it.
#[derive(Debug)]
pub struct BootSlot(#[expect(dead_code, reason = "held for its lock")] File);

impl BootSlot {
    pub async fn take() -> anyhow::Result<Self> {
        wait::until("a turn to boot", LIMIT, async || {
            for slot in 0..SLOTS {
                let path = Path::new(claim::FOLDER).join(format!("boot-{slot}"));
                let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
                match file.try_lock() {
                    Ok(()) => return Ok(Some(Self(file))),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => return Err(error).context("locking a turn to boot"),
                }
            }
            Ok(None)
        })
        .await
    }
}
