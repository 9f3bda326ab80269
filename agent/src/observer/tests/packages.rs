//! What a package manager writes, with a process that holds dpkg's lock as dpkg does.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::*;
use crate::collect::manifest;
use crate::observer::Settled;
use crate::observer::kinds::Telling;

/// A process that has dpkg's lock until it is told to let go of it, or dropped.
struct Manager(Child);

impl Manager {
    fn at_work(scene: &Scene) -> Self {
        const HOLD: &str =
            "import fcntl, sys; file = open(sys.argv[1], 'r+'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()";
        let lock = scene.root("var/lib/dpkg/lock");
        std::fs::create_dir_all(scene.root("var/lib/dpkg/info")).unwrap();
        std::fs::write(scene.root("var/lib/dpkg/status"), "").unwrap();
        std::fs::write(&lock, "").unwrap();
        let mut child = Command::new("python3")
            .args(["-c", HOLD])
            .arg(lock)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 stands for dpkg here");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(manifest::holder(&Root::at(scene.folder.path().join("root"))), Some(child.id()));
        Self(child)
    }

    fn is_done(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn md5(contents: &str) -> String {
    use md5::Digest;
    hex::encode(md5::Md5::digest(contents))
}

/// As dpkg does it: the list, then the digests, each whole when it appears.
fn ship(scene: &Scene, package: &str, files: &[(&Path, &str)]) {
    let info = scene.root("var/lib/dpkg/info");
    let list: String = files.iter().map(|(path, _)| format!("{}\n", path.display())).collect();
    let sums: String = files.iter().map(|(path, contents)| format!("{}  {}\n", md5(contents), &path.to_str().unwrap()[1..])).collect();
    for (extension, text) in [("list", list), ("md5sums", sums)] {
        std::fs::write(info.join("new"), text).unwrap();
        std::fs::rename(info.join("new"), info.join(format!("{package}.{extension}"))).unwrap();
    }
}

/// What is touched later is read later: what was touched before has been read, or set aside.
fn tell_a_marker(scene: &Scene) {
    let marker = scene.watched("marker");
    std::fs::write(&marker, "").unwrap();
    scene.touch(&marker);
    until("the marker to be told", || scene.status.changes.load(Ordering::Relaxed) == 1);
}

/// What is told of packages, oldest first.
fn told_of_packages(records: &[RecordBody]) -> Vec<String> {
    let told = |record: &RecordBody| match record {
        RecordBody::Changed(change) if change.item.kind == ItemKind::Package => {
            let version = change.after().and_then(|fields| Some(fields.value("version")?.to_string()));
            let status = change.after().and_then(|fields| Some(fields.value("status")?.to_string()));
            Some(format!("{} {} {}", change.kind.name(), version.unwrap_or_default(), status.unwrap_or_default()))
        }
        _ => None,
    };
    records.iter().filter_map(told).collect()
}

#[test]
fn a_package_is_told_as_what_its_managers_work_comes_to() {
    let scene = Scene::new();
    let mut manager = Manager::at_work(&scene);
    let sink = Recorder { records: Arc::default(), is_enough: Box::new(|_| false), stop: Arc::default() };
    let records = Arc::clone(&sink.records);
    let policy = WatchPolicy { kinds: vec![ItemKind::Package], ..scene.policy() };
    let mut observer = Observer::new(scene.parts(policy, sink), Vec::new());
    observer.is_inventoried = true;
    let status = scene.root("var/lib/dpkg/status");
    let mut seen = 0;
    let mut read = |packages: &[(&str, &str, &str)]| {
        let stanza =
            |(name, version, status): &(&str, &str, &str)| format!("Package: {name}\nVersion: {version}\nStatus: install ok {status}\n\n");
        std::fs::write(&status, packages.iter().map(stanza).collect::<String>()).unwrap();
        observer.compare_kind(ItemKind::Package, Cause::Event, &Actor::unknown("test"), Telling::AtOnce, None).unwrap();
        assert!(observer.hand_on());
        let records = records.lock().unwrap();
        let told = told_of_packages(&records[seen..]);
        seen = records.len();
        (told, observer.interim.polled().is_some())
    };
    assert_eq!(read(&[("old", "1", "installed")]), (vec!["created 1 install ok installed".to_owned()], false));
    assert_eq!(read(&[("old", "2", "unpacked"), ("new", "1", "half-configured")]), (vec![], true), "not told and read again");
    let upgraded = "modified 2 install ok installed".to_owned();
    assert_eq!(read(&[("old", "2", "installed"), ("new", "1", "unpacked")]), (vec![upgraded], true));
    assert_eq!(read(&[("old", "2", "unpacked"), ("new", "1", "unpacked")]), (vec![], true));
    // It was killed, and nothing is written any more.
    manager.is_done();
    let left = ["created 1 install ok unpacked", "modified 2 install ok unpacked"].map(str::to_owned).to_vec();
    assert_eq!(read(&[("old", "2", "unpacked"), ("new", "1", "unpacked")]), (left, false));
}

fn told(records: &[RecordBody]) -> Vec<(String, Option<String>)> {
    let name = |change: &Change| change.item.key.as_str().rsplit('/').next().unwrap().to_owned();
    let mut told: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            RecordBody::Changed(change) => Some((name(change), change.shipped_by.as_ref().map(ToString::to_string))),
            _ => None,
        })
        .collect();
    told.sort();
    told
}

