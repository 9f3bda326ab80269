//! Who is named for what processes really do, by sensors and observer together.

use std::io::Write;
use std::process::{Command, Stdio};

use trueline_drift::Value;
use trueline_drift::change::ChangeKind;

use super::*;
use crate::sensor::{Preference, SensorCounters, Sensors};

const END: &str = "end";

/// The changes told while `work` goes on in a folder that sensors watch, and in the host's settings, of which all is known that was
/// prepared; nothing where they name no processes. So many changes at least are waited for.
fn told_during(test: &str, least: usize, prepare: impl FnOnce(&Scene), work: impl FnOnce(&Scene) + Send) -> Option<Vec<Change>> {
    told_of(test, ItemKind::Sysctl, least, prepare, work)
}

/// As [`told_during`], with another kind than settings.
fn told_of(
    test: &str,
    kind: ItemKind,
    least: usize,
    prepare: impl FnOnce(&Scene),
    work: impl FnOnce(&Scene) + Send,
) -> Option<Vec<Change>> {
    let scene = Scene::new();
    prepare(&scene);
    let policy = WatchPolicy { kinds: vec![ItemKind::File, kind], ..scene.policy() };
    let (sender, signals) = sync_channel(1024);
    let sensors = Sensors::start_with(Preference::Best, &policy, sender, Arc::new(SensorCounters::default())).unwrap();
    if !sensors.names_processes() {
        crate::collect::skipped(test, "fanotify is refused");
        return None;
    }
    let (stop, records) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let end = format!("file:{}", printable(&scene.watched(END)));
    let is_end = move |records: &[RecordBody]| {
        let changed = changed(records);
        changed.len() > least && changed.contains(&end)
    };
    let sink = Recorder { records: Arc::clone(&records), is_enough: Box::new(is_end), stop: Arc::clone(&stop) };
    let collectors = Collectors::with_root(Root::at("/"), Arc::new(policy.clone()), RedactionKey::new([0; 32]));
    let parts = ObserverParts { collectors, sensors: Some(Arc::new(sensors)), ..scene.parts(policy, sink) };
    let (_errands, mut taken) = tokio::sync::mpsc::channel(1);
    let watchdog = Arc::clone(&stop);
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(120));
        watchdog.store(true, Ordering::Relaxed);
    });
    std::thread::scope(|scope| {
        let (scene, records) = (&scene, Arc::clone(&records));
        scope.spawn(move || {
            until("the inventory", || inventories(&records.lock().unwrap()) > 0);
            work(scene);
            std::fs::write(scene.watched(END), "x").unwrap();
        });
        Observer::new(parts, inventory()).run(&signals, &mut taken, &stop);
    });
    let held = records.lock().unwrap();
    let told = held.iter().filter_map(|record| match record {
        RecordBody::Changed(change) => Some(Change::clone(change)),
        _ => None,
    });
    Some(told.collect())
}

fn is_of(change: &Change, path: &Path) -> bool {
    change.item.to_string() == format!("file:{}", printable(path))
}

fn pid(change: &Change) -> Option<u32> {
    change.actor.process.as_ref().map(|process| process.pid)
}

fn after(change: &Change, name: &str) -> Option<Value> {
    change.fields.iter().find(|field| field.name.as_str() == name)?.after.clone()
}

/// Each writes contents of a length of its own: a change tells by itself whose it was.
#[test]
fn of_two_writers_of_one_file_none_is_surely_taken_for_the_other() {
    let test = "of_two_writers_of_one_file_none_is_surely_taken_for_the_other";
    let mut pids = Vec::new();
    let (file, writers) = (std::sync::OnceLock::new(), &mut pids);
    let make = |scene: &Scene| std::fs::write(scene.watched("shared"), "").unwrap();
    let told = told_during(test, 0, make, |scene| {
        let path = scene.watched("shared");
        let writer = |text: &str, pause: &str| {
            let script = format!("for i in $(seq 40); do echo {text} > \"$1\"; sleep {pause}; done");
            Command::new("sh").args(["-c", &script, "sh"]).arg(&path).spawn().unwrap()
        };
        let mut both = [writer("1", "0.071"), writer("22222", "0.083")];
        writers.extend(both.iter().map(std::process::Child::id));
        both.iter_mut().for_each(|writer| assert!(writer.wait().unwrap().success()));
        file.set(path).unwrap();
    });
    let (Some(told), Some(path)) = (told, file.get()) else { return };
    assert!(told.iter().any(|change| is_of(change, path) && pid(change).is_some()), "nobody is named: {told:?}");
    for change in told.iter().filter(|change| is_of(change, path) && change.actor.certainty <= Certainty::Strong) {
        let writer = match after(change, "size") {
            Some(Value::Integer(2)) => 0,
            Some(Value::Integer(6)) => 1,
            _ => continue,
        };
        assert_eq!(pid(change), Some(pids[writer]), "{change:?}");
    }
}

