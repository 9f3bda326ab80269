//! Schemas of the words and plain values that many shapes share.

use trueline_drift::actor::SessionKind;
use trueline_drift::candidate::{Doing, Match, PackageAction};
use trueline_drift::format::lines::Side;
use trueline_drift::transaction::TransactionKind;
use trueline_drift::{Certainty, GapReason, ItemKind, Operation, Severity, Verdict};
use trueline_store::{Comparison, Standing};
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type};

fn words(words: impl IntoIterator<Item = &'static str>) -> Schema {
    Schema::Object(ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build())
}

pub fn time() -> Schema {
    let object = ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    Schema::Object(object.examples(["2026-02-12T10:30:00.000007Z"]).build())
}

pub fn item() -> Schema {
    let object =
        ObjectBuilder::new().schema_type(Type::String).pattern(Some(format!("^({}):", ItemKind::ALL.map(ItemKind::name).join("|"))));
    Schema::Object(object.examples(["file:/etc/ssh/sshd_config"]).build())
}

pub fn package() -> Schema {
    let object = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^package:"));
    Schema::Object(object.examples(["package:openssh-server"]).build())
}

pub fn verdict() -> Schema {
    words(Verdict::ALL.map(Verdict::name))
}

pub fn severity() -> Schema {
    words([Severity::Info, Severity::Warning, Severity::Critical].map(Severity::name))
}

pub fn drift_type() -> Schema {
    words(["security", "functional", "cost"])
}

pub fn drift_state() -> Schema {
    words(["open", "acknowledged", "resolved"])
}

pub fn change_kind() -> Schema {
    words(["created", "modified", "removed"])
}

pub fn side() -> Schema {
    words(Side::ALL.map(Side::name))
}

pub fn cause() -> Schema {
    words(["event", "rescan"])
}

pub fn certainty() -> Schema {
    words(Certainty::ALL.map(Certainty::name))
}

pub fn operation() -> Schema {
    words(Operation::ALL.map(Operation::name))
}

pub fn session_kind() -> Schema {
    words(SessionKind::ALL.map(SessionKind::name))
}

pub fn transaction_kind() -> Schema {
    words(TransactionKind::ALL.map(TransactionKind::name))
}

pub fn candidate_kind() -> Schema {
    words(Doing::KINDS)
}

pub fn candidate_match() -> Schema {
    words(Match::ALL.map(Match::name))
}

pub fn package_action() -> Schema {
    words(PackageAction::ALL.map(PackageAction::name))
}

pub fn digest() -> Schema {
    Schema::Object(ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9a-f]{64}$")).build())
}

pub fn item_kind() -> Schema {
    words(ItemKind::ALL.map(ItemKind::name))
}

pub fn gap_reason() -> Schema {
    words(GapReason::ALL.map(GapReason::name))
}

pub fn host_state() -> Schema {
    words(["connected", "silent", "revoked"])
}

pub fn comparison() -> Schema {
    words([Comparison::Current, Comparison::Pending].map(comparison_of))
}

pub const fn comparison_of(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Current => "current",
        Comparison::Pending => "pending",
    }
}

pub fn baseline_origin() -> Schema {
    words(["captured", "written"])
}

pub fn token_kind() -> Schema {
    words(["join", "api", "login", "session"])
}

pub fn role() -> Schema {
    words(["viewer", "operator", "admin"])
}

pub fn standing() -> Schema {
    words([Standing::Good, Standing::Expired, Standing::UsedUp, Standing::Revoked].map(standing_of))
}

pub const fn standing_of(standing: Standing) -> &'static str {
    match standing {
        Standing::Good => "good",
        Standing::Expired => "expired",
        Standing::UsedUp => "used_up",
        Standing::Revoked => "revoked",
    }
}

fn values() -> OneOfBuilder {
    let of = |kind| ObjectBuilder::new().schema_type(kind);
    OneOfBuilder::new()
        .item(of(Type::Boolean))
        .item(of(Type::Integer))
        .item(of(Type::String))
        .item(ArrayBuilder::new().items(of(Type::String)))
        .item(of(Type::Object).property("unreadable", of(Type::String)).required("unreadable"))
}

/// A field's value; an object where reading was tried and failed.
pub fn value() -> Schema {
    Schema::OneOf(values().build())
}

/// A field's value, or null where the item does not have the field.
pub fn value_or_null() -> Schema {
    Schema::OneOf(values().item(ObjectBuilder::new().schema_type(Type::Null)).build())
}

pub fn fields() -> Schema {
    Schema::Object(ObjectBuilder::new().schema_type(Type::Object).additional_properties(Some(value())).build())
}
