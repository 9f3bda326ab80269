//! The last step before a change is recorded: what is known of an actor's process becomes the whole chain, with the login,
//! the executables' digests, how far sudo is to be believed, and the run of which all that is a part.
//!
//! Runs on the observer's thread. Invariants: a login is added to a session by the kernel's own number and only where both speak of
//! the same user; nothing that was known is made surer; what cannot be learnt stays absent. Waiting for what others are just
//! learning is bounded in all (see [`Patience`]), however many log in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tracing::warn;
use trueline_drift::actor::{Process, Session, SessionId, SessionKind};
use trueline_drift::transaction::{Chain, Standing, recognise};
use trueline_drift::{Actor, BootId, Certainty, ItemId, ItemKey, ItemKind, Time, Transaction, Value, text};

use super::chain::{self, OwnUnit};
use super::digest::Digests;
use super::genuine::{Found, Programs};
use super::image::{Images, ProcessImage};
use super::login::{AuditSession, Logins};
use super::placement::{is_of_system, is_of_users, is_the_hosts};
use crate::clock;
use crate::service::Confinement;
use crate::state::State;

/// For a login whose key is being asked for.
const LOGIN_PATIENCE: Duration = Duration::from_millis(150);
/// For an executable that is being read.
const DIGEST_PATIENCE: Duration = Duration::from_millis(30);
/// Actors whose completion is remembered: a run of one process makes many changes.
const REMEMBERED: usize = 16;
/// For how long: that an executable cannot be found, or a process not be told apart, may pass.
const REMEMBERED_FOR: Duration = Duration::from_secs(1);

/// What an actor comes to.
#[derive(Debug, Clone)]
struct Completed {
    at: Instant,
    from: Actor,
    to: (Actor, Option<Transaction>),
}

#[derive(Debug)]
pub struct Completion {
    logins: Option<Logins>,
    digests: Option<Digests>,
    programs: Programs,
    images: Images,
    boot: Option<BootId>,
    /// Of what happened from here on, sensors that follow processes have told in order.
    began: Time,
    patience: Patience,
    /// Those to which nothing can be added any more, the newest last.
    known: VecDeque<Completed>,
}

impl Completion {
    /// Each source that cannot be had is done without.
    pub fn start(confinement: &Confinement) -> Self {
        let absent = |what: &'static str| move |error: std::io::Error| warn!(%error, "actors go without {what}: no thread for it");
        let logins = Logins::start(confinement).map_err(absent("logins")).ok();
        let digests = Digests::start(confinement).map_err(absent("digests")).ok();
        Self::of(logins, digests)
    }

    /// From what a process and the host's files say alone.
    pub fn alone() -> Self {
        Self::of(None, None)
    }

    pub(crate) fn of(logins: Option<Logins>, digests: Option<Digests>) -> Self {
        Self {
            logins,
            digests,
            programs: Programs::default(),
            images: Images::default(),
            boot: crate::facts::boot_id(),
            began: clock::now(),
            patience: Patience::new(Instant::now()),
            known: VecDeque::new(),
        }
    }

    /// What a sensor knows of a process besides the actor that it will name. Has its executable read, should it be needed.
    pub fn note(&mut self, image: ProcessImage, state: &State) {
        if let Some(found) = self.programs.judge(&image).found
            && let Some(digests) = &self.digests
        {
            ask(digests, &found, state, Duration::ZERO);
        }
        self.images.note(image);
    }

    /// What keeps a part of the chain from being known.
    pub fn trouble(&self) -> Option<String> {
        self.logins.as_ref().and_then(Logins::trouble)
    }

    pub fn logins(&self) -> Option<&Logins> {
        self.logins.as_ref()
    }

