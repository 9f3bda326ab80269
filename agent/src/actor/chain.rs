//! What is told of a chain of processes for the recognition of runs: since when its programs are known, and which of the host's
//! own units it is in.

use std::path::{Path, PathBuf};

use trueline_drift::transaction::Unit;
use trueline_drift::{Actor, Certainty, Time};
use uuid::Uuid;

use super::placement::is_of_system;

/// Where the service manager looks for units, in its order; see systemd.unit(5).
const UNIT_FOLDERS: [&str; 13] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];
/// Holds a link for each unit that runs, to the id of this start of it.
const INVOCATIONS: &str = "/run/systemd/units";
/// Between two clocks.
const CLOCKS: i64 = 1_000_000;

/// The places in the chain of which it is known that the process ran its program already when it did what it is in the chain
/// for. Where the kernel tells every exec in its order, that is: the first process, if its program is beyond doubt, and every
/// maker of a process whose making was told, for a maker is kept as it was then.
pub fn told_since(actor: &Actor, began: Time) -> Vec<usize> {
    let first = (actor.certainty == Certainty::Exact).then_some(0);
    let is_sure = matches!(actor.certainty, Certainty::Exact | Certainty::Strong);
    // An audit record vouches for the process that it is of, and for none above it.
    if !is_sure || !actor.via.iter().any(|via| via == "ebpf") {
        return first.into_iter().collect();
    }
    let chain = actor.process.iter().chain(&actor.parents);
    let after = began.plus_micros(CLOCKS);
    let makers = chain.enumerate().take_while(|(_, process)| process.started_at.is_some_and(|started| started > after));
    first.into_iter().chain(makers.map(|(place, _)| place + 1)).collect()
}

/// A unit of the host's own service manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnUnit {
    name: String,
    has_timer: bool,
    invocation: Option<Uuid>,
}

impl OwnUnit {
    pub fn lent(&self) -> Unit<'_> {
        Unit { name: &self.name, has_timer: self.has_timer, invocation: self.invocation }
    }
}

/// `None` where the unit may be that of a user's own manager, which has units of any name.
pub fn unit_of(actor: &Actor) -> Option<OwnUnit> {
    let name = actor.unit.as_deref()?;
    let is_the_hosts = actor.slice.as_deref().is_some_and(is_of_system) && actor.container.is_none();
    // Whoever a user's manager works for has logged in, by the kernel's account.
    let is_anybodys = actor.user.as_ref().is_none_or(|user| user.login_uid.is_some());
    if !is_the_hosts || is_anybodys || !is_unit_name(name) {
        return None;
    }
    let folders = UNIT_FOLDERS.map(PathBuf::from);
    Some(OwnUnit { name: name.to_owned(), has_timer: has_timer(name, &folders), invocation: invocation(name, Path::new(INVOCATIONS)) })
}

/// A timer of the same name may start it, unless that says otherwise. The first file of a name counts; an empty one, or a link to
/// what is no file, masks those behind.
fn has_timer(service: &str, folders: &[PathBuf]) -> bool {
    let Some(stem) = service.strip_suffix(".service") else { return false };
    let template = stem.split_once('@').map(|(template, _)| format!("{template}@.timer"));
    let names = std::iter::once(format!("{stem}.timer")).chain(template);
    let mut places = names.flat_map(|name| folders.iter().map(move |folder| folder.join(&name)));
    let first = places.find(|place| place.symlink_metadata().is_ok());
    first.is_some_and(|place| place.metadata().is_ok_and(|file| file.is_file() && file.len() > 0))
}

fn invocation(unit: &str, folder: &Path) -> Option<Uuid> {
    let id = std::fs::read_link(folder.join(format!("invocation:{unit}"))).ok()?;
    id.to_str()?.parse().ok()
}

/// Nothing that would lead elsewhere as a part of a path.
fn is_unit_name(name: &str) -> bool {
    !name.contains(['/', '\0']) && name.len() < 256
}

#[cfg(test)]
mod tests {
    use trueline_drift::actor::{Process, User};

