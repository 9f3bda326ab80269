//! Who is named where a scan and an event meet.

use std::time::Instant;

use super::*;
use crate::observer::Settled;
use crate::sensor::{Preference, SensorCounters, Sensors};

fn changes(records: &[RecordBody]) -> impl Iterator<Item = &Change> {
    records.iter().filter_map(|record| match record {
        RecordBody::Changed(change) => Some(&**change),
        _ => None,
    })
}

/// Scans follow one another while files come, change and go: whatever they meet first is told with its event, by whom it was.
#[test]
fn a_scan_takes_no_change_from_its_event() {
    const FILES: usize = 400;
    let scene = Scene::new();
    let policy = WatchPolicy { kinds: vec![ItemKind::File], ..scene.policy() };
    let (sender, signals) = sync_channel(1024);
    let sensors = Sensors::start_with(Preference::Best, &policy, sender, Arc::new(SensorCounters::default())).unwrap();
    if !sensors.coverage().iter().any(|row| row.name == "fanotify" && row.watching) {
        return crate::collect::skipped("a_scan_takes_no_change_from_its_event", "fanotify is refused");
    }
    let (stop, records) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let end = format!("file:{}", printable(&scene.watched("end")));
    let last = end.clone();
    let is_end = move |records: &[RecordBody]| changes(records).any(|change| change.item.to_string() == last);
    let sink = Recorder { records: Arc::clone(&records), is_enough: Box::new(is_end), stop: Arc::clone(&stop) };
    let parts = ObserverParts { sensors: Some(Arc::new(sensors)), ..scene.parts(policy, sink) };
    let (errands, mut taken) = tokio::sync::mpsc::channel(1);
    let watchdog = Arc::clone(&stop);
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(120));
        watchdog.store(true, Ordering::Relaxed);
    });
    let (done, doer) = (AtomicBool::new(false), std::sync::atomic::AtomicU32::new(0));
    std::thread::scope(|scope| {
        let (done, doer, scene) = (&done, &doer, &scene);
        scope.spawn(move || {
            // A process of its own: one that another test makes of this one takes open files with it, and closes them as itself.
            let script = "i=0; while [ $i -lt $1 ]; do echo new > file-$i; [ $((i % 3)) -ne 0 ] || rm file-$((i / 3)); i=$((i + 1)); done";
            let mut shell = std::process::Command::new("sh");
            let mut shell = shell.args(["-c", script, "sh", &FILES.to_string()]).current_dir(scene.watched("")).spawn().unwrap();
            doer.store(shell.id(), Ordering::Relaxed);
            assert!(shell.wait().unwrap().success());
            done.store(true, Ordering::Relaxed);
        });
        let stopped = Arc::clone(&stop);
        scope.spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let scan = Errand::Scan { id: "test".to_owned(), scope: "file:*".to_owned() };
                if done.swap(false, Ordering::Relaxed) {
                    std::fs::write(scene.watched("end"), "new").unwrap();
                }
                if errands.blocking_send(scan).is_err() {
                    return;
                }
            }
        });
        Observer::new(parts, Vec::new()).run(&signals, &mut taken, &stop);
        drop(taken);
    });
    let held = records.lock().unwrap();
    assert!(changes(&held).any(|change| change.item.to_string() == end), "the end was not told");
    let others = [end, format!("file:{}", printable(&scene.watched("")))];
    for change in changes(&held).filter(|change| !others.contains(&change.item.to_string())) {
        // The shell itself, or what it starts to remove a file.
        let mut line = change.actor.process.iter().chain(change.actor.parents.first());
        assert!(line.any(|process| process.pid == doer.load(Ordering::Relaxed)), "{change:?}");
        // What is looked at as the observer leaves may still be changing.
        let is_last = change.actor.reason.as_deref() == Some(crate::observer::freshness::STILL_WRITTEN);
        assert!(change.actor.certainty <= Certainty::Strong || is_last, "{change:?}");
    }
}

/// Whoever touches an item that has not been read since the agent was away may not be the one who changed it.
#[test]
fn before_what_was_missed_is_read_again_who_touches_an_item_is_not_taken_for_who_changed_it() {
    let scene = Scene::new();
    let (known, other) = (scene.watched("known"), scene.watched("other"));
    let loss = crate::sensor::Loss {
        scope: format!("file:{}", printable(&other)),
        reason: trueline_drift::GapReason::QueueOverflow,
        began_at: clock::now(),
        lost: None,
    };
    let scope = Scope::parse(&loss.scope);
    let sink = Recorder { records: Arc::default(), is_enough: Box::new(|_| false), stop: Arc::default() };
    let mut observer = Observer::new(scene.parts(scene.policy(), sink), vec![Plan { scope, why: Why::Lost(loss) }]);
    let toucher = Actor { certainty: Certainty::Strong, reason: None, ..Actor::unknown("") };
    for path in [&known, &other] {
        std::fs::write(path, "new").unwrap();
        let item: ItemId = format!("file:{}", printable(path)).parse().unwrap();
        observer.read_and_compare(&item, None, Cause::Event, &toucher);
    }
    let told: Vec<Certainty> = changes(&observer.offer.records).map(|change| change.actor.certainty).collect();
    assert_eq!(told, [Certainty::Strong, Certainty::Correlated]);
    // What an event has shown since is known: the next who changes it is named.
    observer.offer.records.clear();
    observer.work_on_sweep(Duration::ZERO);
    std::fs::write(&other, "newer").unwrap();
    let item: ItemId = format!("file:{}", printable(&other)).parse().unwrap();
    observer.note_touched(&item);
    observer.read_and_compare(&item, None, Cause::Event, &toucher);
    let told: Vec<Certainty> = changes(&observer.offer.records).map(|change| change.actor.certainty).collect();
    assert_eq!(told, [Certainty::Strong]);
}