    /// The process that leads a run of which this chain is a part.
    pub fn leader<'a>(&self, run: &Transaction, whole: &'a Actor) -> Option<&'a Process> {
        run.leader(self.boot?, whole)
    }

    /// The whole chain, and the innermost run that it belongs to.
    pub fn complete(&mut self, actor: &Actor, state: &State) -> (Actor, Option<Transaction>) {
        let now = Instant::now();
        let is_good = |known: &&Completed| now.duration_since(known.at) < REMEMBERED_FOR && known.from == *actor;
        if let Some(known) = self.known.iter().rev().find(is_good) {
            return known.to.clone();
        }
        let mut whole = actor.clone();
        let is_settled = self.add_login(&mut whole) & self.add_digests(&mut whole, state);
        self.weigh_sudo(&mut whole);
        weigh_container(&mut whole);
        let transaction = self.transaction(&whole);
        let to = (whole, transaction);
        if is_settled {
            if self.known.len() >= REMEMBERED {
                self.known.pop_front();
            }
            self.known.push_back(Completed { at: now, from: actor.clone(), to: to.clone() });
        }
        to
    }

    /// Whether nothing more will be known of the login.
    fn add_login(&mut self, actor: &mut Actor) -> bool {
        let Some(session) = actor.session.clone() else { return true };
        let Some(number) = self.boot.and_then(|boot| audit_session(&session.id, boot)) else { return true };
        let Some(logins) = &self.logins else {
            actor.session = without_login(actor, &session, false).or(Some(session));
            return true;
        };
        let began = Instant::now();
        let waited = logins.find_within(number, self.patience.at_most(LOGIN_PATIENCE, began));
        self.patience.spend(began.elapsed());
        let is_settled = logins.is_settled(number);
        // In this order: what settled it between the two must not be missed.
        let login = logins.find(number).or(waited);
        let is_found = login.is_some();
        if let Some(login) = login {
            let is_same = match (login.uid, &login.user, &actor.user) {
                (Some(uid), _, Some(user)) => user.login_uid == Some(uid),
                (None, Some(name), Some(user)) => user.login_name.as_ref() == Some(name),
                _ => false,
            };
            if is_same {
                let told = login.session(session.id);
                actor.session = Some(Session { terminal: told.terminal.clone().or(session.terminal), ..told });
            }
        }
        if !is_found && let Some(session) = actor.session.as_ref().and_then(|session| without_login(actor, session, is_settled)) {
            actor.session = Some(session);
        }
        // Of such a session logind may keep no record: its number is as far as it goes.
        if is_settled
            && !is_found
            && actor.session.as_ref().is_some_and(|session| session.certainty == Certainty::Unknown)
            && self.is_of_user_manager(actor)
        {
            actor.session = actor.session.as_ref().map(|session| of_user(actor, session, SessionKind::Service, Certainty::Strong));
        }
        is_settled
    }

    /// Below the first process there is another genuine service manager: a user's own.
    fn is_of_user_manager(&mut self, actor: &Actor) -> bool {
        let managers = actor.parents.iter().filter(|process| process.pid != 1);
        let mut managers = managers.filter(|process| process.exe.as_deref().is_some_and(|exe| exe.ends_with("/systemd/systemd")));
        managers.any(|manager| self.images.of(manager).is_some_and(|image| self.programs.judge(image).is_genuine()))
    }

    /// A process can call itself sudo: it counts as such where it runs the host's own.
    fn weigh_sudo(&mut self, actor: &mut Actor) {
        let Actor { sudo: Some(sudo), process, parents, .. } = actor else { return };
        let under = process.iter().chain(parents.iter()).find(|process| is_sudo(process));
        let image = under.and_then(|process| self.images.of(process));
        if !image.is_some_and(|image| self.programs.judge(image).is_genuine()) {
            sudo.certainty = sudo.certainty.max(Certainty::Correlated);
        }
    }

    /// The run of a package manager, a configuration manager or a job that the actor is a part of.
    fn transaction(&mut self, actor: &Actor) -> Option<Transaction> {
        let boot = self.boot?;
        let unit = chain::unit_of(actor);
        let told = chain::told_since(actor, self.began);
        let standing = |place: usize, process: &Process| {
            let image = self.images.of(process);
            let genuine = image.is_some_and(|image| self.programs.judge(image).is_genuine());
            // The kernel told its path as the process saw it.
            let script = process.script.as_deref().filter(|_| genuine && image.is_some_and(|image| !image.is_apart));
            Standing {
                uid: image.and_then(|image| image.uid),
                genuine,
                genuine_script: script.is_some_and(|script| self.programs.is_genuine_script(script)),
                ran_then: told.contains(&place).then_some(true),
            }
        };
        recognise(&Chain::of(actor, boot, unit.as_ref().map(OwnUnit::lent), standing))
    }

    /// Whether all digests are known that ever will be.
    fn add_digests(&mut self, actor: &mut Actor, state: &State) -> bool {
        let Some(digests) = &self.digests else { return true };
        let mut is_settled = true;
        for process in actor.process.iter_mut().chain(&mut actor.parents) {
            if process.sha256.is_some() {
                continue;
            }
            let Some(image) = self.images.of(process) else { continue };
            let Some(found) = self.programs.judge(image).found else { continue };
            let began = Instant::now();
            process.sha256 = ask(digests, &found, state, self.patience.at_most(DIGEST_PATIENCE, began));
            self.patience.spend(began.elapsed());
            is_settled &= digests.is_known(&found.stamp);
        }
        is_settled
    }
}

