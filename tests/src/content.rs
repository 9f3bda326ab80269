//! What a simulated host reports: files with the fields a real one has, and changes by a plausible
//! actor. Everything follows from numbers, so that a run can be repeated.

use sha2::{Digest, Sha256};
use trueline_drift::actor::{Process, User};
use trueline_drift::change::ChangeKind;
use trueline_drift::{
    Actor, Cause, Certainty, Change, FieldChange, FieldName, Fields, ItemId, ItemKey, ItemKind, Observation, RecordBody, Time, Value,
};

/// The first moment of the simulated world; each later one is counted from it.
const BEGINNING: i64 = 1_760_000_000_000_000;

pub fn moment(micros: u64) -> Time {
    Time::from_micros(BEGINNING + micros as i64)
}

fn path(item: usize) -> ItemId {
    let key = ItemKey::from_bytes(format!("/etc/service-{:02}/conf.d/setting-{item:04}.conf", item % 17).as_bytes());
    ItemId::new(ItemKind::File, key.expect("a short path is a key"))
}

fn digest_of(item: usize, contents: u64) -> String {
    hex::encode(Sha256::digest(format!("{item}:{contents}")))
}

/// One simulated file: what of it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Content {
    contents: u64,
    written_at: Time,
}

impl Content {
    const fn size(self) -> i64 {
        1900 + (self.contents % 700) as i64
    }
}

fn fields(item: usize, content: Content) -> Fields {
    Fields::new()
        .with("type", "file")
        .with("size", content.size())
        .with("mode", "0644")
        .with("uid", 0)
        .with("owner", "root")
        .with("gid", 0)
        .with("group", "root")
        .with("nlink", 1)
        .with("flags", "extents")
        .with("acl", "user::rw-,group::r--,other::r--")
        .with("mtime", content.written_at.to_string().as_str())
        .with("sha256", digest_of(item, content.contents).as_str())
}

/// What one host has, and what happens to it. All worlds of a size begin alike, so that the
/// baseline captured from one host fits the others.
#[derive(Debug)]
pub struct World {
    files: Vec<Content>,
    /// Changes so far.
    changes: u64,
    number: usize,
    actor: Actor,
}

impl World {
    pub fn new(number: usize, files: usize) -> Self {
        Self { files: vec![Content { contents: 0, written_at: moment(0) }; files], changes: 0, number, actor: actor(number) }
    }

    /// What the first inventory of the host reports, its end included.
    pub fn inventory(&self) -> Vec<RecordBody> {
        let observed = self.files.iter().enumerate().map(|(item, content)| {
            RecordBody::Observed(Observation { item: path(item), fields: fields(item, *content), observed_at: moment(1) })
        });
        let complete = RecordBody::InventoryComplete { items: self.files.len() as u64, observed_at: moment(2) };
        observed.chain(std::iter::once(complete)).collect()
    }

    /// The next change. In each hundred the first alters contents (a departure from the baseline) and
    /// the fifty-first puts them back; all others rewrite a file as it was, which moves its times alone.
    pub fn change(&mut self) -> Change {
        let count = self.changes;
        self.changes += 1;
        let hundred = count / 100;
        let place = (count % 100) as usize;
        let departing = (hundred as usize * 7) % self.files.len();
        let (item, contents) = match place {
            0 => (departing, hundred + 1),
            50 => (departing, 0),
            _ => {
                // Beside the departing file, so that a rewrite never disturbs it.
                let item = (departing + 1 + place % (self.files.len() - 1).max(1)) % self.files.len();
                (item, self.files[item].contents)
            }
        };
        let before = self.files[item];
        let after = Content { contents, written_at: moment(1_000_000 + count * 1000) };
        self.files[item] = after;
        let (old, new) = (fields(item, before), fields(item, after));
        let mut moved = Vec::new();
        let mut unchanged = Fields::new();
        for (name, value) in new.iter() {
            if old.value(name.as_str()) == Some(value) {
                unchanged.set(name.clone(), value.clone());
            } else {
                moved.push(FieldChange { name: name.clone(), before: old.value(name.as_str()).cloned(), after: Some(value.clone()) });
            }
        }
        Change {
            item: path(item),
            kind: ChangeKind::Modified,
            fields: moved,
            unchanged,
            observed_after: before.written_at,
            observed_at: after.written_at,
            cause: Cause::Event,
            actor: Actor { process: Some(writer(self.number, count)), ..self.actor.clone() },
            transaction: None,
            shipped_by: None,
            candidates: trueline_drift::Candidates::default(),
            lines: None,
        }
    }

