//! Signals as flags: SIGINT and SIGTERM end the agent, SIGHUP has its configuration read again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};

/// Set by a thread of its own, which ends with the process; each signal wakes the thread that made this.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    pub stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    /// To be called before any other thread exists, so that every thread inherits the mask.
    pub fn catch(wanted: &[Signal]) -> io::Result<Self> {
        let set: SigSet = wanted.iter().copied().collect();
        set.thread_block()?;
        let signals = Self::default();
        let (flags, waiting) = (signals.clone(), std::thread::current());
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            while let Ok(signal) = set.wait() {
                let flag = if signal == Signal::SIGHUP { &flags.reload } else { &flags.stop };
                flag.store(true, Ordering::Relaxed);
                waiting.unpark();
            }
        })?;
        Ok(signals)
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether a reload was asked for since the last call.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }
}
