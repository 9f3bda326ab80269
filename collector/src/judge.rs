//! Judging: each change in order, against its host's baseline, with the drift that follows.
//!
//! Invariants: [`judge_changes`] is a function of its input alone, so any collector may judge; the
//! store takes the result only if nobody was faster. Within one input, later changes of an item see
//! the drift that earlier ones left open.

use std::collections::HashMap;
use std::sync::Arc;

use trueline_drift::baseline::EXISTS;
use trueline_drift::change::ChangeKind;
use trueline_drift::reconcile::{OpenDrift, Step, apply, reconcile};
use trueline_drift::{Change, FieldName, HostId, Judgement, judge};
use trueline_store::{DriftWrite, JudgeInput, JudgeOutput, Position, StoreError, UnjudgedChange};

use crate::hub::Hub;

/// Most changes judged in one transaction; fewer where they are large.
const CHUNK: u32 = 5_000;

/// Judges what is there to judge.
pub async fn judge_all(hub: &Hub) -> Result<(), StoreError> {
    while !hub.shutdown.is_cancelled() {
        let input = hub.pulses.judge.waiting(hub.store.unjudged(CHUNK)).await?;
        let count = input.changes.len();
        if count == 0 {
            break;
        }
        let Ok(output) = tokio::task::spawn_blocking(move || judge_changes(input)).await else {
            return Err(StoreError::Corrupt { subject: "change", reason: "judging it failed; see the log".to_owned() });
        };
        let Some(output) = output else { break };
        if hub.pulses.judge.waiting(hub.store.record_judgements(output)).await? {
            metrics::counter!("trueline_judgements_total").increment(count as u64);
            hub.news.ring();
        }
    }
    Ok(())
}

/// The judgements of a run of changes and the steps of drift they make; `None` for no changes.
pub fn judge_changes(input: JudgeInput) -> Option<JudgeOutput> {
    let to = input.changes.last()?.position;
    let mut account: HashMap<(HostId, i64), Vec<OpenDrift>> = HashMap::new();
    let mut judgements: Vec<(Position, Judgement)> = Vec::with_capacity(input.changes.len());
    let mut drift = Vec::new();
    for unjudged in input.changes {
        let at = unjudged.happened_at();
        let UnjudgedChange { position, host, item_row, change, baseline, open, .. } = unjudged;
        let (judgement, findings) = judge::judge(&change, baseline.as_ref().map(|(name, expectation)| (name, expectation)));
        judgements.push((position, judgement));
        let open = account.entry((host, item_row)).or_insert(open);
        let steps = reconcile(open, findings, |field| moves(&change, field));
        apply(open, &steps, |field| moves(&change, field));
        drift.extend(steps.into_iter().map(|step| {
            let made_here = moves(&change, field_of(&step));
            DriftWrite { host, item: change.item.clone(), item_row: Some(item_row), at, change: made_here.then_some(position), step }
        }));
    }
    Some(JudgeOutput { from: input.from, to, judgements, drift })
}

fn field_of(step: &Step) -> &FieldName {
    match step {
        Step::Open(finding) | Step::Update(finding) => &finding.departure.field,
        Step::Resolve(field) => field,
    }
}

/// Whether the change moved this field. An item's being there moves when it comes and goes; what goes takes every
/// field with it.
fn moves(change: &Change, field: &FieldName) -> bool {
    if change.kind == ChangeKind::Removed || (change.kind == ChangeKind::Created && *field == EXISTS) {
        return true;
    }
    change.fields.iter().any(|moved| moved.name == *field)
}

