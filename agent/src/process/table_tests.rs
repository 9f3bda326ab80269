//! The table by stories, and against the truth of random ones.

use proptest::prelude::*;

use super::*;
use crate::process::event::{Arguments, Executable, Queued};
use crate::process::generation::COST;
use crate::process::order::FileQueue;

const fn at(micros: u64) -> BootTime {
    BootTime::from_nanos(micros * 1000)
}

fn program(path: &str) -> Program {
    let executable = Executable { path: Arc::from(path), removed: false, device: None, inode: None, changed: None };
    Program { name: String::new(), executable: Some(executable), script: None, arguments: Arguments::new(path.as_bytes()), cwd: None }
}

fn standing(uid: u32) -> Standing {
    Standing {
        uid,
        euid: uid,
        login_uid: Some(uid),
        session: Some(uid),
        cgroup: None,
        terminal: None,
        pid_namespace: None,
        mount_namespace: None,
    }
}

const fn queued(events: u32, since: u64) -> Queued {
    Queued { events, since: at(since) }
}

fn subject(pid: u32, started: u64) -> Subject {
    Subject { pid, started: Some(at(started)) }
}

fn event(when: u64, process: Subject, kind: ProcessEventKind) -> ProcessEvent {
    ProcessEvent { at: at(when), process, first_number: None, kind }
}

fn fork(when: u64, pid: u32, parent: Subject, uid: u32) -> ProcessEvent {
    event(when, subject(pid, when), ProcessEventKind::Fork { parent, standing: Some(standing(uid)), queued: None })
}

fn exec(when: u64, process: Subject, path: &str, uid: u32) -> ProcessEvent {
    let program = Some(Box::new(program(path)));
    event(when, process, ProcessEventKind::Exec { program, standing: Some(standing(uid)), queued: None })
}

fn exit(when: u64, process: Subject, uid: u32) -> ProcessEvent {
    event(when, process, ProcessEventKind::Exit { standing: Some(standing(uid)) })
}

fn table(events: impl IntoIterator<Item = ProcessEvent>) -> Table {
    let mut table = Table::default();
    table.see(Seen {
        pid: 1,
        started: at(0),
        parent: 0,
        program: Some(Arc::new(program("/sbin/init"))),
        standing: Some(Arc::new(standing(0))),
        until: at(2),
    });
    for event in events {
        table.apply(event, Fence::UNKNOWN);
    }
    table
}

fn sighting(emptied: u64, read: u64, holder: Holder) -> Sighting {
    Sighting { holder, ..Sighting::unplaced(at(emptied), at(read - 5), at(read)) }
}

fn paths(answer: &Answer) -> Vec<String> {
    let Answer::Known(known) = answer else { return Vec::new() };
    let path = |program: &Option<Arc<Program>>| {
        program.as_ref().map_or("?".to_owned(), |program| program.executable.as_ref().unwrap().path.to_string())
    };
    known.then.programs.iter().map(path).collect()
}

fn uids(answer: &Answer) -> Vec<Option<u32>> {
    let Answer::Known(known) = answer else { return Vec::new() };
    known.then.standings.iter().map(|standing| standing.as_ref().map(|standing| standing.uid)).collect()
}

const INIT: Subject = Subject { pid: 1, started: Some(BootTime::from_nanos(0)) };

#[test]
fn a_process_is_its_makers_copy_until_it_runs_a_program_of_its_own() {
    let table = table([fork(1000, 7, INIT, 0), exec(2000, subject(7, 1000), "/bin/sh", 0), exit(3000, subject(7, 1000), 0)]);
    let who = |emptied, read| paths(&table.who(7, &sighting(emptied, read, Holder::Unsaid)));
    assert_eq!(who(1100, 1900), ["/sbin/init"]);
    assert_eq!(who(2100, 2900), ["/bin/sh"]);
    assert_eq!(who(2100, 5000), ["/bin/sh"], "it closes files while it ends");
    assert_eq!(who(1100, 2900), ["/sbin/init", "/bin/sh"], "which of both is not known");
    assert_eq!(who(500, 900), Vec::<String>::new(), "there was no such process");
}

