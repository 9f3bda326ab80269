//! Waiting in tests: for a condition, never for a time, and never for ever.

use std::time::{Duration, Instant};

/// Far beyond what a loaded machine needs: it ends a test that would hang, and decides nothing else.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first answer; panics naming `what` if there is none.
pub fn await_some<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    await_some(what, || holds().then_some(()));
}