struct Restored {
    setting: &'static str,
    value: String,
}

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = std::fs::write(self.setting, &self.value);
    }
}

/// Each writes values of its own: a change tells by itself whose it was.
#[test]
fn of_two_writers_of_one_setting_none_is_surely_taken_for_the_other() {
    const SETTING: &str = "/proc/sys/kernel/printk_ratelimit_burst";
    let test = "of_two_writers_of_one_setting_none_is_surely_taken_for_the_other";
    let Ok(before) = std::fs::read_to_string(SETTING) else { return crate::collect::skipped(test, "there is no such setting") };
    if std::fs::write(SETTING, &before).is_err() {
        return crate::collect::skipped(test, "settings cannot be written");
    }
    let _restored = Restored { setting: SETTING, value: before };
    let mut pids = Vec::new();
    let writers = &mut pids;
    let told = told_during(
        test,
        0,
        |_| {},
        |scene| {
            let writer = |first: u32, pause: &str| {
                let script = format!("for i in $(seq {first} 2 {}); do echo $i > {SETTING}; sleep {pause}; done", first + 80);
                Command::new("sh").args(["-c", &script]).spawn().unwrap()
            };
            let mut both = [writer(1000, "0.071"), writer(1001, "0.083")];
            writers.extend(both.iter().map(std::process::Child::id));
            both.iter_mut().for_each(|writer| assert!(writer.wait().unwrap().success()));
            // And one alone, each time when the time before was told: that one can be named surely however slow the machine is.
            let script = format!("while read value; do echo $value > {SETTING}; done");
            let mut alone = Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
            writers.push(alone.id());
            let mut values = alone.stdin.take().unwrap();
            for value in 3000..3010 {
                let told = scene.status.changes.load(Ordering::Relaxed);
                writeln!(values, "{value}").unwrap();
                until("what one wrote alone to be told", || scene.status.changes.load(Ordering::Relaxed) > told);
            }
            drop(values);
            assert!(alone.wait().unwrap().success());
        },
    );
    let Some(told) = told else { return };
    let of_it: Vec<&Change> = told.iter().filter(|change| change.item.to_string() == "sysctl:kernel.printk_ratelimit_burst").collect();
    let is_sure = |change: &&Change| change.actor.certainty <= Certainty::Strong && pid(change).is_some();
    assert!(of_it.iter().any(is_sure), "nobody is surely named: {of_it:?}");
    for change in of_it.into_iter().filter(is_sure) {
        let Some(Value::Text(value)) = after(change, "value") else { panic!("{change:?}") };
        let value: usize = value.trim().parse().unwrap();
        let writer = if value < 3000 { value % 2 } else { 2 };
        assert_eq!(pid(change), Some(pids[writer]), "{change:?}");
    }
}

/// More than the observer reads in the time for which a file may wait.
#[test]
fn a_burst_of_removals_is_told_with_who_removed_as_surely_as_one() {
    const FILES: usize = 5000;
    let mut remover = 0;
    let doer = &mut remover;
    let test = "a_burst_of_removals_is_told_with_who_removed_as_surely_as_one";
    let make = |scene: &Scene| (0..FILES).for_each(|number| std::fs::write(scene.watched(&format!("f{number}")), "").unwrap());
    let told = told_during(test, FILES, make, |scene| {
        let mut removing = Command::new("find").args([".", "-name", "f*", "-delete"]).current_dir(scene.watched("")).spawn().unwrap();
        *doer = removing.id();
        assert!(removing.wait().unwrap().success());
    });
    let Some(told) = told else { return };
    let removed: Vec<&Change> = told.iter().filter(|change| change.kind == ChangeKind::Removed).collect();
    assert_eq!(removed.len(), FILES);
    for change in removed {
        assert_eq!((pid(change), change.actor.certainty <= Certainty::Strong), (Some(remover), true), "{change:?}");
    }
}

/// Where a hook tells of it, a change of flags is as sure as a write; elsewhere it is found by chance.
#[test]
fn flags_that_a_hook_told_of_are_told_with_who_changed_them() {
    let test = "flags_that_a_hook_told_of_are_told_with_who_changed_them";
    if std::env::var_os("TRUELINE_TEST_HOOKS").is_none() {
        eprintln!("skipped: {test}: runs on a machine of its own: tests/stock-kernel");
        return;
    }
    let mut changer = 0;
    let doer = &mut changer;
    let make = |scene: &Scene| std::fs::write(scene.watched("flagged"), "x").unwrap();
    let told = told_during(test, 0, make, |scene| {
        let mut chattr = Command::new("chattr").arg("+d").arg(scene.watched("flagged")).spawn().unwrap();
        *doer = chattr.id();
        assert!(chattr.wait().unwrap().success());
    });
    let flags = |change: &&Change| change.kind == ChangeKind::Modified && after(change, "flags").is_some();
    let told = told.expect("fanotify is there");
    let change = told.iter().find(flags).unwrap_or_else(|| panic!("no change of flags: {told:?}"));
    assert_eq!((pid(change), change.actor.certainty), (Some(changer), Certainty::Exact), "{change:?}");
}

