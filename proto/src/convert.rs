//! Between wire and domain, both ways. What the wire leaves unset or sets beyond the domain's limits
//! is an error here and nowhere later.

use trueline_drift::change::ChangeKind;
use trueline_drift::item::ItemError;
use trueline_drift::{
    Actor, Cause, Certainty, Change, CoverageGap, Facts, FieldChange, FieldName, Fields, GapReason, ItemId, ItemKey, ItemKind, Observation,
    RecordBody, Time, Value, actor,
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

numbered!(item_kind_to_wire, item_kind_from_wire, "item kind", ItemKind, v1::ItemKind, { File, Package, Sysctl, User, Group, Unit });
numbered!(change_kind_to_wire, change_kind_from_wire, "change kind", ChangeKind, v1::ChangeKind, { Created, Modified, Removed });
numbered!(cause_to_wire, cause_from_wire, "cause", Cause, v1::Cause, { Event, Rescan });
numbered!(certainty_to_wire, certainty_from_wire, "certainty", Certainty, v1::Certainty, { Exact, Strong, Correlated, Unknown });
numbered!(gap_reason_to_wire, gap_reason_from_wire, "gap reason", GapReason, v1::GapReason, {
    AgentDown, QueueOverflow, SensorLost, SpoolFull, SpoolDamaged, WatchLimit, PolicyChange
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
            transaction: change.transaction,
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
            .collect::<Result<_, ConvertError>>()?;
        Ok(Self {
            item: change.item.ok_or_else(|| missing("item"))?.try_into()?,
            kind: change_kind_from_wire(change.kind)?,
            fields,
            unchanged: fields_from_wire(change.unchanged)?,
            observed_after: moment(change.observed_after),
            observed_at: moment(change.observed_at),
            cause: cause_from_wire(change.cause)?,
            actor: change.actor.ok_or_else(|| missing("actor"))?.try_into()?,
            transaction: checked_option("transaction", change.transaction)?,
        })
    }
}

impl From<Actor> for v1::Actor {
    fn from(actor: Actor) -> Self {
        Self {
            certainty: certainty_to_wire(actor.certainty).into(),
            via: actor.via,
            process: actor.process.map(Into::into),
            parents: actor.parents.into_iter().map(Into::into).collect(),
            user: actor.user.map(|user| v1::User {
                uid: user.uid,
                euid: user.euid,
                login_uid: user.login_uid,
                name: user.name,
                login_name: user.login_name,
            }),
            session: actor.session.map(|session| v1::Session { id: session.id, origin: session.origin }),
            sudo: actor.sudo,
            unit: actor.unit,
            container: actor.container,
            reason: actor.reason,
        }
    }
}

impl TryFrom<v1::Actor> for Actor {
    type Error = ConvertError;

    fn try_from(actor: v1::Actor) -> Result<Self, ConvertError> {
        if actor.parents.len() > 64 || actor.via.len() > 64 {
            return Err(ConvertError::TooLong { what: "actor", limit: 64 });
        }
        Ok(Self {
            certainty: certainty_from_wire(actor.certainty)?,
            via: actor.via.into_iter().map(|via| checked("source", via)).collect::<Result<_, _>>()?,
            process: actor.process.map(TryInto::try_into).transpose()?,
            parents: actor.parents.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            user: actor
                .user
                .map(|user| {
                    Ok::<_, ConvertError>(actor::User {
                        uid: user.uid,
                        euid: user.euid,
                        login_uid: user.login_uid,
                        name: checked_option("user", user.name)?,
                        login_name: checked_option("user", user.login_name)?,
                    })
                })
                .transpose()?,
            session: actor
                .session
                .map(|session| {
                    Ok::<_, ConvertError>(actor::Session {
                        id: checked("session", session.id)?,
                        origin: checked_option("origin", session.origin)?,
                    })
                })
                .transpose()?,
            sudo: checked_option("sudo", actor.sudo)?,
            unit: checked_option("unit", actor.unit)?,
            container: checked_option("container", actor.container)?,
            reason: checked_option("reason", actor.reason)?,
        })
    }
}

impl From<actor::Process> for v1::Process {
    fn from(process: actor::Process) -> Self {
        Self { pid: process.pid, started_at: process.started_at.map(Time::micros), exe: process.exe, argv: process.argv, cwd: process.cwd }
    }
}

impl TryFrom<v1::Process> for actor::Process {
    type Error = ConvertError;

    fn try_from(process: v1::Process) -> Result<Self, ConvertError> {
        if process.argv.len() > LIST_LIMIT {
            return Err(ConvertError::TooLong { what: "argument list", limit: LIST_LIMIT });
        }
        Ok(Self {
            pid: process.pid,
            started_at: process.started_at.map(moment),
            exe: checked_option("executable", process.exe)?,
            argv: process.argv.into_iter().map(|argument| checked("argument", argument)).collect::<Result<_, _>>()?,
            cwd: checked_option("working directory", process.cwd)?,
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_made_printable_once() {
        let facts = v1::Facts { hostname: "web-1".to_owned(), os: Some("a\u{1b}b".to_owned()), ..v1::Facts::default() };
        let facts = Facts::try_from(facts).unwrap();
        assert_eq!(facts.os.as_deref(), Some("a\\x1bb"));
        assert_eq!(Facts::try_from(v1::Facts::from(facts.clone())).unwrap(), facts);
    }
}
