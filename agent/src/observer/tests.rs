//! The observer over a real folder and a real state, with signals by hand.

mod activity;
mod candidates;
mod configuration;
mod findings;
mod learnt;
mod lines;
mod links;
mod packages;
mod runs;
mod sessions;
mod settings;
mod transients;
mod whose;

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use trueline_drift::actor::Process;
use trueline_drift::redact::RedactionKey;
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Actor, Cause, Certainty, Change, Epoch, ItemId, ItemKind, RecordBody, Sequence, Time, text};

use super::{LARGE, Observer, ObserverParts, Plan, Scope, Sink, SinkError, Why};
use crate::actor::complete::Completion;
use crate::clock;
use crate::collect::{Collectors, Root};
use crate::link::Errand;
use crate::sensor::{Depth, Signal, Target, Touch};
use crate::state::State;
use crate::status::Status;
use crate::testing::{await_some, until};

type IsEnough = Box<dyn Fn(&[RecordBody]) -> bool + Send>;

/// Keeps all records, and stops the observer when there are enough.
struct Recorder {
    records: Arc<Mutex<Vec<RecordBody>>>,
    is_enough: IsEnough,
    stop: Arc<AtomicBool>,
}

impl Sink for Recorder {
    fn put(&mut self, records: &[RecordBody]) -> Result<Sequence, SinkError> {
        let mut held = self.records.lock().unwrap();
        held.extend_from_slice(records);
        if (self.is_enough)(&held) {
            self.stop.store(true, Ordering::Relaxed);
        }
        Ok(Sequence(held.len() as u64))
    }

    fn epoch(&self) -> Epoch {
        Epoch(1)
    }

    fn applied(&mut self, _: (Epoch, Sequence)) {}

    fn restore(&mut self, state: &State) -> Result<(), SinkError> {
        state.reopen().map_err(|error| SinkError::Broken(error.to_string()))
    }
}

/// A host in a folder: `watched`, and `root` with its databases.
struct Scene {
    folder: tempfile::TempDir,
    state: Arc<State>,
    status: Arc<Status>,
    signals: Option<SyncSender<Signal>>,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["watched", "root"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let (state, _) = State::open(&folder.path().join("state.redb"), 1 << 20, "0").unwrap();
        Self { folder, state: Arc::new(state), status: Arc::new(Status::default()), signals: None }
    }

    fn watched(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("watched").join(name)
    }

    fn root(&self, name: &str) -> PathBuf {
        self.folder.path().join("root").join(name)
    }

    fn policy(&self) -> WatchPolicy {
        WatchPolicy::only_paths(vec![printable(&self.watched(""))])
    }

    fn touch(&self, path: &Path) {
        self.touch_as(path, None, Depth::Item);
    }

    fn touch_as(&self, path: &Path, process: Option<u32>, depth: Depth) {
        self.touch_target(Target::Path(path.as_os_str().as_bytes().to_vec()), process, depth);
    }

    fn touch_target(&self, target: Target, process: Option<u32>, depth: Depth) {
        let actor = process.map(strong);
        let touch = Touch { target, at: clock::now(), actor, depth, wrote: true, entry: None, finished: true, generation: None };
        self.signals.as_ref().unwrap().send(Signal::Touched(touch)).unwrap();
    }

    fn parts(&self, policy: WatchPolicy, sink: Recorder) -> ObserverParts<Recorder> {
        let policy = Arc::new(policy);
        let root = Root::at(self.folder.path().join("root"));
        ObserverParts {
            collectors: Collectors::with_root(root, Arc::clone(&policy), RedactionKey::new([0; 32])),
            own_policy: Arc::new(self.policy()),
            policy,
            state: Arc::clone(&self.state),
            sink,
            completion: Completion::alone(),
            status: Arc::clone(&self.status),
            sensors: None,
            scan_threads: 1,
            retry_after: Duration::from_millis(1),
            alive_file: None,
            answers: None,
            policy_version: tokio::sync::watch::Sender::new(0),
        }
    }

