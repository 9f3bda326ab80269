//! Comparing a host's whole state with its baseline: after an inventory, and when the baseline moves.
//!
//! Invariant: a comparison opens and resolves drift but names no change as its cause; the judge adds
//! the cause when it comes to the change.

use std::sync::Arc;
use std::time::Duration;

use trueline_drift::Time;
use trueline_drift::baseline::departures;
use trueline_drift::judge::{BaselineName, weigh};
use trueline_drift::reconcile::reconcile;
use trueline_store::{CompareRow, Compared, DriftWrite, HostToCompare, StoreError};

use crate::hub::{Hub, Part, now};

const HOSTS: u32 = 16;
/// Items compared in one transaction.
const PAGE: u32 = 1_000;
/// For the judge to come to changes that arrived meanwhile, before the host is left for a later turn.
const WAIT: Duration = Duration::from_millis(20);
const WAITS: u32 = 100;

/// Compares every host that is due, once. A host that cannot be compared keeps no other waiting.
pub async fn compare_all(hub: &Hub) -> Result<(), StoreError> {
    let mut after = None;
    let mut failure = None;
    loop {
        let hosts = hub.store.hosts_to_compare(after, HOSTS).await?;
        let Some(last) = hosts.last() else { return failure.map_or(Ok(()), Err) };
        after = Some(last.host);
        for host in hosts {
            if hub.shutdown.is_cancelled() {
                return Ok(());
            }
            match compare_host(hub, &host).await {
                Ok(()) => hub.news.ring(),
                Err(error) => {
                    tracing::error!(host = %host.host, %error, "cannot compare a host with its baseline");
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
        match hub.store.compare(host, after, PAGE, &|rows| compare_rows(host, rows, at)).await? {
            Compared::UpTo(last) => (after, waits) = (Some(last), 0),
            Compared::End => break,
            Compared::Unjudged if waits < WAITS => {
                waits += 1;
                tokio::time::sleep(WAIT).await;
            }
            // It stays due, or is due again under what it is held against now.
            Compared::Unjudged | Compared::Superseded => return Ok(()),
        }
    }
    hub.store.comparison_done(host).await?;
    metrics::counter!("trueline_comparisons_total").increment(1);
    Ok(())
}

/// The steps that make the open drifts of these items equal their departures.
pub fn compare_rows(host: &HostToCompare, rows: Vec<CompareRow>, at: Time) -> Vec<DriftWrite> {
    let baseline: Option<&BaselineName> = host.baseline.as_ref().map(|(_, name)| name);
    let mut writes = Vec::new();
    for row in rows {
        let findings = baseline.map_or_else(Vec::new, |name| {
            departures(&row.expectation, row.fields.as_ref()).into_iter().map(|departure| weigh(&row.item, departure, name)).collect()
        });
        for step in reconcile(&row.open, findings, |_| false) {
            writes.push(DriftWrite { host: host.host, item: row.item.clone(), item_row: row.item_row, at, change: None, step });
        }
    }
    writes
}

/// Runs on its bell and on a timer.
pub async fn run(hub: Arc<Hub>) -> Result<(), StoreError> {
    let mut bell = hub.compare.listen();
    while !hub.shutdown.is_cancelled() {
        compare_all(&hub).await?;
        hub.health.is_well(Part::Compare);
        crate::tasks::rest_until(&hub, &mut bell, crate::tasks::TIMER).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use trueline_drift::baseline::Expectation;
    use trueline_drift::reconcile::{OpenDrift, Step};
    use trueline_drift::{FieldName, Fields, HostId, ItemId, Value};

    fn host(baseline: bool) -> HostToCompare {
        let baseline = baseline.then(|| (1, BaselineName { name: "web".to_owned(), version: 1 }));
        HostToCompare { host: HostId(uuid::Uuid::nil()), baseline, generation: 1 }
    }

    fn row(fields: Option<Fields>, expectation: Expectation, open: Vec<OpenDrift>) -> CompareRow {
        let item: ItemId = "file:/etc/x".parse().unwrap();
        CompareRow { fingerprint: item.fingerprint(), item, item_row: Some(1), fields, expectation, open }
    }

    fn open_mode() -> OpenDrift {
        OpenDrift { field: FieldName::known("mode"), expected: None, actual: Some(Value::text("0666")), explained: true }
    }

    #[test]
    fn a_missing_item_opens_drift_without_a_cause() {
        let expectation = Expectation::Fields(Fields::new().with("mode", "0644"));
        let writes = compare_rows(&host(true), vec![row(None, expectation, vec![])], Time::from_seconds(1));
        assert!(matches!(&writes[..], [DriftWrite { change: None, step: Step::Open(_), .. }]));
    }

    #[test]
    fn a_host_that_lost_its_baseline_has_no_drift() {
        let fields = Fields::new().with("mode", "0666");
        let writes = compare_rows(&host(false), vec![row(Some(fields), Expectation::Free, vec![open_mode()])], Time::from_seconds(1));
        assert!(matches!(&writes[..], [DriftWrite { step: Step::Resolve(_), .. }]));
    }
}