#[test]
fn one_that_writes_and_at_once_runs_another_program_never_passes_for_that() {
    let evil = [fork(1000, 7, INIT, 5), exec(2000, subject(7, 1000), "/tmp/evil", 5), exec(3000, subject(7, 1000), "/usr/bin/apt", 5)];
    let answer = table(evil).who(7, &sighting(2100, 9000, Holder::Present));
    assert_eq!(paths(&answer), ["/tmp/evil", "/usr/bin/apt"]);
}

#[test]
fn a_place_in_the_queue_settles_what_times_do_not_for_what_came_after_it() {
    let mut table = table([fork(1000, 7, INIT, 5)]);
    let mut queue = FileQueue::default();
    // One event waited when the program began.
    let fence = queue.fence(queued(1, 1999), at(2000));
    table.apply(exec(2000, subject(7, 1000), "/bin/sh", 5), fence);
    let reading = queue.read(at(5000), at(5010), 2);
    let who = |number| paths(&table.who(7, &reading.sighting(number)));
    assert_eq!(who(0), ["/sbin/init", "/bin/sh"], "while it waited, what the next program did to the same file was added to it");
    assert_eq!(who(1), ["/bin/sh"]);
}

#[test]
fn a_pid_that_is_used_again_is_never_taken_for_its_former_owner() {
    let first = [fork(1000, 7, INIT, 5), exec(1100, subject(7, 1000), "/bin/a", 5), exit(2000, subject(7, 1000), 5)];
    let second = [fork(3000, 7, INIT, 6), exec(3100, subject(7, 3000), "/bin/b", 6)];
    let table = table(first.into_iter().chain(second));
    let who = |emptied, read, holder| table.who(7, &sighting(emptied, read, holder));
    assert_eq!(paths(&who(1500, 2500, Holder::Reaped)), ["/bin/a"]);
    assert_eq!(
        paths(&who(1500, 4000, Holder::Present)),
        ["/sbin/init", "/bin/b"],
        "who holds the pid has done it, before its exec or after"
    );
    assert_eq!(paths(&who(1500, 4000, Holder::Reaped)), ["/bin/a"], "who holds the pid has not done it");
    assert!(matches!(who(1500, 4000, Holder::Unsaid), Answer::Ambiguous(several) if several.len() == 2));
    assert_eq!(paths(&who(3500, 4000, Holder::Unsaid)), ["/bin/b"]);
    assert!(matches!(table.who(8, &sighting(1, 10, Holder::Unsaid)), Answer::Unknown));
}

/// All of it lay in the queue at once, and nobody has the pid any more.
#[test]
fn two_that_had_a_pid_in_turn_are_told_apart_by_what_waited_when_the_second_was_made() {
    let mut queue = FileQueue::default();
    let mut table = table([]);
    table.apply(fork(1000, 7, INIT, 5), queue.fence(queued(0, 999), at(1000)));
    table.apply(exit(2000, subject(7, 1000), 5), Fence::UNKNOWN);
    table.apply(fork(3000, 7, INIT, 6), queue.fence(queued(2, 2999), at(3000)));
    table.apply(exit(4000, subject(7, 3000), 6), Fence::UNKNOWN);
    let reading = queue.read(at(5000), at(5010), 3);
    let who = |number| match table.who(7, &Sighting { holder: Holder::Reaped, ..reading.sighting(number) }) {
        Answer::Known(known) => known.started,
        other => panic!("{other:?}"),
    };
    assert_eq!([who(0), who(1), who(2)], [at(1000), at(1000), at(3000)]);
}

