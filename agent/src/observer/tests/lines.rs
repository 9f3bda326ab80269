//! Files that are told by their lines.

use std::sync::Arc;

use trueline_drift::Fields;

use super::*;
use crate::collect::Reading;
use crate::observer::compare::Novelty;

fn file(digest: &str, lines: Option<&[&str]>) -> Reading {
    let fields = Fields::new().with("sha256", digest).with("type", "file").with("format", "text");
    let lines = lines.map(|lines| lines.iter().map(|line| (*line).to_owned()).collect::<Arc<[String]>>());
    Reading { lines, ..Reading::of(fields) }
}

struct Reader {
    observer: Observer<Recorder>,
    item: ItemId,
}

impl Reader {
    fn new(scene: &Scene) -> Self {
        let sink = Recorder { records: Arc::default(), is_enough: Box::new(|_| false), stop: Arc::default() };
        let mut observer = Observer::new(scene.parts(scene.policy(), sink), Vec::new());
        observer.is_inventoried = true;
        Self { observer, item: "file:/etc/motd".parse().unwrap() }
    }

    /// What is told of the file once it is read so; `None` where no lines are.
    fn told(&mut self, reading: Option<Reading>, novelty: Novelty) -> Option<String> {
        self.observer.offer.records.clear();
        self.observer.compare(self.item.clone(), reading, Cause::Rescan, &Actor::unknown("test"), novelty);
        let RecordBody::Changed(change) = self.observer.offer.records.first()? else { return None };
        let lines = change.lines.as_ref()?;
        Some(lines.told.iter().map(ToString::to_string).chain(lines.remark()).collect::<Vec<_>>().join("\n"))
    }

    fn hand_on(&mut self) {
        assert!(self.observer.hand_on());
    }
}

#[test]
fn what_changed_is_told_by_line_whether_it_is_in_the_state_yet_or_not() {
    let scene = Scene::new();
    for is_handed_on in [false, true] {
        let mut reader = Reader::new(&scene);
        let created = reader.told(Some(file("a", Some(&["one", "two"]))), Novelty::Created);
        assert_eq!(created.as_deref(), Some("+1 one\n+2 two"));
        if is_handed_on {
            reader.hand_on();
        }
        assert_eq!(reader.told(Some(file("b", Some(&["one", "three"]))), Novelty::Created).as_deref(), Some("-2 two\n+2 three"));
        if is_handed_on {
            reader.hand_on();
        }
        // Its mode alone: read without its contents.
        let mut moved = file("b", None);
        moved.fields = moved.fields.with("mode", "0600");
        assert_eq!(reader.told(Some(moved), Novelty::Created), None);
        if is_handed_on {
            reader.hand_on();
        }
        assert_eq!(reader.told(Some(file("c", Some(&["three"]))), Novelty::Created).as_deref(), Some("-1 one"));
        assert_eq!(reader.told(None, Novelty::Created).as_deref(), Some("-1 three"));
        reader.hand_on();
    }
}

#[test]
fn lines_of_other_contents_are_not_compared_with() {
    let scene = Scene::new();
    let mut reader = Reader::new(&scene);
    reader.told(Some(file("a", Some(&["one"]))), Novelty::FirstSight);
    reader.hand_on();
    // As after a replay, or while it was no text.
    assert_eq!(reader.told(Some(file("b", None)), Novelty::Created), None);
    reader.hand_on();
    assert_eq!(reader.told(Some(file("c", Some(&["two"]))), Novelty::Created), None);
    reader.hand_on();
    assert_eq!(reader.told(Some(file("d", Some(&["two", "three"]))), Novelty::Created).as_deref(), Some("+2 three"));
}

#[test]
fn that_only_ends_of_lines_differ_is_said() {
    let scene = Scene::new();
    let mut reader = Reader::new(&scene);
    reader.told(Some(file("a", Some(&["one"]))), Novelty::FirstSight);
    let told = reader.told(Some(file("b", Some(&["one"]))), Novelty::Created);
    assert_eq!(told.as_deref(), Some("no line differs: only ends of lines do"));
}
