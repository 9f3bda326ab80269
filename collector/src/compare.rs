//! Comparing a host's whole state with its baseline: after an inventory, and when the baseline moves.
//!
//! Invariant: a comparison opens and resolves drift but names no change as its cause; the judge adds
//! the cause when it comes to the change.

use std::sync::Arc;
use std::time::Duration;

use trueline_drift::baseline::{EXISTS, Expectation, departures};
use trueline_drift::judge::{BaselineName, weigh};
use trueline_drift::reconcile::{OpenDrift, Step, reconcile};
use trueline_drift::{Time, Value};
use trueline_store::{CompareRow, Compared, DriftWrite, HostToCompare, KnownState, StoreError};

use crate::hub::{Hub, Part, now};

const HOSTS: u32 = 16;
/// Items compared in one transaction.
const PAGE: u32 = 1_000;
/// For the judge to come to changes that arrived meanwhile, before the host is left for a later turn.
const WAIT: Duration = Duration::from_millis(20);
const WAITS: u32 = 100;

/// Compares every host that is due, once. A host that cannot be compared keeps no other waiting; what was in the way of the
/// last such is returned.
pub async fn compare_all(hub: &Hub) -> Result<Option<StoreError>, StoreError> {
    let mut after = None;
    let mut failure = None;
    loop {
        let hosts = hub.pulses.compare.waiting(hub.store.hosts_to_compare(after, HOSTS)).await?;
        let Some(last) = hosts.last() else { return Ok(failure) };
        after = Some(last.host);
        for host in hosts {
            if hub.shutdown.is_cancelled() {
                return Ok(None);
            }
            match compare_host(hub, &host).await {
                Ok(()) => hub.news.ring(),
                Err(error) if error.is_passing() => return Err(error),
                Err(error) => {
                    if !hub.health.troubles().contains_key(&Part::Compare) {
                        tracing::error!(host = %host.host, %error, "cannot compare a host with its baseline");
                    }
                    failure = Some(error);
                }
            }
        }
    }
}

async fn compare_host(hub: &Hub, host: &HostToCompare) -> Result<(), StoreError> {
    let mut after = None;
    let mut waits = 0;
    loop {
        if hub.shutdown.is_cancelled() {
            return Ok(());
        }
        let at = now();
        let decide = |rows| hub.pulses.compare.working(|| compare_rows(host, rows, at));
        let page = hub.store.compare(host, after, PAGE, &decide);
        match hub.pulses.compare.waiting(page).await? {
            Compared::UpTo(last) => (after, waits) = (Some(last), 0),
            Compared::End => break,
            Compared::Unjudged if waits < WAITS => {
                waits += 1;
                hub.pulses.compare.waiting(tokio::time::sleep(WAIT)).await;
            }
            // It stays due, or is due again under what it is held against now.
            Compared::Unjudged | Compared::Superseded => return Ok(()),
        }
    }
    hub.pulses.compare.waiting(hub.store.comparison_done(host)).await?;
    metrics::counter!("trueline_comparisons_total").increment(1);
    Ok(())
}

/// The steps that make the open drifts of these items equal their departures.
///
/// What is in view no longer is not known to depart and not known to have come back: nothing opens on it, and what is open
/// stays as it was last seen for as long as the baseline asks for the same.
pub fn compare_rows(host: &HostToCompare, rows: Vec<CompareRow>, at: Time) -> Vec<DriftWrite> {
    let baseline: Option<&BaselineName> = host.baseline.as_ref().map(|(_, name)| name);
    let mut writes = Vec::new();
    for row in rows {
        let fields = match &row.state {
            KnownState::There(fields) => Some(fields),
            KnownState::Missing => None,
            KnownState::Unwatched => {
                let asked_otherwise = row.open.iter().filter(|drift| baseline.is_none() || !asks(&row.expectation, drift));
                let steps: Vec<Step> = asked_otherwise.map(|drift| Step::Resolve(drift.field.clone())).collect();
                writes.extend(steps.into_iter().map(|step| write(host, &row, step, at)));
                continue;
            }
        };
        let findings = baseline.map_or_else(Vec::new, |name| {
            departures(&row.expectation, fields).into_iter().map(|departure| weigh(&row.item, departure, name)).collect()
        });
        for step in reconcile(&row.open, findings, |_| false) {
            writes.push(write(host, &row, step, at));
        }
    }
    writes
}

fn write(host: &HostToCompare, row: &CompareRow, step: Step, at: Time) -> DriftWrite {
    DriftWrite { host: host.host, item: row.item.clone(), item_row: row.item_row, at, change: None, step }
}