#[test]
fn on_whose_behalf_is_told_only_where_it_did_not_change_meanwhile() {
    // As cron does: made by root, becomes another user, and only then runs the job.
    let job = [fork(1000, 7, INIT, 0), exec(2000, subject(7, 1000), "/bin/job", 5), exit(3000, subject(7, 1000), 5)];
    let table = table(job);
    assert_eq!(uids(&table.who(7, &sighting(1100, 1900, Holder::Unsaid))), [Some(0), Some(5)]);
    assert_eq!(uids(&table.who(7, &sighting(2100, 2900, Holder::Unsaid))), [Some(5)]);
    // Whoever ends as another user than it began was both at some time.
    let mut table = super::tests::table([fork(1000, 7, INIT, 0), exit(3000, subject(7, 1000), 5)]);
    assert_eq!(uids(&table.who(7, &sighting(1100, 1900, Holder::Unsaid))), [Some(0), Some(5)]);
    table.apply(fork(4000, 8, INIT, 0), Fence::UNKNOWN);
    table.observe(8, at(5000), || Fence::UNKNOWN, |standing| standing.uid = 9);
    assert_eq!(uids(&table.who(8, &sighting(4100, 4900, Holder::Present))), [Some(0), Some(9)]);
    assert_eq!(uids(&table.who(8, &sighting(5100, 6000, Holder::Present))), [Some(9)]);
}

#[test]
fn a_change_of_user_that_is_told_after_the_end_is_still_one_of_its_life() {
    let left = Standing { uid: 5, euid: 5, ..standing(0) };
    let ended = event(3000, subject(7, 1000), ProcessEventKind::Exit { standing: Some(left) });
    let mut table = table([fork(1000, 7, INIT, 0), ended]);
    let bare = Subject { pid: 7, started: None };
    table.apply(event(2000, bare, ProcessEventKind::Users { uid: 5, euid: 5 }), Fence::UNKNOWN);
    assert_eq!(uids(&table.who(7, &sighting(1100, 1900, Holder::Reaped))), Vec::<Option<u32>>::new(), "it had not ended then");
    assert_eq!(uids(&table.who(7, &sighting(2100, 3500, Holder::Reaped))), [Some(5)]);
}

#[test]
fn a_change_of_user_that_is_told_late_takes_nothing_from_what_came_after_it() {
    let seven = subject(7, 1000);
    let left = event(1500, seven, ProcessEventKind::Users { uid: 9, euid: 9 });
    let login = |uid| Standing { session: Some(77), ..standing(uid) };
    let ran =
        event(2000, seven, ProcessEventKind::Exec { program: Some(Box::new(program("/bin/x"))), standing: Some(login(9)), queued: None });
    let table = table([fork(1000, 7, INIT, 5), ran, left]);
    let Answer::Known(known) = table.who(7, &sighting(1600, 1700, Holder::Unsaid)) else { panic!("it is known") };
    // The login changed without a word, so it may have had either; as long as it stood as before, it was another user's.
    let before = Standing { uid: 9, euid: 9, ..standing(5) };
    assert_eq!(known.then.standings, [Some(Arc::new(before)), Some(Arc::new(login(9)))]);
}

#[test]
fn a_set_user_id_program_is_no_change_that_nobody_told() {
    let sudo = ProcessEventKind::Exec {
        program: Some(Box::new(program("/usr/bin/sudo"))),
        standing: Some(Standing { euid: 0, ..standing(5) }),
        queued: None,
    };
    let table = table([fork(1000, 7, INIT, 5), event(2000, subject(7, 1000), sudo)]);
    let Answer::Known(known) = table.who(7, &sighting(1100, 1900, Holder::Present)) else { panic!() };
    assert_eq!(known.then.standings.len(), 1);
}

