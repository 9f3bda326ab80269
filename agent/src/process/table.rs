//! The table of processes, those that live and those that ended lately. Pure: times are arguments.
//!
//! Processes are kept by pid, one generation after the other. A fork inherits on whose behalf its maker runs, and is its
//! maker's copy until it runs a program of its own. [`Table::who`] answers for a file event with all that is possible: a
//! generation that ended before the event's queue was last empty is not, nor one that was made after the event was read; of the programs
//! that one process ran in turn, those that the order of events excludes (`order.rs`) are not. Where more than one remains, all are
//! told, and nobody may choose: a process that writes and at once executes another program must not pass for that.
//!
//! Bounded: what ended is dropped once its last events have been read, the oldest first, and of the living what no event to come can
//! belong to. Beyond the bound of memory both go sooner: first what ended, then all but the last step of the living, the
//! largest first; where that is not enough, new processes and programs are not taken up and are unknown, and this is counted.
//! `memory` is the sum of what the generations cost at every moment: every change of one is followed by its account.

mod room;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::event::{BootTime, ProcessEvent, ProcessEventKind, Program, Standing, Subject};
use super::generation::{Ancestor, Cause, Generation, Maker, Origin, Step, TICK, Then, same_program};
use super::order::{Fence, Holder, Sighting};
use room::MEMORY;

/// Generations of one pid.
const TURNS: usize = 8;
/// How long after its end a process may still close files, which makes events of its own.
const CLOSING: std::time::Duration = std::time::Duration::from_secs(2);
/// How long ago another queue of events may have been empty for the last time, beside the one of files.
const BEHIND: u64 = 2_000_000_000;
/// Looking for steps that are settled takes long where processes are many.
const TIDYING: std::time::Duration = std::time::Duration::from_secs(1);
/// Makers that were found in /proc, above one process.
const ABOVE: usize = 16;

#[derive(Debug, Default)]
pub struct Table {
    processes: HashMap<u32, Vec<Generation>>,
    /// Oldest first; one that went on all the same is recognised by its generation.
    ended: VecDeque<(u32, BootTime)>,
    /// Have more than one step.
    stepped: HashSet<u32>,
    memory: usize,
    /// When settled steps were last looked for.
    tidied: BootTime,
    /// Processes and programs that there was no room for.
    refused: u64,
    /// Between these times messages were lost.
    lost: Option<(BootTime, BootTime)>,
}

/// A process as /proc shows it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub pid: u32,
    /// A clock tick's beginning.
    pub started: BootTime,
    pub parent: u32,
    pub program: Option<Arc<Program>>,
    pub standing: Option<Arc<Standing>>,
    /// When reading ended.
    pub until: BootTime,
}

#[derive(Debug)]
pub enum Answer {
    Known(Known),
    /// These start times have generations that it may have been.
    Ambiguous(Vec<BootTime>),
    Unknown,
}

#[derive(Debug)]
pub struct Known {
    /// Of the generation, for [`Table::makers`]; and as every source tells it.
    pub started: BootTime,
    pub shown: BootTime,
    pub then: Then,
    /// Messages that were lost may have spoken of it.
    pub is_doubtful: bool,
}

impl Table {
    /// What a feed told.
    pub fn apply(&mut self, event: ProcessEvent, fence: Fence) {
        let ProcessEvent { at, process, kind, .. } = event;
        match kind {
            ProcessEventKind::Fork { parent, standing, .. } => self.fork(at, process, parent, standing.map(Arc::new), fence),
            ProcessEventKind::Exec { program, standing, .. } => {
                let step = Step {
                    at,
                    fence,
                    cause: Cause::Exec,
                    program: program.map(|program| Arc::new(*program)),
                    origin: Origin::Told,
                    standing: standing.map(Arc::new),
                    read_until: None,
                };
                self.step(process, step);
            }
            ProcessEventKind::Users { uid, euid } => {
                let known =
                    self.generation(process, at).and_then(|generation| generation.step_at(at)).and_then(|step| step.standing.clone());
                let standing = known.map(|known| Arc::new(Standing { uid, euid, ..(*known).clone() }));
                let (cause, origin) = (Cause::Users, Origin::Told);
                self.step(process, Step { at, fence, cause, program: None, origin, standing, read_until: None });
            }
            ProcessEventKind::Exit { standing } => {
                let started = self.change(process, at, |generation| {
                    let last = generation.last().and_then(|step| step.standing.as_deref());
                    if let Some(standing) = standing.filter(|standing| Some(standing) != last) {
                        let (cause, origin, standing) = (Cause::Exit, Origin::Told, Some(Arc::new(standing)));
                        generation.add(Step { at, fence, cause, program: None, origin, standing, read_until: None });
                    }
                    generation.ended = Some(at);
                    generation.started
                });
                self.ended.extend(started.map(|started| (process.pid, started)));
                self.shrink();
            }
        }
    }

