//! Runs as they are first seen, end and are let go of, with a process by hand as their leader and apt's history as a file.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command};
use std::time::Instant;

use trueline_drift::change::ChangeKind;
use trueline_drift::transaction::{Transaction, TransactionId, TransactionKind};
use trueline_drift::{Fields, Value};

use super::*;
use crate::state::{InventoryComplete, Stored};

fn observer(scene: &Scene) -> Observer<Recorder> {
    let complete = InventoryComplete { at: Time::from_seconds(1), items: 0, epoch: Epoch(1) };
    scene.state.set_inventory_complete(complete).unwrap();
    let sink = Recorder { records: Arc::default(), is_enough: Box::new(|_| false), stop: Arc::default() };
    let policy = WatchPolicy { kinds: vec![ItemKind::Run], ..scene.policy() };
    Observer::new(scene.parts(policy, sink), Vec::new())
}

fn handed_on(observer: &mut Observer<Recorder>) -> Vec<RecordBody> {
    let records = observer.offer.records.clone();
    assert!(observer.hand_on());
    records
}

/// The observer looks when so many hours have passed.
fn look(observer: &mut Observer<Recorder>, hours: u64) -> Vec<RecordBody> {
    observer.look_at_runs(Instant::now() + Duration::from_secs(hours * 3600));
    handed_on(observer)
}

/// A run and the process that leads it.
struct Led {
    process: Child,
    actor: Actor,
    run: Transaction,
}

fn led(kind: TransactionKind, name: &str, command: &str) -> Led {
    let process = Command::new("sleep").arg("1000").spawn().unwrap();
    let began_at = clock::now();
    let leader = Process { started_at: Some(began_at), ..Process::bare(process.id()) };
    let actor = Actor { parents: vec![leader], ..(*strong(7)).clone() };
    let boot = crate::facts::boot_id().unwrap();
    let run = Transaction {
        id: TransactionId::led_by(kind, boot, process.id(), Some(began_at)),
        kind,
        certainty: Certainty::Exact,
        name: Some(name.to_owned()),
        command: Some(command.to_owned()),
        requested_by: Some("alice".to_owned()),
        began_at: Some(began_at),
        within: None,
    };
    Led { process, actor, run }
}

impl Led {
    fn end(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Led {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// As apt writes it, in UTC.
fn write_history(scene: &Scene, began_at: Time) {
    let local = |at: Time| at.to_string().split('.').next().unwrap().replace('T', "  ");
    let log = format!(
        "\nStart-Date: {}\nCommandline: apt-get install x\nUpgrade: x:amd64 (1, 2)\nEnd-Date: {}\n",
        local(began_at),
        local(began_at.plus_seconds(1))
    );
    let path = scene.root("var/log/apt/history.log");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, log).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
}

fn field<'a>(fields: &'a [trueline_drift::FieldChange], name: &str) -> Option<&'a Value> {
    fields.iter().find(|field| field.name.as_str() == name)?.after.as_ref()
}

#[test]
fn a_run_is_created_with_its_first_change_and_changes_as_it_ends_by_what_apt_says_of_it() {
    let scene = Scene::new();
    let mut observer = observer(&scene);
    let mut led = led(TransactionKind::Apt, "install", "apt-get install x");
    observer.note_runs(&led.actor, Some(&led.run));
    // Its next change, and the one after that.
    observer.note_runs(&led.actor, Some(&led.run));
    let [RecordBody::Changed(began)] = &handed_on(&mut observer)[..] else { panic!("not told once") };
    assert_eq!((began.kind, began.item.to_string()), (ChangeKind::Created, format!("run:{}", led.run.id)));
    assert_eq!(began.transaction.as_ref(), Some(&led.run));
    assert_eq!((&began.actor, field(&began.fields, "tool")), (&led.actor, Some(&Value::text("apt"))));
    assert_eq!(look(&mut observer, 1), [], "it is at work");
    write_history(&scene, led.run.began_at.unwrap());
    led.end();
    let records = look(&mut observer, 2);
    let [RecordBody::Changed(ended)] = &records[..] else { panic!("no end: {records:?}") };
    assert_eq!(
        (ended.kind, ended.actor.certainty, ended.transaction.as_ref()),
        (ChangeKind::Modified, Certainty::Correlated, Some(&led.run))
    );
    assert_eq!(field(&ended.fields, "packages"), Some(&Value::list(vec!["upgrade x:amd64 1 -> 2".to_owned()])));
    assert_eq!(field(&ended.fields, "result"), Some(&Value::text("succeeded")));
    assert!(field(&ended.fields, "ended_at").is_some() && field(&ended.fields, "tool").is_none());
    // What came of it late is no other run.
    observer.note_runs(&led.actor, Some(&led.run));
    assert_eq!(look(&mut observer, 3), []);
}

