//! Names that another user of a host chose, end to end: seen by the agent, kept by the collector, and
//! never printed raw.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use trueline_tests::agent::{Agent, Watch};
use trueline_tests::collector::{Collector, Setting};
use trueline_tests::daemon::write;
use trueline_tests::database::{Database, Engine};
use trueline_tests::state::item;
use trueline_tests::{needs, wait};

const LIMIT: Duration = Duration::from_secs(60);

/// Folders within folders until the path is longer than PATH_MAX, made by relative steps, and a file
/// in the last. Answers the file's path.
fn beyond_path_max(start: &Path) -> anyhow::Result<std::path::PathBuf> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut folder: OwnedFd = openat(CWD, start, flags, Mode::empty())?;
    let mut path = start.to_owned();
    let name = "d".repeat(200);
    while path.as_os_str().len() < 4400 {
        mkdirat(&folder, &name, Mode::from_raw_mode(0o755))?;
        folder = openat(&folder, &name, flags, Mode::empty())?;
        path.push(&name);
    }
    let file = openat(&folder, "deep.conf", OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))?;
    File::from(file).write_all(b"deep\n")?;
    Ok(path.join("deep.conf"))
}

#[tokio::test]
async fn hostile_names_are_seen_and_escaped() -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let watched = folder.path().canonicalize()?.join("watched");
    std::fs::create_dir(&watched)?;
    let deep = beyond_path_max(&watched).context("making a path beyond PATH_MAX")?;
    let database = Database::start(Engine::Sqlite, folder.path()).await?;
    let collector = Collector::start(&database, Setting::default()).await?;
    let agent = Agent::start(&collector, &Watch::paths([&watched])).await?;
    let host = agent.inventoried(&collector, LIMIT).await?;
    let items = collector.rest().all(&format!("/hosts/{host}/items"), &[]).await?;
    let deep = item(&deep);
    ensure!(items.iter().any(|row| row["item"] == deep.as_str()), "a path of {} bytes is missing from the inventory", deep.len());
    collector.capture_baseline(&host, "before").await?;

    let long = "n".repeat(255);
    let names: [&[u8]; 6] =
        [b"not-utf8-\xff\xfe", b"new\nline", b"\x1b[2Jescape", "right\u{202e}left".as_bytes(), b"back\\slash", long.as_bytes()];
    for name in names {
        write(&watched.join(OsStr::from_bytes(name)), "hostile\n")?;
    }
    for name in names {
        let wanted = item(&watched.join(OsStr::from_bytes(name)));
        wait::until(&format!("the drift of {wanted}"), LIMIT, async || {
            let rows = collector.rest().get("/drift", &[("item", &wanted)]).await?;
            let row = rows["items"].as_array().and_then(|rows| rows.first().cloned());
            Ok(row.filter(|row| row["item"] == wanted.as_str() && row["field"] == "exists").map(drop))
        })
        .await
        .with_context(|| format!("the agent's log:\n{}", agent.log_tail()))?;
    }
    let (_, raw) = collector.rest().status("/api/v1/drift?limit=500").await?;
    let parsed: serde_json::Value = serde_json::from_str(&raw)?;
    let texts = parsed["items"].as_array().context("no items")?.iter().filter_map(|row| row["item"].as_str());
    for text in texts {
        ensure!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "a name is shown raw: {text:?}");
    }
    Ok(())
}
