//! A host that hands in, and a judge in short: for tests and measurements of the store alone.

use std::collections::HashMap;

use trueline_drift::judge::judge;
use trueline_drift::reconcile::{OpenDrift, apply, reconcile};
use trueline_drift::{Epoch, Facts, FieldName, HostId, RecordBody, Sequence, TenantId, Time};
use trueline_proto::ChainLink;

use crate::{
    Batch, DriftWrite, Enrolled, JudgeInput, JudgeOutput, KeyDigest, NewHost, NewToken, Result, Role, Store, TokenDigest, TokenKind,
};

/// Lets a host in with a join token of its own.
///
/// # Panics
/// Where there is a host of this identity.
pub async fn enrol(store: &dyn Store, tenant: &TenantId, id: HostId, facts: &Facts, at: Time) -> Result<()> {
    let mut own = [0; 32];
    own[..16].copy_from_slice(id.0.as_bytes());
    let token = NewToken {
        tenant: tenant.clone(),
        kind: TokenKind::Join,
        role: Role::Viewer,
        name: format!("for {id}"),
        digest: TokenDigest(own),
        created_at: at,
        expires_at: None,
        uses: Some(1),
    };
    store.add_token(token).await?;
    let new = NewHost { id, facts: facts.clone(), enrolled_at: at, token: TokenDigest(own), key: KeyDigest(own) };
    let enrolled = store.enrol_host(new).await?;
    assert!(matches!(enrolled, Enrolled::Host { .. }), "{enrolled:?}");
    Ok(())
}

/// A host's agent, as far as the store sees it.
#[derive(Debug, Clone)]
pub struct Sender {
    pub id: HostId,
    pub epoch: Epoch,
    pub next: Sequence,
    pub link: ChainLink,
}

impl Sender {
    /// At the beginning of an epoch.
    pub fn new(id: HostId, epoch: Epoch) -> Self {
        Self { id, epoch, next: Sequence(1), link: ChainLink::START }
    }

    /// The records as the host's next batch.
    pub fn batch(&mut self, records: Vec<RecordBody>) -> Batch {
        let count = records.len() as u64;
        let link = self.link.next(self.epoch, self.next, u32::try_from(count).unwrap_or(u32::MAX), b"payload");
        let batch = Batch { host: self.id, epoch: self.epoch, first: self.next, previous: self.link, link, records };
        self.next = self.next.plus(count);
        self.link = link;
        batch
    }
}

/// What a judge writes of its input; `None` for no changes.
pub fn judgement(input: JudgeInput) -> Option<JudgeOutput> {
    let to = input.changes.last()?.position;
    let mut output = JudgeOutput { from: input.from, to, judgements: Vec::new(), drift: Vec::new() };
    let mut open: HashMap<i64, Vec<OpenDrift>> = HashMap::new();
    for unjudged in input.changes {
        let baseline = unjudged.baseline.as_ref().map(|(name, expectation)| (name, expectation));
        let (judgement, findings) = judge(&unjudged.change, baseline);
        let at = unjudged.happened_at();
        output.judgements.push((unjudged.position, judgement));
        let open = open.entry(unjudged.item_row).or_insert(unjudged.open);
        let explains = |field: &FieldName| unjudged.change.fields.iter().any(|change| change.name == *field);
        let steps = reconcile(open, findings, explains);
        apply(open, &steps, explains);
        output.drift.extend(steps.into_iter().map(|step| DriftWrite {
            host: unjudged.host,
            item: unjudged.change.item.clone(),
            item_row: Some(unjudged.item_row),
            at,
            change: Some(unjudged.position),
            step,
        }));
    }
    Some(output)
}
