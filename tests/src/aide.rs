//! AIDE on a tree, told to note what the agent notes: SHA-256 and all metadata of each file.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

#[derive(Debug)]
pub struct Aide {
    pub version: String,
    /// Making its database of the tree.
    pub init: Duration,
    /// Holding the tree, which has not changed, against it.
    pub check: Duration,
}

/// As Debian's package has it; its files go into `folder`.
pub fn measure(root: &Path, folder: &Path) -> anyhow::Result<Aide> {
    let (configuration, database) = (folder.join("aide.conf"), folder.join("database"));
    let attributes = "ftype+p+i+n+u+g+s+m+c+acl+xattrs+e2fsattrs+caps+sha256";
    let text = format!(
        "database_in=file:{database}\ndatabase_out=file:{database}\ngzip_dbout=no\nreport_url=stdout\n{root} {attributes}\n",
        database = database.display(),
        root = root.display(),
    );
    std::fs::write(&configuration, text).with_context(|| format!("writing {}", configuration.display()))?;
    let version = Command::new("aide").arg("--version").output().context("running aide: install it (apt-get install aide)")?;
    let printed = [version.stdout, version.stderr].concat();
    let version = String::from_utf8_lossy(&printed).lines().next().unwrap_or("unknown").to_owned();
    let run = |task: &str| -> anyhow::Result<Duration> {
        let start = Instant::now();
        let mut command = Command::new("aide");
        let ended = command.arg("--config").arg(&configuration).arg(task).stdout(Stdio::null()).output()?;
        // From 1 to 7 it has found differences, which a tree at rest has not.
        ensure!(ended.status.success(), "aide {task} ended with {}: {}", ended.status, String::from_utf8_lossy(&ended.stderr));
        Ok(start.elapsed())
    };
    Ok(Aide { version, init: run("--init")?, check: run("--check")? })
}
