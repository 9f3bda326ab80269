//! What hooks in the kernel add. Only where hooks can be had, and a file of value may be touched: on a machine of its own
//! (tests/stock-kernel), which sets TRUELINE_TEST_HOOKS.

use std::fs;
use std::process::Command;
use std::time::Instant;

use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Actor, Certainty};

use super::super::*;
use super::{FeedChoice, PATIENCE, Watched, target};

const VALUED: &str = "/etc/cron.d";

/// With a folder of value beside that of the test, and what is mounted there seen.
fn watch(test: &str) -> Option<Watched> {
    if std::env::var_os("TRUELINE_TEST_HOOKS").is_none() {
        eprintln!("skipped: {test}: runs on a machine of its own: tests/stock-kernel");
        return None;
    }
    fs::create_dir_all(VALUED).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().canonicalize().unwrap();
    let paths = vec![base.to_str().unwrap().to_owned(), VALUED.to_owned()];
    let policy = WatchPolicy { exclude: Vec::new(), ..WatchPolicy::only_paths(paths) };
    let (sender, signals) = std::sync::mpsc::sync_channel(16_384);
    let counters = Arc::new(SensorCounters::default());
    let sensors = Sensors::start_fed(Preference::Best, FeedChoice::Probe, &policy, sender, Arc::clone(&counters)).unwrap();
    let coverage = sensors.coverage();
    for operation in ["event", "flags", "mmap_write", "mount"] {
        let is_told = |row: &Coverage| row.name == "fentry" && row.scope == format!("operation:{operation}") && row.watching;
        assert!(coverage.iter().any(is_told), "{operation}: {coverage:?}");
    }
    Some(Watched { sensors, signals, counters, base, _folder: folder })
}

fn exe(actor: &Actor) -> &str {
    actor.process.as_ref().and_then(|process| process.exe.as_deref()).unwrap_or_default()
}

/// What a hook told of a path.
fn told(touches: &[Touch], path: &std::path::Path) -> Vec<Arc<Actor>> {
    let of = touches.iter().filter(|touch| touch.target == target(path)).filter_map(|touch| touch.actor.clone());
    of.filter(|actor| actor.via.iter().any(|via| via == "fentry")).collect()
}

#[test]
fn flags_have_an_exact_actor_wherever_the_file_is() {
    let Some(watched) = watch("flags_have_an_exact_actor_wherever_the_file_is") else { return };
    let path = watched.path("a");
    fs::write(&path, "x").unwrap();
    watched.touches();
    let mut chattr = Command::new("chattr").arg("+d").arg(&path).spawn().unwrap();
    let pid = chattr.id();
    assert!(chattr.wait().unwrap().success());
    let actors = told(&watched.touches(), &path);
    let [actor] = &actors[..] else { panic!("{actors:?}") };
    assert_eq!((actor.certainty, actor.process.as_ref().unwrap().pid), (Certainty::Exact, pid), "{actor:?}");
    assert!(exe(actor).ends_with("/chattr") && actor.reason.is_none(), "{actor:?}");
    assert_eq!(actor.parents.first().map(|parent| parent.pid), Some(std::process::id()));
}

/// The write and the program after it may lie within one reading of file events: its moment tells them apart.
#[test]
fn a_program_executed_right_after_a_write_is_not_taken_for_the_writer() {
    let Some(watched) = watch("a_program_executed_right_after_a_write_is_not_taken_for_the_writer") else { return };
    let files: Vec<_> = (0..40).map(|number| std::path::Path::new(VALUED).join(format!("hooked{number}"))).collect();
    for file in &files {
        let source = format!("echo x > {}; exec /bin/true", file.display());
        assert!(Command::new("/bin/sh").args(["-c", &source]).status().unwrap().success());
    }
    let touches = watched.touches();
    for file in &files {
        let actors = told(&touches, file);
        assert!(!actors.is_empty(), "{file:?}: {touches:?}");
        for actor in actors {
            assert_eq!(actor.certainty, Certainty::Exact, "{actor:?}");
            assert!(exe(&actor).ends_with("/dash"), "{actor:?}");
        }
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn whoever_may_write_through_memory_is_named_as_no_more_than_that() {
    let Some(watched) = watch("whoever_may_write_through_memory_is_named_as_no_more_than_that") else { return };
    let path = std::path::Path::new(VALUED).join("mapped");
    fs::write(&path, [0; 4096]).unwrap();
    watched.touches();
    let source = format!("import mmap, os; m = mmap.mmap(os.open({path:?}, os.O_RDWR), 4096); m[0] = 7; m.close()");
    assert!(Command::new("python3").args(["-c", &source]).status().unwrap().success());
    let touches = watched.touches();
    fs::remove_file(&path).unwrap();
    let actors = told(&touches, &path);
    let mapper = actors.iter().find(|actor| actor.certainty == Certainty::Correlated);
    let mapper = mapper.unwrap_or_else(|| panic!("{touches:?}"));
    assert!(exe(mapper).contains("/python3") && mapper.reason.as_ref().is_some_and(|reason| reason.contains("mapped")), "{mapper:?}");
}

#[test]
fn whoever_mounts_is_named_for_what_came_into_view() {
    let Some(watched) = watch("whoever_mounts_is_named_for_what_came_into_view") else { return };
    let point = watched.path("mounted");
    fs::create_dir(&point).unwrap();
    watched.touches();
    assert!(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&point).status().unwrap().success());
    let end = Instant::now() + PATIENCE;
    let mounted = std::iter::from_fn(|| watched.signals.recv_timeout(end.saturating_duration_since(Instant::now())).ok());
    let mut touches = mounted.filter_map(|signal| match signal {
        Signal::Touched(touch) if touch.target == target(&point) => Some(touch),
        _ => None,
    });
    let touch = touches.next();
    assert!(Command::new("umount").arg(&point).status().unwrap().success());
    let actor = touch.expect("the mount is told").actor.expect("and who made it");
    assert!(exe(&actor).ends_with("/mount") && actor.certainty == Certainty::Correlated, "{actor:?}");
}
