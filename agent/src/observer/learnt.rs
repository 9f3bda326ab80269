//! What an agent came to tell of an item that it knew before, which is no change of the item.
//!
//! A state may hold items as an agent read them that told less of them: it knew fewer formats, or read one otherwise, or a kind
//! had fewer fields. What the agent has learnt since is not what somebody did to the host.

use trueline_drift::format::is_of_settings;
use trueline_drift::{FieldName, Fields, ItemKind, Value, permissions, redact};

const DIGEST: &str = "sha256";
const FORMAT: &str = "format";

/// One more whenever [`ADDED`] has a new row: a state says up to which one its items have been told in full.
pub(super) const VOCABULARY: u64 = ADDED.len() as u64;

type Added = (ItemKind, &'static [&'static str]);

/// Fields that a kind did not have from its beginning. Rows are added at the end and never taken away.
const ADDED: [Added; 5] = [
    (
        ItemKind::User,
        &["expires_at", "password_changed", "password_inactive_days", "password_max_days", "password_min_days", "password_warn_days"],
    ),
    (ItemKind::Group, &["administrators", "password"]),
    (ItemKind::Sysctl, &["configured", "configured_by"]),
    (ItemKind::Package, &["module", "signature_key", "vendor"]),
    (ItemKind::Unit, &["dropins", "dropins_sha256"]),
];

/// Fields that a reading may leave out because nobody can tell them then: that one is told again is no change.
const AT_TIMES: [Added; 2] = [(ItemKind::Package, &["origin"]), (ItemKind::Unit, &["active"])];

/// An item as it was before, with what would have been told of it then; nothing where it was. `known` is the vocabulary in which
/// all items were last told.
pub(super) fn with_learnt(kind: ItemKind, known: u64, before: &Fields, after: &Fields) -> Option<Fields> {
    let mut learnt = before.clone();
    if kind == ItemKind::File {
        permissions::derive(&mut learnt);
        learnt = with_settings(&learnt, after).unwrap_or(learnt);
    }
    let news = usize::try_from(known).ok().and_then(|known| ADDED.get(known..)).unwrap_or_default();
    add(news, kind, &mut learnt, after);
    add(&AT_TIMES, kind, &mut learnt, after);
    (learnt != *before).then_some(learnt)
}

/// An item as it was before, masked as it is now; nothing where it was. Where a mask came or went nobody knows whether what is behind it
/// changed too: of a file its digest says so.
pub(super) fn with_masks(before: &Fields, after: &Fields) -> Option<Fields> {
    let mut masked = before.clone();
    for (name, value) in after.iter() {
        let is_other = before.value(name.as_str()).is_some_and(|known| known != value && (is_masked(known) || is_masked(value)));
        if is_other {
            masked.set(name.clone(), value.clone());
        }
    }
    (masked != *before).then_some(masked)
}

fn is_masked(value: &Value) -> bool {
    match value {
        Value::Text(text) => redact::is_masked_in(text),
        Value::List(list) => list.iter().any(|text| redact::is_masked_in(text)),
        Value::Boolean(_) | Value::Integer(_) | Value::Unreadable { .. } => false,
    }
}

fn add(news: &[Added], kind: ItemKind, learnt: &mut Fields, after: &Fields) {
    for name in news.iter().filter(|(added, _)| *added == kind).flat_map(|(_, names)| *names) {
        if let (None, Some(value)) = (learnt.value(name), after.value(name)) {
            learnt.set(FieldName::new(name), value.clone());
        }
    }
}

