//! Changes that carry their place in the order, sent by one member or by several at once, and whether the
//! collector has them once and in that order.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use tokio::task::JoinHandle;
use trueline_drift::RecordBody;

use crate::collector::Collector;
use crate::content::numbered_change;
use crate::fleet::Member;
use crate::wait;

/// A member of the fleet of this collector, enrolled now.
pub async fn member(collector: &Collector, name: &str) -> anyhow::Result<Member> {
    let token = collector.join_token(1).await?;
    Member::enrol(collector.enrolment(), collector.ca_sha256()?, &token, name).await
}

pub fn numbered(numbers: Range<u64>) -> Vec<RecordBody> {
    numbers.map(|number| RecordBody::Changed(Box::new(numbered_change(number)))).collect()
}

/// Members that deliver numbered changes at once, each through every loss of its connection.
pub struct Senders {
    hosts: Vec<String>,
    limit: Duration,
    durable: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Senders {
    /// So many members with `each` changes for the collector, which has to take them within the limit.
    pub async fn start(collector: &Collector, members: usize, each: u64, limit: Duration) -> anyhow::Result<Self> {
        let mut senders = Self { hosts: Vec::new(), limit, durable: Arc::default(), tasks: Vec::new() };
        for index in 0..members {
            let mut member = member(collector, &format!("member-{index}")).await?;
            // Few bytes on their way at once, so that the collector ends with much still to come.
            member.window = 4096;
            member.durable = Arc::clone(&senders.durable);
            for first in (0..each).step_by(20) {
                member.append(numbered(first..first + 20))?;
            }
            senders.hosts.push(member.host_id.clone());
            let agents = collector.agents();
            senders.tasks.push(tokio::spawn(async move { member.deliver_through_faults(agents, limit).await }));
        }
        Ok(senders)
    }

    /// How many changes of them all were acknowledged.
    pub fn durable(&self) -> u64 {
        self.durable.load(Ordering::Relaxed)
    }

    /// Waits until so many changes of them all are acknowledged.
    pub async fn have_delivered(&self, share: u64) -> anyhow::Result<()> {
        wait::until("part of the changes to be durable", self.limit, async || Ok((self.durable() >= share).then_some(()))).await
    }

    /// Waits until each has delivered everything; their hosts.
    pub async fn finish(self) -> anyhow::Result<Vec<String>> {
        for task in self.tasks {
            task.await??;
        }
        Ok(self.hosts)
    }
}

/// Fails unless the host's changes are those numbered 0 to `count`, each once and in order.
pub async fn each_once_in_order(collector: &Collector, host: &str, count: u64) -> anyhow::Result<()> {
    let mut changes = collector.rest().all("/changes", &[("host", host)]).await?;
    // Newest first, as people read them.
    changes.reverse();
    let size = |change: &Value| change["fields"].as_array()?.iter().find(|field| field["name"] == "size")?["after"].as_u64();
    let numbers: Vec<Option<u64>> = changes.iter().map(size).collect();
    let wanted: Vec<Option<u64>> = (0..count).map(Some).collect();
    let first = numbers.iter().zip(&wanted).position(|(held, wanted)| held != wanted);
    ensure!(numbers == wanted, "{} changes held, {count} sent; the first difference is at {first:?}", numbers.len());
    let sequences: Vec<Option<u64>> = changes.iter().map(|change| change["sequence"].as_u64()).collect();
    ensure!(sequences == (1..=count).map(Some).collect::<Vec<_>>(), "sequences are not 1 to {count} in order");
    Ok(())
}
