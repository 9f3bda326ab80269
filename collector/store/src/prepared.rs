//! Batches encoded as they will be stored.
//!
//! Invariant: an item's fields have one encoding, sorted by name, whichever record told them: equal fields are equal bytes.

use prost::Message;
use trueline_drift::change::ChangeKind;
use trueline_drift::{Change, HostId, ItemId, ItemKind, Observation, RecordBody, Sequence, Time};
use trueline_proto::v1;

use crate::Batch;
use crate::encoding::{self, Numbered};
use crate::grouping::{self, Group};
use crate::items::Presence;
use crate::stream::Offer;

/// A batch, encoded as it will be stored. Encoding it needs no database and is the larger part of an append's
/// computing: it is done where many can do it at once, and once however often the append is tried.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(crate) host: HostId,
    pub(crate) offer: Offer,
    pub(crate) records: Vec<Entry>,
}

impl Prepared {
    pub fn host(&self) -> HostId {
        self.host
    }

    pub fn first(&self) -> Sequence {
        self.offer.first
    }

    pub fn records(&self) -> usize {
        self.records.len()
    }

    pub fn ends_inventory(&self) -> bool {
        self.records.iter().any(|entry| matches!(entry, Entry::InventoryComplete { .. }))
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        let held: usize = self.records.iter().map(Entry::held).sum();
        size_of::<Self>() + self.records.len() * size_of::<Entry>() + held
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Observed(ItemState),
    Changed { state: ItemState, kind: ChangeKind, observed_at: i64, body: Vec<u8>, groups: Vec<Group> },
    Gap(Vec<u8>),
    Unwatched(ItemState),
    InventoryComplete { observed_at: i64 },
}

impl Entry {
    /// What it takes in memory beside itself.
    fn held(&self) -> usize {
        match self {
            Self::Observed(state) | Self::Unwatched(state) => state.held(),
            Self::Changed { state, body, groups, .. } => state.held() + body.capacity() + groups.capacity() * size_of::<Group>(),
            Self::Gap(body) => body.capacity(),
            Self::InventoryComplete { .. } => 0,
        }
    }
}

/// How an item is after a record.
#[derive(Debug, Clone)]
pub(crate) struct ItemState {
    pub fingerprint: [u8; 16],
    pub kind: i64,
    pub key: String,
    pub presence: Presence,
    /// Absent once the item is gone. Of an item that is no longer watched, what was last known stays.
    pub fields: Option<Vec<u8>>,
    pub observed_at: i64,
    pub package: Package,
}

impl ItemState {
    fn held(&self) -> usize {
        self.key.capacity() + self.fields.as_ref().map_or(0, Vec::capacity)
    }
}

/// What a record says of the package that its item is a part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Package {
    /// By fingerprint; or that there is none.
    Said(Option<[u8; 16]>),
    /// Nothing, but the item was read: a part it stays if its fields are what they were.
    AsItsFields,
    /// Nothing.
    AsBefore,
}

impl Package {
    /// What is said in all by an earlier record and this one of the same item.
    pub fn after(self, earlier: Self, same_fields: bool) -> Self {
        match (self, earlier) {
            (Self::Said(_), _) => self,
            (Self::AsBefore, _) => earlier,
            // The earlier one told no fields: those that are stored count.
            (Self::AsItsFields, Self::AsBefore) => self,
            (Self::AsItsFields, _) if same_fields => earlier,
            (Self::AsItsFields, _) => Self::Said(None),
        }
    }
}

pub fn prepare(batch: Batch) -> Prepared {
    let offer =
        Offer { epoch: batch.epoch, first: batch.first, records: batch.records.len() as u64, previous: batch.previous, link: batch.link };
    let records = batch
        .records
        .into_iter()
        .map(|record| match record {
            RecordBody::Observed(observation) => Entry::Observed(observed(observation)),
            RecordBody::Changed(change) => changed(*change),
            RecordBody::Unwatched { item, observed_at } => {
                Entry::Unwatched(state(item, Presence::Unwatched, None, observed_at, Package::AsBefore))
            }
            RecordBody::Gap(gap) => Entry::Gap(v1::CoverageGap::from(gap).encode_to_vec()),
            RecordBody::InventoryComplete { observed_at, .. } => Entry::InventoryComplete { observed_at: observed_at.micros() },
        })
        .collect();
    Prepared { host: batch.host, offer, records }
}

fn state(item: ItemId, presence: Presence, fields: Option<Vec<u8>>, observed_at: Time, package: Package) -> ItemState {
    ItemState {
        fingerprint: item.fingerprint().0,
        kind: item.kind.number(),
        key: item.key.as_str().to_owned(),
        presence,
        fields,
        observed_at: observed_at.micros(),
        package,
    }
}

