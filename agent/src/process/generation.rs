//! One process of those that had a pid in turn: what it ran and for whom, step by step. Pure.
//!
//! Invariants: steps are in the order of time; a process is the copy of its maker until it runs a program of its own. What was
//! read from /proc is good from the step that it was read for, and only if nothing was told of the process in between.
//! What is told or seen of a process's standing differs from the step before only by what happened in between.

use std::sync::Arc;

use super::event::{BootTime, Program, Standing};
use super::order::{Fence, Order, Sighting, is_settled};

/// Steps remembered of one process, which can make as many as it likes.
const STEPS: usize = 12;
/// Makers remembered above a process.
const ANCESTORS: usize = 16;
/// In nanoseconds: how exactly /proc tells when a process was made.
pub const TICK: u64 = 10_000_000;
/// What one generation costs in memory, beside its program.
pub const COST: usize = 400;

#[derive(Debug)]
pub struct Generation {
    pub started: BootTime,
    /// The same as every source tells it: to the clock tick.
    pub shown: BootTime,
    /// Not the kernel's own number: that of a message, or a clock tick's beginning.
    pub is_rough: bool,
    pub maker: Maker,
    /// When it was made: all of its own file events came later in the queue.
    pub made: Fence,
    /// At least one.
    pub steps: Vec<Step>,
    /// Something came before the first step.
    pub is_cut: bool,
    pub ended: Option<BootTime>,
    /// Nothing told of it was lost since.
    pub whole_since: BootTime,
    /// It was looked at then, after news had been lost: what it did before may have been told of by that.
    pub doubtful_until: BootTime,
    as_maker: Option<Arc<Ancestor>>,
}

#[derive(Debug, Clone)]
pub enum Maker {
    /// As it was when it made this process; `None` where nothing is known of it.
    Told(Option<Arc<Ancestor>>),
    /// The parent by /proc.
    Seen(u32),
}

/// A process at the moment when it made another one.
#[derive(Debug, PartialEq, Eq)]
pub struct Ancestor {
    pub pid: u32,
    /// As [`Generation::shown`].
    pub started: BootTime,
    pub program: Option<Arc<Program>>,
    pub origin: Origin,
    pub standing: Option<Arc<Standing>>,
    pub above: Option<Arc<Ancestor>>,
    /// How many stand above.
    depth: usize,
}

#[derive(Debug, Clone)]
pub struct Step {
    pub at: BootTime,
    pub fence: Fence,
    pub cause: Cause,
    /// What it runs from here on; `None` where that could not be learnt.
    pub program: Option<Arc<Program>>,
    pub origin: Origin,
    pub standing: Option<Arc<Standing>>,
    /// Until when program and standing were being read from /proc.
    pub read_until: Option<BootTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Fork,
    Exec,
    Users,
    /// Found in /proc, or through a pidfd.
    Seen,
    Exit,
}

/// Where it was learnt what a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A feed told.
    Told,
    /// /proc showed it, to whoever looked later and where a process can write its own arguments.
    Read,
}

/// What a process may have been at an event: all possibilities, one where it is certain. `None` among them is one not known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Then {
    pub programs: Vec<Option<Arc<Program>>>,
    pub standings: Vec<Option<Arc<Standing>>>,
    /// Of a program among them no more is known than /proc showed.
    pub is_read: bool,
}

impl Ancestor {
    /// `at` that time, as far as it is known.
    pub fn new(pid: u32, generation: &Generation, at: BootTime, above: Option<Arc<Self>>) -> Arc<Self> {
        let last = generation.step_at(at);
        let above = above.map(|above| if above.depth + 1 >= 2 * ANCESTORS { above.nearest(ANCESTORS) } else { above });
        Arc::new(Self {
            pid,
            started: generation.shown,
            program: last.and_then(|step| step.program.clone()),
            origin: last.map_or(Origin::Read, |step| step.origin),
            standing: last.and_then(|step| step.standing.clone()),
            depth: above.as_ref().map_or(0, |above| above.depth + 1),
            above,
        })
    }