#[test]
fn what_was_read_too_late_is_not_believed() {
    let mut table = table([]);
    let bare = Subject { pid: 7, started: None };
    let begins = || ProcessEventKind::Exec { program: None, standing: None, queued: None };
    let find = |table: &mut Table, until, path| table.find(7, at(until), Fence::UNKNOWN, Some(program(path)), Some(standing(5)));
    table.apply(event(1000, bare, ProcessEventKind::Fork { parent: INIT, standing: None, queued: None }), Fence::UNKNOWN);
    table.apply(event(2000, bare, begins()), Fence::UNKNOWN);
    // By 2500 it may have been the next program that showed itself.
    find(&mut table, 2500, "/bin/sh");
    assert_eq!(paths(&table.who(7, &sighting(2100, 2400, Holder::Present))), ["?", "/bin/sh"]);
    assert_eq!(paths(&table.who(7, &sighting(2600, 2700, Holder::Present))), ["/bin/sh"]);
    // It was: the message came late.
    table.apply(event(2400, bare, begins()), Fence::UNKNOWN);
    find(&mut table, 2800, "/usr/bin/apt");
    assert_eq!(paths(&table.who(7, &sighting(2100, 2300, Holder::Present))), ["?"]);
    assert!(paths(&table.who(7, &sighting(2410, 2490, Holder::Present))).contains(&"?".to_owned()));
    assert_eq!(paths(&table.who(7, &sighting(2900, 3000, Holder::Present))), ["/usr/bin/apt"]);
    // The pid went to another process before reading ended.
    table.apply(event(2790, bare, ProcessEventKind::Fork { parent: INIT, standing: None, queued: None }), Fence::UNKNOWN);
    assert!(!paths(&table.who(7, &sighting(2700, 2780, Holder::Reaped))).contains(&"/usr/bin/apt".to_owned()));
}

#[test]
fn a_process_that_was_seen_is_not_the_one_that_gets_its_pid_within_the_same_tick() {
    let mut table = table([]);
    let seen = Seen {
        pid: 7,
        started: at(10_000),
        parent: 1,
        program: Some(Arc::new(program("/bin/a"))),
        standing: Some(Arc::new(standing(5))),
        until: at(12_000),
    };
    table.see(seen);
    table.apply(exit(13_000, subject(7, 11_500), 5), Fence::UNKNOWN);
    table.apply(fork(14_000, 7, INIT, 6), Fence::UNKNOWN);
    table.apply(exec(15_000, subject(7, 14_000), "/bin/b", 6), Fence::UNKNOWN);
    assert_eq!(paths(&table.who(7, &sighting(15_100, 16_000, Holder::Unsaid))), ["/bin/b"]);
    assert_eq!(paths(&table.who(7, &sighting(12_100, 13_900, Holder::Unsaid))), ["/bin/a"]);
}

#[test]
fn makers_are_remembered_as_they_were_when_they_made_it() {
    let mut table = table([
        fork(1000, 7, INIT, 5),
        exec(2000, subject(7, 1000), "/usr/bin/sudo", 5),
        fork(3000, 8, subject(7, 1000), 0),
        exec(4000, subject(7, 1000), "/bin/other", 5),
        exit(5000, subject(7, 1000), 5),
    ]);
    table.forget(at(10_000_000));
    let makers = table.makers(8, at(3000), at(10_000_000)).unwrap();
    let line: Vec<String> =
        makers.line().map(|maker| maker.program.as_ref().unwrap().executable.as_ref().unwrap().path.to_string()).collect();
    assert_eq!(line, ["/usr/bin/sudo", "/sbin/init"]);
    assert!(matches!(table.who(7, &sighting(4500, 4900, Holder::Unsaid)), Answer::Unknown), "its events were read long ago");
}

#[test]
fn lost_news_makes_doubtful_what_it_may_have_been_about_until_it_is_seen_again() {
    // Within a clock tick, as the kernel numbers them.
    let mut table = table([fork(1000, 7, INIT, 5), fork(1000, 8, INIT, 5)]);
    table.lose(at(2000), at(3000));
    let is_doubtful = |table: &Table, pid, emptied, read| match table.who(pid, &sighting(emptied, read, Holder::Unsaid)) {
        Answer::Known(known) => known.is_doubtful,
        other => panic!("{other:?}"),
    };
    assert!(!is_doubtful(&table, 7, 1100, 1900));
    assert!(is_doubtful(&table, 7, 1100, 2500));
    let seen = Seen {
        pid: 7,
        started: at(0),
        parent: 1,
        program: Some(Arc::new(program("/sbin/init"))),
        standing: Some(Arc::new(standing(5))),
        until: at(4100),
    };
    // As /proc tells it: to the clock tick.
    table.see(seen);
    assert_eq!(table.processes[&7].len(), 1, "it is the same process");
    table.end_others(&HashSet::from([1, 7]), at(3900));
    assert!(!is_doubtful(&table, 7, 4200, 4900));
    assert!(is_doubtful(&table, 7, 2200, 4900), "what it did before it was seen may have been told of by what was lost");
    assert!(is_doubtful(&table, 8, 1100, 2500));
    // Another loss takes nothing back of the doubt that there is.
    table.lose(at(4920), at(4950));
    assert!(is_doubtful(&table, 8, 1100, 2500));
    table.forget(at(20_000_000));
    assert!(matches!(table.who(8, &sighting(19_000_000, 20_000_000, Holder::Unsaid)), Answer::Unknown));
}