fn observed(observation: Observation) -> ItemState {
    let fields = encoding::fields_bytes(observation.fields);
    state(observation.item, Presence::There, Some(fields), observation.observed_at, Package::AsItsFields)
}

/// A package is a part of none, whatever its host says: else two could hide each other.
fn package(change: &Change) -> Package {
    let ships = |package: &&ItemId| package.kind == ItemKind::Package && change.item.kind != ItemKind::Package;
    Package::Said(change.shipped_by.as_ref().filter(ships).map(|package| package.fingerprint().0))
}

fn changed(change: Change) -> Entry {
    let (kind, observed_at, item) = (change.kind, change.observed_at, change.item.clone());
    let package = package(&change);
    let groups = grouping::groups(&change);
    let mut wire = v1::Change::from(change);
    // The item has a row of its own.
    wire.item = None;
    let fields = (kind != ChangeKind::Removed).then(|| fields_after(&wire));
    let presence = if fields.is_some() { Presence::There } else { Presence::Gone };
    Entry::Changed {
        state: state(item, presence, fields, observed_at, package),
        kind,
        observed_at: observed_at.micros(),
        body: wire.encode_to_vec(),
        groups,
    }
}

/// The encoding of [`Change::after`] as `v1::Fields`, without building it.
fn fields_after(change: &v1::Change) -> Vec<u8> {
    const FIELDS_TAG: u32 = 1;
    let unchanged = change.unchanged.iter().map(|field| (&field.name, &field.value));
    let changed = change.fields.iter().filter(|field| field.after.is_some()).map(|field| (&field.name, &field.after));
    let mut fields: Vec<_> = unchanged.chain(changed).collect();
    fields.sort_by_key(|(name, _)| *name);
    let mut bytes = Vec::new();
    for (name, value) in fields {
        let field = v1::Field { name: name.clone(), value: value.clone() };
        prost::encoding::message::encode(FIELDS_TAG, &field, &mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use trueline_drift::{Actor, Cause, Epoch, FieldChange, FieldName, Fields};
    use trueline_proto::ChainLink;

    fn change(item: &str, shipped_by: Option<&str>) -> Change {
        let field = |name, before: Option<&str>, after: Option<&str>| FieldChange {
            name: FieldName::known(name),
            before: before.map(Into::into),
            after: after.map(Into::into),
        };
        Change {
            item: item.parse().unwrap(),
            kind: ChangeKind::Modified,
            fields: vec![field("acl", None, Some("x")), field("mode", Some("0644"), Some("0600")), field("uid", Some("0"), None)],
            unchanged: Fields::new().with("group", "root").with("size", "9"),
            observed_after: Time::from_seconds(1),
            observed_at: Time::from_seconds(2),
            cause: Cause::Event,
            actor: Actor::unknown("a test"),
            transaction: None,
            shipped_by: shipped_by.map(|package| package.parse().unwrap()),
            candidates: trueline_drift::Candidates::default(),
            lines: None,
        }
    }

    fn prepared(record: RecordBody) -> Entry {
        let (host, link) = (HostId(uuid::Uuid::nil()), ChainLink::START);
        let batch = Batch { host, epoch: Epoch(1), first: Sequence(1), previous: link, link, records: vec![record] };
        prepare(batch).records.swap_remove(0)
    }

    #[test]
    fn a_change_leaves_the_bytes_that_reading_the_item_again_gives() {
        let change = change("file:/a", None);
        let observed = RecordBody::Observed(Observation {
            item: change.item.clone(),
            fields: change.after().unwrap(),
            observed_at: Time::from_seconds(3),
        });
        let (Entry::Changed { state: changed, .. }, Entry::Observed(observed)) =
            (prepared(RecordBody::Changed(Box::new(change))), prepared(observed))
        else {
            panic!("the entries are of other kinds")
        };
        assert_eq!(changed.fields, observed.fields);
    }

    #[test]
    fn a_package_is_a_part_of_none() {
        let said = |item, by| match prepared(RecordBody::Changed(Box::new(change(item, by)))) {
            Entry::Changed { state, .. } => state.package,
            other => panic!("{other:?}"),
        };
        let package: ItemId = "package:b".parse().unwrap();
        assert_eq!(said("file:/a", Some("package:b")), Package::Said(Some(package.fingerprint().0)));
        assert_eq!(said("file:/a", None), Package::Said(None));
        for by in ["package:b", "package:a"] {
            assert_eq!(said("package:a", Some(by)), Package::Said(None));
        }
        assert_eq!(said("file:/a", Some("file:/b")), Package::Said(None), "only a package ships");
    }
}
