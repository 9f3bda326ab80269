//! Keeps the table within its bound of memory: what ended goes first, then the past of the living, the largest first.

use super::{BootTime, Generation, Table};

/// In bytes, by estimate.
pub(super) const MEMORY: usize = 8 << 20;
/// To which it is brought where the living are cut, so that this is done seldom.
const ROOMY: usize = MEMORY / 8 * 7;

impl Table {
    pub(super) fn refuse(&mut self, pid: u32) {
        if self.refused == 0 {
            tracing::warn!(
                pid,
                bytes = MEMORY,
                "no room for a process: who it is will not be known, and of others neither while so many live"
            );
        }
        self.refused = self.refused.saturating_add(1);
    }

    pub(super) fn shrink(&mut self) {
        self.make_room(0);
    }

    pub(super) fn make_room(&mut self, bytes: usize) {
        while self.memory + bytes > MEMORY && !self.ended.is_empty() {
            self.drop_oldest();
        }
        if self.memory + bytes > MEMORY {
            self.cut_largest();
        }
    }

    /// Of the living ones.
    fn cut_largest(&mut self) {
        let cost = |pid: &u32| self.processes.get(pid).map_or(0, |turns| turns.iter().map(Generation::cost).sum());
        let mut largest: Vec<(usize, u32)> = self.stepped.iter().map(|pid| (cost(pid), *pid)).collect();
        largest.sort_unstable_by(|one, other| other.cmp(one));
        for (before, pid) in largest {
            if self.memory <= ROOMY {
                return;
            }
            self.turns(pid).iter_mut().for_each(Generation::cut);
            let after: usize = self.turns(pid).iter().map(Generation::cost).sum();
            self.memory = (self.memory + after).saturating_sub(before);
            self.stepped.remove(&pid);
        }
    }

    /// Drops the steps that no event can belong to that is younger than this time.
    pub(super) fn tidy(&mut self, emptied: BootTime) {
        let Self { processes, stepped, memory, .. } = self;
        stepped.retain(|pid| {
            let Some(turns) = processes.get_mut(pid) else { return false };
            for generation in turns.iter_mut() {
                let before = generation.cost();
                generation.settle(emptied);
                *memory = (*memory + generation.cost()).saturating_sub(before);
            }
            turns.iter().any(|generation| generation.steps.len() > 1)
        });
    }

    pub(super) fn drop_oldest(&mut self) {
        let Some((pid, started)) = self.ended.pop_front() else { return };
        let Some(turns) = self.processes.get_mut(&pid) else { return };
        let Some(place) = turns.iter().position(|known| known.started == started && known.ended.is_some()) else { return };
        // Dropped, the earlier ones of the pid must not seem to have gone on.
        for former in turns.drain(..=place) {
            self.memory = self.memory.saturating_sub(former.cost());
        }
        if turns.is_empty() {
            self.processes.remove(&pid);
            self.stepped.remove(&pid);
        }
    }

    pub(super) fn remove(&mut self, pid: u32) {
        self.stepped.remove(&pid);
        for former in self.processes.remove(&pid).into_iter().flatten() {
            self.memory = self.memory.saturating_sub(former.cost());
        }
    }
}