/// A file as it was before, with the settings that would have been told of it then; nothing where they were.
fn with_settings(before: &Fields, after: &Fields) -> Option<Fields> {
    let digest = before.value(DIGEST)?;
    let is_same = !digest.is_unreadable() && after.value(DIGEST) == Some(digest);
    if !is_same && (before.value(FORMAT).is_some() || after.value(FORMAT).is_none()) {
        return None;
    }
    let mut learnt: Fields = before.clone().into_iter().filter(|(name, _)| !is_of_settings(name.as_str())).collect();
    for (name, value) in after.iter().filter(|(name, _)| is_of_settings(name.as_str())) {
        // Of other contents nobody knows what they set.
        let is_known = is_same || name.as_str() == FORMAT;
        let value = if is_known { value.clone() } else { Value::unreadable("the agent did not read settings then") };
        learnt.set(name.clone(), value);
    }
    (learnt != *before).then_some(learnt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(digest: &str, setting: Option<&str>) -> Fields {
        let mut fields = Fields::new().with("sha256", digest).with("mode", "0644");
        if let Some(setting) = setting {
            fields.set(FieldName::known("format"), Value::text("sshd_config"));
            fields.set(FieldName::new("config.PermitRootLogin"), Value::text(setting));
        }
        fields
    }

    #[test]
    fn the_same_contents_set_the_same_whatever_an_older_agent_told_of_them() {
        assert_eq!(with_settings(&file("a", None), &file("a", Some("no"))), Some(file("a", Some("no"))));
        assert_eq!(with_settings(&file("a", Some("NO")), &file("a", Some("no"))), Some(file("a", Some("no"))), "read otherwise");
        assert_eq!(with_settings(&file("a", Some("no")), &file("a", None)), Some(file("a", None)), "an older agent");
        assert_eq!(with_settings(&file("a", Some("no")), &file("a", Some("no"))), None);
    }

    #[test]
    fn what_other_contents_set_then_is_not_made_up() {
        let learnt = with_settings(&file("a", None), &file("b", Some("no"))).unwrap();
        assert!(learnt.value("config.PermitRootLogin").unwrap().is_unreadable(), "{learnt:?}");
        assert_eq!(with_settings(&file("a", Some("yes")), &file("b", Some("no"))), None, "a change like any other");
        assert_eq!(with_settings(&Fields::new().with("type", "symlink"), &file("b", Some("no"))), None, "a file that is new");
    }

    #[test]
    fn what_a_mode_gives_away_was_given_away_before_it_was_told() {
        let old = Fields::new().with("type", "file").with("mode", "4755");
        let now = old.clone().with("setuid", true);
        assert_eq!(with_learnt(ItemKind::File, VOCABULARY, &old, &now), Some(now.clone()));
        assert_eq!(with_learnt(ItemKind::File, VOCABULARY, &now, &now), None);
        let plain = Fields::new().with("type", "file").with("mode", "0755");
        assert_eq!(with_learnt(ItemKind::File, VOCABULARY, &plain, &now), None, "somebody gave it away");
    }

    #[test]
    fn a_mask_that_came_or_went_is_no_change_and_what_stands_beside_it_is() {
        let digest = trueline_drift::redact::RedactionKey::new([7; 32]).digest(b"4711");
        let plain = Fields::new().with("config.door_code", "4711").with("mode", "0644");
        let masked = Fields::new().with("config.door_code", digest.as_str()).with("mode", "0600");
        assert_eq!(with_masks(&plain, &masked), Some(plain.clone().with("config.door_code", digest.as_str())));
        assert_eq!(with_masks(&masked, &plain), Some(masked.clone().with("config.door_code", "4711")));
        assert_eq!(with_masks(&plain, &plain.clone().with("mode", "0600")), None);
        assert_eq!(with_masks(&Fields::new(), &masked), None, "a field that is new");
    }

    #[test]
    fn a_field_that_a_kind_was_given_is_news_once_and_then_a_change() {
        const NEWS: [Added; 2] = [(ItemKind::User, &["expires_at"]), (ItemKind::Group, &["administrators"])];
        let (old, now) = (Fields::new().with("uid", 7_i64), Fields::new().with("uid", 8_i64).with("expires_at", "2030-01-01"));
        let learnt = |news: &[Added]| {
            let mut learnt = old.clone();
            add(news, ItemKind::User, &mut learnt, &now);
            learnt
        };
        assert_eq!(learnt(&NEWS), old.clone().with("expires_at", "2030-01-01"), "the uid differs as before");
        assert_eq!(learnt(&NEWS[1..]), old, "what was told before differs");
    }
}