fn seen(pid: u32, started: u64, parent: u32, until: u64) -> Seen {
    let (program, standing) = (Some(Arc::new(program("/bin/seen"))), Some(Arc::new(standing(5))));
    Seen { pid, started: at(started), parent, program, standing, until: at(until) }
}

#[test]
fn who_has_the_pid_of_a_parent_that_ended_is_not_taken_for_it() {
    let mut told = table([]);
    told.see(seen(8, 100_000, 7, 200_000));
    told.see(seen(9, 110_000, 8, 200_000));
    let line = |table: &mut Table, pid, started| {
        let makers = table.makers(pid, at(started), at(900_000));
        makers.map_or(Vec::new(), |maker| maker.line().map(|maker| maker.pid).collect::<Vec<_>>())
    };
    // Its parent ended unseen, and the pid is another one's.
    told.apply(fork(300_000, 7, INIT, 6), Fence::UNKNOWN);
    assert_eq!(line(&mut told, 8, 100_000), Vec::<u32>::new());
    assert_eq!(line(&mut told, 9, 110_000), [8]);
    // One that had ended before the child began has not made it either.
    let mut told = table([fork(20_000, 7, INIT, 5), exit(30_000, subject(7, 20_000), 5)]);
    told.see(seen(8, 100_000, 7, 200_000));
    assert_eq!(line(&mut told, 8, 100_000), Vec::<u32>::new());
    // The true one, which was there all the time.
    let mut told = table([fork(20_000, 7, INIT, 5)]);
    told.see(seen(8, 100_000, 7, 200_000));
    assert_eq!(line(&mut told, 8, 100_000), [7, 1]);
}

#[test]
fn what_only_proc_showed_is_told_apart_from_what_a_feed_told() {
    let mut table = table([fork(3000, 7, INIT, 0)]);
    table.see(seen(8, 0, 1, 2900));
    table.apply(fork(4000, 9, subject(8, 0), 5), Fence::UNKNOWN);
    let is_read = |table: &Table, pid, emptied| match table.who(pid, &sighting(emptied, emptied + 90, Holder::Present)) {
        Answer::Known(known) => known.then.is_read,
        other => panic!("{other:?}"),
    };
    assert!(is_read(&table, 8, 3000));
    assert!(is_read(&table, 9, 4100) && is_read(&table, 7, 3100), "a copy of what was read is no better");
    table.apply(exec(5000, subject(9, 4000), "/bin/b", 5), Fence::UNKNOWN);
    assert!(!is_read(&table, 9, 5100));
    // Whom it runs for was looked at; what it runs was told.
    table.observe(9, at(6000), || Fence::UNKNOWN, |standing| standing.uid = 9);
    assert!(!is_read(&table, 9, 6100));
    // As after a loss, of the same program and of another one.
    let shown = |path, until| Seen { program: Some(Arc::new(program(path))), ..seen(9, 0, 8, until) };
    table.see(shown("/bin/b", 7000));
    assert!(!is_read(&table, 9, 7100));
    table.see(shown("/bin/c", 8000));
    assert!(is_read(&table, 9, 8100));
}

#[test]
fn steps_that_no_event_can_belong_to_are_dropped() {
    let mut table = table([fork(1000, 7, INIT, 5)]);
    for number in 1..10 {
        table.apply(exec(1000 + number * 100, subject(7, 1000), &format!("/bin/{number}"), 5), Fence::UNKNOWN);
    }
    table.forget(at(3_500_000));
    assert_eq!(table.processes[&7][0].steps.len(), 1);
    assert_eq!(paths(&table.who(7, &sighting(3_500_000, 3_600_000, Holder::Present))), ["/bin/9"]);
    table.apply(exec(3_550_000, subject(7, 1000), "/bin/next", 5), Fence::UNKNOWN);
    assert_eq!(paths(&table.who(7, &sighting(3_500_000, 3_600_000, Holder::Present))), ["/bin/9", "/bin/next"]);
    assert_eq!(table.memory(), costs(&table));
}