/// Rounds in which two do the same within moments.
const ROUNDS: usize = 25;

/// Whoever is named surely for an item of this kind is the one whose command has its name; how many were.
fn surely_named(told: &[Change], kind: ItemKind, name: impl Fn(&str) -> String) -> usize {
    let sure = told.iter().filter(|change| change.item.kind == kind && change.actor.certainty <= Certainty::Strong);
    sure.inspect(|change| {
        let process = change.actor.process.as_ref().expect("who is sure is named");
        // Of one that did it right after it started the program is not always known.
        let named = name(change.item.key.as_str());
        assert!(process.argv.is_empty() || process.argv.contains(&named), "{} by {:?}", change.item, change.actor);
    })
    .count()
}

/// The second begins so many milliseconds after the first: now within the moments that a touch waits, now after them.
fn both(commands: [&str; 2], apart: usize) {
    let [first, second] = commands;
    let scripts = [format!("exec {first}"), format!("sleep 0.{apart:03}; exec {second}")];
    let children = scripts.map(|script| Command::new("/bin/sh").args(["-c", &script]).spawn().unwrap());
    for mut child in children {
        assert!(child.wait().unwrap().success(), "{commands:?}");
    }
}

/// Times that one does it alone, and waits until that was told: who can be named surely however busy the machine is.
const ALONE: usize = 10;

fn alone(scene: &Scene, command: impl Fn(usize) -> String) {
    for round in 0..ALONE {
        let told = scene.status.changes.load(Ordering::Relaxed);
        let command = command(round);
        assert!(Command::new("/bin/sh").args(["-c", &format!("exec {command}")]).status().unwrap().success(), "{command}");
        until("what one did alone to be told", || scene.status.changes.load(Ordering::Relaxed) > told);
    }
}

#[test]
fn two_that_mount_within_moments_are_not_taken_for_each_other() {
    let test = "two_that_mount_within_moments_are_not_taken_for_each_other";
    let points = tempfile::tempdir().unwrap();
    let point = |name: &str, round: usize| format!("{}/{name}{round}", points.path().canonicalize().unwrap().display());
    for round in 0..ROUNDS {
        ["a", "b", "alone"].iter().for_each(|name| std::fs::create_dir(point(name, round)).unwrap());
    }
    let mount = |name, round| format!("mount -t tmpfs -o size=16k none {}", point(name, round));
    let told = told_of(
        test,
        ItemKind::Mount,
        2 * ROUNDS + ALONE,
        |_| {},
        |scene| {
            (0..ROUNDS).for_each(|round| both([&mount("a", round), &mount("b", round)], 20 * round));
            alone(scene, |round| mount("alone", round));
        },
    );
    for round in 0..ROUNDS {
        for name in ["a", "b", "alone"] {
            let _ = nix::mount::umount(point(name, round).as_str());
        }
    }
    let Some(told) = told else { return };
    let ours = points.path().canonicalize().unwrap();
    let made: Vec<Change> = told.into_iter().filter(|change| Path::new(change.item.key.as_str()).starts_with(&ours)).collect();
    assert_eq!(made.len(), 2 * ROUNDS + ALONE, "each mount is told of once");
    assert_ne!(surely_named(&made, ItemKind::Mount, str::to_owned), 0, "those that are far enough apart are named: {made:?}");
}

#[test]
fn two_that_change_the_packet_filter_within_moments_are_not_taken_for_each_other() {
    let test = "two_that_change_the_packet_filter_within_moments_are_not_taken_for_each_other";
    // A network of this test's own. Its thread ends with the test.
    if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
        return crate::collect::skipped(test, &error.to_string());
    }
    let add = |name, round| format!("nft add table inet {name}{round}");
    let told = told_of(
        test,
        ItemKind::Firewall,
        2 * ROUNDS + ALONE,
        |_| {},
        |scene| {
            (0..ROUNDS).for_each(|round| both([&add("a", round), &add("b", round)], 20 * round));
            alone(scene, |round| add("alone", round));
        },
    );
    let Some(told) = told else { return };
    let table = |key: &str| key.rsplit(' ').next().unwrap_or_default().to_owned();
    let made = told.iter().filter(|change| change.item.kind == ItemKind::Firewall && change.kind == ChangeKind::Created).count();
    assert_eq!(made, 2 * ROUNDS + ALONE, "each table is told of once");
    assert_ne!(surely_named(&told, ItemKind::Firewall, table), 0, "those that are far enough apart are named: {told:?}");
}