    /// Runs an observer until there are enough records, or for a minute; `then` gives it work. All records.
    fn run(
        &mut self,
        policy: WatchPolicy,
        plans: Vec<Plan>,
        is_enough: IsEnough,
        then: impl FnOnce(&Self, Errands) + Send,
    ) -> Vec<RecordBody> {
        let stop = Arc::new(AtomicBool::new(false));
        let records = Arc::new(Mutex::new(Vec::new()));
        let parts = self.parts(policy, Recorder { records: Arc::clone(&records), is_enough, stop: Arc::clone(&stop) });
        let (sender, signals) = sync_channel(4096);
        self.signals = Some(sender);
        let (errands, mut taken) = tokio::sync::mpsc::channel(1);
        // Ends a run that would wait for ever: what is missing then shows in the records.
        let watchdog = Arc::clone(&stop);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(60));
            watchdog.store(true, Ordering::Relaxed);
        });
        std::thread::scope(|scope| {
            let scene = &*self;
            scope.spawn(move || then(scene, errands));
            Observer::new(parts, plans).run(&signals, &mut taken, &stop);
        });
        let held = records.lock().unwrap();
        held.clone()
    }
}

/// Known to be this process, and nothing more.
fn strong(pid: u32) -> Arc<Actor> {
    Arc::new(Actor { certainty: Certainty::Strong, process: Some(Process::bare(pid)), reason: None, ..Actor::unknown("") })
}

type Errands = tokio::sync::mpsc::Sender<Errand>;

fn printable(path: &Path) -> String {
    text::printable(path.as_os_str().as_bytes()).trim_end_matches('/').to_owned()
}

fn changed(records: &[RecordBody]) -> Vec<String> {
    let mut items: Vec<String> = records
        .iter()
        .filter_map(|record| match record {
            RecordBody::Changed(change) => Some(change.item.to_string()),
            _ => None,
        })
        .collect();
    items.sort_unstable();
    items.dedup();
    items
}

fn inventory() -> Vec<Plan> {
    vec![Plan { scope: Scope::All, why: Why::Inventory }]
}

fn inventories(records: &[RecordBody]) -> usize {
    records.iter().filter(|record| matches!(record, RecordBody::InventoryComplete { .. })).count()
}

fn sparse(path: &Path, bytes: u64) {
    std::fs::File::create(path).unwrap().set_len(bytes).unwrap();
}

/// A burst larger than any batch: each touch must lead to a reading of its own item.
#[test]
fn every_touch_of_a_large_burst_is_followed_by_a_reading() {
    const FILES: usize = 3000;
    let mut scene = Scene::new();
    let policy = scene.policy();
    let records = scene.run(policy, Vec::new(), Box::new(|records| changed(records).len() >= FILES), |scene, _| {
        for number in 0..FILES {
            let path = scene.watched(&format!("file-{number}"));
            std::fs::write(&path, "new").unwrap();
            scene.touch(&path);
        }
    });
    assert_eq!(changed(&records).len(), FILES);
}

/// What it holds is not new once it can be read: the interval is told instead.
#[test]
fn a_kind_that_cannot_be_read_holds_up_no_inventory() {
    let mut scene = Scene::new();
    std::fs::create_dir_all(scene.root("etc/group")).unwrap();
    let policy = WatchPolicy { kinds: vec![ItemKind::File, ItemKind::Group, ItemKind::User], ..scene.policy() };
    let status = Arc::clone(&scene.status);
    let is_gap = |record: &RecordBody| matches!(record, RecordBody::Gap(gap) if gap.scope == "group:*");
    let records = scene.run(policy, inventory(), Box::new(move |records| records.iter().any(is_gap)), |scene, _| {
        until("the inventory and its trouble", || status.troubles().iter().any(|trouble| trouble.starts_with("no group can be read")));
        std::fs::remove_dir(scene.root("etc/group")).unwrap();
        std::fs::write(scene.root("etc/group"), "wheel:x:10:\n").unwrap();
    });
    assert_eq!((inventories(&records), changed(&records)), (1, Vec::new()));
    let is_observed = |record: &RecordBody| matches!(record, RecordBody::Observed(seen) if seen.item.to_string() == "group:wheel");
    assert!(records.iter().any(is_observed), "{records:?}");
    assert!(scene.status.troubles().is_empty(), "{:?}", scene.status.troubles());
}

/// At one byte a second the large file is never read to its end: neither the other nor the end may wait for it.
#[test]
fn a_large_file_holds_up_neither_another_nor_the_end() {
    let mut scene = Scene::new();
    let policy = WatchPolicy { scan_bytes_per_second: 1, ..scene.policy() };
    let records = scene.run(policy, Vec::new(), Box::new(|records| !changed(records).is_empty()), |scene, _| {
        let (large, small) = (scene.watched("large"), scene.watched("small"));
        sparse(&large, LARGE + 1);
        scene.touch(&large);
        std::fs::write(&small, "new").unwrap();
        scene.touch(&small);
    });
    assert_eq!(changed(&records), [format!("file:{}", printable(&scene.watched("small")))]);
}

