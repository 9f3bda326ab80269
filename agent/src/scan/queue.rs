//! A stack of tasks that a few threads work off together, adding to it as they go.
//!
//! Last in, first out: the walk goes deep before it goes wide, which keeps the stack short.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    idle: AtomicUsize,
}

struct State<T> {
    tasks: Vec<T>,
    /// Tasks being worked on: each may still add others.
    active: usize,
    stopped: bool,
}

impl<T> Queue<T> {
    pub fn new(tasks: Vec<T>) -> Self {
        Self { state: Mutex::new(State { tasks, active: 0, stopped: false }), changed: Condvar::new(), idle: AtomicUsize::new(0) }
    }

    /// A thread's part in the work.
    pub fn join(&self) -> Turn<'_, T> {
        Turn { queue: self, is_active: std::cell::Cell::new(false) }
    }

    pub fn push(&self, tasks: impl Iterator<Item = T>) {
        let mut state = self.lock();
        let before = state.tasks.len();
        state.tasks.extend(tasks);
        let added = state.tasks.len() - before;
        drop(state);
        if added > 0 && self.is_anyone_idle() {
            self.changed.notify_all();
        }
    }

    /// A hint: threads come and go.
    pub fn is_anyone_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed) > 0
    }

    /// No thread gets another task.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the work for all if its thread panics, so that none waits for it for ever.
pub struct Turn<'a, T> {
    queue: &'a Queue<T>,
    is_active: std::cell::Cell<bool>,
}

impl<T> Turn<'_, T> {
    /// The next task, once the last one is done; `None` when there is nothing left to do.
    pub fn next(&self) -> Option<T> {
        let mut state = self.queue.lock();
        if self.is_active.replace(false) {
            state.active -= 1;
        }
        loop {
            if state.stopped {
                return None;
            }
            if let Some(task) = state.tasks.pop() {
                state.active += 1;
                self.is_active.set(true);
                return Some(task);
            }
            if state.active == 0 {
                self.queue.changed.notify_all();
                return None;
            }
            self.queue.idle.fetch_add(1, Ordering::Relaxed);
            state = self.queue.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            self.queue.idle.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.queue.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_added_by_tasks_are_all_done_once() {
        let queue = Queue::new(vec![12_u32]);
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let turn = queue.join();
                    while let Some(depth) = turn.next() {
                        done.fetch_add(1, Ordering::Relaxed);
                        if depth > 0 {
                            queue.push([depth - 1, depth - 1].into_iter());
                        }
                    }
                });
            }
        });
        assert_eq!(done.into_inner(), (1 << 13) - 1);
    }
}