/// Who closed a file last, or changed its mode, need not be who wrote into a mapping of it.
#[test]
fn contents_that_changed_without_a_write_are_nobodys_for_certain() {
    let scene = Scene::new();
    let sink = Recorder { records: Arc::default(), is_enough: Box::new(|_| false), stop: Arc::default() };
    let mut observer = Observer::new(scene.parts(scene.policy(), sink), Vec::new());
    let path = scene.watched("mapped");
    let mut told_after = |wrote: bool, change: &dyn Fn(&Path)| {
        change(&path);
        let target = Target::Path(path.as_os_str().as_bytes().to_vec());
        let settled = Settled {
            target,
            depth: Depth::Item,
            actor: Some(strong(7)),
            shared: false,
            wrote,
            entry: None,
            before: None,
            touched_at: clock::now(),
            missed_at: None,
            held: None,
            generation: None,
            limit: Instant::now(),
        };
        observer.examine(vec![settled]);
        let told: Vec<Certainty> = changes(&observer.offer.records).map(|change| change.actor.certainty).collect();
        observer.offer.records.clear();
        told
    };
    let write = |text: &'static str| move |path: &Path| std::fs::write(path, text).unwrap();
    let chmod = |path: &Path| std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(told_after(true, &write("made")), [Certainty::Strong]);
    assert_eq!(told_after(true, &write("written")), [Certainty::Strong]);
    assert_eq!(told_after(false, &chmod), [Certainty::Strong]);
    assert_eq!(told_after(false, &write("through memory")), [Certainty::Correlated]);
}

/// Between the event of one process and the reading another may have written, whose event is still on its way.
#[test]
fn what_may_have_changed_again_before_it_was_read_is_read_once_that_is_known() {
    let scene = Scene::new();
    let (sender, _signals) = sync_channel(1024);
    let policy = scene.policy();
    let sensors = Sensors::start_with(Preference::Best, &policy, sender, Arc::new(SensorCounters::default())).unwrap();
    if !sensors.names_processes() {
        let test = "what_may_have_changed_again_before_it_was_read_is_read_once_that_is_known";
        return crate::collect::skipped(test, "fanotify is refused");
    }
    let sink = Recorder { records: Arc::default(), is_enough: Box::new(|_| false), stop: Arc::default() };
    let parts = ObserverParts { sensors: Some(Arc::new(sensors)), ..scene.parts(policy, sink) };
    let mut observer = Observer::new(parts, Vec::new());
    let path = scene.watched("written");
    let target = Target::Path(path.as_os_str().as_bytes().to_vec());
    let mut told_of = |text: &str, told_until: Time, patience: Duration| {
        std::fs::write(&path, text).unwrap();
        let limit = Instant::now() + patience;
        let (actor, touched_at) = (Some(strong(7)), clock::now());
        let settled = Settled {
            target: target.clone(),
            depth: Depth::Item,
            actor,
            shared: false,
            wrote: true,
            entry: None,
            before: None,
            touched_at,
            missed_at: None,
            held: None,
            generation: None,
            limit,
        };
        observer.told_until = told_until;
        observer.examine(vec![settled]);
        let is_put_back = observer.settle.holds(path.as_os_str().as_bytes());
        if is_put_back {
            observer.told_until = clock::now().plus_seconds(60);
        }
        while !observer.settle.is_empty() && Instant::now() < limit {
            let due = observer.settle.take_due(Instant::now() + Duration::from_millis(20), 1);
            observer.examine(due);
        }
        let told: Vec<Certainty> = changes(&observer.offer.records).map(|change| change.actor.certainty).collect();
        observer.offer.records.clear();
        (is_put_back, told)
    };
    let (long_ago, patience) = (Time::from_seconds(1), Duration::from_secs(60));
    assert_eq!(told_of("one", long_ago, patience), (true, vec![Certainty::Strong]), "once all until then is told");
    assert_eq!(told_of("other", clock::now().plus_seconds(60), patience), (false, vec![Certainty::Strong]), "where all is told");
    assert_eq!(told_of("more", long_ago, Duration::ZERO), (false, vec![Certainty::Correlated]), "what never rests is told all the same");
}
