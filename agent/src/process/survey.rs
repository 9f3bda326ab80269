//! Reads processes from /proc for the table: all of them at the start and after a loss, and one where a feed tells only that
//! something happened to it.
//!
//! What a process runs vanishes first when it ends, so it is read first.

use std::collections::HashSet;
use std::fs::read_dir;
use std::sync::Arc;

use super::cgroups::Cgroups;
use super::event::{Arguments, BootTime, Executable, Program, Standing, Subject};
use super::generation::TICK;
use super::login::{Login, SelfGiven};
use super::table::{Seen, Table};
use crate::actor::folder::ProcessFolder;
use crate::actor::procfs::{self, Stat};

const STATUS: usize = 4096;
const CGROUPS: usize = 16 << 10;
/// Makers that are asked whether they vouch for a login.
const ABOVE: usize = 64;
/// Takes in what others have left behind.
const FIRST_PROCESS: u32 = 1;

/// Every process of the agent's pid namespace.
pub fn survey(table: &mut Table, cgroups: &mut Cgroups, self_given: &mut SelfGiven) {
    let began = BootTime::now();
    let mut living = HashSet::new();
    let mut unknown = Vec::new();
    for entry in read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(seen) = see(pid, cgroups) {
            living.insert(pid);
            let found = seen.standing.as_deref().map(Login::from);
            let vouched = |login_uid, session| is_vouched_for(pid, Some(seen.parent), login_uid, session);
            match (table.standing(Subject { pid, started: Some(seen.started) }), found) {
                (Some(was), Some(found)) => self_given.judge(was, found, vouched),
                (None, Some(found)) if !self_given.trust_if(found, vouched) => unknown.push(found.session),
                _ => {}
            }
            table.see(seen);
        }
    }
    // Nobody who has one of these sessions vouched for it.
    let untrusted = unknown.into_iter().filter(|session| !self_given.is_given(*session)).collect::<Vec<_>>();
    untrusted.into_iter().for_each(|session| self_given.distrust(session));
    if !living.is_empty() {
        table.end_others(&living, began);
    }
}

fn see(pid: u32, cgroups: &mut Cgroups) -> Option<Seen> {
    let folder = ProcessFolder::open(pid)?;
    let Look { program, stat } = look(&folder)?;
    let standing = standing(&folder, &stat, cgroups);
    let until = BootTime::now();
    Some(Seen {
        pid,
        started: started(&stat),
        parent: stat.parent,
        program: program.map(Arc::new),
        standing: standing.map(Arc::new),
        until,
    })
}

/// A process as /proc shows it.
pub struct Look {
    /// A thread of the kernel runs nothing; `None` for one that has ended.
    pub program: Option<Program>,
    /// Read last.
    pub stat: Stat,
}

/// `None` for a process that has been reaped. Each file costs a good part of what a short-lived process lives, so none is read twice
/// without need.
pub fn look(folder: &ProcessFolder) -> Option<Look> {
    let executable = folder.link("exe");
    let file = folder.executable();
    // The arguments lie in its memory: of a process that waits for a device or a server that does not answer, whoever reads them
    // may wait as long.
    let is_stuck = folder.stat().is_none_or(|(stat, _)| stat.is_stuck);
    let arguments = if is_stuck { None } else { folder.bytes("cmdline", procfs::ARGUMENT_BYTES) };
    let cwd = folder.link("cwd").map(Arc::from);
    let (stat, _) = folder.stat()?;
    // In the midst of an exec there are no arguments yet: the files that it closes are still the former program's.
    let is_settled = executable.is_some() && stat.arguments_at != 0;
    if !is_settled && !stat.is_kernels {
        return Some(Look { program: None, stat });
    }
    let executable = executable.map(|path| {
        let (path, removed) = path.strip_suffix(" (deleted)").map_or((path.as_str(), false), |path| (path, true));
        let (device, inode) = (file.map(|file| file.device), file.map(|file| file.inode));
        Executable { path: Arc::from(path), removed, device, inode, changed: file.and_then(|file| file.changed) }
    });
    let arguments = Arguments::new(&arguments.unwrap_or_default());
    let program = Program { name: stat.name.clone(), executable, script: None, arguments, cwd };
    Some(Look { program: Some(program), stat })
}

/// To the clock tick.
pub const fn started(stat: &Stat) -> BootTime {
    BootTime::from_nanos(stat.started.saturating_mul(TICK))
}

/// On whose behalf a process runs.
pub fn standing(folder: &ProcessFolder, stat: &Stat, cgroups: &mut Cgroups) -> Option<Standing> {
    let (login_uid, session) = audit_ids(folder);
    let (uid, euid) = users(folder)?;
    Some(Standing {
        uid,
        euid,
        login_uid,
        session,
        cgroup: cgroup(folder, cgroups),
        terminal: Some(stat.terminal).filter(|terminal| *terminal != 0),
        pid_namespace: folder.link("ns/pid").and_then(|link| namespace(&link)),
        mount_namespace: folder.link("ns/mnt").and_then(|link| namespace(&link)),
    })
}

/// Real and effective user.
pub fn users(folder: &ProcessFolder) -> Option<(u32, u32)> {
    folder.bytes("status", STATUS).and_then(|bytes| procfs::parse_users(&bytes))
}

pub fn login(folder: &ProcessFolder) -> Option<Login> {
    let (login_uid, session) = audit_ids(folder);
    Some(Login { login_uid, session, uid: users(folder)?.0 })
}