    fn fork(&mut self, at: BootTime, process: Subject, parent: Subject, standing: Option<Arc<Standing>>, fence: Fence) {
        let is_known = |known: &&mut Generation| match process.started {
            Some(started) if !known.is_rough => known.started == started,
            // Seen since, and begun at that time.
            started => known.whole_since >= at && known.is(started.unwrap_or(at)),
        };
        if let Some(known) = self.turns(process.pid).iter_mut().find(is_known) {
            // It was found in /proc before its message was taken.
            if let Some(started) = process.started {
                (known.started, known.shown, known.is_rough) = (started, started, false);
            }
            known.made = fence;
            return;
        }
        let maker = self.ancestor(parent, at, 0);
        let program = maker.as_ref().and_then(|maker| maker.program.clone());
        let origin = maker.as_ref().map_or(Origin::Told, |maker| maker.origin);
        let standing = match (standing, maker.as_ref().and_then(|maker| maker.standing.clone())) {
            // Shared where they are equal, which they mostly are.
            (Some(told), Some(makers)) if told == makers => Some(makers),
            (told, makers) => told.or(makers),
        };
        let step = Step { at, fence, cause: Cause::Fork, program, origin, standing, read_until: None };
        let mut generation = Generation::new(process.started.unwrap_or(at), Maker::Told(maker), step);
        generation.is_rough = process.started.is_none();
        self.insert(process.pid, generation, at);
    }

    fn step(&mut self, process: Subject, step: Step) {
        let at = step.at;
        if self.generation(process, at).is_none() {
            if step.cause != Cause::Exec {
                return;
            }
            // Its start was lost.
            let mut generation = Generation::new(process.started.unwrap_or(at), Maker::Told(None), step);
            generation.is_rough = process.started.is_none();
            return self.insert(process.pid, generation, at);
        }
        self.change(process, at, |generation| {
            // The process connector tells of the first thread's end, after which another one may go on.
            if step.cause == Cause::Exec && generation.ended.is_some_and(|ended| ended < at) {
                generation.ended = None;
            }
            generation.add(step);
        });
        self.shrink();
        if self.memory > MEMORY {
            self.change(process, at, Generation::strip);
            self.refuse(process.pid);
        }
    }

    /// Changes the generation that was meant at that time, if there is one, and what it costs.
    fn change<R>(&mut self, process: Subject, at: BootTime, change: impl FnOnce(&mut Generation) -> R) -> Option<R> {
        let generation = self.generation(process, at)?;
        let before = generation.cost();
        let changed = change(generation);
        let (after, has_stepped) = (generation.cost(), generation.steps.len() > 1);
        self.memory = (self.memory + after).saturating_sub(before);
        if has_stepped {
            self.stepped.insert(process.pid);
        }
        Some(changed)
    }

    /// What /proc showed of the process that has this pid, read after a feed told that a program began.
    pub fn find(&mut self, pid: u32, until: BootTime, fence: Fence, program: Option<Program>, standing: Option<Standing>) {
        let (program, standing) = (program.map(Arc::new), standing.map(Arc::new));
        self.step(
            Subject { pid, started: None },
            Step { at: until, fence, cause: Cause::Seen, program, origin: Origin::Read, standing, read_until: Some(until) },
        );
    }

    /// What /proc shows of a process, at start or after a loss.
    pub fn see(&mut self, seen: Seen) {
        let step = Step {
            at: seen.until,
            fence: Fence::UNKNOWN,
            cause: Cause::Seen,
            program: seen.program,
            origin: Origin::Read,
            standing: seen.standing,
            read_until: Some(seen.until),
        };
        let whole = seen.until;
        let lost_until = self.lost.map(|(_, until)| until);
        let known = self.turns(seen.pid).iter_mut().rfind(|known| known.is(seen.started));
        if let Some(generation) = known {
            if step.program.is_none() {
                // It has ended and waits to be reaped, or is in the midst of an exec: nothing was seen of it.
                return;
            }
            if lost_until.is_some_and(|until| generation.whole_since <= until) {
                generation.doubtful_until = whole;
            }
            generation.whole_since = whole;
            generation.ended = None;
            let last = generation.last();
            let same_program = last.is_some_and(|last| same_program(last.program.as_deref(), step.program.as_deref()));
            if !same_program || last.is_some_and(|last| last.standing != step.standing) {
                // What a feed told of a program says more than /proc does.
                let program = step.program.filter(|_| !same_program);
                self.step(Subject { pid: seen.pid, started: Some(seen.started) }, Step { program, ..step });
            }
            return;
        }
        let mut generation = Generation::new(seen.started, Maker::Seen(seen.parent), step);
        generation.is_rough = true;
        self.insert(seen.pid, generation, whole);
    }

