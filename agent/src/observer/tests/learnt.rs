//! Files that an older agent knew without their settings.

use trueline_drift::{FieldName, Fields, Value};

use super::*;
use crate::collect::Reading;
use crate::observer::compare::Novelty;

fn file(digest: &str, mode: &str, setting: Option<&str>) -> Reading {
    let mut fields = Fields::new().with("sha256", digest).with("mode", mode).with("type", "file");
    if let Some(setting) = setting {
        fields.set(FieldName::known("format"), Value::text("sshd_config"));
        fields.set(FieldName::new("config.PermitRootLogin"), Value::text(setting));
    }
    Reading::of(fields)
}

/// What is told of a file that is first read so, and then so.
fn told(before: Reading, after: Reading) -> String {
    let scene = Scene::new();
    let sink = Recorder { records: Arc::default(), is_enough: Box::new(|_| false), stop: Arc::default() };
    let mut observer = Observer::new(scene.parts(scene.policy(), sink), Vec::new());
    observer.is_inventoried = true;
    let item: ItemId = "file:/etc/ssh/sshd_config".parse().unwrap();
    let actor = Actor::unknown("test");
    observer.compare(item.clone(), Some(before), Cause::Rescan, &actor, Novelty::FirstSight);
    observer.offer.records.clear();
    observer.compare(item.clone(), Some(after), Cause::Rescan, &actor, Novelty::Created);
    let known = observer.stored(&item).unwrap().unwrap().fields;
    let mut told = Vec::new();
    for record in &observer.offer.records {
        match record {
            RecordBody::Observed(observation) => {
                assert_eq!(observation.fields, known);
                told.push("observed".to_owned());
            }
            RecordBody::Changed(change) => {
                assert_eq!(change.after().as_ref(), Some(&known), "the collector knows what the agent does");
                let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| "absent".to_owned(), ToString::to_string);
                told.extend(
                    change.fields.iter().map(|field| format!("{}: {} -> {}", field.name, shown(&field.before), shown(&field.after))),
                );
            }
            other => told.push(format!("{other:?}")),
        }
    }
    told.join("\n")
}

#[test]
fn settings_that_an_older_agent_did_not_tell_are_observed_and_are_no_change() {
    assert_eq!(told(file("a", "0644", None), file("a", "0644", Some("no"))), "observed");
    assert_eq!(told(file("a", "0644", None), file("a", "0600", Some("no"))), "mode: 0644 -> 0600");
    insta::assert_snapshot!(told(file("a", "0644", None), file("b", "0644", Some("no"))), @r"
    config.PermitRootLogin: unreadable: the agent did not read settings then -> no
    sha256: a -> b
    ");
    insta::assert_snapshot!(told(file("a", "0644", Some("no")), file("b", "0644", Some("yes"))), @r"
    config.PermitRootLogin: no -> yes
    sha256: a -> b
    ");
}
