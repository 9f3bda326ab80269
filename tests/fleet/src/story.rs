//! One test on hosts of its own: it has an end, a failure shows the hosts' journals, and nothing stays.

use std::time::Duration;

use anyhow::{Context, ensure};
use trueline_tests::needs::need;

use crate::fleet::Fleet;
use crate::room::{MIB, Shortage};
use crate::root::Root;
use crate::teardown::left_of;

/// For a whole story, a cached root at hand.
const LIMIT: Duration = Duration::from_secs(900);

/// `disks`: what each disk begins as that the story makes, snapshots among them.
pub async fn story(disks: &[Root], told: impl AsyncFnOnce(&Fleet) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let fleet = match Fleet::create(disks).await {
        Err(error) if error.is::<Shortage>() => {
            need(false, &format!("{error:#}"));
            return Ok(());
        }
        other => other?,
    };
    let ended = tokio::time::timeout(LIMIT, Box::pin(told(&fleet))).await;
    let ended = ended.with_context(|| format!("the story did not end within {} s", LIMIT.as_secs())).flatten();
    if ended.is_err() {
        eprintln!("{}", fleet.evidence());
    }
    let (reserved, taken) = fleet.room();
    eprintln!("disks of {} hosts and snapshots: {} MiB, of {} MiB reserved", disks.len(), taken / MIB, reserved / MIB);
    let (number, folder) = (fleet.number(), fleet.folder().to_owned());
    let removed = fleet.finish();
    ended?;
    removed?;
    ensure!(taken <= reserved, "the story took {taken} bytes of disk and had reserved {reserved}: see `Root::disk_limit`");
    // The keeper let go of the number when nothing was left. Who has it now is another run, and what is there is that run's.
    let left = if number.is_known() { Vec::new() } else { left_of(number, &folder)? };
    ensure!(left.is_empty(), "something of the run is left: {left:?}");
    Ok(())
}
