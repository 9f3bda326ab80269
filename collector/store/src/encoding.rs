//! How domain values lie in rows: enumerations as fixed numbers, fields, values and changes in the
//! wire's encoding, everything that only people read as JSON.
//!
//! The numbers are in databases: they may be added to, never changed.

use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trueline_drift::item::ItemFingerprint;
use trueline_drift::{
    Actor, Change, CoverageGap, DriftType, Fields, HostId, ItemId, ItemKey, ItemKind, Severity, Transaction, Value, Verdict,
};
use trueline_proto::{ChainLink, convert, v1};
use uuid::Uuid;

use crate::{BaselineOrigin, DriftEvent, Result, Role, StoreError, TokenKind};

pub(crate) trait Numbered: Sized + Copy {
    const SUBJECT: &'static str;
    fn number(self) -> i64;
    fn from_number(number: i64) -> Result<Self>;
}

macro_rules! numbered {
    ($name:ident, $subject:literal, { $($variant:ident = $number:literal),+ }) => {
        impl Numbered for $name {
            const SUBJECT: &'static str = $subject;

            fn number(self) -> i64 {
                match self { $(Self::$variant => $number),+ }
            }

            fn from_number(number: i64) -> Result<Self> {
                match number {
                    $($number => Ok(Self::$variant),)+
                    _ => Err(corrupt(Self::SUBJECT, format!("unknown number {number}"))),
                }
            }
        }
    };
}

numbered!(TokenKind, "token kind", { Join = 1, Api = 2, Login = 3, Session = 4 });
numbered!(Role, "role", { Viewer = 1, Operator = 2, Admin = 3 });
numbered!(BaselineOrigin, "baseline origin", { Captured = 1, Written = 2 });
numbered!(Verdict, "verdict", { Expected = 1, OutOfScope = 2, Notable = 3, Critical = 4 });
numbered!(Severity, "severity", { Info = 1, Warning = 2, Critical = 3 });
numbered!(DriftType, "drift type", { Security = 1, Functional = 2, Cost = 3 });
numbered!(DriftEvent, "drift event", { Opened = 1, Updated = 2, Acknowledged = 3, Resolved = 4 });

/// Item kinds have the wire's numbers.
impl Numbered for ItemKind {
    const SUBJECT: &'static str = "item kind";

    fn number(self) -> i64 {
        i64::from(i32::from(convert::item_kind_to_wire(self)))
    }

    fn from_number(number: i64) -> Result<Self> {
        let number = i32::try_from(number).unwrap_or(-1);
        convert::item_kind_from_wire(number).map_err(|error| corrupt(Self::SUBJECT, error))
    }
}

pub(crate) fn corrupt(subject: &'static str, reason: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { subject, reason: reason.to_string() }
}

pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("our own types with text keys are JSON")
}

pub(crate) fn from_json<T: DeserializeOwned>(subject: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| corrupt(subject, error))
}

pub(crate) fn host_bytes(host: HostId) -> Vec<u8> {
    host.0.as_bytes().to_vec()
}

pub(crate) fn host_from_bytes(bytes: &[u8]) -> Result<HostId> {
    Uuid::from_slice(bytes).map(HostId).map_err(|error| corrupt("host id", error))
}

pub(crate) fn link_from_bytes(bytes: &[u8]) -> Result<ChainLink> {
    ChainLink::from_bytes(bytes).ok_or_else(|| corrupt("chain link", "not 32 bytes"))
}

pub(crate) fn fingerprint_from_bytes(bytes: &[u8]) -> Result<ItemFingerprint> {
    bytes.try_into().map(ItemFingerprint).map_err(|_| corrupt("item fingerprint", "not 16 bytes"))
}

pub(crate) fn item(kind: i64, key: &str) -> Result<ItemId> {
    Ok(ItemId::new(ItemKind::from_number(kind)?, ItemKey::from_text(key).map_err(|error| corrupt("item key", error))?))
}

pub(crate) fn fields_bytes(fields: Fields) -> Vec<u8> {
    v1::Fields { fields: convert::fields_to_wire(fields) }.encode_to_vec()
}

pub(crate) fn fields_from_bytes(bytes: &[u8]) -> Result<Fields> {
    let fields = v1::Fields::decode(bytes).map_err(|error| corrupt("fields", error))?;
    convert::fields_from_wire(fields.fields).map_err(|error| corrupt("fields", error))
}

pub(crate) fn value_bytes(value: &Value) -> Vec<u8> {
    v1::Value::from(value.clone()).encode_to_vec()
}

pub(crate) fn value_from_bytes(bytes: Option<Vec<u8>>) -> Result<Option<Value>> {
    bytes
        .map(|bytes| {
            let value = v1::Value::decode(&bytes[..]).map_err(|error| corrupt("value", error))?;
            Value::try_from(value).map_err(|error| corrupt("value", error))
        })
        .transpose()
}

/// A change as it is stored: without its item, which has a row of its own.
pub(crate) fn change_from_bytes(item: ItemId, bytes: &[u8]) -> Result<Change> {
    let mut wire = v1::Change::decode(bytes).map_err(|error| corrupt("change", error))?;
    wire.item = Some(v1::Item { kind: convert::item_kind_to_wire(item.kind).into(), key: item.key.as_str().to_owned() });
    Change::try_from(wire).map_err(|error| corrupt("change", error))
}

/// Only who made a stored change, and in which run.
pub(crate) fn maker_from_bytes(bytes: &[u8]) -> Result<(Actor, Option<Transaction>)> {
    let wire = v1::Change::decode(bytes).map_err(|error| corrupt("change", error))?;
    let actor = wire.actor.ok_or_else(|| corrupt("change", "has no actor"))?;
    let actor = Actor::try_from(actor).map_err(|error| corrupt("actor", error))?;
    let transaction = convert::transaction_from_wire(wire.transactions).map_err(|error| corrupt("transaction", error))?;
    Ok((actor, transaction))
}

pub(crate) fn gap_from_bytes(bytes: &[u8]) -> Result<CoverageGap> {
    let gap = v1::CoverageGap::decode(bytes).map_err(|error| corrupt("coverage gap", error))?;
    CoverageGap::try_from(gap).map_err(|error| corrupt("coverage gap", error))
}