/// From memory, else from the agent's own state, which has most executables, else by reading.
fn ask(digests: &Digests, found: &Found, state: &State, patience: Duration) -> Option<trueline_drift::actor::Sha256Digest> {
    if !digests.is_known(&found.stamp)
        && let Ok(key) = ItemKey::from_bytes(&found.path)
        && let Ok(Some(stored)) = state.lookup(&ItemId::new(ItemKind::File, key))
        && stored.stamp == Some(found.stamp)
        && let Some(Value::Text(digest)) = stored.fields.value("sha256")
        && let Ok(digest) = digest.parse()
    {
        digests.note(found.stamp, digest);
    }
    digests.find_within(found, patience)
}

fn is_sudo(process: &Process) -> bool {
    process.exe.as_deref().is_some_and(|exe| exe.ends_with("/sudo"))
}

/// The number in a session's id, of this boot.
fn audit_session(id: &SessionId, boot: BootId) -> Option<AuditSession> {
    let number = id.as_str().rsplit('-').next()?.parse().ok()?;
    (SessionId::audit(boot, number) == *id).then_some(AuditSession(number))
}

/// A session without a login: of a daemon that starts work in other users' names. The kernel says in which of the host's own units
/// a process is, and only root could have put it there. As long as a login may yet be found, it is a guess.
fn without_login(actor: &Actor, session: &Session, is_settled: bool) -> Option<Session> {
    let certainty = if is_settled { Certainty::Strong } else { Certainty::Correlated };
    let (unit, slice) = (actor.unit.as_deref()?, actor.slice.as_deref()?);
    match unit {
        "cron.service" | "crond.service" | "cronie.service" | "atd.service" | "anacron.service" if is_of_system(slice) => {
            Some(Session { began_at: job_began(actor), ..of_user(actor, session, SessionKind::Cron, certainty) })
        }
        unit if is_user_manager(unit) && is_of_users(slice) => Some(of_user(actor, session, SessionKind::Service, certainty)),
        _ => None,
    }
}

fn of_user(actor: &Actor, session: &Session, kind: SessionKind, certainty: Certainty) -> Session {
    let user = actor.user.as_ref().and_then(|user| user.login_name.clone());
    Session { certainty, kind, user, ..session.clone() }
}

/// Users, and services to which their groups were given, name what lies beneath as they like.
fn weigh_container(actor: &mut Actor) {
    let Actor { container: Some(container), unit, slice, .. } = actor else { return };
    if !is_the_hosts(&container.id, unit.as_deref(), slice.as_deref()) {
        container.certainty = container.certainty.max(Certainty::Correlated);
    }
}

/// `user@1000.service`
fn is_user_manager(unit: &str) -> bool {
    unit.strip_prefix("user@").and_then(|rest| rest.strip_suffix(".service")).is_some_and(|uid| uid.parse::<u32>().is_ok())
}

/// The daemon makes a process for each job, which lives as long as that: it is the first whose parent runs the same program.
fn job_began(actor: &Actor) -> Option<Time> {
    let chain: Vec<&Process> = actor.process.iter().chain(&actor.parents).collect();
    let job = chain.windows(2).find(|pair| pair[0].exe.is_some() && pair[0].exe == pair[1].exe && is_daemon(pair[1]));
    job.and_then(|pair| pair[0].started_at)
}

fn is_daemon(process: &Process) -> bool {
    let name = process.exe.as_deref().and_then(|exe| exe.rsplit('/').next());
    name.is_some_and(|name| matches!(text::bounded(name, 16).as_ref(), "cron" | "crond" | "atd" | "anacron"))
}

/// How long the observer may wait for others in all: a tenth of the time, and three tenths of a second at once.
#[derive(Debug)]
struct Patience {
    left: Duration,
    at: Instant,
}

impl Patience {
    const MOST: Duration = Duration::from_millis(300);
    const SHARE: u32 = 10;

    fn new(now: Instant) -> Self {
        Self { left: Self::MOST, at: now }
    }

    fn at_most(&mut self, wish: Duration, now: Instant) -> Duration {
        let gained = now.saturating_duration_since(self.at) / Self::SHARE;
        self.at = self.at.max(now);
        self.left = (self.left + gained).min(Self::MOST);
        wish.min(self.left)
    }

    fn spend(&mut self, spent: Duration) {
        self.left = self.left.saturating_sub(spent);
    }
}

#[cfg(test)]
#[path = "complete_test.rs"]
mod tests;
