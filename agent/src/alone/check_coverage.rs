//! `trueline-agent check-coverage`: each kind of change is made to a canary, and each sensor says
//! whether it saw it and whom it named.
//!
//! Touches nothing but its own folder, and one kernel setting that is written with the value it has.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{ItemKind, text};

use super::watch::Output;
use crate::kernel::change;
use crate::sensor::{Preference, SensorCounters, Sensors, Signal, Target};

/// How long a sensor has to report a change.
const PATIENCE: Duration = Duration::from_millis(1500);
const SETTING: &str = "kernel.panic_on_oops";

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
enum Outcome {
    Seen {
        /// From the operation to the signal.
        microseconds: u64,
        /// Whether this process was named as the one that did it.
        actor: ActorFound,
    },
    Missed,
    /// The kernel tells nobody of this: it is found by reading again, whatever the sensor.
    Untold,
    /// The operation itself is not possible here.
    NotTried {
        reason: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ActorFound {
    Right,
    Wrong,
    None,
}

#[derive(Debug, Serialize)]
struct Row {
    sensor: &'static str,
    operation: &'static str,
    #[serde(flatten)]
    outcome: Outcome,
}

type Act = fn(&Path) -> io::Result<PathBuf>;

/// Each operation makes its change in the canary folder and names the path that must be reported.
const OPERATIONS: &[(&str, Act)] = &[
    ("create a file", |folder| File::create(folder.join("created")).map(|_| folder.join("created"))),
    ("write a file", |folder| fs::write(folder.join("file"), "changed").map(|()| folder.join("file"))),
    ("append to a file kept open", |folder| {
        let path = folder.join("file");
        let mut file = OpenOptions::new().append(true).open(&path)?;
        file.write_all(b"more")?;
        // Open for longer than anybody waits: the write itself must be seen.
        std::mem::forget(file);
        Ok(path)
    }),
    ("write in place", |folder| {
        let path = folder.join("file");
        let mut file = OpenOptions::new().write(true).open(&path)?;
        file.seek(SeekFrom::Start(1))?;
        file.write_all(b"X").map(|()| path)
    }),
    ("truncate", |folder| {
        let path = folder.join("file");
        OpenOptions::new().write(true).open(&path)?.set_len(1).map(|()| path)
    }),
    ("replace by rename", |folder| {
        fs::write(folder.join("next"), "next")?;
        fs::rename(folder.join("next"), folder.join("file")).map(|()| folder.join("file"))
    }),
    ("change the mode", |folder| fs::set_permissions(folder.join("file"), Permissions::from_mode(0o600)).map(|()| folder.join("file"))),
    ("change the owner", |folder| {
        let path = folder.join("file");
        std::os::unix::fs::chown(&path, Some(nix::unistd::getuid().as_raw()), None).map(|()| path)
    }),
    ("set the modification time", |folder| {
        let path = folder.join("file");
        let file = OpenOptions::new().write(true).open(&path)?;
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).map(|()| path)
    }),
    ("set an extended attribute", |folder| set_xattr(folder, c"user.canary", b"1")),
    ("set an ACL", |folder| set_xattr(folder, c"system.posix_acl_access", &acl())),
    // Version 2, nothing permitted (linux/capability.h).
    ("set capabilities", |folder| set_xattr(folder, c"security.capability", &[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
    (FLAGS, |folder| {
        let path = folder.join("file");
        change::toggle_flag(&File::open(&path)?).map(|()| path)
    }),
    ("make a hard link", |folder| fs::hard_link(folder.join("file"), folder.join("hard")).map(|()| folder.join("hard"))),
    ("make a symbolic link", |folder| std::os::unix::fs::symlink("file", folder.join("soft")).map(|()| folder.join("soft"))),
    ("make a folder", |folder| fs::create_dir(folder.join("folder")).map(|()| folder.join("folder"))),
    ("write in the new folder", |folder| fs::write(folder.join("folder/inner"), "x").map(|()| folder.join("folder/inner"))),
    ("rename a folder", |folder| fs::rename(folder.join("folder"), folder.join("renamed")).map(|()| folder.join("renamed"))),
    ("write in the renamed folder", |folder| fs::write(folder.join("renamed/later"), "x").map(|()| folder.join("renamed/later"))),
    ("delete a file", |folder| fs::remove_file(folder.join("created")).map(|()| folder.join("created"))),
    ("delete a folder with its files", |folder| fs::remove_dir_all(folder.join("renamed")).map(|()| folder.join("renamed"))),
    ("a name that is not UTF-8", |folder| {
        let path = folder.join(std::ffi::OsStr::from_bytes(b"name-\xff\n"));
        File::create(&path).map(|_| path)
    }),
];

/// No kernel up to 6.18 reports it: ioctl_iflags(2) makes no event.
const FLAGS: &str = "set a flag (chattr)";

fn set_xattr(folder: &Path, name: &std::ffi::CStr, value: &[u8]) -> io::Result<PathBuf> {
    let path = folder.join("file");
    let file = OpenOptions::new().write(true).open(&path)?;
    change::set_xattr(&file, name, value)?;
    // Kept open for longer than anybody waits: the attribute must be seen, not the close.
    std::mem::forget(file);
    Ok(path)
}

/// As the attribute holds it (linux/posix_acl_xattr.h), version 2: `user::rw-,user:0:r--,group::r--,mask::r--,other::r--`.
fn acl() -> Vec<u8> {
    const UNDEFINED: u32 = u32::MAX;
    let entries: [(u16, u16, u32); 5] = [(1, 6, UNDEFINED), (2, 4, 0), (4, 4, UNDEFINED), (0x10, 4, UNDEFINED), (0x20, 4, UNDEFINED)];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Runs every operation under every sensor. Exit code 1 when the sensor in use misses something.
pub fn run(folder: Option<PathBuf>, output: Output) -> anyhow::Result<ExitCode> {
    let base = folder.unwrap_or_else(std::env::temp_dir);
    let base = base.canonicalize().with_context(|| format!("looking for {}", base.display()))?;
    let mut rows = Vec::new();
    for preference in [Preference::Best, Preference::InotifyOnly] {
        let canary = base.join(format!("trueline-canary-{:016x}", rand::random::<u64>()));
        fs::create_dir(&canary).with_context(|| format!("making {}", canary.display()))?;
        let tried = try_sensor(preference, &canary);
        if let Err(error) = fs::remove_dir_all(&canary) {
            tracing::warn!(path = %canary.display(), %error, "the canary could not be removed");
        }
        let (sensor, outcomes) = tried?;
        // The best sensor may be inotify itself.
        if rows.iter().all(|row: &Row| row.sensor != sensor) {
            rows.extend(outcomes);
        }
    }
    print(&rows, output)?;
    let best = rows.first().map(|row| row.sensor);
    let has_missed = rows.iter().any(|row| Some(row.sensor) == best && row.outcome == Outcome::Missed);
    Ok(if has_missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn try_sensor(preference: Preference, canary: &Path) -> anyhow::Result<(&'static str, Vec<Row>)> {
    fs::write(canary.join("file"), "first")?;
    let mut policy = WatchPolicy::only_paths(vec![text::printable(canary.as_os_str().as_bytes()).into_owned()]);
    policy.exclude.clear();
    policy.kinds.push(ItemKind::Sysctl);
    let (sender, signals) = sync_channel(1024);
    let sensors = Sensors::start_with(preference, &policy, sender, Arc::new(SensorCounters::default()))?;
    let is_file_row = |row: &crate::sensor::Coverage| row.scope.starts_with("file:");
    let sensor = sensors.coverage().into_iter().find(is_file_row).map_or("none", |row| row.name);
    let mut rows = Vec::new();
    for (operation, act) in OPERATIONS {
        let started = Instant::now();
        let outcome = match act(canary) {
            Ok(path) => match wait_for(&signals, &Target::Path(path.as_os_str().as_bytes().to_vec()), started) {
                Outcome::Missed if *operation == FLAGS => Outcome::Untold,
                outcome => outcome,
            },
            Err(error) => Outcome::NotTried { reason: error.to_string() },
        };
        rows.push(Row { sensor, operation, outcome });
    }
    let started = Instant::now();
    let outcome = match rewrite_setting() {
        Ok(()) => wait_for(&signals, &Target::Sysctl(SETTING.to_owned()), started),
        Err(error) => Outcome::NotTried { reason: error.to_string() },
    };
    rows.push(Row { sensor, operation: "write a kernel setting", outcome });
    Ok((sensor, rows))
}

fn rewrite_setting() -> io::Result<()> {
    let path = format!("/proc/sys/{}", SETTING.replace('.', "/"));
    let value = fs::read(&path)?;
    OpenOptions::new().write(true).open(&path)?.write_all(&value)
}

fn wait_for(signals: &Receiver<Signal>, target: &Target, started: Instant) -> Outcome {
    let deadline = started + PATIENCE;
    loop {
        match signals.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Signal::Touched(touch)) if touch.target == *target => {
                let pid = touch.actor.as_ref().and_then(|actor| actor.process.as_ref()).map(|process| process.pid);
                let actor = match pid {
                    None => ActorFound::None,
                    Some(pid) if pid == std::process::id() => ActorFound::Right,
                    Some(_) => ActorFound::Wrong,
                };
                return Outcome::Seen { microseconds: started.elapsed().as_micros() as u64, actor };
            }
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Outcome::Missed,
        }
    }
}

fn print(rows: &[Row], output: Output) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for row in rows {
        match output {
            Output::JsonLines => writeln!(out, "{}", serde_json::to_string(row)?)?,
            Output::Text => {
                let outcome = match &row.outcome {
                    Outcome::Seen { microseconds, actor } => {
                        let actor = match actor {
                            ActorFound::Right => "names the process",
                            ActorFound::Wrong => "NAMES ANOTHER PROCESS",
                            ActorFound::None => "names no process",
                        };
                        format!("seen after {microseconds} us, {actor}")
                    }
                    Outcome::Untold => "no event tells of it; found by reading again".to_owned(),
                    Outcome::Missed => "MISSED (found only by reading again)".to_owned(),
                    Outcome::NotTried { reason } => format!("not tried: {reason}"),
                };
                writeln!(out, "{:<9} {:<32} {outcome}", row.sensor, row.operation)?;
            }
        }
    }
    Ok(())
}
