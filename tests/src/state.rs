//! Whether the collector's picture of a host is what lies on its disk.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use sha2::{Digest, Sha256};
use trueline_drift::text;

use crate::agent::Agent;
use crate::collector::Collector;
use crate::wait;

/// Items beneath a folder, the folder itself included: each file with its SHA-256, all else with none.
type Picture = BTreeMap<String, Option<String>>;

fn on_disk(folder: &Path, picture: &mut Picture) -> anyhow::Result<()> {
    picture.insert(item(folder), None);
    for entry in std::fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        let metadata = path.symlink_metadata()?;
        if metadata.is_dir() {
            on_disk(&path, picture)?;
        } else {
            let digest = if metadata.is_file() { Some(hex::encode(Sha256::digest(std::fs::read(&path)?))) } else { None };
            picture.insert(item(&path), digest);
        }
    }
    Ok(())
}

/// As the product names it: `file:` and the escaped path.
pub fn item(path: &Path) -> String {
    format!("file:{}", text::printable(path.as_os_str().as_bytes()))
}

async fn at_collector(collector: &Collector, host: &str) -> anyhow::Result<Picture> {
    let mut picture = Picture::new();
    let note = |row: &mut serde_json::Value| {
        let digest = row["fields"]["sha256"].as_str().map(str::to_owned);
        picture.extend(row["item"].as_str().map(|item| (item.to_owned(), digest)));
    };
    collector.rest().each(&format!("/hosts/{host}/items"), &[("kind", "file")], note).await?;
    Ok(picture)
}

/// Waits until the collector's state of the host equals the folder, which the agent must be watching
/// alone. Where it never does, the error names the first differences.
pub async fn equals_disk(collector: &Collector, agent: &Agent, folder: &Path, limit: Duration) -> anyhow::Result<()> {
    let mut disk = Picture::new();
    on_disk(folder, &mut disk)?;
    let mut last = String::new();
    let waited = wait::until("the collector's state to equal the disk", limit, async || {
        // A listing of all items costs much more than their count, which is an estimate between two
        // inventories: list when it is about right.
        let count = agent.shown(collector).await?["items"].as_u64().unwrap_or(0);
        if count.abs_diff(disk.len() as u64) * 100 > disk.len() as u64 {
            last = format!("{count} items at the collector, {} on the disk", disk.len());
            return Ok(None);
        }
        let held = at_collector(collector, agent.host()).await?;
        let unknown = held.keys().filter(|item| !disk.contains_key(*item)).count();
        let differs: Vec<&String> = disk.iter().filter(|(item, digest)| held.get(*item) != Some(digest)).map(|(item, _)| item).collect();
        last = format!("{} items differ, among them {:?}; {unknown} are not on the disk", differs.len(), &differs[..differs.len().min(3)]);
        Ok((differs.is_empty() && unknown == 0).then_some(()))
    })
    .await;
    waited.with_context(|| format!("{last}; the agent's log:\n{}", agent.log_tail()))
}

/// The coverage gaps of a host with this reason.
pub async fn gaps(collector: &Collector, host: &str, reason: &str) -> anyhow::Result<Vec<serde_json::Value>> {
    let gaps = collector.rest().all("/coverage", &[("host", host)]).await?;
    Ok(gaps.into_iter().filter(|gap| gap["reason"] == reason).collect())
}