/// Whether the session was begun by root: the topmost process that has it, of those that this one comes of, is root without a
/// set-user-ID program, and so is the one that made that. Or it is in the slice of the user whose login that is.
///
/// Nobody gives a session to his maker. But who has given himself one hands it on to what sudo runs for him, which is root and, once
/// those above it have ended, the topmost: it is then no child of root's but has been taken in by the first process or by one of his own.
/// `parent` is asked of /proc where it is not known.
pub fn is_vouched_for(pid: u32, parent: Option<u32>, login_uid: u32, session: u32) -> bool {
    let Some(own) = of_session(pid, session) else {
        return parent.is_some_and(|parent| of_session(parent, session).is_some() && is_vouched_for(parent, None, login_uid, session));
    };
    if is_in_slice_of(&own, login_uid) {
        return true;
    }
    // Between writing the login and becoming the user root is that user for a moment by the real id alone: pam_keyinit(8) makes his
    // keyring so.
    let is_root = |folder: &ProcessFolder| users(folder).is_some_and(|(uid, euid)| uid == 0 || euid == 0);
    let is_roots = |folder: &ProcessFolder| is_root(folder) && folder.is_set_user_id() == Some(false);
    let mut above = parent.or_else(|| parent_of(&own));
    let mut topmost = own;
    for _ in 0..ABOVE {
        match above.and_then(|above| of_session(above, session)) {
            Some(folder) => {
                above = parent_of(&folder);
                topmost = folder;
            }
            None => {
                let maker = above.filter(|above| *above != FIRST_PROCESS).and_then(ProcessFolder::open);
                return is_roots(&topmost) && maker.is_some_and(|maker| is_roots(&maker));
            }
        }
    }
    false
}

fn parent_of(folder: &ProcessFolder) -> Option<u32> {
    folder.stat().map(|(stat, _)| stat.parent)
}

fn of_session(pid: u32, session: u32) -> Option<ProcessFolder> {
    ProcessFolder::open(pid).filter(|folder| audit_ids(folder).1 == Some(session))
}

/// The service manager's folder of groups, see systemd-logind.service(8): only root moves a process there that is not there yet.
fn is_in_slice_of(folder: &ProcessFolder, uid: u32) -> bool {
    is_slice_of(&String::from_utf8_lossy(&folder.bytes("cgroup", CGROUPS).unwrap_or_default()), uid)
}

/// A line has a number, controllers, and a path; the unified hierarchy has no controllers here, and before it systemd kept one of its own.
fn is_slice_of(groups: &str, uid: u32) -> bool {
    let slice = format!("/user.slice/user-{uid}.slice/");
    let mut groups = groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    groups.any(|(controllers, path)| matches!(controllers, "" | "name=systemd") && path.starts_with(&slice))
}

/// Login user and session. Read before the user: who is root then was root when they were written, or became it since.
fn audit_ids(folder: &ProcessFolder) -> (Option<u32>, Option<u32>) {
    let id = |name| folder.bytes(name, 32).and_then(|bytes| procfs::parse_audit_id(&bytes));
    (id("loginuid"), id("sessionid"))
}

pub fn cgroup(folder: &ProcessFolder, cgroups: &mut Cgroups) -> Option<u64> {
    let bytes = folder.bytes("cgroup", CGROUPS)?;
    let path = bytes.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    cgroups.id(path)
}

pub fn own_namespace() -> Option<u32> {
    ProcessFolder::open(std::process::id())?.link("ns/pid").and_then(|link| namespace(&link))
}

/// `mnt:[4026531841]`
pub fn namespace(link: &str) -> Option<u32> {
    link.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::order::{Holder, Sighting};
    use crate::process::table::Answer;

    #[test]
    fn a_user_has_his_slice_in_the_hierarchy_of_the_service_manager_alone() {
        assert!(is_slice_of("0::/user.slice/user-1000.slice/session-3.scope\n", 1000));
        assert!(is_slice_of("5:pids:/x\n1:name=systemd:/user.slice/user-1000.slice/user@1000.service/init.scope\n0::/x\n", 1000));
        for other in [
            "0::/user.slice/user-1000.slice/session-3.scope\n",
            "0::/system.slice/user.slice/user-100.slice/x\n",
            "2:name=mine:/user.slice/user-100.slice/x\n",
            "",
            "0:\n::::\n",
        ] {
            assert!(!is_slice_of(other, 100), "{other}");
        }
    }

    #[test]
    fn this_process_is_found_with_what_it_runs_and_for_whom() {
        let mut table = Table::default();
        survey(&mut table, &mut Cgroups::find(), &mut SelfGiven::default());
        let now = BootTime::now();
        let sighting = Sighting { emptied: now, began: now, ended: now, place: None, holder: Holder::Present };
        let Answer::Known(known) = table.who(std::process::id(), &sighting) else { panic!("this process lives") };
        let own = std::env::current_exe().unwrap();
        let program = known.then.programs[0].clone().unwrap();
        assert_eq!(&*program.executable.as_ref().unwrap().path, own.to_str().unwrap());
        assert_eq!(known.then.programs.len(), 1);
        assert_eq!(known.then.standings[0].as_ref().unwrap().uid, nix::unistd::getuid().as_raw());
        let parent = table.makers(std::process::id(), known.started, now).unwrap();
        assert_eq!(parent.pid, std::os::unix::process::parent_id());
    }
}