#[test]
fn a_large_file_is_reported_with_its_digest() {
    let mut scene = Scene::new();
    let policy = scene.policy();
    let records = scene.run(policy, Vec::new(), Box::new(|records| !changed(records).is_empty()), |scene, _| {
        let large = scene.watched("large");
        sparse(&large, LARGE + 1);
        scene.touch(&large);
    });
    let [RecordBody::Changed(change)] = &records[..] else { panic!("{records:?}") };
    let fields = change.after().unwrap();
    let digest = |name: &str| fields.value(name).unwrap().to_string();
    // sha256sum of 16 MiB and one byte of zeros.
    assert_eq!((digest("size"), digest("sha256")), ((LARGE + 1).to_string(), DIGEST.to_owned()));
}

#[test]
fn a_large_file_that_another_watch_list_leaves_out_meanwhile_is_not_reported() {
    let scene = Scene::new();
    let large = scene.watched("large");
    sparse(&large, LARGE + 1);
    let sink = Recorder { records: Arc::default(), is_enough: Box::new(|_| false), stop: Arc::default() };
    let mut observer = Observer::new(scene.parts(scene.policy(), sink), Vec::new());
    let item = format!("file:{}", printable(&large)).parse().unwrap();
    observer.read_and_compare(&item, None, Cause::Event, &Actor::unknown("test"));
    observer.work_aside();
    assert!(observer.aside.is_at_work());
    observer.change_policy(WatchPolicy::only_paths(vec![printable(&scene.root(""))]), Ok(()));
    until("the file is read", || {
        observer.work_aside();
        !observer.aside.is_at_work()
    });
    assert!(observer.offer.records.is_empty(), "{:?}", observer.offer.records);
}

/// The scheduled scan is slow on purpose. What is to be read meanwhile does not wait for it, and does not make it begin anew:
/// a change that nobody told of, in a file it has read already, is not met.
#[test]
fn a_scheduled_scan_steps_aside_and_goes_on_where_it_was() {
    const FILES: usize = 600;
    let mut scene = Scene::new();
    for number in 0..FILES {
        std::fs::write(scene.watched(&format!("file-{number}")), [7; 4096]).unwrap();
    }
    let policy = WatchPolicy { scan_bytes_per_second: 2 << 20, ..scene.policy() };
    let schedule = vec![Plan { scope: Scope::All, why: Why::Schedule }];
    let records = scene.run(policy, schedule, Box::new(|records| changed(records).len() == FILES + 3), |scene, _| {
        let is_known = |path: &PathBuf| scene.state.lookup(&format!("file:{}", printable(path)).parse().unwrap()).unwrap().is_some();
        let read =
            await_some("the first files are read", || (0..FILES).map(|number| scene.watched(&format!("file-{number}"))).find(is_known));
        std::fs::write(read, "changed").unwrap();
        let folder = scene.watched("new");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("file"), "1").unwrap();
        scene.touch_as(&folder, Some(1), Depth::Tree);
    });
    let items: Vec<String> = records
        .iter()
        .filter_map(|record| match record {
            RecordBody::Changed(change) => Some(change.item.to_string()),
            _ => None,
        })
        .collect();
    // All files, the folder they are in, the new one and its file.
    assert_eq!(items.len(), FILES + 3, "each is read once");
    let inner = format!("file:{}", printable(&scene.watched("new/file")));
    let place = items.iter().position(|item| *item == inner).unwrap();
    assert!(place < FILES, "read after {place} others");
}

const DIGEST: &str = "1003b1b5dc078189799a1216ce0f9fbcebb94e8b6b83c58c4b03345f07f94ced";

