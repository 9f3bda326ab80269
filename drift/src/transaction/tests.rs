//! Stories of chains, told in text (`stories.txt`): what is recognised in each, and what must not be.

use proptest::prelude::*;

use super::*;
use crate::actor::{Origin, Process, Session, SessionKind, User};

const BOOT: &str = "3f2a9c01-d4e7-4a55-8d2c-0123456789ab";

/// What a story tells of who made a change.
#[derive(Debug)]
struct Told {
    certainty: Certainty,
    links: Vec<(Process, Standing)>,
    user: Option<User>,
    session: Option<Session>,
    unit: Option<(String, bool, Option<Uuid>)>,
}

impl Told {
    /// `exact login=alice from=10.0.4.17 unit=x.service timer`, then the processes, one a line.
    fn read(lines: &[&str]) -> Self {
        let mut told = Self { certainty: Certainty::Unknown, links: Vec::new(), user: None, session: None, unit: None };
        for word in lines[0].split(' ') {
            match word.split_once('=') {
                Some(("login", name)) => {
                    told.user = Some(User { uid: 0, euid: Some(0), login_uid: Some(1000), name: None, login_name: Some(name.to_owned()) });
                }
                Some(("from", address)) => {
                    let origin = Some(Origin { address: address.parse().unwrap(), port: None });
                    let session = Session::bare("3f2a9c01d4e7-4".parse().unwrap());
                    told.session = Some(Session { certainty: Certainty::Strong, kind: SessionKind::Ssh, origin, ..session });
                }
                Some(("unit", name)) => told.unit = Some((name.to_owned(), false, None)),
                Some(("timer", name)) => told.unit = Some((name.to_owned(), true, None)),
                Some(("invocation", id)) => told.unit.as_mut().unwrap().2 = Some(id.parse().unwrap()),
                None => told.certainty = Certainty::ALL.into_iter().find(|certainty| certainty.name() == word).unwrap(),
                Some(other) => panic!("{other:?}"),
            }
        }
        told.links = lines[1..].iter().map(|line| link(line)).collect();
        told
    }

    fn chain(&self) -> Chain<'_> {
        Chain {
            boot: BOOT.parse().unwrap(),
            certainty: self.certainty,
            links: self.links.iter().map(|(process, standing)| Link { process, standing: *standing }).collect(),
            user: self.user.as_ref(),
            session: self.session.as_ref(),
            unit: self.unit.as_ref().map(|(name, has_timer, invocation)| Unit { name, has_timer: *has_timer, invocation: *invocation }),
        }
    }
}

/// `800 uid=0 /usr/bin/apt-get : apt-get install nginx`; everything is genuine and in time unless it says otherwise.
fn link(line: &str) -> (Process, Standing) {
    let (head, argv) = line.split_once(" : ").unwrap_or((line, ""));
    let mut words = head.split(' ');
    let pid: u32 = words.next().unwrap().parse().unwrap();
    let mut process = Process { started_at: Some(Time::from_seconds(i64::from(pid))), ..Process::bare(pid) };
    process.argv = argv.split(' ').filter(|argument| !argument.is_empty()).map(|argument| argument.replace("~", " ")).collect();
    let mut standing = Standing { uid: Some(0), genuine: true, genuine_script: true, ran_then: Some(true) };
    for word in words {
        match word.split_once('=') {
            Some(("uid", "?")) => standing.uid = None,
            Some(("uid", uid)) => standing.uid = Some(uid.parse().unwrap()),
            Some(("script", path)) => process.script = Some(path.to_owned()),
            None if word == "fake" => standing.genuine = false,
            None if word == "fake-script" => standing.genuine_script = false,
            None if word == "later" => standing.ran_then = Some(false),
            None if word == "untimed" => standing.ran_then = None,
            _ => process.exe = Some(word.to_owned()),
        }
    }
    (process, standing)
}

/// The runs, innermost first, each with the pid that gives it its identity.
fn shown(told: &Told) -> String {
    let Some(innermost) = recognise(&told.chain()) else { return "-> none\n".to_owned() };
    let leader = |run: &Transaction| {
        let is_its = |process: &Process| run.id == TransactionId::led_by(run.kind, BOOT.parse().unwrap(), process.pid, process.started_at);
        told.links.iter().find(|(process, _)| is_its(process)).map_or_else(|| run.id.to_string(), |(process, _)| process.pid.to_string())
    };
    innermost.outwards().map(|run| format!("-> {} {}, led by {}\n", run.certainty, run.summary(), leader(run))).collect()
}

