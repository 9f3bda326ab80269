//! Services that begin and end, as systemd's links show them.

use std::os::unix::fs::symlink;
use std::time::Instant;

use super::*;
use crate::observer::kinds::Telling;

const UNITS: &str = "run/systemd/units";

struct Host<'a> {
    scene: &'a Scene,
    observer: Observer<Recorder>,
    records: Arc<Mutex<Vec<RecordBody>>>,
    seen: usize,
}

impl<'a> Host<'a> {
    /// With ssh running and cron not.
    fn new(scene: &'a Scene) -> Self {
        std::fs::create_dir_all(scene.root("usr/lib/systemd/system")).unwrap();
        std::fs::create_dir_all(scene.root(UNITS)).unwrap();
        for unit in ["ssh", "cron"] {
            std::fs::write(scene.root(&format!("usr/lib/systemd/system/{unit}.service")), "[Install]\nWantedBy=multi-user.target\n")
                .unwrap();
        }
        let sink = Recorder { records: Arc::default(), is_enough: Box::new(|_| false), stop: Arc::default() };
        let records = Arc::clone(&sink.records);
        let policy = WatchPolicy { kinds: vec![ItemKind::Unit], ..scene.policy() };
        let mut observer = Observer::new(scene.parts(policy, sink), Vec::new());
        observer.is_inventoried = true;
        let host = Self { scene, observer, records, seen: 0 };
        host.begin("ssh");
        host
    }

    fn link(&self, unit: &str) -> PathBuf {
        self.scene.root(&format!("{UNITS}/invocation:{unit}.service"))
    }

    fn begin(&self, unit: &str) {
        symlink("4c1d", self.link(unit)).unwrap();
    }

    fn end(&self, unit: &str) {
        std::fs::remove_file(self.link(unit)).unwrap();
    }

    /// What is told of activity when the units are read at that moment, and whether they are to be read again.
    fn read(&mut self, at: Instant) -> (Vec<String>, bool) {
        let mut listing = self.observer.parts.collectors.read_kind(ItemKind::Unit).unwrap();
        self.observer.withhold_activity(&mut listing, None, at);
        let mut again = self.observer.parts.collectors.read_kind(ItemKind::Unit).unwrap();
        self.observer.withhold_activity(&mut again, None, at);
        assert_eq!(again, listing, "what is told is read once more before");
        let actor = Actor::unknown("test");
        self.observer.compare_listed(ItemKind::Unit, listing.items, Cause::Rescan, &actor, Telling::AtOnce, None).unwrap();
        assert!(self.observer.hand_on());
        let records = self.records.lock().unwrap();
        let told = records[self.seen..].iter().filter_map(|record| match record {
            RecordBody::Changed(change) => {
                let active = change.after().and_then(|fields| fields.value("active").cloned());
                Some(format!("{} {}", change.item.key, active.map_or_else(|| "nothing".to_owned(), |active| active.to_string())))
            }
            _ => None,
        });
        let told = told.collect();
        self.seen = records.len();
        (told, self.observer.activity.polled().is_some())
    }

    fn manager_started(&self, ago: Duration) {
        use crate::process::event::BootTime;
        let ticks = Duration::from_nanos(BootTime::now().nanos()).saturating_sub(ago).as_millis() / 10;
        std::fs::create_dir_all(self.scene.root("proc/1")).unwrap();
        std::fs::write(self.scene.root("proc/1/stat"), format!("1 (systemd) S 0 1 1 0 -1 4194560 {}{ticks}", "0 ".repeat(12))).unwrap();
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_service_that_ends_is_told_once_it_stays_so_and_one_that_starts_again_is_not() {
    let scene = Scene::new();
    let mut host = Host::new(&scene);
    let now = Instant::now();
    assert_eq!(host.read(now), (vec!["cron.service false".to_owned(), "ssh.service true".to_owned()], false));
    host.end("ssh");
    assert_eq!(host.read(now), (vec![], true));
    host.begin("ssh");
    assert_eq!(host.read(now + SECOND), (vec![], false), "a restart");
    host.end("ssh");
    assert_eq!(host.read(now + 10 * SECOND), (vec![], true));
    assert_eq!(host.read(now + 11 * SECOND), (vec![], true));
    assert_eq!(host.read(now + 12 * SECOND), (vec!["ssh.service false".to_owned()], true));
    assert_eq!(host.read(now + 14 * SECOND), (vec![], false));
}

#[test]
fn while_a_host_starts_its_services_are_known_as_they_were() {
    let scene = Scene::new();
    let mut host = Host::new(&scene);
    let now = Instant::now();
    host.read(now);
    host.end("ssh");
    host.manager_started(30 * SECOND);
    assert_eq!(host.read(now), (vec![], true));
    assert_eq!(host.read(now + 60 * SECOND), (vec![], true));
    host.manager_started(400 * SECOND);
    assert_eq!(host.read(now + 61 * SECOND), (vec!["ssh.service false".to_owned()], true), "it did not come back");
}

#[test]
fn what_is_first_told_of_activity_once_a_host_has_started_is_no_change() {
    let scene = Scene::new();
    let mut host = Host::new(&scene);
    host.manager_started(30 * SECOND);
    let now = Instant::now();
    assert_eq!(host.read(now), (vec!["cron.service nothing".to_owned(), "ssh.service nothing".to_owned()], true));
    host.manager_started(400 * SECOND);
    assert_eq!(host.read(now + SECOND), (vec![], false));
    host.end("ssh");
    host.read(now + 10 * SECOND);
    assert_eq!(host.read(now + 12 * SECOND), (vec!["ssh.service false".to_owned()], true));
}