    /// How many of the next `changes` changes, counted from the first, depart from the baseline.
    pub const fn departures(changes: u64) -> u64 {
        changes.div_ceil(100)
    }
}

/// A change whose `size` names its place in the order of changes: for tests that look for loss,
/// doubling and disorder.
pub fn numbered_change(number: u64) -> Change {
    let name = FieldName::known("size");
    let item = ItemId::new(ItemKind::File, ItemKey::from_bytes(b"/etc/numbered").expect("a short path is a key"));
    Change {
        item,
        kind: if number == 0 { ChangeKind::Created } else { ChangeKind::Modified },
        fields: vec![FieldChange { name, before: number.checked_sub(1).map(size), after: Some(size(number)) }],
        unchanged: Fields::new().with("type", "file").with("mode", "0644"),
        observed_after: moment(number),
        observed_at: moment(number + 1),
        cause: Cause::Event,
        actor: Actor { process: Some(writer(0, number)), ..actor(0) },
        transaction: None,
        shipped_by: None,
        candidates: trueline_drift::Candidates::default(),
        lines: None,
    }
}

fn size(number: u64) -> Value {
    Value::Integer(number as i64)
}

fn process(pid: u32, exe: &str, argv: &[&str]) -> Process {
    Process {
        started_at: Some(moment(u64::from(pid))),
        exe: Some(exe.to_owned()),
        argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
        cwd: Some("/root".to_owned()),
        ..Process::bare(pid)
    }
}

fn writer(host: usize, count: u64) -> Process {
    let pid = 2000 + ((host as u64 * 7919 + count * 3) % 30_000) as u32;
    process(pid, "/usr/bin/sed", &["sed", "-i", "s/timeout=.*/timeout=30/", "/etc/service/conf.d/setting.conf"])
}

fn actor(host: usize) -> Actor {
    Actor {
        certainty: Certainty::Strong,
        via: vec!["fanotify".to_owned(), "procfs".to_owned()],
        parents: vec![
            process(1900 + host as u32, "/usr/bin/bash", &["bash", "./rollout.sh"]),
            process(1800, "/usr/sbin/sshd", &["sshd: deploy@pts/0"]),
            process(1, "/usr/lib/systemd/systemd", &["/sbin/init"]),
        ],
        user: Some(User {
            uid: 0,
            euid: Some(0),
            login_uid: Some(1000),
            name: Some("root".to_owned()),
            login_name: Some("deploy".to_owned()),
        }),
        unit: Some("ssh.service".to_owned()),
        ..Actor::unknown("the process was read after the event")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trueline_drift::baseline::{Expectation, captured, departures};

    #[test]
    fn one_change_in_a_hundred_departs_and_each_departure_returns() {
        let mut world = World::new(3, 50);
        let baseline: Vec<Fields> = world.files.iter().enumerate().map(|(item, content)| captured(&fields(item, *content))).collect();
        let mut departing = 0;
        for _ in 0..1000 {
            let change = world.change();
            let item = (0..50).find(|item| path(*item) == change.item).unwrap();
            let expected = Expectation::Fields(baseline[item].clone());
            departing += usize::from(!departures(&expected, change.after().as_ref()).is_empty());
        }
        assert_eq!(departing as u64, World::departures(1000));
        assert!(world.files.iter().all(|content| content.contents == 0));
    }

    #[test]
    fn a_simulated_file_has_as_many_fields_as_a_real_one() {
        assert_eq!(fields(0, Content { contents: 0, written_at: moment(0) }).len(), 12);
    }
}