#[test]
fn every_story_is_told_right() {
    let stories = include_str!("stories.txt");
    let mut retold = String::new();
    for story in stories.split("\n\n") {
        let lines: Vec<&str> = story.lines().filter(|line| !line.starts_with("->")).collect();
        let chain: Vec<&str> = lines.iter().copied().filter(|line| !line.starts_with('#')).collect();
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
        retold.push_str(&format!("{}{lines}{}", if retold.is_empty() { "" } else { "\n" }, shown(&Told::read(&chain))));
    }
    assert!(retold == stories, "told otherwise than in stories.txt:\n{}", changed_lines(stories, &retold));
}

fn changed_lines(stories: &str, retold: &str) -> String {
    let (before, after): (Vec<&str>, Vec<&str>) = (stories.split("\n\n").collect(), retold.split("\n\n").collect());
    before.iter().zip(&after).filter(|(before, after)| before != after).map(|(before, after)| format!("{before}\n{after}\n\n")).collect()
}

const NAMES: [&str; 14] = [
    "/usr/bin/apt-get",
    "/usr/bin/dpkg",
    "/tmp/apt-get",
    "/usr/sbin/cron",
    "/usr/sbin/sshd",
    "/usr/bin/python3.11",
    "/usr/bin/ruby3.1",
    "/usr/bin/puppet",
    "/root/.ansible/tmp/ansible-tmp-1-2-3/AnsiballZ_copy.py",
    "/usr/bin/podman",
    "/usr/bin/runc",
    "/usr/lib/systemd/systemd",
    "/bin/sh (deleted)",
    "-c",
];

prop_compose! {
    fn any_link()(
        pid in 0..5_u32,
        exe in prop::option::of(prop::sample::select(&NAMES[..])),
        script in prop::option::of(prop::sample::select(&NAMES[..])),
        argv in prop::collection::vec(prop_oneof![prop::sample::select(&NAMES[..]).prop_map(str::to_owned), ".{0,600}"], 0..5),
        uid in prop::option::of(0..2_u32),
        genuine: bool,
        genuine_script: bool,
        ran_then: Option<bool>,
    ) -> (Process, Standing) {
        let process = Process { exe: exe.map(str::to_owned), script: script.map(str::to_owned), argv, ..Process::bare(pid) };
        (process, Standing { uid, genuine, genuine_script, ran_then })
    }
}

prop_compose! {
    fn any_chain()(
        certainty in prop::sample::select(&Certainty::ALL[..]),
        links in prop::collection::vec(any_link(), 0..7),
        timer in prop::option::of(any::<bool>()),
    ) -> Told {
        let unit = timer.map(|has_timer| ("x.service".to_owned(), has_timer, None));
        Told { certainty, links, user: None, session: None, unit }
    }
}

proptest! {
    #[test]
    fn a_run_is_bounded_and_never_surer_than_its_process(told in any_chain()) {
        if let Some(innermost) = recognise(&told.chain()) {
            prop_assert!(innermost.outwards().count() <= Transaction::DEPTH);
            for run in innermost.outwards() {
                prop_assert!(run.certainty >= told.certainty && run.certainty != Certainty::Unknown);
                prop_assert!(run.command.as_ref().is_none_or(|command| command.len() <= 600));
                prop_assert!(run.id.as_str().parse::<TransactionId>().is_ok());
            }
        }
    }

    #[test]
    fn nothing_is_recognised_where_nothing_is_genuine(mut told in any_chain()) {
        told.unit = None;
        for (_, standing) in &mut told.links {
            standing.genuine = false;
        }
        prop_assert!(recognise(&told.chain()).is_none());
    }

    #[test]
    fn nothing_is_sure_where_nobody_is_known_to_be_root(mut told in any_chain()) {
        told.unit = None;
        for (_, standing) in &mut told.links {
            standing.uid = standing.uid.map(|uid| uid + 1);
        }
        let runs = recognise(&told.chain());
        prop_assert!(runs.iter().flat_map(Transaction::outwards).all(|run| run.certainty == Certainty::Correlated));
    }

    #[test]
    fn a_program_begun_too_late_leads_nothing(mut told in any_chain()) {
        told.unit = None;
        for (process, standing) in &mut told.links {
            standing.ran_then = Some(false);
            process.exe = process.exe.take().filter(|exe| !super::program::is_interpreter(exe));
        }
        prop_assert!(recognise(&told.chain()).is_none());
    }
}