    /// On whose behalf a living process runs now. What differs from what is known came about since.
    pub fn observe(&mut self, pid: u32, at: BootTime, fence: impl FnOnce() -> Fence, change: impl FnOnce(&mut Standing)) {
        let Some(generation) = self.processes.get_mut(&pid).and_then(|turns| turns.last_mut()) else { return };
        let Some(known) = generation.last().and_then(|step| step.standing.clone()) else { return };
        let mut standing = (*known).clone();
        change(&mut standing);
        if standing != *known {
            let (cause, origin, standing) = (Cause::Seen, Origin::Told, Some(Arc::new(standing)));
            let before = generation.cost();
            generation.add(Step { at, fence: fence(), cause, program: None, origin, standing, read_until: None });
            self.memory = (self.memory + generation.cost()).saturating_sub(before);
            self.stepped.insert(pid);
        }
    }

    /// Messages between these times were lost, perhaps.
    pub fn lose(&mut self, from: BootTime, until: BootTime) {
        // What was lost before may still be in doubt.
        self.lost = Some((self.lost.map_or(from, |(earlier, _)| earlier.min(from)), until));
    }

    /// After a loss, once all living processes have been seen: the others have ended.
    pub fn end_others(&mut self, living: &HashSet<u32>, at: BootTime) {
        for (pid, turns) in &mut self.processes {
            for generation in turns.iter_mut().filter(|generation| generation.ended.is_none() && generation.whole_since < at) {
                if !living.contains(pid) {
                    generation.ended = Some(at);
                    self.ended.push_back((*pid, generation.started));
                }
            }
        }
    }

    /// Drops what ended so long before this time, when all file events had been read, that nothing of it is to come.
    pub fn forget(&mut self, emptied: BootTime) {
        if emptied.since(self.tidied) >= TIDYING {
            self.tidied = emptied;
            self.tidy(BootTime::from_nanos(emptied.nanos().saturating_sub(BEHIND)));
        }
        while let Some((pid, started)) = self.ended.front().copied() {
            let is_due = |generation: &Generation| generation.ended.is_none_or(|ended| emptied.since(ended) >= CLOSING);
            if !self.turns(pid).iter().find(|known| known.started == started).is_none_or(is_due) {
                return;
            }
            self.drop_oldest();
        }
    }

    /// Who was behind an event of this pid.
    pub fn who(&self, pid: u32, sighting: &Sighting) -> Answer {
        let Some(turns) = self.processes.get(&pid) else { return Answer::Unknown };
        // Who held the pid when the event was read held it at no time before its own start.
        // And what was queued before a process was made, or after another one had its pid, is not its own.
        let since = if sighting.holder == Holder::Present { sighting.began } else { sighting.emptied };
        let possible: Vec<&Generation> = turns
            .iter()
            .enumerate()
            .filter(|(turn, generation)| {
                let next = turns.get(turn + 1);
                let has_ended = generation.ended.is_some_and(|ended| ended <= sighting.ended) || next.is_some();
                generation.started <= sighting.ended
                    && !generation.made.is_after(sighting.place)
                    && next.is_none_or(|next| next.had_begun() >= since && !next.made.is_before(sighting.place))
                    && (sighting.holder != Holder::Reaped || has_ended)
            })
            .map(|(_, generation)| generation)
            .collect();
        match possible.as_slice() {
            [] => Answer::Unknown,
            [one] => Answer::Known(Known {
                started: one.started,
                shown: one.shown,
                then: one.then(sighting),
                is_doubtful: self.lost.is_some_and(|(from, until)| {
                    let is_before = |seen: BootTime| sighting.emptied < seen;
                    sighting.ended >= from && (one.whole_since <= until || is_before(one.doubtful_until))
                }),
            }),
            several => Answer::Ambiguous(several.iter().map(|generation| generation.started).collect()),
        }
    }

