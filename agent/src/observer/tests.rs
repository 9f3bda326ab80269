//! The observer over a real folder and a real state, with signals by hand.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;

use trueline_drift::redact::RedactionKey;
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Epoch, ItemId, RecordBody, Sequence, text};

use super::{Observer, ObserverParts, Sink, SinkError};
use crate::clock;
use crate::collect::Collectors;
use crate::sensor::{Depth, Signal, Target, Touch};
use crate::state::State;
use crate::status::Status;

/// Collects the changed items, and stops the observer when there are as many as are waited for.
struct Tally {
    changed: Arc<std::sync::Mutex<BTreeSet<ItemId>>>,
    wanted: usize,
    stop: Arc<AtomicBool>,
    sequence: u64,
}

impl Sink for Tally {
    fn put(&mut self, records: &[RecordBody]) -> Result<Sequence, SinkError> {
        let mut changed = self.changed.lock().unwrap();
        for record in records {
            self.sequence += 1;
            if let RecordBody::Changed(change) = record {
                changed.insert(change.item.clone());
            }
        }
        if changed.len() >= self.wanted {
            self.stop.store(true, Ordering::Relaxed);
        }
        Ok(Sequence(self.sequence))
    }

    fn epoch(&self) -> Epoch {
        Epoch(1)
    }

    fn applied(&mut self, _: (Epoch, Sequence)) {}

    fn restore(&mut self, state: &State) -> Result<(), SinkError> {
        state.reopen().map_err(|error| SinkError::Broken(error.to_string()))
    }
}

/// A burst larger than any batch: each touch must lead to a reading of its own item.
#[test]
fn every_touch_of_a_large_burst_is_followed_by_a_reading() {
    const FILES: usize = 3000;
    let folder = tempfile::tempdir().unwrap();
    let watched = folder.path().canonicalize().unwrap().join("watched");
    std::fs::create_dir(&watched).unwrap();
    let (sender, signals) = sync_channel(FILES);
    for number in 0..FILES {
        let path = watched.join(format!("file-{number}"));
        std::fs::write(&path, "new").unwrap();
        let target = Target::Path(path.as_os_str().as_bytes().to_vec());
        sender.send(Signal::Touched(Touch { target, at: clock::now(), actor: None, depth: Depth::Item, finished: true })).unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let changed = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let policy = Arc::new(WatchPolicy::only_paths(vec![text::printable(watched.as_os_str().as_bytes()).into_owned()]));
    let (state, _) = State::open(&folder.path().join("state.redb"), 1 << 20, "0").unwrap();
    let parts = ObserverParts {
        collectors: Collectors::new(Arc::clone(&policy), RedactionKey::new([0; 32])),
        policy,
        state: Arc::new(state),
        sink: Tally { changed: Arc::clone(&changed), wanted: FILES, stop: Arc::clone(&stop), sequence: 0 },
        status: Arc::new(Status::default()),
        sensors: None,
        scan_threads: 1,
        alive_file: None,
        answers: None,
        policy_version: tokio::sync::watch::Sender::new(0),
    };
    // Ends a run that would wait for ever: what is missing is then named below.
    let watchdog = Arc::clone(&stop);
    std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(60));
        watchdog.store(true, Ordering::Relaxed);
    });
    let (_errand_sender, mut errands) = tokio::sync::mpsc::channel(1);
    Observer::new(parts, Vec::new()).run(&signals, &mut errands, &stop);
    assert_eq!(changed.lock().unwrap().len(), FILES);
}