#[test]
fn the_largest_make_room_before_anybody_is_refused() {
    let mut table = table([]);
    let argument = "x".repeat(3000);
    let mut now = 1000;
    for pid in 2..1000 {
        table.apply(fork(now, pid, INIT, 5), Fence::UNKNOWN);
        for number in 1..12 {
            table.apply(exec(now + number, subject(pid, now), &format!("/bin/{number}{argument}"), 5), Fence::UNKNOWN);
        }
        now += 20;
        assert!(table.memory() <= MEMORY);
    }
    assert_eq!((table.refused(), table.processes.len()), (0, 999));
    // What was cut off is not known, and nothing else is said in its place.
    let is_cut = |pid: &u32| table.processes[pid][0].is_cut;
    let pid = (2..1000).find(is_cut).unwrap();
    let cut = paths(&table.who(pid, &sighting(900, now, Holder::Present)));
    assert_eq!((cut.len(), cut[0].as_str()), (2, "?"), "{cut:?}");
    // Beyond that there is no room, which is counted; programs of those that are known are not known then.
    for pid in 1000..4000 {
        now += 20;
        table.apply(fork(now, pid, INIT, 5), Fence::UNKNOWN);
        table.apply(exec(now + 1, subject(pid, now), &argument, 5), Fence::UNKNOWN);
        assert!(table.memory() <= MEMORY);
    }
    assert!(table.refused() > 0);
    assert_ne!(paths(&table.who(3999, &sighting(now + 10, now + 20, Holder::Present))), ["/sbin/init"]);
    assert_eq!(table.memory(), costs(&table));
}

fn costs(table: &Table) -> usize {
    table.processes.values().flatten().map(Generation::cost).sum()
}

#[test]
fn memory_is_bounded_whatever_processes_do() {
    let mut table = table([]);
    let mut now = 1000;
    // Each makes the next one and ends: the line of makers must not grow with them.
    let mut maker = INIT;
    for pid in 2..60_000 {
        now += 10;
        table.apply(fork(now, pid, maker, 5), Fence::UNKNOWN);
        maker = subject(pid, now);
        table.apply(exec(now + 1, maker, &"x".repeat(300), 5), Fence::UNKNOWN);
        table.apply(exit(now + 2, maker, 5), Fence::UNKNOWN);
        assert!(table.memory() <= MEMORY, "{pid}");
    }
    let depth = table.makers(59_999, at(now), at(now)).unwrap().line().count();
    assert!(depth <= 16, "{depth}");
    // One that runs program after program, and one that lives for each pid.
    for number in 0..10_000 {
        table.apply(exec(now + 100 + number, maker, &"y".repeat(3000), 5), Fence::UNKNOWN);
    }
    for pid in 100_000..150_000 {
        table.apply(fork(now + 200_000, pid, INIT, 5), Fence::UNKNOWN);
    }
    assert!(table.memory() <= MEMORY);
    assert!(table.processes.len() <= MEMORY / COST + 1);
}