/// Whether this is still what is expected of the field.
fn asks(expectation: &Expectation, drift: &OpenDrift) -> bool {
    let is_there = |expected: bool| (drift.field == EXISTS).then_some(Value::Boolean(expected));
    let asked = match expectation {
        Expectation::Free => None,
        Expectation::Absent => is_there(false),
        Expectation::Whole(fields) if drift.expected.is_none() => return fields.value(drift.field.as_str()).is_none(),
        Expectation::Fields(fields) | Expectation::Whole(fields) => is_there(true).or_else(|| fields.value(drift.field.as_str()).cloned()),
    };
    asked.is_some() && asked == drift.expected
}

/// Runs on its bell and on a timer.
pub async fn run(hub: Arc<Hub>) -> Result<(), StoreError> {
    let mut bell = hub.compare.listen();
    while !hub.shutdown.is_cancelled() {
        match hub.pulses.compare.at_work(compare_all(&hub)).await? {
            None => hub.health.is_well(Part::Compare),
            Some(error) => hub.health.is_troubled(Part::Compare, now(), &error),
        }
        crate::tasks::rest_until(&hub, &mut bell, crate::tasks::TIMER).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use trueline_drift::{FieldName, Fields, HostId, ItemId};

    fn host(baseline: bool) -> HostToCompare {
        let baseline = baseline.then(|| (1, BaselineName { name: "web".to_owned(), version: 1 }));
        HostToCompare { host: HostId(uuid::Uuid::nil()), baseline, generation: 1 }
    }

    fn row(state: KnownState, expectation: Expectation, open: Vec<OpenDrift>) -> CompareRow {
        let item: ItemId = "file:/etc/x".parse().unwrap();
        CompareRow { fingerprint: item.fingerprint(), item, item_row: Some(1), state, expectation, open }
    }

    fn mode(expected: &str) -> Expectation {
        Expectation::Fields(Fields::new().with("mode", expected))
    }

    fn open(field: FieldName, expected: Value, actual: Value) -> OpenDrift {
        OpenDrift { field, expected: Some(expected), actual: Some(actual), explained: true }
    }

    fn open_mode() -> OpenDrift {
        open(FieldName::known("mode"), Value::text("0644"), Value::text("0666"))
    }

    #[test]
    fn a_missing_item_opens_drift_without_a_cause() {
        let writes = compare_rows(&host(true), vec![row(KnownState::Missing, mode("0644"), vec![])], Time::from_seconds(1));
        assert!(matches!(&writes[..], [DriftWrite { change: None, step: Step::Open(_), .. }]));
    }

    #[test]
    fn a_host_that_lost_its_baseline_has_no_drift() {
        for state in [KnownState::There(Fields::new().with("mode", "0666")), KnownState::Missing, KnownState::Unwatched] {
            let writes = compare_rows(&host(false), vec![row(state, Expectation::Free, vec![open_mode()])], Time::from_seconds(1));
            assert!(matches!(&writes[..], [DriftWrite { step: Step::Resolve(_), .. }]));
        }
    }

    #[test]
    fn what_is_in_view_no_longer_opens_nothing_and_keeps_what_is_open_while_the_baseline_asks_for_the_same() {
        let exists = |expected| open(EXISTS, Value::Boolean(expected), Value::Boolean(!expected));
        let resolves = |expectation: &Expectation, drift: Vec<OpenDrift>| {
            let row = row(KnownState::Unwatched, expectation.clone(), drift);
            let writes = compare_rows(&host(true), vec![row], Time::from_seconds(1));
            assert!(writes.iter().all(|write| matches!(write.step, Step::Resolve(_))), "{writes:?}");
            writes.len()
        };
        for expectation in [mode("0644"), mode("0600"), Expectation::Absent, Expectation::Free] {
            assert_eq!(resolves(&expectation, vec![]), 0, "{expectation:?}");
        }
        let came = || OpenDrift { expected: None, ..open(FieldName::known("acl"), Value::text(""), Value::text("user:x:rw-")) };
        let whole = |fields| Expectation::Whole(fields);
        for (expectation, drift) in [
            (mode("0644"), open_mode()),
            (mode("0644"), exists(true)),
            (Expectation::Absent, exists(false)),
            (whole(Fields::new().with("mode", "0644")), open_mode()),
            (whole(Fields::new()), came()),
        ] {
            assert_eq!(resolves(&expectation, vec![drift]), 0, "{expectation:?} is what it was");
        }
        for (expectation, drift) in [
            (mode("0600"), open_mode()),
            (mode("0644"), came()),
            (whole(Fields::new().with("acl", "user:x:rw-")), came()),
            (Expectation::Fields(Fields::new()), open_mode()),
            (Expectation::Absent, open_mode()),
            (Expectation::Free, open_mode()),
            (Expectation::Absent, exists(true)),
            (mode("0644"), exists(false)),
            (Expectation::Free, exists(false)),
        ] {
            assert_eq!(resolves(&expectation, vec![drift]), 1, "{expectation:?} is another");
        }
    }
}