    /// A copy that ends after so many: else a line of processes, each made by the one before it, would grow for ever.
    fn nearest(&self, count: usize) -> Arc<Self> {
        let above = self.above.as_ref().filter(|_| count > 1).map(|above| above.nearest(count - 1));
        let depth = above.as_ref().map_or(0, |above| above.depth + 1);
        Arc::new(Self {
            pid: self.pid,
            started: self.started,
            program: self.program.clone(),
            origin: self.origin,
            standing: self.standing.clone(),
            above,
            depth,
        })
    }

    /// Itself and those above, nearest first.
    pub fn line(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::successors(Some(self), |ancestor| ancestor.above.as_ref()).take(ANCESTORS)
    }
}

impl Generation {
    pub fn new(started: BootTime, maker: Maker, first: Step) -> Self {
        let whole_since = first.at;
        let is_cut = first.cause != Cause::Fork;
        let made = if is_cut { Fence::UNKNOWN } else { first.fence };
        Self {
            started,
            shown: started,
            is_rough: false,
            maker,
            made,
            steps: vec![first],
            is_cut,
            ended: None,
            whole_since,
            doubtful_until: BootTime::default(),
            as_maker: None,
        }
    }

    /// Whether this is the process with that start time. What /proc showed is the beginning of a clock tick, and a message comes
    /// after the start that it tells of, however long after: the generation before ended earlier than that.
    pub fn is(&self, started: BootTime) -> bool {
        match (self.is_rough, &self.maker) {
            (false, _) => self.started == started || (started.nanos().is_multiple_of(TICK) && lies_in_tick(self.started, started)),
            (true, Maker::Seen(_)) => lies_in_tick(started, self.started),
            (true, Maker::Told(_)) => started <= self.started,
        }
    }

    /// It had its pid from this time on at the latest.
    pub fn had_begun(&self) -> BootTime {
        let is_seen = matches!(self.maker, Maker::Seen(_)) && self.is_rough;
        if is_seen { BootTime::from_nanos(self.started.nanos().saturating_add(TICK)) } else { self.started }
    }

    /// Whether it can be the maker of a process that began between these times.
    pub fn can_have_made(&self, from: BootTime, until: BootTime) -> bool {
        self.started <= until && self.ended.is_none_or(|ended| ended >= from)
    }

    pub fn cost(&self) -> usize {
        // A program is counted where it was executed; copies share it.
        let is_own = |step: &Step| step.cause == Cause::Exec || step.read_until.is_some();
        let own = |step: &Step| step.program.as_ref().filter(|_| is_own(step)).map_or(0, |program| size(program));
        COST + self.steps.iter().map(own).sum::<usize>()
    }

    /// Keeps the order of time, and drops the trust in what was read across this step.
    pub fn add(&mut self, mut step: Step) {
        self.as_maker = None;
        let place = self.steps.iter().rposition(|earlier| earlier.at <= step.at).map_or(0, |place| place + 1);
        for earlier in &mut self.steps[..place] {
            if earlier.read_until.is_some_and(|until| until >= step.at) {
                if step.cause == Cause::Exec {
                    earlier.program = None;
                }
                earlier.standing = None;
            }
        }
        let before = place.checked_sub(1).map(|before| &self.steps[before]);
        if step.cause != Cause::Exec && step.program.is_none() {
            step.program = before.and_then(|before| before.program.clone());
            step.origin = before.map_or(step.origin, |before| before.origin);
        }
        if step.standing.is_none() {
            step.standing = before.and_then(|before| before.standing.clone());
        }
        self.steps.insert(place, step);
        if self.steps.len() > STEPS {
            self.steps.remove(0);
            self.is_cut = true;
        }
    }

    /// Drops the steps that no event can belong to that is still to come.
    pub fn settle(&mut self, emptied: BootTime) {
        if let Some(place) = self.steps.iter().rposition(|step| is_settled(step.at, emptied)) {
            self.drop_before(place);
        }
    }

    /// To its last step: what an event before it belongs to is no longer known.
    pub fn cut(&mut self) {
        self.drop_before(self.steps.len() - 1);
    }

    /// To what it does not need memory of its own for.
    pub fn strip(&mut self) {
        self.cut();
        for step in &mut self.steps {
            step.program = None;
        }
        self.as_maker = None;
    }

    fn drop_before(&mut self, place: usize) {
        if place > 0 {
            self.steps.drain(..place);
            self.steps.shrink_to_fit();
            self.is_cut = true;
        }
    }