    use super::*;

    #[test]
    fn makers_count_from_the_first_process_whose_making_was_told() {
        let process = |pid, started| Process { started_at: Some(Time::from_seconds(started)), ..Process::bare(pid) };
        let mut actor = Actor { certainty: Certainty::Exact, process: Some(process(9, 100)), ..Actor::unknown("") };
        actor.parents = vec![process(8, 99), process(7, 20), process(6, 10), process(5, 90)];
        let began = Time::from_seconds(50);
        assert_eq!(told_since(&actor, began), [0], "an audit record tells of the one process");
        actor.via = vec!["audit".to_owned(), "ebpf".to_owned()];
        assert_eq!(told_since(&actor, began), [0, 1, 2]);
        actor.parents.clear();
        actor.process = Some(process(9, 10));
        assert_eq!(told_since(&actor, began), [0]);
        actor.certainty = Certainty::Strong;
        assert!(told_since(&actor, began).is_empty());
        // Told by the kernel, with doubt which of its own programs it was.
        actor.process = Some(process(9, 100));
        actor.parents = vec![process(8, 99), process(7, 20), process(6, 10)];
        actor.via = vec!["fanotify".to_owned(), "ebpf".to_owned()];
        assert_eq!(told_since(&actor, began), [1, 2]);
    }

    #[test]
    fn a_service_has_a_timer_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().join("none"), folder.path().to_owned()];
        for name in ["nightly.timer", "backup@.timer"] {
            std::fs::write(folder.path().join(name), "[Timer]\n").unwrap();
        }
        for (unit, expected) in [("nightly.service", true), ("backup@home.service", true), ("nightly.scope", false), ("ssh.service", false)]
        {
            assert_eq!(has_timer(unit, &folders), expected, "{unit}");
        }
        let id = "0123456789abcdef0123456789abcdef";
        std::os::unix::fs::symlink(id, folder.path().join("invocation:nightly.service")).unwrap();
        assert_eq!(invocation("nightly.service", folder.path()), Some(id.parse().unwrap()));
        assert_eq!(invocation("other.service", folder.path()), None);
    }

    #[test]
    fn a_masked_timer_starts_nothing() {
        let (before, behind) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [before.path().to_owned(), behind.path().to_owned()];
        for name in ["masked.timer", "emptied.timer", "own.timer", "backup@.timer"] {
            std::fs::write(behind.path().join(name), "[Timer]\n").unwrap();
        }
        for name in ["masked.timer", "backup@home.timer"] {
            std::os::unix::fs::symlink("/dev/null", before.path().join(name)).unwrap();
        }
        std::fs::write(before.path().join("emptied.timer"), "").unwrap();
        let units = ["masked.service", "emptied.service", "own.service", "backup@home.service", "backup@work.service"];
        assert_eq!(units.map(|unit| has_timer(unit, &folders)), [false, false, true, false, true]);
    }

    #[test]
    fn a_unit_of_a_users_own_manager_is_not_the_hosts() {
        let user = User { uid: 0, euid: None, login_uid: None, name: None, login_name: None };
        let own = Actor { unit: Some("x.service".into()), slice: Some("system.slice".into()), user: Some(user), ..Actor::unknown("") };
        assert_eq!(unit_of(&own).map(|unit| unit.name), Some("x.service".to_owned()));
        let nested = Actor { slice: Some("system-x.slice".into()), ..own.clone() };
        assert!(unit_of(&nested).is_some());
        let of_user = User { login_uid: Some(1000), ..own.user.clone().unwrap() };
        for other in [
            Actor { slice: Some("user-1000.slice".into()), ..own.clone() },
            Actor { slice: Some("app.slice".into()), ..own.clone() },
            Actor { user: Some(of_user), ..own.clone() },
            Actor { user: None, ..own.clone() },
            Actor { unit: Some("../x.service".into()), ..own.clone() },
        ] {
            assert_eq!(unit_of(&other), None, "{other:?}");
        }
    }
}