fn some(name: &str, package: Option<&str>) -> (String, Option<String>) {
    (name.to_owned(), package.map(str::to_owned))
}

#[test]
fn what_equals_its_manifest_is_a_part_of_the_package_and_what_does_not_is_not() {
    let mut scene = Scene::new();
    let mut manager = Manager::at_work(&scene);
    let process = Some(manager.0.id());
    let policy = scene.policy();
    let records = scene.run(policy, Vec::new(), Box::new(|records| told(records).len() >= 4), |scene, _| {
        let [same, altered, own] = ["same", "altered", "own"].map(|name| scene.watched(name));
        for (path, contents) in [(&same, "shipped"), (&altered, "by another hand"), (&own, "made by a script")] {
            std::fs::write(path, contents).unwrap();
            scene.touch_as(path, process, Depth::Item);
        }
        tell_a_marker(scene);
        ship(scene, "tool", &[(&same, "shipped"), (&altered, "shipped")]);
        manager.is_done();
    });
    assert_eq!(told(&records), [some("altered", None), some("marker", None), some("own", None), some("same", Some("package:tool"))]);
}

/// A large upgrade holds the lock for minutes: what is in place by then need not wait for the rest.
#[test]
fn a_file_is_told_once_its_manifest_is_there_while_the_package_manager_goes_on() {
    let mut scene = Scene::new();
    let manager = Manager::at_work(&scene);
    let process = Some(manager.0.id());
    let policy = scene.policy();
    let records = scene.run(policy, Vec::new(), Box::new(|records| !told(records).is_empty()), |scene, _| {
        let (first, second) = (scene.watched("first"), scene.watched("second"));
        for path in [&first, &second] {
            std::fs::write(path, "shipped").unwrap();
            scene.touch_as(path, process, Depth::Item);
        }
        ship(scene, "tool", &[(&first, "shipped")]);
    });
    assert_eq!(told(&records)[0], some("first", Some("package:tool")));
    drop(manager);
}

#[test]
fn a_touch_by_anybody_else_is_told_at_once_and_names_nobody_for_certain() {
    let mut scene = Scene::new();
    let manager = Manager::at_work(&scene);
    let process = Some(manager.0.id());
    let policy = scene.policy();
    let records = scene.run(policy, Vec::new(), Box::new(|records| told(records).len() == 2), |scene, _| {
        let (both, other) = (scene.watched("both"), scene.watched("other"));
        std::fs::write(&both, "by the package manager").unwrap();
        scene.touch_as(&both, process, Depth::Item);
        std::fs::write(&other, "by somebody").unwrap();
        scene.touch_as(&other, Some(1), Depth::Item);
        // Once this is told, the first has been set aside.
        until("the other to be told", || scene.status.changes.load(Ordering::Relaxed) == 1);
        std::fs::write(&both, "by somebody").unwrap();
        scene.touch_as(&both, Some(1), Depth::Item);
    });
    let certainty = |name: &str| {
        records.iter().find_map(|record| match record {
            RecordBody::Changed(change) if change.item.key.as_str().ends_with(name) => Some(change.actor.certainty),
            _ => None,
        })
    };
    assert_eq!((certainty("/other"), certainty("/both")), (Some(Certainty::Strong), Some(Certainty::Correlated)));
    drop(manager);
}

