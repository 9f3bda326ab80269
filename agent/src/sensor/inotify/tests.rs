//! What inotify still watches after names and folders have changed hands. The crate's thread can be held
//! back, so that the kernel's queue overflows; the worker takes its messages on the test's own thread.

use std::fs;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use trueline_drift::watch::WatchPolicy;

use super::*;

/// Only a test that is going to fail waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

struct Watched {
    base: PathBuf,
    worker: Worker,
    messages: Receiver<Message>,
    signals: Receiver<Signal>,
    /// While it is locked, the crate's thread stands still at its next event.
    gate: Arc<Mutex<()>>,
    fences: u32,
    /// Elsewhere: it leads to nothing else that is watched.
    fenced: PathBuf,
    _folders: [tempfile::TempDir; 2],
}

/// Watches `root` beneath a new folder, with all that `prepare` puts there.
fn watch(root: &str, prepare: impl Fn(&Path)) -> Watched {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [base, fenced] = [0, 1].map(|at: usize| folders[at].path().canonicalize().unwrap());
    let fenced = fenced.join("fences");
    fs::create_dir(&fenced).unwrap();
    prepare(&base);
    let (sender, messages) = sync_channel(1 << 20);
    let gate = Arc::new(Mutex::new(()));
    let held = Arc::clone(&gate);
    let handler = move |event| {
        drop(held.lock());
        let _ = sender.send(Message::Event(event));
    };
    let (signal_sender, signals) = sync_channel(1 << 20);
    let watcher = INotifyWatcher::new(handler, notify::Config::default().with_follow_symlinks(false)).unwrap();
    let outlet = Outlet::new(signal_sender, Arc::default());
    let mut worker = Worker::new(watcher, Arc::default(), Arc::default(), outlet, Arc::default());
    let paths = [base.join(root), fenced.clone()].map(|path| path.to_str().unwrap().to_owned());
    let view = View::new(&WatchPolicy { exclude: Vec::new(), ..WatchPolicy::only_paths(paths.into()) });
    let scopes = view.roots().iter().map(|path| Scope { path: path.clone(), reason: String::new() }).collect();
    worker.follow(Order { view, scopes, elsewhere: Vec::new(), done: sync_channel(1).0 }).unwrap();
    Watched { base, worker, messages, signals, gate, fences: 0, fenced, _folders: folders }
}

impl Watched {
    fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// Every message up to that of a file made now.
    fn messages(&mut self) -> Vec<Message> {
        self.fences += 1;
        let fence = self.fenced.join(self.fences.to_string());
        fs::write(&fence, "x").unwrap();
        let mut messages = Vec::new();
        loop {
            let message = self.messages.recv_timeout(PATIENCE).expect("a message of the last operation");
            if matches!(&message, Message::Event(Ok(event)) if event.paths.contains(&fence)) {
                return messages;
            }
            messages.push(message);
        }
    }

    /// The signals for all that happened until now.
    fn signals(&mut self) -> Vec<Signal> {
        for message in self.messages() {
            self.worker.take(message).unwrap();
        }
        self.signals.try_iter().collect()
    }

    /// Whether the next write to a file there is heard of, where it lies in a folder that was there before.
    fn hears_of(&mut self, name: &str) -> bool {
        self.signals();
        fs::write(self.path(name), "x").unwrap();
        let file = self.path(name);
        self.signals().iter().any(|signal| is_touch(signal, &file))
    }
}

fn is_touch(signal: &Signal, path: &Path) -> bool {
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    matches!(signal, Signal::Touched(touch) if touch.target == Target::Path(bytes.to_vec()))
}

