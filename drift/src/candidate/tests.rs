use proptest::prelude::*;

use super::*;
use crate::actor::Origin;
use crate::text;

fn at(second: i64) -> Time {
    Time::from_seconds(second)
}

fn session(number: u32) -> Session {
    Session {
        certainty: Certainty::Strong,
        kind: SessionKind::Ssh,
        user: Some("alice".to_owned()),
        origin: Some(Origin { address: "10.0.0.9".parse().unwrap(), port: None }),
        ..Session::bare(format!("3f2a9c01d4e7-{number}").parse().unwrap())
    }
}

fn login(number: u32, began: i64, ended: Option<i64>) -> Activity {
    Activity { what: Doing::Login { session: session(number) }, began_at: at(began), ended_at: ended.map(at) }
}

fn sudo(number: u32, command: &str, began: i64, ended: i64) -> Activity {
    let sudo = Sudo {
        certainty: Certainty::Correlated,
        by: Some("alice".to_owned()),
        as_user: Some("root".to_owned()),
        command: Some(command.to_owned()),
        terminal: None,
    };
    Activity { what: Doing::Sudo { session: session(number), sudo }, began_at: at(began), ended_at: Some(at(ended)) }
}

fn package(name: &str, began: i64, ended: i64) -> Activity {
    let entry = PackageEntry {
        action: PackageAction::Upgrade,
        name: name.to_owned(),
        architecture: Some("amd64".to_owned()),
        version: Some("2".to_owned()),
        version_before: Some("1".to_owned()),
        command: Some("apt-get upgrade".to_owned()),
        requested_by: Some("alice (1000)".to_owned()),
    };
    Activity { what: Doing::Package { entry }, began_at: at(began), ended_at: Some(at(ended)) }
}

fn unknown() -> Actor {
    Actor::unknown("found by a scan")
}

/// Between 100 and 200 seconds.
fn question<'a>(item: &'a ItemId, actor: &'a Actor) -> Question<'a> {
    Question { item, actor, observed_after: at(100), observed_at: at(200), changed_at: None, owner: None }
}

fn item(text: &str) -> ItemId {
    text.parse().unwrap()
}