/// Of a kind that was read before an inventory without it would say that all of it is gone.
#[test]
fn an_inventory_waits_for_a_kind_that_was_read_before() {
    let mut scene = Scene::new();
    let passwd = scene.root("etc/passwd");
    std::fs::create_dir_all(passwd.parent().unwrap()).unwrap();
    std::fs::write(&passwd, "root:x:0:0:root:/root:/bin/bash\n").unwrap();
    let policy = WatchPolicy { paths: Vec::new(), kinds: vec![ItemKind::User], ..WatchPolicy::default() };
    scene.run(policy.clone(), inventory(), Box::new(|records| inventories(records) > 0), |_, _| {});
    // Not a file: reading the users fails.
    std::fs::remove_file(&passwd).unwrap();
    std::fs::create_dir_all(&passwd).unwrap();
    let records = scene.run(policy, inventory(), Box::new(|records| inventories(records) > 0), move |scene, _| {
        until("the failure is told", || !scene.status.troubles().is_empty());
        std::fs::remove_dir(&passwd).unwrap();
        std::fs::write(&passwd, "root:x:0:0:root:/root:/bin/bash\n").unwrap();
    });
    let observed = records.iter().any(|record| matches!(record, RecordBody::Observed(seen) if seen.item.to_string() == "user:root"));
    assert!(observed && inventories(&records) == 1, "{records:?}");
    assert_eq!(scene.status.troubles(), Vec::<String>::new());
}