    /// Those who made a process, nearest first.
    pub fn makers(&mut self, pid: u32, started: BootTime, now: BootTime) -> Option<Arc<Ancestor>> {
        let generation = self.processes.get(&pid)?.iter().find(|known| known.started == started)?;
        match generation.maker.clone() {
            Maker::Told(maker) => maker,
            Maker::Seen(0) => None,
            // What has been its parent since before the agent began.
            Maker::Seen(parent) => {
                let parent = self.parent(parent, (generation.started, generation.had_begun()), now)?;
                self.ancestor(parent, now, 0)
            }
        }
    }

    /// How it stands, as far as is known.
    pub fn standing(&self, process: Subject) -> Option<&Standing> {
        let turns = self.processes.get(&process.pid)?;
        let generation = turns.iter().rfind(|known| process.started.is_none_or(|started| known.is(started)))?;
        generation.last()?.standing.as_deref()
    }

    /// The pid of whoever made it, as far as is known.
    pub fn parent_of(&self, process: Subject) -> Option<u32> {
        let turns = self.processes.get(&process.pid)?;
        match &turns.iter().rfind(|known| process.started.is_none_or(|started| known.is(started)))?.maker {
            Maker::Told(maker) => Some(maker.as_ref()?.pid),
            Maker::Seen(parent) => Some(*parent),
        }
    }

    /// Of the process that has this pid.
    pub fn pid_namespace(&self, pid: u32) -> Option<u32> {
        self.processes.get(&pid)?.last()?.last()?.standing.as_ref()?.pid_namespace
    }

    /// Processes and programs that there was no room for, since the agent began.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    #[cfg(test)]
    pub fn memory(&self) -> usize {
        self.memory
    }

    fn turns(&mut self, pid: u32) -> &mut [Generation] {
        self.processes.get_mut(&pid).map_or(&mut [], Vec::as_mut_slice)
    }

    fn generation(&mut self, process: Subject, at: BootTime) -> Option<&mut Generation> {
        let generation = self.turns(process.pid).iter_mut().rfind(|known| match process.started {
            Some(started) => known.is(started),
            None => known.started <= at,
        })?;
        if let Some(started) = process.started.filter(|_| generation.is_rough) {
            generation.shown = started;
            // A tick's beginning tells no more than what is known.
            if started.nanos() % TICK != 0 {
                (generation.started, generation.is_rough) = (started, false);
            }
        }
        Some(generation)
    }

    /// A process as it is when it makes another one.
    fn ancestor(&mut self, process: Subject, at: BootTime, depth: usize) -> Option<Arc<Ancestor>> {
        let generation = &*self.generation(process, at)?;
        if let Some(known) = generation.known_as_maker(at) {
            return Some(known);
        }
        let (maker, own) = (generation.maker.clone(), (generation.started, generation.had_begun()));
        let above = match maker {
            Maker::Told(above) => above,
            Maker::Seen(parent) if parent != 0 && parent != process.pid && depth < ABOVE => {
                self.parent(parent, own, at).and_then(|parent| self.ancestor(parent, at, depth + 1))
            }
            Maker::Seen(_) => None,
        };
        let generation = self.generation(process, at)?;
        let ancestor = Ancestor::new(process.pid, generation, at, above);
        generation.remember_as_maker(&ancestor, at);
        Some(ancestor)
    }

    /// The process that had this pid when /proc showed it as the parent of one with those times, if that is it still.
    fn parent(&self, pid: u32, child: (BootTime, BootTime), at: BootTime) -> Option<Subject> {
        let known = self.processes.get(&pid)?.iter().rfind(|known| known.started <= at)?;
        known.can_have_made(child.0, child.1).then_some(Subject { pid, started: None })
    }

    fn insert(&mut self, pid: u32, generation: Generation, at: BootTime) {
        let cost = generation.cost();
        self.make_room(cost);
        if self.memory + cost > MEMORY {
            // Nothing false may be said of the pid's former owner either.
            self.remove(pid);
            return self.refuse(pid);
        }
        self.memory += cost;
        let turns = self.processes.entry(pid).or_default();
        if let Some(former) = turns.last_mut() {
            if former.ended.is_none() {
                self.ended.push_back((pid, former.started));
            }
            let before = former.cost();
            former.replaced(at);
            self.memory = (self.memory + former.cost()).saturating_sub(before);
        }
        turns.push(generation);
        if turns.len() > TURNS {
            let former = turns.remove(0);
            self.memory = self.memory.saturating_sub(former.cost());
        }
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
