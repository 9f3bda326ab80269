//! What a running agent says of itself, put together from its parts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use trueline_drift::{RecordBody, Time};

use super::RunningAgent;
use crate::sensor::{operations, unwatched};
use crate::spool::Spool;
use crate::status::report::{Health, Link, Report, Row, Spooled, Work, line};
use crate::status::{Phase, Progress};

impl RunningAgent {
    /// One line on what it does, for the service manager. Waits for no disk.
    pub fn line(&self) -> String {
        let acknowledged = self.spool.acknowledged().0;
        // The line says itself what became of the link.
        let mut troubles = self.status.troubles_but("link");
        troubles.extend(unwatched(&self.coverage()));
        line(&self.work(), &self.status.link(), acknowledged, self.waiting(), &troubles)
    }

    /// All that an operator may want to know, but for what is read of the disk. Waits for none.
    pub fn draft(&self) -> Draft {
        let troubles = self.troubles();
        let spool = &self.spool;
        let coverage = self.coverage();
        let report = Report {
            health: if troubles.is_empty() { Health::Healthy } else { Health::Troubled },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data_dir: self.data_dir.clone(),
            pid: Some(std::process::id()),
            host: Some(self.host),
            certificate: self.status.certificate(),
            work: Some(self.work()),
            link: Some(Link { collector: self.collector.clone(), state: self.status.link(), acknowledged: spool.acknowledged().0 }),
            spool: Some(Spooled {
                bytes: spool.bytes(),
                limit_bytes: spool.limit().bytes,
                newest: spool.newest().0,
                waiting: self.waiting(),
                oldest_at: None,
                holding_since: self.status.holding_since(),
            }),
            operations: operations(&coverage),
            coverage: coverage.into_iter().map(Row::from).collect(),
            confinement: None,
            troubles,
            advice: None,
        };
        Draft { report, spool: Arc::clone(spool) }
    }

    fn work(&self) -> Work {
        let Progress { phase, items, bytes } = *self.status.progress.borrow();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let is_reading = matches!(phase, Phase::Inventory | Phase::Rescan);
        Work {
            phase,
            progress: if is_reading { items } else { 0 },
            progress_bytes: if is_reading { bytes } else { 0 },
            items: read(&self.status.items),
            files: read(&self.status.files),
            events: read(&self.counters.events),
            changes: read(&self.status.changes),
            read_failures: read(&self.status.read_failures),
            transients: read(&self.status.transients),
            policy_version: *self.policy_version.borrow(),
        }
    }

    fn waiting(&self) -> u64 {
        self.spool.newest().0.saturating_sub(self.spool.acknowledged().0)
    }
}

/// A report that lacks what stands on disk. Holds the spool meanwhile.
pub struct Draft {
    report: Report,
    spool: Arc<Spool>,
}

impl Draft {
    /// Reads one record of the spool, which takes as long as the disk does.
    pub fn finish(self) -> Report {
        let oldest_at = oldest_waiting(&self.spool);
        Report { spool: self.report.spool.map(|spool| Spooled { oldest_at, ..spool }), ..self.report }
    }
}

/// When the oldest record that the collector lacks was made.
fn oldest_waiting(spool: &Spool) -> Option<Time> {
    let (_, record) = spool.records_after(spool.acknowledged()).next()?.ok()?;
    Some(match record {
        RecordBody::Observed(observation) => observation.observed_at,
        RecordBody::Changed(change) => change.observed_at,
        RecordBody::Gap(gap) => gap.ended_at.unwrap_or(gap.began_at),
        RecordBody::Unwatched { observed_at, .. } | RecordBody::InventoryComplete { observed_at, .. } => observed_at,
    })
}