/// Left out by another watch list is not the same as gone from the host.
#[test]
fn what_another_watch_list_leaves_out_is_unwatched_and_not_removed() {
    let mut scene = Scene::new();
    for folder in ["kept", "left"] {
        std::fs::create_dir(scene.watched(folder)).unwrap();
        std::fs::write(scene.watched(folder).join("file"), "1").unwrap();
    }
    for (name, text) in [("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"), ("proc/sys/net/kept", "1\n"), ("proc/sys/net/left", "1\n")] {
        let path = scene.root(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let before = WatchPolicy { kinds: vec![ItemKind::User, ItemKind::Sysctl], ..scene.policy() };
    let after = WatchPolicy {
        version: 1,
        paths: vec![printable(&scene.watched("kept"))],
        kinds: vec![ItemKind::Sysctl],
        exclude_sysctls: vec![trueline_drift::pattern::Pattern::new("net.left")],
        ..before.clone()
    };
    let records = scene.run(before, inventory(), Box::new(|records| inventories(records) == 2), move |scene, errands| {
        until("the inventory is complete", || scene.state.inventory_complete().unwrap().is_some());
        errands.blocking_send(Errand::Policy(Box::new(after))).unwrap();
    });
    assert_eq!(changed(&records), Vec::<String>::new());
    let mut unwatched: Vec<String> = records
        .iter()
        .filter_map(|record| match record {
            RecordBody::Unwatched { item, .. } => Some(item.to_string()),
            _ => None,
        })
        .collect();
    unwatched.sort_unstable();
    let file = |name: &str| format!("file:{}", printable(&scene.watched(name)));
    assert_eq!(unwatched, [file(""), file("left"), file("left/file"), "sysctl:net.left".to_owned(), "user:root".to_owned()]);
    let is_held = |item: &str| scene.state.lookup(&item.parse::<ItemId>().unwrap()).unwrap().is_some();
    assert!(is_held("sysctl:net.kept") && is_held(&file("kept/file")));
    assert!(!is_held("sysctl:net.left") && !is_held(&file("left/file")) && !is_held("user:root"));
}

fn change<'a>(records: &'a [RecordBody], item: &str) -> &'a Change {
    let found = records.iter().find_map(|record| match record {
        RecordBody::Changed(change) if change.item.to_string() == item => Some(&**change),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no change of {item} in {records:?}"))
}

/// Whoever made a folder need not have made what is in it.
#[test]
fn the_maker_of_a_folder_is_not_said_for_certain_to_have_made_what_is_in_it() {
    let mut scene = Scene::new();
    let policy = scene.policy();
    let records = scene.run(policy, Vec::new(), Box::new(|records| changed(records).len() == 3), |scene, _| {
        let folder = scene.watched("folder");
        std::fs::create_dir(&folder).unwrap();
        for name in ["seen", "found"] {
            std::fs::write(folder.join(name), "1").unwrap();
        }
        scene.touch_as(&folder.join("seen"), Some(2), Depth::Item);
        scene.touch_as(&folder, Some(1), Depth::Tree);
    });
    let actor = |name: &str| {
        let actor = &change(&records, &format!("file:{}", printable(&scene.watched(name)))).actor;
        (actor.process.as_ref().unwrap().pid, actor.certainty)
    };
    assert_eq!(actor("folder"), (1, Certainty::Strong));
    assert_eq!(actor("folder/seen"), (2, Certainty::Strong));
    assert_eq!(actor("folder/found"), (1, Certainty::Correlated));
}

/// Both users came with one reading of the file, which two processes had touched.
#[test]
fn of_two_processes_behind_one_source_neither_is_named_for_certain() {
    let mut scene = Scene::new();
    let passwd = scene.root("etc/passwd");
    std::fs::create_dir_all(passwd.parent().unwrap()).unwrap();
    std::fs::write(&passwd, "").unwrap();
    let policy = WatchPolicy { paths: Vec::new(), kinds: vec![ItemKind::User], ..WatchPolicy::default() };
    let records = scene.run(policy, Vec::new(), Box::new(|records| changed(records).len() == 2), move |scene, _| {
        std::fs::write(&passwd, "one:x:1:1::/:/bin/sh\ntwo:x:2:2::/:/bin/sh\n").unwrap();
        scene.touch_as(Path::new("/etc/passwd"), Some(1), Depth::Item);
        scene.touch_as(Path::new("/etc/shadow"), Some(2), Depth::Item);
    });
    for user in ["user:one", "user:two"] {
        assert_eq!(change(&records, user).actor.certainty, Certainty::Correlated);
    }
}

#[test]
fn what_appeared_while_the_agent_was_down_was_created_after_it_went_down() {
    let mut scene = Scene::new();
    let policy = scene.policy();
    let _ = scene.run(policy.clone(), inventory(), Box::new(|records| inventories(records) == 1), |_, _| {});
    std::fs::write(scene.watched("new"), "1").unwrap();
    let since = Time::from_seconds(1_700_000_000);
    let restart = vec![Plan { scope: Scope::All, why: Why::Restart { since } }];
    let records = scene.run(policy, restart, Box::new(|records| !changed(records).is_empty()), |_, _| {});
    let new = change(&records, &format!("file:{}", printable(&scene.watched("new"))));
    assert_eq!((new.observed_after, new.actor.certainty), (since, Certainty::Unknown));
}

#[test]
fn a_policy_that_the_collector_withdraws_gives_way_to_the_hosts_own() {
    let mut scene = Scene::new();
    for folder in ["one", "two"] {
        std::fs::create_dir(scene.watched(folder)).unwrap();
    }
    let sent = WatchPolicy { version: 7, ..WatchPolicy::only_paths(vec![printable(&scene.watched("one"))]) };
    let two = format!("file:{}", printable(&scene.watched("two")));
    let seen = two.clone();
    let is_seen = move |record: &RecordBody| matches!(record, RecordBody::Observed(observation) if observation.item.to_string() == seen);
    let policy = sent.clone();
    let records = scene.run(policy, inventory(), Box::new(move |records| records.iter().any(&is_seen)), move |scene, errands| {
        errands.blocking_send(Errand::Policy(Box::new(sent))).unwrap();
        until("the policy is kept", || scene.state.policy().unwrap().is_some_and(|stored| stored.version == 7));
        errands.blocking_send(Errand::OwnPolicy).unwrap();
    });
    assert!(records.iter().any(|record| matches!(record, RecordBody::Observed(seen) if seen.item.to_string() == two)));
    assert_eq!(scene.state.policy().unwrap(), None);
}

/// The kernel copies `all.forwarding` into every interface's: no event tells of those.
#[test]
fn settings_that_the_kernel_changed_with_a_written_one_are_found_and_not_said_to_be_written() {
    let mut scene = Scene::new();
    let (all, eth0) = (scene.root("proc/sys/net/all"), scene.root("proc/sys/net/eth0"));
    std::fs::create_dir_all(all.parent().unwrap()).unwrap();
    for path in [&all, &eth0] {
        std::fs::write(path, "0\n").unwrap();
    }
    let policy = WatchPolicy { paths: Vec::new(), kinds: vec![ItemKind::Sysctl], ..WatchPolicy::default() };
    let records = scene.run(policy, inventory(), Box::new(|records| changed(records).len() == 2), move |scene, _| {
        until("the inventory is complete", || scene.state.inventory_complete().unwrap().is_some());
        for path in [&all, &eth0] {
            std::fs::write(path, "1\n").unwrap();
        }
        scene.touch_target(Target::Sysctl("net.all".to_owned()), Some(1), Depth::Item);
    });
    let actor = |item: &str| {
        let actor = &change(&records, item).actor;
        (actor.process.as_ref().unwrap().pid, actor.certainty)
    };
    assert_eq!(actor("sysctl:net.all"), (1, Certainty::Strong));
    assert_eq!(actor("sysctl:net.eth0"), (1, Certainty::Correlated));
}