#[test]
fn what_a_newer_package_ships_no_longer_is_a_part_of_its_upgrade() {
    let mut scene = Scene::new();
    let mut manager = Manager::at_work(&scene);
    let process = Some(manager.0.id());
    let (dropped, planted) = (scene.watched("dropped"), scene.watched("planted"));
    for path in [&dropped, &planted] {
        std::fs::write(path, "shipped").unwrap();
    }
    ship(&scene, "tool", &[(&dropped, "shipped")]);
    let policy = scene.policy();
    let records = scene.run(policy, inventory(), Box::new(|records| told(records).len() >= 3), |scene, _| {
        until("the inventory", || scene.status.items.load(Ordering::Relaxed) >= 2);
        for path in [&dropped, &planted] {
            std::fs::remove_file(path).unwrap();
            scene.touch_as(path, process, Depth::Item);
        }
        // By then it has been seen whose they were.
        tell_a_marker(scene);
        ship(scene, "tool", &[]);
        manager.is_done();
    });
    assert_eq!(told(&records), [some("dropped", Some("package:tool")), some("marker", None), some("planted", None)]);
}

/// What is touched again and again never rests, and so is never looked at with the rest.
#[test]
fn what_a_package_manager_writes_without_end_is_told_after_a_minute() {
    let scene = Scene::new();
    let manager = Manager::at_work(&scene);
    let path = scene.watched("written");
    std::fs::write(&path, "more").unwrap();
    let actor = strong(manager.0.id());
    let sink = Recorder { records: Arc::default(), is_enough: Box::new(|_| false), stop: Arc::default() };
    let mut observer = Observer::new(scene.parts(scene.policy(), sink), Vec::new());
    let start = Instant::now();
    let mut read_after = |seconds| {
        let target = Target::Path(path.as_os_str().as_bytes().to_vec());
        let actor = Some(Arc::clone(&actor));
        let settled = Settled {
            target,
            depth: Depth::Item,
            actor,
            shared: false,
            wrote: true,
            entry: None,
            before: None,
            touched_at: clock::now(),
            missed_at: None,
            held: None,
            generation: None,
            limit: Instant::now(),
        };
        observer.hold_back(vec![settled], start + Duration::from_secs(seconds)).len()
    };
    assert_eq!([0, 30, 59, 60].map(&mut read_after), [0, 0, 0, 1]);
}

/// Contents that a package ships, put there by somebody else, are that one's doing; so are rights.
#[test]
fn what_another_hand_does_is_never_a_part_of_a_package() {
    let mut scene = Scene::new();
    let manager = Manager::at_work(&scene);
    let (copied, chmodded) = (scene.watched("copied"), scene.watched("chmodded"));
    for path in [&copied, &chmodded] {
        std::fs::write(path, "shipped").unwrap();
    }
    ship(&scene, "tool", &[(&copied, "shipped"), (&chmodded, "shipped")]);
    let process = Some(manager.0.id());
    let policy = scene.policy();
    let records = scene.run(policy, Vec::new(), Box::new(|records| told(records).len() == 2), |scene, _| {
        scene.touch_as(&copied, Some(1), Depth::Item);
        // No touch of it tells that this came after dpkg's.
        scene.touch_as(&chmodded, process, Depth::Item);
        let touched = clock::now().micros();
        until("the kernel's clock to tick", || {
            std::fs::set_permissions(&chmodded, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
            let metadata = std::fs::metadata(&chmodded).unwrap();
            metadata.ctime() * 1_000_000 + metadata.ctime_nsec() / 1000 > touched
        });
    });
    assert_eq!(told(&records), [some("chmodded", None), some("copied", None)]);
    let doubted = records.iter().any(|record| match record {
        RecordBody::Changed(change) => change.item.key.as_str().ends_with("chmodded") && change.actor.certainty == Certainty::Correlated,
        _ => false,
    });
    assert!(doubted, "{records:?}");
    drop(manager);
}
