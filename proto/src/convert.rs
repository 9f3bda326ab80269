//! Between wire and domain, both ways. What the wire leaves unset or sets beyond the domain's limits
//! is an error here and nowhere later.

mod actor;
mod candidate;
mod lines;
mod operation;
mod transaction;

pub use transaction::{from_wire as transaction_from_wire, to_wire as transaction_to_wire};

use prost::bytes::Bytes;
use trueline_drift::change::ChangeKind;
use trueline_drift::item::ItemError;
use trueline_drift::{
    Cause, Change, CoverageGap, Facts, FieldChange, FieldName, Fields, GapReason, ItemId, ItemKey, ItemKind, Observation, RecordBody, Time,
    Value,
    value::{LIST_LIMIT, TEXT_LIMIT},
};

use crate::v1;

/// Most fields of one item.
const FIELDS_LIMIT: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error("{what} is missing")]
    Missing { what: &'static str },
    #[error("{what} has the unknown number {number}")]
    Unknown { what: &'static str, number: i32 },
    #[error("{what} is longer than {limit}")]
    TooLong { what: &'static str, limit: usize },
    #[error("{what} has {bytes} bytes and not {expected}")]
    Length { what: &'static str, bytes: usize, expected: usize },
    #[error("{what} is not what its name says")]
    Malformed { what: &'static str },
    #[error(transparent)]
    Item(#[from] ItemError),
}

fn missing(what: &'static str) -> ConvertError {
    ConvertError::Missing { what }
}

fn checked(what: &'static str, text: String) -> Result<String, ConvertError> {
    if text.len() > TEXT_LIMIT { Err(ConvertError::TooLong { what, limit: TEXT_LIMIT }) } else { Ok(text) }
}

/// A scope names an item or a part of a host, so it may be as long as a key.
fn checked_scope(scope: String) -> Result<String, ConvertError> {
    const LIMIT: usize = ItemKey::LIMIT + 32;
    if scope.len() > LIMIT { Err(ConvertError::TooLong { what: "scope", limit: LIMIT }) } else { Ok(scope) }
}

/// A host's clock may say anything; what people read must be a date.
fn moment(micros: i64) -> Time {
    Time::from_micros(micros).in_calendar()
}

fn checked_option(what: &'static str, text: Option<String>) -> Result<Option<String>, ConvertError> {
    text.map(|text| checked(what, text)).transpose()
}

/// A pair of functions for an enumeration whose numbers the wire fixes.
macro_rules! numbered {
    ($into:ident, $from:ident, $what:literal, $domain:ty, $wire:ty, { $($variant:ident),+ }) => {
        pub fn $into(value: $domain) -> $wire {
            match value { $(<$domain>::$variant => <$wire>::$variant),+ }
        }

        pub fn $from(number: i32) -> Result<$domain, ConvertError> {
            match <$wire>::try_from(number) {
                $(Ok(<$wire>::$variant) => Ok(<$domain>::$variant),)+
                Ok(<$wire>::Unspecified) => Err(missing($what)),
                Err(_) => Err(ConvertError::Unknown { what: $what, number }),
            }
        }
    };
}
use numbered;

numbered!(item_kind_to_wire, item_kind_from_wire, "item kind", ItemKind, v1::ItemKind, {
    File, Package, Sysctl, User, Group, Unit, Session, Run, Mount, KernelModule, Firewall, Repository, Kernel, Lsm, Fstab, Swap,
    BlockDevice, Certificate, Container, AuthorizedKey, SudoRule, CronJob, AtJob, Environment, Limits, PamRule, HostsEntry, Resolver, Hostname,
    Timezone, Listener, Interface, Route, Sshd, Timer, Locale, TimeSync, Hardware
});
numbered!(change_kind_to_wire, change_kind_from_wire, "change kind", ChangeKind, v1::ChangeKind, { Created, Modified, Removed });
numbered!(cause_to_wire, cause_from_wire, "cause", Cause, v1::Cause, { Event, Rescan });
numbered!(gap_reason_to_wire, gap_reason_from_wire, "gap reason", GapReason, v1::GapReason, {
    AgentDown, QueueOverflow, SensorLost, SpoolFull, SpoolDamaged, WatchLimit, PolicyChange, SetBack
});

impl From<&ItemId> for v1::Item {
    fn from(item: &ItemId) -> Self {
        Self { kind: item_kind_to_wire(item.kind).into(), key: item.key.as_str().to_owned() }
    }
}

impl TryFrom<v1::Item> for ItemId {
    type Error = ConvertError;

    fn try_from(item: v1::Item) -> Result<Self, ConvertError> {
        if item.key.is_empty() {
            return Err(missing("item key"));
        }
        Ok(Self::new(item_kind_from_wire(item.kind)?, ItemKey::from_text(&item.key)?))
    }
}

impl From<Value> for v1::Value {
    fn from(value: Value) -> Self {
        use v1::value::Kind;
        let kind = match value {
            Value::Text(text) => Kind::Text(text),
            Value::Integer(number) => Kind::Integer(number),
            Value::Boolean(boolean) => Kind::Boolean(boolean),
            Value::List(texts) => Kind::List(v1::TextList { texts }),
            Value::Unreadable { unreadable } => Kind::Unreadable(unreadable),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::Value> for Value {
    type Error = ConvertError;

    fn try_from(value: v1::Value) -> Result<Self, ConvertError> {
        use v1::value::Kind;
        Ok(match value.kind.ok_or_else(|| missing("value"))? {
            Kind::Text(text) => Self::Text(checked("value", text)?),
            Kind::Integer(number) => Self::Integer(number),
            Kind::Boolean(boolean) => Self::Boolean(boolean),
            Kind::List(list) if list.texts.len() > LIST_LIMIT => return Err(ConvertError::TooLong { what: "list", limit: LIST_LIMIT }),
            Kind::List(list) => Self::List(list.texts.into_iter().map(|text| checked("list entry", text)).collect::<Result<_, _>>()?),
            Kind::Unreadable(unreadable) => Self::Unreadable { unreadable: checked("reason", unreadable)? },
        })
    }
}

pub fn fields_to_wire(fields: Fields) -> Vec<v1::Field> {
    fields.into_iter().map(|(name, value)| v1::Field { name: name.as_str().to_owned(), value: Some(value.into()) }).collect()
}

pub fn fields_from_wire(fields: Vec<v1::Field>) -> Result<Fields, ConvertError> {
    if fields.len() > FIELDS_LIMIT {
        return Err(ConvertError::TooLong { what: "field list", limit: FIELDS_LIMIT });
    }
    fields.into_iter().map(|field| Ok((FieldName::new(&field.name), field.value.ok_or_else(|| missing("value"))?.try_into()?))).collect()
}

impl From<Observation> for v1::Observation {
    fn from(observation: Observation) -> Self {
        Self {
            item: Some((&observation.item).into()),
            fields: fields_to_wire(observation.fields),
            observed_at: observation.observed_at.micros(),
        }
    }
}

impl TryFrom<v1::Observation> for Observation {
    type Error = ConvertError;

    fn try_from(observation: v1::Observation) -> Result<Self, ConvertError> {
        Ok(Self {
            item: observation.item.ok_or_else(|| missing("item"))?.try_into()?,
            fields: fields_from_wire(observation.fields)?,
            observed_at: moment(observation.observed_at),
        })
    }
}

impl From<Change> for v1::Change {
    fn from(change: Change) -> Self {
        let (candidates, more_candidates) = candidate::to_wire(change.candidates);
        Self {
            item: Some((&change.item).into()),
            kind: change_kind_to_wire(change.kind).into(),
            fields: change
                .fields
                .into_iter()
                .map(|field| v1::FieldChange {
                    name: field.name.as_str().to_owned(),
                    before: field.before.map(Into::into),
                    after: field.after.map(Into::into),
                })
                .collect(),
            unchanged: fields_to_wire(change.unchanged),
            observed_after: change.observed_after.micros(),
            observed_at: change.observed_at.micros(),
            cause: cause_to_wire(change.cause).into(),
            actor: Some(change.actor.into()),
            transactions: transaction::to_wire(change.transaction),
            shipped_by: change.shipped_by.map(|package| package.key.as_str().to_owned()),
            candidates,
            more_candidates,
            lines: change.lines.map(Into::into),
        }
    }
}

impl TryFrom<v1::Change> for Change {
    type Error = ConvertError;

    fn try_from(change: v1::Change) -> Result<Self, ConvertError> {
        if change.fields.is_empty() {
            return Err(missing("changed field"));
        }
        if change.fields.len() > FIELDS_LIMIT {
            return Err(ConvertError::TooLong { what: "field list", limit: FIELDS_LIMIT });
        }
        let fields = change
            .fields
            .into_iter()
            .map(|field| {
                Ok(FieldChange {
                    name: FieldName::new(&field.name),
                    before: field.before.map(Value::try_from).transpose()?,
                    after: field.after.map(Value::try_from).transpose()?,
                })
            })
            .collect::<Result<Vec<FieldChange>, ConvertError>>()?;
        let unchanged = fields_from_wire(change.unchanged)?;
        let after = unchanged.len() + fields.iter().filter(|field| field.after.is_some()).count();
        if after > FIELDS_LIMIT {
            return Err(ConvertError::TooLong { what: "list of fields after the change", limit: FIELDS_LIMIT });
        }
        Ok(Self {
            item: change.item.ok_or_else(|| missing("item"))?.try_into()?,
            kind: change_kind_from_wire(change.kind)?,
            fields,
            unchanged,
            observed_after: moment(change.observed_after),
            observed_at: moment(change.observed_at),
            cause: cause_from_wire(change.cause)?,
            actor: change.actor.ok_or_else(|| missing("actor"))?.try_into()?,
            transaction: transaction::from_wire(change.transactions)?,
            shipped_by: change.shipped_by.map(|key| package(&key)).transpose()?,
            candidates: candidate::from_wire(change.candidates, change.more_candidates)?,
            lines: change.lines.map(TryInto::try_into).transpose()?,
        })
    }
}

fn package(key: &str) -> Result<ItemId, ConvertError> {
    if key.is_empty() {
        return Err(missing("package"));
    }
    Ok(ItemId::new(ItemKind::Package, ItemKey::from_text(key)?))
}

impl From<CoverageGap> for v1::CoverageGap {
    fn from(gap: CoverageGap) -> Self {
        Self {
            scope: gap.scope,
            reason: gap_reason_to_wire(gap.reason).into(),
            began_at: gap.began_at.micros(),
            ended_at: gap.ended_at.map(Time::micros),
            lost: gap.lost,
            remedy: gap.remedy,
        }
    }
}

impl TryFrom<v1::CoverageGap> for CoverageGap {
    type Error = ConvertError;

    fn try_from(gap: v1::CoverageGap) -> Result<Self, ConvertError> {
        Ok(Self {
            scope: checked_scope(gap.scope)?,
            reason: gap_reason_from_wire(gap.reason)?,
            began_at: moment(gap.began_at),
            ended_at: gap.ended_at.map(moment),
            lost: gap.lost,
            remedy: checked_option("remedy", gap.remedy)?,
        })
    }
}

impl From<RecordBody> for v1::Record {
    fn from(body: RecordBody) -> Self {
        use v1::record::Body;
        let body = match body {
            RecordBody::Observed(observation) => Body::Observed(observation.into()),
            RecordBody::Changed(change) => Body::Changed((*change).into()),
            RecordBody::Gap(gap) => Body::Gap(gap.into()),
            RecordBody::Unwatched { item, observed_at } => {
                Body::Unwatched(v1::Unwatched { item: Some((&item).into()), observed_at: observed_at.micros() })
            }
            RecordBody::InventoryComplete { items, observed_at } => {
                Body::InventoryComplete(v1::InventoryComplete { items, observed_at: observed_at.micros() })
            }
        };
        Self { body: Some(body) }
    }
}

impl TryFrom<v1::Record> for RecordBody {
    type Error = ConvertError;

    fn try_from(record: v1::Record) -> Result<Self, ConvertError> {
        use v1::record::Body;
        Ok(match record.body.ok_or_else(|| missing("record"))? {
            Body::Observed(observation) => Self::Observed(observation.try_into()?),
            Body::Changed(change) => Self::Changed(Box::new(change.try_into()?)),
            Body::Gap(gap) => Self::Gap(gap.try_into()?),
            Body::Unwatched(unwatched) => Self::Unwatched {
                item: unwatched.item.ok_or_else(|| missing("item"))?.try_into()?,
                observed_at: moment(unwatched.observed_at),
            },
            Body::InventoryComplete(complete) => {
                Self::InventoryComplete { items: complete.items, observed_at: moment(complete.observed_at) }
            }
        })
    }
}

impl From<Facts> for v1::Facts {
    fn from(facts: Facts) -> Self {
        Self {
            hostname: facts.hostname,
            os: facts.os,
            kernel: facts.kernel,
            architecture: facts.architecture,
            machine_id: facts.machine_id,
            boot_id: facts.boot_id,
            cpus: facts.cpus,
            memory_bytes: facts.memory_bytes,
            labels: facts.labels.into_iter().collect(),
        }
    }
}

impl TryFrom<v1::Facts> for Facts {
    type Error = ConvertError;

    fn try_from(facts: v1::Facts) -> Result<Self, ConvertError> {
        if facts.labels.len() > 64 {
            return Err(ConvertError::TooLong { what: "label list", limit: 64 });
        }
        let short = |what, text: String| {
            if text.len() > 256 {
                Err(ConvertError::TooLong { what, limit: 256 })
            } else {
                // As a key: printable text stays as it is, whatever else is escaped once.
                let bytes = trueline_drift::text::original(&text);
                Ok(trueline_drift::text::printable(&bytes).into_owned())
            }
        };
        let short_option = |what, text: Option<String>| text.map(|text| short(what, text)).transpose();
        if facts.hostname.is_empty() {
            return Err(missing("host name"));
        }
        Ok(Self {
            hostname: short("host name", facts.hostname)?,
            os: short_option("os", facts.os)?,
            kernel: short_option("kernel", facts.kernel)?,
            architecture: short_option("architecture", facts.architecture)?,
            machine_id: short_option("machine id", facts.machine_id)?,
            boot_id: short_option("boot id", facts.boot_id)?,
            cpus: facts.cpus,
            memory_bytes: facts.memory_bytes,
            labels: facts
                .labels
                .into_iter()
                .map(|(name, value)| Ok((short("label", name)?, short("label", value)?)))
                .collect::<Result<_, ConvertError>>()?,
        })
    }
}

/// A run of an agent's process: see `Hello` in `link.proto`. A host's identity is on its disk and can be copied; this cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunId([u8; 16]);

impl RunId {
    /// `random` must be just that.
    pub const fn new(random: [u8; 16]) -> Self {
        Self(random)
    }

    pub fn to_wire(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    pub fn from_wire(bytes: &[u8]) -> Result<Self, ConvertError> {
        bytes.try_into().map(Self).map_err(|_| ConvertError::Length { what: "run id", bytes: bytes.len(), expected: 16 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trueline_drift::Actor;

    #[test]
    fn a_run_id_has_its_length_or_is_refused() {
        let id = RunId::new(std::array::from_fn(|at| at as u8));
        assert_eq!(RunId::from_wire(&id.to_wire()).unwrap(), id);
        for length in [0, 15, 17] {
            assert!(matches!(RunId::from_wire(&vec![1; length]), Err(ConvertError::Length { .. })), "{length}");
        }
    }

    /// What an item has after a change is kept as its fields, and read back within the same bound.
    #[test]
    fn a_change_that_leaves_an_item_with_more_fields_than_one_may_have_is_refused() {
        let with = |unchanged: usize| {
            let value = Some(Value::Integer(1));
            let moved = FieldChange { name: FieldName::new("moved"), before: None, after: value.clone() };
            let change = Change {
                item: "file:/a".parse().unwrap(),
                kind: trueline_drift::change::ChangeKind::Modified,
                fields: vec![moved],
                unchanged: (0..unchanged).map(|at| (FieldName::new(&format!("field{at}")), Value::Integer(1))).collect(),
                observed_after: Time::from_seconds(1),
                observed_at: Time::from_seconds(2),
                cause: Cause::Event,
                actor: Actor::unknown("test"),
                transaction: None,
                shipped_by: None,
                candidates: trueline_drift::Candidates::default(),
                lines: None,
            };
            Change::try_from(v1::Change::from(change))
        };
        assert!(with(FIELDS_LIMIT - 1).is_ok());
        assert!(matches!(with(FIELDS_LIMIT), Err(ConvertError::TooLong { .. })));
    }

    #[test]
    fn facts_are_made_printable_once() {
        let facts = v1::Facts { hostname: "web-1".to_owned(), os: Some("a\u{1b}b".to_owned()), ..v1::Facts::default() };
        let facts = Facts::try_from(facts).unwrap();
        assert_eq!(facts.os.as_deref(), Some("a\\x1bb"));
        assert_eq!(Facts::try_from(v1::Facts::from(facts.clone())).unwrap(), facts);
    }
}