/// Runs on the bell of appended changes and on a timer.
pub async fn run(hub: Arc<Hub>) -> Result<(), StoreError> {
    let mut bell = hub.appended.listen();
    while !hub.shutdown.is_cancelled() {
        hub.pulses.judge.at_work(judge_all(&hub)).await?;
        hub.health.is_well(crate::hub::Part::Judge);
        crate::tasks::rest_until(&hub, &mut bell, crate::tasks::TIMER).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use trueline_drift::baseline::Expectation;
    use trueline_drift::judge::BaselineName;
    use trueline_drift::{Actor, Cause, FieldChange, Fields, ItemId, Time, Value, Verdict};

    fn change(item: &str, kind: ChangeKind, fields: &[(&'static str, Option<&str>, Option<&str>)]) -> Change {
        let value = |text: Option<&str>| text.map(Value::text);
        Change {
            item: item.parse::<ItemId>().unwrap(),
            kind,
            fields: fields
                .iter()
                .map(|(name, before, after)| FieldChange { name: FieldName::known(name), before: value(*before), after: value(*after) })
                .collect(),
            unchanged: Fields::new(),
            observed_after: Time::from_seconds(1),
            observed_at: Time::from_seconds(2),
            cause: Cause::Event,
            actor: Actor::unknown("no sensor saw it"),
            transaction: None,
            shipped_by: None,
            candidates: trueline_drift::Candidates::default(),
            lines: None,
        }
    }

    fn unjudged(position: i64, item_row: i64, change: Change, expectation: Option<Expectation>, open: Vec<OpenDrift>) -> UnjudgedChange {
        let baseline = expectation.map(|expectation| (BaselineName { name: "web".to_owned(), version: 1 }, expectation));
        let (host, received_at) = (HostId(uuid::Uuid::nil()), Time::from_seconds(3));
        UnjudgedChange { position: Position(position), host, item_row, change, received_at, baseline, open }
    }

    fn mode(expected: &str) -> Option<Expectation> {
        Some(Expectation::Fields(Fields::new().with("mode", expected)))
    }

    fn judged(changes: Vec<UnjudgedChange>) -> JudgeOutput {
        judge_changes(JudgeInput { from: trueline_store::JudgeCursor::default(), changes }).unwrap()
    }

    #[test]
    fn a_drift_that_opens_and_closes_within_one_run_is_opened_and_resolved_by_its_changes() {
        let away = change("file:/etc/x", ChangeKind::Modified, &[("mode", Some("0644"), Some("0666"))]);
        let back = change("file:/etc/x", ChangeKind::Modified, &[("mode", Some("0666"), Some("0644"))]);
        let output = judged(vec![unjudged(7, 1, away, mode("0644"), vec![]), unjudged(9, 1, back, mode("0644"), vec![])]);
        assert_eq!(output.to, Position(9));
        assert!(output.judgements[0].1.verdict >= Verdict::Notable);
        assert_eq!(output.judgements[1].1.verdict, Verdict::Expected);
        assert!(matches!(output.drift[0].step, Step::Open(_)));
        assert!(matches!(output.drift[1].step, Step::Resolve(_)));
        assert_eq!(output.drift.iter().map(|write| write.change).collect::<Vec<_>>(), [Some(Position(7)), Some(Position(9))]);
    }

    #[test]
    fn drift_begins_when_its_change_was_observed_or_was_received_if_the_hosts_clock_is_ahead() {
        for (observed_at, opened_at) in [(2, 2), (86_400, 3)] {
            let mut away = change("file:/etc/x", ChangeKind::Modified, &[("mode", Some("0644"), Some("0666"))]);
            away.observed_at = Time::from_seconds(observed_at);
            let output = judged(vec![unjudged(1, 1, away, mode("0644"), vec![])]);
            assert_eq!(output.drift[0].at, Time::from_seconds(opened_at));
        }
    }

    #[test]
    fn items_keep_separate_accounts() {
        let away = |item| change(item, ChangeKind::Modified, &[("mode", Some("0644"), Some("0666"))]);
        let output = judged(vec![
            unjudged(1, 1, away("file:/etc/x"), mode("0644"), vec![]),
            unjudged(2, 2, away("file:/etc/y"), mode("0644"), vec![]),
        ]);
        assert_eq!(output.drift.iter().filter(|write| matches!(write.step, Step::Open(_))).count(), 2);
    }

    #[test]
    fn a_drift_found_by_comparing_is_explained_by_the_change_that_made_it() {
        let away = change("file:/etc/x", ChangeKind::Modified, &[("mode", Some("0644"), Some("0666"))]);
        let open = OpenDrift {
            field: FieldName::known("mode"),
            expected: Some(Value::text("0644")),
            actual: Some(Value::text("0666")),
            explained: false,
        };
        let output = judged(vec![unjudged(3, 1, away, mode("0644"), vec![open])]);
        assert!(matches!(&output.drift[..], [DriftWrite { change: Some(Position(3)), step: Step::Update(_), .. }]));
    }

    #[test]
    fn a_change_does_not_take_the_blame_for_a_field_it_left_alone() {
        let mut touched = change("file:/etc/x", ChangeKind::Modified, &[("sha256", Some("a"), Some("b"))]);
        touched.unchanged = Fields::new().with("mode", "0666");
        let output = judged(vec![unjudged(4, 1, touched, mode("0644"), vec![])]);
        assert_eq!(output.judgements[0].1.verdict, Verdict::Expected);
        assert!(matches!(&output.drift[..], [DriftWrite { change: None, step: Step::Open(_), .. }]));
    }

    #[test]
    fn without_a_baseline_a_change_is_out_of_scope_and_opens_nothing() {
        let away = change("file:/etc/x", ChangeKind::Modified, &[("mode", Some("0644"), Some("0666"))]);
        let output = judged(vec![unjudged(1, 1, away, None, vec![])]);
        assert_eq!(output.judgements[0].1.verdict, Verdict::OutOfScope);
        assert!(output.drift.is_empty());
    }
}