/// What processes of few pids do, one step after the other, with file events among it that wait in a queue.
#[derive(Debug, Clone)]
enum Act {
    Fork {
        parent: usize,
        pid: u32,
    },
    Exec {
        process: usize,
    },
    Become {
        process: usize,
    },
    Write {
        process: usize,
        file: u8,
    },
    End {
        process: usize,
    },
    /// The reader takes some of what waits, and then the news.
    Read {
        events: usize,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let process = 0..6_usize;
    prop_oneof![
        3 => (process.clone(), 2..6_u32).prop_map(|(parent, pid)| Act::Fork { parent, pid }),
        3 => process.clone().prop_map(|process| Act::Exec { process }),
        1 => process.clone().prop_map(|process| Act::Become { process }),
        6 => (process.clone(), 0..3_u8).prop_map(|(process, file)| Act::Write { process, file }),
        3 => process.prop_map(|process| Act::End { process }),
        3 => (1..6_usize).prop_map(|events| Act::Read { events }),
    ]
}

#[derive(Debug, Clone)]
struct Living {
    pid: u32,
    started: u64,
    path: String,
    uid: u32,
    /// It changed its user untold: between two that are told or seen nobody could know of a third.
    became: bool,
}

/// The truth about one file event: who did all that was added to it while it waited, which is one process always.
#[derive(Debug, Clone)]
struct Wrote {
    file: u8,
    by: Vec<Living>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever the order, the truth is among what is said to be possible, and what is said without doubt is the truth.
    #[test]
    fn nobody_is_ever_named_wrongly(acts in proptest::collection::vec(act(), 1..80), step in 3..40_u64, placed in any::<bool>()) {
        let mut now = 1000;
        let init = Living { pid: 1, started: 0, path: "/sbin/init".to_owned(), uid: 0, became: false };
        let mut living = vec![init];
        let mut told = table([]);
        let mut news: Vec<(ProcessEvent, Option<Queued>)> = Vec::new();
        let mut waiting: VecDeque<Wrote> = VecDeque::new();
        let mut files = FileQueue::default();
        files.emptied(at(500));
        for (number, act) in acts.into_iter().enumerate() {
            now += step;
            let of = |process: usize| process % living.len();
            match act {
                Act::Fork { parent, pid } => {
                    if living.iter().any(|process| process.pid == pid) {
                        continue;
                    }
                    let parent = living[of(parent)].clone();
                    let event = fork(now, pid, subject(parent.pid, parent.started), parent.uid);
                    news.push((event, Some(queued(waiting.len() as u32, now))));
                    living.push(Living { pid, started: now, became: false, ..parent });
                }
                Act::Exec { process } => {
                    let place = of(process);
                    let process = &mut living[place];
                    process.path = format!("/bin/p{number}");
                    let event = exec(now, subject(process.pid, process.started), &process.path, process.uid);
                    news.push((event, Some(queued(waiting.len() as u32, now))));
                }
                // Nobody tells of this one.
                Act::Become { process } => {
                    let place = of(process);
                    if place != 0 && !std::mem::replace(&mut living[place].became, true) {
                        living[place].uid = 100 + number as u32;
                    }
                }
                Act::Write { process, file } => {
                    let by = living[of(process)].clone();
                    let is_same = |event: &&mut Wrote| {
                        event.file == file && (event.by[0].pid, event.by[0].started) == (by.pid, by.started)
                    };
                    match waiting.iter_mut().find(is_same) {
                        Some(event) => event.by.push(by),
                        None => waiting.push_back(Wrote { file, by: vec![by] }),
                    }
                }
                Act::End { process } => {
                    let place = of(process);
                    if place != 0 {
                        let process = living.remove(place);
                        news.push((exit(now, subject(process.pid, process.started), process.uid), None));
                    }
                }
                Act::Read { events } => {
                    let batch: Vec<Wrote> = waiting.drain(..events.min(waiting.len())).collect();
                    let (began, ended) = (now + 5, now + 10);
                    if batch.is_empty() {
                        files.emptied(at(began));
                        now = ended;
                        continue;
                    }
                    let reading = files.read(at(began), at(ended), batch.len());
                    for (event, queued) in news.drain(..) {
                        let fence = match queued {
                            Some(queued) if placed => files.fence(queued, event.at),
                            _ => Fence::UNKNOWN,
                        };
                        told.apply(event, fence);
                    }
                    prop_assert_eq!(told.memory(), costs(&told));
                    let truths = batch.iter().enumerate().flat_map(|(place, event)| event.by.iter().map(move |by| (place, by)));
                    for (place, truth) in truths {
                        let holder = match living.iter().find(|process| process.pid == truth.pid) {
                            Some(process) if process.started == truth.started => Holder::Present,
                            _ => Holder::Reaped,
                        };
                        if let (Holder::Present, Some(process)) = (holder, living.iter().find(|process| process.pid == truth.pid)) {
                            told.observe(truth.pid, at(ended), || Fence::UNKNOWN, |standing| {
                                *standing = super::tests::standing(process.uid);
                            });
                        }
                        for holder in [holder, Holder::Unsaid] {
                            let answer = told.who(truth.pid, &Sighting { holder, ..reading.sighting(place) });
                            match &answer {
                                Answer::Known(known) => {
                                    prop_assert_eq!(known.started, at(truth.started));
                                    // Of one that ran more programs than are remembered something is not known, which is said.
                                    let (paths, uids) = (paths(&answer), uids(&answer));
                                    let is_told = paths.contains(&truth.path) || paths.contains(&"?".to_owned());
                                    prop_assert!(is_told, "{:?} lacks {:?}", answer, truth);
                                    prop_assert!(uids.contains(&Some(truth.uid)) || uids.contains(&None), "{:?} lacks {:?}", answer, truth);
                                }
                                Answer::Ambiguous(several) => prop_assert!(several.contains(&at(truth.started))),
                                Answer::Unknown => prop_assert!(false, "{:?} was forgotten", truth),
                            }
                        }
                    }
                    now = ended;
                    if waiting.is_empty() {
                        files.emptied(at(began));
                    }
                    told.forget(files.last_emptied());
                    prop_assert_eq!(told.memory(), costs(&told));
                }
            }
        }
    }
}

/// What may come to the table, in any order.
#[derive(Debug, Clone)]
enum Call {
    Fork { parent: u32 },
    Exec { length: usize, is_told: bool },
    Users,
    Find { length: usize, late: u64 },
    See { length: usize },
    Observe,
    Exit { uid: u32 },
    Forget,
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        (1..5_u32).prop_map(|parent| Call::Fork { parent }),
        (0..3000_usize, any::<bool>()).prop_map(|(length, is_told)| Call::Exec { length, is_told }),
        Just(Call::Users),
        (0..3000_usize, 0..100_000_u64).prop_map(|(length, late)| Call::Find { length, late }),
        (0..3000_usize).prop_map(|length| Call::See { length }),
        Just(Call::Observe),
        (0..3_u32).prop_map(|uid| Call::Exit { uid }),
        Just(Call::Forget),
    ]
}

