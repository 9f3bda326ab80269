//! Opening, updating and resolving drift: the difference between what is open and what departs.

use crate::judge::Finding;
use crate::{FieldName, Value};

/// A drift that is open for one item; its field names it within the item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenDrift {
    pub field: FieldName,
    pub expected: Option<Value>,
    pub actual: Option<Value>,
    /// Whether a change is known that made it. A drift found by comparing state has none until the
    /// change that explains it is judged.
    pub explained: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Open(Finding),
    /// Departs in another way than was noted, or the change that explains it is known now.
    Update(Finding),
    Resolve(FieldName),
}

/// What makes an item's open drifts equal its departures. Doing it twice does nothing the second
/// time. `explains` says whether the change at hand moved a field.
pub fn reconcile(open: &[OpenDrift], findings: Vec<Finding>, explains: impl Fn(&FieldName) -> bool) -> Vec<Step> {
    let resolved = open
        .iter()
        .filter(|drift| !findings.iter().any(|finding| finding.departure.field == drift.field))
        .map(|drift| Step::Resolve(drift.field.clone()));
    let mut steps: Vec<Step> = resolved.collect();
    for finding in findings {
        match open.iter().find(|drift| drift.field == finding.departure.field) {
            None => steps.push(Step::Open(finding)),
            Some(drift) => {
                let moved = drift.actual != finding.departure.actual || drift.expected != finding.departure.expected;
                if moved || (!drift.explained && explains(&drift.field)) {
                    steps.push(Step::Update(finding));
                }
            }
        }
    }
    steps
}

/// The open drifts after the steps.
pub fn apply(open: &mut Vec<OpenDrift>, steps: &[Step], explains: impl Fn(&FieldName) -> bool) {
    for step in steps {
        match step {
            Step::Resolve(field) => open.retain(|drift| drift.field != *field),
            Step::Open(finding) | Step::Update(finding) => {
                let departure = &finding.departure;
                let explained = explains(&departure.field) || open.iter().any(|drift| drift.field == departure.field && drift.explained);
                open.retain(|drift| drift.field != departure.field);
                open.push(OpenDrift {
                    field: departure.field.clone(),
                    expected: departure.expected.clone(),
                    actual: departure.actual.clone(),
                    explained,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::{Expectation, departures};
    use crate::judge::{BaselineName, weigh};
    use crate::{Fields, ItemId};
    use proptest::prelude::*;

    fn fields() -> impl Strategy<Value = Fields> {
        proptest::collection::btree_map("[a-d]".prop_map(|name| FieldName::new(&name)), (0..3i64).prop_map(Value::Integer), 0..4)
            .prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn after_reconciling_the_open_drifts_are_the_departures(expected in fields(), actuals in proptest::collection::vec(fields(), 1..5)) {
            let item: ItemId = "file:/etc/x".parse().unwrap();
            let name = BaselineName { name: "web".into(), version: 1 };
            let expectation = Expectation::Fields(expected);
            let mut open = Vec::new();
            for actual in actuals {
                let found = departures(&expectation, Some(&actual));
                let findings = || found.iter().cloned().map(|departure| weigh(&item, departure, &name)).collect::<Vec<_>>();
                let steps = reconcile(&open, findings(), |_| true);
                apply(&mut open, &steps, |_| true);
                prop_assert_eq!(open.len(), found.len());
                prop_assert!(found.iter().all(|departure| open.iter().any(|drift| drift.field == departure.field && drift.actual == departure.actual)));
                prop_assert!(reconcile(&open, findings(), |_| true).is_empty());
            }
        }
    }
}