    /// The pid belongs to another one from this time on: what was read of it later was read of that.
    pub fn replaced(&mut self, at: BootTime) {
        self.ended.get_or_insert(at);
        for step in &mut self.steps {
            if step.read_until.is_some_and(|until| until >= at) {
                (step.program, step.standing) = (None, None);
            }
        }
        self.as_maker = None;
    }

    pub fn last(&self) -> Option<&Step> {
        self.steps.last()
    }

    pub fn step_at(&self, at: BootTime) -> Option<&Step> {
        self.steps.iter().rfind(|step| step.at <= at)
    }

    /// As it is since its last step: no answer for an earlier time.
    pub fn known_as_maker(&self, at: BootTime) -> Option<Arc<Ancestor>> {
        self.as_maker.clone().filter(|_| self.last().is_some_and(|last| last.at <= at))
    }

    pub fn remember_as_maker(&mut self, ancestor: &Arc<Ancestor>, at: BootTime) {
        if self.last().is_some_and(|last| last.at <= at) {
            self.as_maker = Some(Arc::clone(ancestor));
        }
    }

    /// What it may have been when the event came about.
    pub fn then(&self, sighting: &Sighting) -> Then {
        let mut then = Then::default();
        let base = self.steps.iter().rposition(|step| sighting.order(step.at, step.fence) == Order::Younger);
        if base.is_none() && self.is_cut {
            then.add(None, None);
        }
        let mut rest = self.steps.iter().skip(base.unwrap_or(0)).peekable();
        let mut last: Option<&Step> = None;
        let is_begun = base.is_some() || !self.is_cut;
        while let Some(step) = rest.next_if(|step| (is_begun && last.is_none()) || sighting.order(step.at, step.fence) != Order::Older) {
            then.add(Some(&step.program), Some(&step.standing));
            then.is_read |= step.origin == Origin::Read;
            last = Some(step);
        }
        // A difference that nothing told of came about somewhere between the two.
        if let (Some(last), Some(next)) = (last, rest.next()) {
            if next.cause == Cause::Seen && !same_program(last.program.as_deref(), next.program.as_deref()) {
                then.add(Some(&next.program), None);
                then.is_read |= next.origin == Origin::Read;
            }
            if let (Some(was), Some(is)) = (&last.standing, &next.standing)
                && differs_untold(next.cause, was, is)
            {
                then.add(None, Some(&next.standing));
            }
        }
        then
    }
}

impl Then {
    /// An outer `None` leaves it as it is, unless both are: then nothing is known.
    fn add(&mut self, program: Option<&Option<Arc<Program>>>, standing: Option<&Option<Arc<Standing>>>) {
        let nothing = program.is_none() && standing.is_none();
        if let Some(program) = program.or(nothing.then_some(&None))
            && !self.programs.iter().any(|known| same_program(known.as_deref(), program.as_deref()))
        {
            self.programs.push(program.clone());
        }
        if let Some(standing) = standing.or(nothing.then_some(&None))
            && !self.standings.contains(standing)
        {
            self.standings.push(standing.clone());
        }
    }
}

fn lies_in_tick(time: BootTime, tick: BootTime) -> bool {
    time >= tick && time.nanos() - tick.nanos() < TICK
}

/// A set-user-ID program changes the effective user by being executed, which is told; all else that differs at an exec
/// had changed before it. Nothing but the users is told of by their change.
fn differs_untold(cause: Cause, was: &Standing, is: &Standing) -> bool {
    match cause {
        Cause::Fork | Cause::Users => false,
        Cause::Exec => Standing { euid: was.euid, ..is.clone() } != *was,
        Cause::Seen | Cause::Exit => is != was,
    }
}

/// The same for whoever asks what was run. The name is left out: a process can call itself anything.
pub fn same_program(one: Option<&Program>, other: Option<&Program>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) if std::ptr::eq(one, other) => true,
        (Some(one), Some(other)) => {
            let path = |program: &Program| program.executable.as_ref().map(|executable| Arc::clone(&executable.path));
            path(one) == path(other) && one.arguments == other.arguments && one.script == other.script
        }
        _ => false,
    }
}

fn size(program: &Program) -> usize {
    let text = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
    let path = program.executable.as_ref().map_or(0, |executable| executable.path.len());
    256 + program.name.len() + program.arguments.bytes() + path + text(&program.script) + text(&program.cwd)
}