fn lines(candidates: &Candidates) -> String {
    let line = |candidate: &Candidate| format!("{} ({}, {} s)", candidate.summary(), candidate.matched.words(), candidate.distance_seconds);
    candidates.offered.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_names_the_object_comes_first_and_then_the_nearest_and_the_shortest() {
    let (hosts, actor) = (item("file:/etc/hosts"), unknown());
    let activities = [
        login(1, 10, None),
        login(2, 10, Some(150)),
        login(3, 10, Some(99)),
        login(4, 201, None),
        sudo(1, "/usr/bin/id", 120, 130),
        sudo(1, "/usr/bin/vim /etc/hosts", 110, 111),
        sudo(1, "/usr/bin/vim /etc/hosts.allow", 185, 190),
        package("netbase", 105, 106),
    ];
    let question = Question { changed_at: Some(at(125)), ..question(&hosts, &actor) };
    insta::assert_snapshot!(lines(&Candidates::select(&question, &activities)), @r"
    alice's sudo as root: /usr/bin/vim /etc/hosts, within ssh session 3f2a9c01d4e7-1 from 10.0.0.9 (object and time, 14 s)
    alice's sudo as root: /usr/bin/id, within ssh session 3f2a9c01d4e7-1 from 10.0.0.9 (time alone, 0 s)
    alice's ssh session 3f2a9c01d4e7-2 from 10.0.0.9 (time alone, 0 s)
    alice's ssh session 3f2a9c01d4e7-1 from 10.0.0.9 (time alone, 0 s)
    upgrade of netbase 1 -> 2 by apt-get upgrade, for alice (1000) (time alone, 19 s)
    alice's sudo as root: /usr/bin/vim /etc/hosts.allow, within ssh session 3f2a9c01d4e7-1 from 10.0.0.9 (time alone, 60 s)
    ");
}

#[test]
fn an_object_is_the_package_itself_its_file_or_a_word_of_the_command() {
    let actor = unknown();
    let matched = |name: &str, owner: Option<&str>, activity: Activity| {
        let item = item(name);
        let candidates = Candidates::select(&Question { owner, ..question(&item, &actor) }, &[activity]);
        candidates.offered[0].matched == Match::ObjectAndTime
    };
    let cases = [
        ("package:openssl", None, package("openssl", 150, 151), true),
        ("package:openssl:amd64", None, package("openssl", 150, 151), true),
        ("package:openssl:i386", None, package("openssl", 150, 151), false),
        ("package:openssl-tool", None, package("openssl", 150, 151), false),
        ("file:/usr/bin/openssl", Some("openssl"), package("openssl", 150, 151), true),
        ("file:/usr/bin/openssl", Some("other"), package("openssl", 150, 151), false),
        ("file:/usr/bin/openssl", None, package("openssl", 150, 151), false),
        ("sysctl:net.ipv4.ip_forward", None, sudo(1, "sysctl -w net.ipv4.ip_forward=1", 150, 151), true),
        ("unit:ssh.service", None, sudo(1, "systemctl restart ssh.service", 150, 151), true),
        ("file:/usr/bin/vim", None, sudo(1, "/usr/bin/vim /etc/hosts", 150, 151), false),
        ("user:bob", None, sudo(1, "echo bob", 150, 151), false),
        ("file:/etc/hosts", None, login(1, 150, Some(151)), false),
    ];
    for (name, owner, activity, expected) in cases {
        assert_eq!(matched(name, owner, activity.clone()), expected, "{name} {owner:?} {activity:?}");
    }
}

#[test]
fn what_a_file_says_of_its_change_counts_only_within_the_window() {
    let (hosts, actor) = (item("file:/etc/hosts"), unknown());
    let distance = |changed_at| {
        let question = Question { changed_at, ..question(&hosts, &actor) };
        Candidates::select(&question, &[login(1, 110, Some(120))]).offered[0].distance_seconds
    };
    assert_eq!([Some(at(115)), Some(at(130)), Some(at(99)), Some(at(201)), None].map(distance), [0, 10, 80, 80, 80]);
}

#[test]
fn a_session_has_no_candidates_and_a_window_that_ends_before_it_begins_neither() {
    let (actor, went_on) = (unknown(), [login(1, 0, None)]);
    let (hosts, begun) = (item("file:/etc/hosts"), item("session:3f2a9c01d4e7-1"));
    assert!(!Candidates::select(&question(&hosts, &actor), &went_on).is_empty());
    assert!(Candidates::select(&question(&begun, &actor), &went_on).is_empty());
    assert!(Candidates::select(&Question { observed_after: at(201), ..question(&hosts, &actor) }, &went_on).is_empty());
}

#[test]
fn a_candidate_reads_back_as_it_was_written() {
    let (hosts, actor) = (item("file:/etc/hosts"), unknown());
    let candidates = Candidates::select(&question(&hosts, &actor), &[login(1, 0, None), sudo(2, "id", 150, 151), package("a", 150, 151)]);
    let text = serde_json::to_string(&candidates).unwrap();
    assert_eq!(serde_json::from_str::<Candidates>(&text).unwrap(), candidates);
    assert!(text::printable(text.as_bytes()).contains("\"kind\":\"login\""), "{text}");
}

fn activities() -> impl Strategy<Value = Vec<Activity>> {
    let time = 0..300_i64;
    let one = (0..3_u32, time.clone(), proptest::option::of(time), 0..4_u32).prop_map(|(kind, began, ended, number)| match kind {
        0 => login(number, began, ended),
        1 => sudo(number, if number == 0 { "vi /etc/hosts" } else { "id" }, began, ended.unwrap_or(began)),
        _ => package(if number == 0 { "netbase" } else { "other" }, began, ended.unwrap_or(began)),
    });
    proptest::collection::vec(one, 0..40)
}

proptest! {
    #[test]
    fn the_same_are_offered_in_whatever_order_they_were_found(mut found in activities(), changed in proptest::option::of(0..300_i64), seed: u64) {
        let (hosts, actor) = (item("file:/etc/hosts"), unknown());
        let question = Question { changed_at: changed.map(at), owner: Some("netbase"), ..question(&hosts, &actor) };
        let first = Candidates::select(&question, &found);
        // Any order that follows from the seed.
        let mut state = seed | 1;
        found.sort_by_cached_key(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        });
        prop_assert_eq!(&Candidates::select(&question, &found), &first);

        prop_assert!(first.offered.len() <= Candidates::LIMIT && (first.more == 0 || first.offered.len() == Candidates::LIMIT));
        for Candidate { activity, .. } in &first.offered {
            prop_assert!(activity.began_at <= at(200) && activity.ended_at.is_none_or(|ended| ended >= at(100)), "{:?}", activity);
        }
        let better = |pair: &[Candidate]| (pair[0].matched, pair[0].distance_seconds) <= (pair[1].matched, pair[1].distance_seconds);
        prop_assert!(first.offered.windows(2).all(better));
    }

    #[test]
    fn whoever_is_named_has_no_candidates_beside_him(found in activities()) {
        let hosts = item("file:/etc/hosts");
        for certainty in Certainty::ALL.into_iter().filter(|certainty| *certainty != Certainty::Unknown) {
            let actor = Actor { certainty, ..unknown() };
            prop_assert!(Candidates::select(&question(&hosts, &actor), &found).is_empty());
        }
    }
}

#[test]
fn what_the_first_process_did_to_a_unit_somebody_may_have_asked_for() {
    let process = |pid| crate::actor::Process {
        pid,
        started_at: None,
        exe: Some("/usr/lib/systemd/systemd".to_owned()),
        sha256: None,
        script: None,
        argv: Vec::new(),
        cwd: None,
    };
    let by = |pid| Actor { certainty: Certainty::Exact, process: Some(process(pid)), ..unknown() };
    let activities = [
        login(1, 10, None),
        login(2, 10, Some(150)),
        sudo(1, "/usr/bin/systemctl enable probe", 196, 199),
        sudo(1, "/usr/bin/systemctl enable prober.service", 196, 199),
        sudo(1, "/usr/bin/systemctl disable probe", 120, 130),
    ];
    let offered = |key: &str, pid| {
        let (item, actor) = (item(key), by(pid));
        lines(&Candidates::select(&question(&item, &actor), &activities))
    };
    let first =
        "alice's sudo as root: /usr/bin/systemctl enable probe, within ssh session 3f2a9c01d4e7-1 from 10.0.0.9 (object and time, 1 s)";
    assert_eq!(offered("unit:probe.service", 1).lines().next(), Some(first));
    assert_eq!(offered("file:/etc/systemd/system/multi-user.target.wants/probe.service", 1).lines().count(), 3);
    for (key, pid) in [("unit:probe.service", 2), ("file:/etc/hostname", 1), ("user:alice", 1)] {
        assert_eq!(offered(key, pid), "", "{key} by {pid}");
    }
}