/// Makes the kernel's queue overflow while `unseen` is done, takes what there is then, and looks for the loss.
fn overflow(watched: &mut Watched, unseen: impl Fn(&Path)) {
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    watched.signals();
    let gate = Arc::clone(&watched.gate);
    let held = gate.lock().unwrap();
    let (one, other) = (watched.path("root/one"), watched.path("root/other"));
    fs::write(&one, "x").unwrap();
    for _ in 0..limit {
        // A rename is two events, none of which is like the one before it.
        fs::rename(&one, &other).unwrap();
        fs::rename(&other, &one).unwrap();
    }
    unseen(&watched.base);
    drop(held);
    let mut lost = false;
    while !lost {
        match watched.messages.recv_timeout(PATIENCE) {
            Ok(message) => {
                lost = matches!(&message, Message::Event(Ok(event)) if event.need_rescan());
                watched.worker.take(message).unwrap();
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!("the queue has not overflowed"),
        }
    }
    let losses =
        watched.signals.try_iter().filter(|signal| matches!(signal, Signal::Lost(loss) if loss.reason == GapReason::QueueOverflow));
    assert_eq!(losses.count(), watched.worker.scopes.len());
}

#[test]
fn a_folder_that_was_replaced_during_an_overflow_is_watched_afterwards() {
    let mut watched = watch("root", |base| fs::create_dir_all(base.join("root/d/deep")).unwrap());
    assert!(watched.hears_of("root/d/deep/f"));
    overflow(&mut watched, |base| {
        fs::remove_dir_all(base.join("root/d")).unwrap();
        fs::create_dir_all(base.join("root/d/deep")).unwrap();
    });
    assert!(watched.hears_of("root/d/g") && watched.hears_of("root/d/deep/f"));
}

#[test]
fn a_folder_that_was_moved_during_an_overflow_is_watched_under_its_new_name_only() {
    let mut watched = watch("root", |base| fs::create_dir_all(base.join("root/a/deep")).unwrap());
    overflow(&mut watched, |base| fs::rename(base.join("root/a"), base.join("root/b")).unwrap());
    assert!(watched.hears_of("root/b/f") && watched.hears_of("root/b/deep/f"));
    assert!(!watched.worker.watched.iter().any(|folder| folder.starts_with(watched.path("root/a"))), "{:?}", watched.worker.watched);
}

/// The kernel tells the end of a removed folder once nobody holds it open any more: by then another has its name.
#[test]
fn the_late_end_of_a_replaced_folder_does_not_take_the_watch_of_its_successor() {
    let mut watched = watch("root", |base| fs::create_dir_all(base.join("root/d")).unwrap());
    let open = fs::File::open(watched.path("root/d")).unwrap();
    overflow(&mut watched, |base| {
        fs::remove_dir(base.join("root/d")).unwrap();
        fs::create_dir(base.join("root/d")).unwrap();
    });
    assert!(watched.hears_of("root/d/f"));
    drop(open);
    assert!(watched.hears_of("root/d/g"));
}

#[test]
fn a_folder_replaced_while_our_own_queue_was_full_is_watched_afterwards() {
    let mut watched = watch("root", |base| fs::create_dir_all(base.join("root/d")).unwrap());
    watched.signals();
    fs::remove_dir(watched.path("root/d")).unwrap();
    fs::create_dir(watched.path("root/d")).unwrap();
    let lost = watched.messages();
    assert!(!lost.is_empty());
    watched.worker.missed.count.store(lost.len() as u64, Ordering::Relaxed);
    watched.worker.missed.any.store(true, Ordering::Release);
    watched.worker.take(Message::Look).unwrap();
    assert!(watched.hears_of("root/d/f"));
}

#[test]
fn a_name_that_changes_hands_again_and_again_stays_watched() {
    let mut watched = watch("root", |base| fs::create_dir_all(base.join("root/d/deep")).unwrap());
    for round in 0..50 {
        fs::rename(watched.path("root/d"), watched.path(&format!("root/old-{round}"))).unwrap();
        fs::create_dir_all(watched.path("root/d/deep")).unwrap();
        if round % 2 == 0 {
            fs::remove_dir_all(watched.path("root/d")).unwrap();
            fs::create_dir_all(watched.path("root/d/deep")).unwrap();
        }
    }
    assert!(watched.hears_of("root/d/deep/f") && watched.hears_of("root/old-49/deep/f"));
}

#[test]
fn a_folder_moved_away_far_above_a_watched_path_takes_it_along_and_another_brings_it_back() {
    let mut watched = watch("x/y/z/root", |base| fs::create_dir_all(base.join("x/y/z/root/d")).unwrap());
    let root = watched.path("x/y/z/root");
    let is_tree = |signal: &Signal| matches!(signal, Signal::Touched(touch) if touch.depth == Depth::Tree);
    for folder in ["x", "x/y", "x/y/z"] {
        watched.signals();
        fs::rename(watched.path(folder), watched.path("away")).unwrap();
        let signals = watched.signals();
        assert!(signals.iter().any(|signal| is_touch(signal, &root) && is_tree(signal)), "{folder} left: {signals:?}");
        fs::create_dir_all(watched.path("x/y/z/root/d")).unwrap();
        let signals = watched.signals();
        assert!(signals.iter().any(|signal| is_touch(signal, &root) && is_tree(signal)), "{folder} came: {signals:?}");
        assert!(watched.hears_of("x/y/z/root/d/f"), "{folder}");
        fs::remove_dir_all(watched.path("away")).unwrap();
        assert!(watched.hears_of("x/y/z/root/d/g"), "{folder}: what became of the old one is no concern of it");
    }
}

#[test]
fn what_is_no_longer_in_view_is_no_longer_watched() {
    let mut watched = watch("root", |base| fs::create_dir_all(base.join("root/d")).unwrap());
    let fences = watched.fenced.clone();
    let view = View::new(&WatchPolicy::only_paths(vec![fences.to_str().unwrap().to_owned()]));
    let scopes = vec![Scope { path: fences, reason: String::new() }];
    watched.worker.follow(Order { view, scopes, elsewhere: Vec::new(), done: sync_channel(1).0 }).unwrap();
    watched.messages();
    fs::write(watched.path("root/d/f"), "x").unwrap();
    let root = watched.path("root");
    let is_of_root =
        |message: &Message| matches!(message, Message::Event(Ok(event)) if event.paths.iter().any(|path| path.starts_with(&root)));
    assert!(!watched.messages().iter().any(is_of_root));
    assert!(!watched.worker.watched.contains(&watched.path("root")));
}

/// Root may watch every folder, so that it may not is put in by hand.
#[test]
fn a_scope_says_which_of_its_folders_the_agent_may_not_watch() {
    let mut watched = watch("root", |base| fs::create_dir(base.join("root")).unwrap());
    let scope = file_scope(&watched.base.join("root"));
    let row = |worker: &Worker| {
        worker.publish();
        worker.coverage.rows().into_iter().find(|row| row.scope == scope).unwrap()
    };
    let whole = row(&watched.worker);
    assert!(whole.watching && whole.reason.as_deref() == Some(""), "{whole:?}");

    let private = watched.base.join("root/private");
    watched.worker.unreadable.insert(private.clone());
    let partly = row(&watched.worker);
    let reason = partly.reason.unwrap();
    assert!(
        partly.watching && reason.starts_with(&format!("1 folders could not be watched for lack of permission, {}", file_scope(&private))),
        "{reason}"
    );

    watched.worker.unreadable = BTreeSet::from([watched.base.clone()]);
    watched.worker.watched.clear();
    let hidden = row(&watched.worker);
    assert!(!hidden.watching && hidden.reason.as_deref().is_some_and(|reason| reason.contains("could not be watched")), "{hidden:?}");
}