#[test]
fn all_modules_of_a_play_are_one_run() {
    let scene = Scene::new();
    let mut observer = observer(&scene);
    let led = led(TransactionKind::Ansible, "copy", "python3 x");
    let apt = Transaction { name: Some("apt".to_owned()), ..led.run.clone() };
    for run in [&led.run, &apt, &led.run, &apt] {
        observer.note_runs(&led.actor, Some(run));
    }
    let records = handed_on(&mut observer);
    let [RecordBody::Changed(began), RecordBody::Changed(went_on)] = &records[..] else { panic!("{records:?}") };
    assert_eq!(field(&began.fields, "modules"), Some(&Value::list(vec!["copy".to_owned()])));
    assert_eq!(field(&went_on.fields, "modules"), Some(&Value::list(vec!["apt".to_owned(), "copy".to_owned()])));
    assert_eq!(went_on.fields.len(), 1);
}

#[test]
fn the_run_around_another_is_an_item_of_its_own() {
    let scene = Scene::new();
    let mut observer = observer(&scene);
    let (mut inner, outer) =
        (led(TransactionKind::Apt, "install", "apt-get install x"), led(TransactionKind::Puppet, "apply", "puppet apply"));
    inner.actor.parents.extend(outer.actor.parents.clone());
    inner.run.within = Some(Box::new(outer.run.clone()));
    observer.note_runs(&inner.actor, Some(&inner.run));
    let records = handed_on(&mut observer);
    let [RecordBody::Changed(apt), RecordBody::Changed(puppet)] = &records[..] else { panic!("{records:?}") };
    assert_eq!(field(&apt.fields, "within"), Some(&Value::text(outer.run.id.as_str())));
    assert_eq!((puppet.item.key.as_str(), puppet.transaction.as_ref()), (outer.run.id.as_str(), Some(&outer.run)));
}

/// apt upgrades the agent, which starts again while apt is at work.
#[test]
fn a_run_goes_on_over_a_restart_and_ends_when_it_does() {
    let scene = Scene::new();
    let mut led = led(TransactionKind::Apt, "install", "apt-get install x");
    let mut before = observer(&scene);
    before.note_runs(&led.actor, Some(&led.run));
    handed_on(&mut before);
    drop(before);
    let mut after = observer(&scene);
    assert_eq!(look(&mut after, 1), [], "it is at work");
    after.note_runs(&led.actor, Some(&led.run));
    assert_eq!(handed_on(&mut after), [], "it was told");
    led.end();
    let records = look(&mut after, 2);
    let [RecordBody::Changed(ended)] = &records[..] else { panic!("no end: {records:?}") };
    assert!(field(&ended.fields, "ended_at").is_some());
    assert_eq!(ended.actor.certainty, Certainty::Unknown);
}

/// What was written since may be of another run with the same command.
#[test]
fn a_run_that_ended_while_no_agent_looked_is_told_to_have_ended_and_no_more() {
    let scene = Scene::new();
    let mut led = led(TransactionKind::Apt, "install", "apt-get install x");
    let mut before = observer(&scene);
    before.note_runs(&led.actor, Some(&led.run));
    handed_on(&mut before);
    drop(before);
    led.end();
    write_history(&scene, led.run.began_at.unwrap());
    let mut after = observer(&scene);
    let records = look(&mut after, 1);
    let [RecordBody::Changed(ended)] = &records[..] else { panic!("no end: {records:?}") };
    assert_eq!(ended.fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>(), ["ended_at"]);
}

#[test]
fn what_ended_long_ago_is_let_go_of_without_a_change() {
    let scene = Scene::new();
    let now = clock::now();
    let of = |key: &str, ended_at: Option<Time>, observed_at: Time| {
        let mut fields = Fields::new().with("tool", "apt");
        if let Some(at) = ended_at {
            fields = fields.with("ended_at", at.to_string().as_str());
        }
        let item: ItemId = format!("run:{key}").parse().unwrap();
        (item, Some(Stored::told(fields, observed_at)))
    };
    let long_ago = now.plus_seconds(-24 * 3600 - 60);
    let known = [of("apt-1", Some(now.plus_seconds(-60)), now), of("apt-2", Some(long_ago), now), of("timer-3", None, long_ago)];
    scene.state.apply(&known, None).unwrap();
    let mut observer = observer(&scene);
    let mut let_go: Vec<String> = look(&mut observer, 1)
        .iter()
        .map(|record| match record {
            RecordBody::Unwatched { item, .. } => item.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    let_go.sort();
    assert_eq!(let_go, ["run:apt-2", "run:timer-3"]);
    assert_eq!(scene.state.count(ItemKind::Run).unwrap(), 1);
}

#[test]
fn runs_that_nobody_wants_are_not_told() {
    let scene = Scene::new();
    let mut observer = observer(&scene);
    observer.parts.policy = Arc::new(scene.policy());
    let led = led(TransactionKind::Apt, "install", "apt-get install x");
    observer.note_runs(&led.actor, Some(&led.run));
    assert_eq!(handed_on(&mut observer), []);
}
