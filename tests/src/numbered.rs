//! Changes that carry their place in the order, sent by one member, and whether the collector has them
//! once and in that order.

use std::ops::Range;

use anyhow::ensure;
use serde_json::Value;
use trueline_drift::RecordBody;

use crate::collector::Collector;
use crate::content::numbered_change;
use crate::fleet::Member;

/// A member of the fleet of this collector, enrolled now.
pub async fn member(collector: &Collector, name: &str) -> anyhow::Result<Member> {
    let token = collector.join_token(1).await?;
    Member::enrol(collector.enrolment(), collector.ca_sha256()?, &token, name).await
}

pub fn numbered(numbers: Range<u64>) -> Vec<RecordBody> {
    numbers.map(|number| RecordBody::Changed(Box::new(numbered_change(number)))).collect()
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
