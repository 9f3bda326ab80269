//! The transition between two readings of an item, field by field.

use crate::change::ChangeKind;
use crate::{FieldChange, Fields};

/// What differs between two readings, and what does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub kind: ChangeKind,
    /// Sorted by name, never empty.
    pub fields: Vec<FieldChange>,
    pub unchanged: Fields,
}

/// Compares two readings; `None` stands for an item that is not there. Equal readings give `None`.
///
/// An unreadable value equals only the same unreadable value: losing sight of a field is itself a
/// difference.
pub fn diff(before: Option<Fields>, after: Option<Fields>) -> Option<Difference> {
    let kind = match (&before, &after) {
        (None, None) => return None,
        (None, Some(_)) => ChangeKind::Created,
        (Some(_), None) => ChangeKind::Removed,
        (Some(before), Some(after)) if before == after => return None,
        (Some(_), Some(_)) => ChangeKind::Modified,
    };
    let mut after = after.unwrap_or_default();
    let mut fields = Vec::new();
    let mut unchanged = Fields::new();
    for (name, old) in before.unwrap_or_default() {
        match after.remove(name.as_str()) {
            Some(new) if new == old => unchanged.set(name, old),
            new => fields.push(FieldChange { name, before: Some(old), after: new }),
        }
    }
    fields.extend(after.into_iter().map(|(name, new)| FieldChange { name, before: None, after: Some(new) }));
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    Some(Difference { kind, fields, unchanged })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FieldName, Value};
    use proptest::prelude::*;

    fn fields() -> impl Strategy<Value = Option<Fields>> {
        proptest::option::of(proptest::collection::btree_map(
            "[a-d]".prop_map(|name| FieldName::new(&name)),
            (0..3i64).prop_map(Value::Integer),
            1..4,
        ))
        .prop_map(|map| map.map(|map| map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn a_difference_applied_to_before_gives_after(before in fields(), after in fields()) {
            match diff(before.clone(), after.clone()) {
                None => prop_assert_eq!(before, after),
                Some(difference) => {
                    let mut rebuilt = difference.unchanged;
                    for field in difference.fields {
                        prop_assert_ne!(&field.before, &field.after);
                        prop_assert_eq!(before.as_ref().and_then(|b| b.value(field.name.as_str())), field.before.as_ref());
                        if let Some(value) = field.after { rebuilt.set(field.name, value); }
                    }
                    prop_assert_eq!(after.unwrap_or_default(), rebuilt);
                }
            }
        }
    }
}
