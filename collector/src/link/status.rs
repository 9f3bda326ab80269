//! What an agent says of itself, bounded and printable.

use std::collections::BTreeMap;

use trueline_drift::text::{bounded, printable};
use trueline_drift::{Operation, OperationCoverage, Sequence, Time};
use trueline_proto::v1;
use trueline_store::{HostStatus, SensorStatus, SpoolStatus};

const SENSORS: usize = 256;
const TROUBLES: usize = 32;
const TEXT_LIMIT: usize = 512;

pub fn host_status(heartbeat: v1::Heartbeat) -> HostStatus {
    let sensors = heartbeat.sensors.into_iter().take(SENSORS).map(|sensor| SensorStatus {
        name: short(&sensor.name),
        scope: short(&sensor.scope),
        watching: sensor.watching,
        reason: sensor.reason.as_deref().map(short),
    });
    HostStatus {
        sensors: sensors.collect(),
        operations: operations(heartbeat.operations),
        counters: heartbeat.counters.map(counters).unwrap_or_default(),
        spool: heartbeat.spool.map(|spool| SpoolStatus {
            bytes: spool.bytes,
            limit_bytes: spool.limit_bytes,
            oldest_sequence: Sequence(spool.oldest_sequence),
            newest_sequence: Sequence(spool.newest_sequence),
            holding_since: spool.holding_since.map(Time::from_micros),
        }),
        policy_version: Some(heartbeat.policy_version),
        troubles: heartbeat.troubles.iter().take(TROUBLES).map(|trouble| short(trouble)).collect(),
    }
}

/// Each operation once. What a newer agent tells of another is left out.
fn operations(told: Vec<v1::OperationCoverage>) -> Vec<OperationCoverage> {
    let rows: Vec<OperationCoverage> = told.into_iter().take(SENSORS).filter_map(|row| row.try_into().ok()).collect();
    let first = |operation| rows.iter().find(|row| row.operation == operation);
    let cut = |row: &OperationCoverage| OperationCoverage { reason: row.reason.as_deref().map(short), ..*row };
    Operation::ALL.into_iter().filter_map(first).map(cut).collect()
}

fn counters(counters: v1::Counters) -> BTreeMap<String, u64> {
    let v1::Counters { events, changes, overflows, events_dropped, changes_held, items, read_failures, transients } = counters;
    let named = [
        ("events", events),
        ("changes", changes),
        ("overflows", overflows),
        ("events_dropped", events_dropped),
        ("changes_held", changes_held),
        ("items", items),
        ("read_failures", read_failures),
        ("transients", transients),
    ];
    named.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

/// Text of a peer, fit for logs and screens.
pub fn short(text: &str) -> String {
    bounded(&printable(text.as_bytes()), TEXT_LIMIT).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_heartbeat_is_cut_and_made_printable() {
        let heartbeat = v1::Heartbeat {
            troubles: vec!["\u{1b}[2Jx".to_owned(); 1000],
            sensors: vec![v1::Sensor { name: "n".repeat(1_000_000), ..v1::Sensor::default() }; 1000],
            operations: (0..1000)
                .map(|at| v1::OperationCoverage { operation: at % 20, actor: None, reason: Some("\u{1b}[2J".repeat(1000)) })
                .collect(),
            ..v1::Heartbeat::default()
        };
        let status = host_status(heartbeat);
        assert_eq!(status.troubles.len(), TROUBLES);
        assert!(!status.troubles[0].contains('\u{1b}'));
        assert_eq!(status.sensors.len(), SENSORS);
        assert!(status.sensors[0].name.len() < 2 * TEXT_LIMIT);
        assert_eq!(status.operations.iter().map(|row| row.operation).collect::<Vec<_>>(), Operation::ALL);
        let reason = status.operations[0].reason.as_deref().unwrap();
        assert!(reason.len() < 2 * TEXT_LIMIT && !reason.contains('\u{1b}'), "{reason}");
    }
}