proptest! {
    /// Else whoever makes it count wrongly could have it refuse all others for ever.
    #[test]
    fn what_the_table_counts_is_what_it_holds(calls in proptest::collection::vec((call(), 2..6_u32, 0..800_000_u64), 1..120)) {
        let mut table = table([]);
        let mut now = 1000;
        for (call, pid, pause) in calls {
            now += pause / 8;
            let process = Subject { pid, started: None };
            let apply = |table: &mut Table, kind| table.apply(event(now, process, kind), Fence::UNKNOWN);
            let text = |length: usize| program(&"x".repeat(length));
            match call {
                Call::Fork { parent } => {
                    let parent = Subject { pid: parent, started: None };
                    apply(&mut table, ProcessEventKind::Fork { parent, standing: None, queued: None });
                }
                Call::Exec { length, is_told } => {
                    let program = is_told.then(|| Box::new(text(length)));
                    apply(&mut table, ProcessEventKind::Exec { program, standing: Some(standing(5)), queued: None });
                }
                Call::Users => apply(&mut table, ProcessEventKind::Users { uid: 7, euid: 7 }),
                Call::Find { length, late } => {
                    table.find(pid, at(now + late), Fence::UNKNOWN, Some(text(length)), Some(standing(5)));
                }
                Call::See { length } => table.see(Seen {
                    program: Some(Arc::new(text(length))),
                    ..seen(pid, now / 10_000 * 10_000, 1, now + 10)
                }),
                Call::Observe => table.observe(pid, at(now), || Fence::UNKNOWN, |standing| standing.uid += 1),
                Call::Exit { uid } => apply(&mut table, ProcessEventKind::Exit { standing: Some(standing(uid)) }),
                Call::Forget => table.forget(at(now)),
            }
            prop_assert_eq!(table.memory(), costs(&table));
        }
    }
}
