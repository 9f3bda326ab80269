//! Opening, updating and resolving drift: the difference between what is open and what departs.

use crate::judge::Finding;
use crate::{FieldName, Value};

/// A drift that is open for one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenDrift {
    pub id: i64,
    pub field: FieldName,
    pub expected: Option<Value>,
    pub actual: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Open(Finding),
    /// The field still departs, but in another way than was noted.
    Update { id: i64, finding: Finding },
    Resolve { id: i64 },
}

/// What to do so that an item's open drifts are its departures. Doing it twice does nothing the
/// second time.
pub fn reconcile(open: &[OpenDrift], findings: Vec<Finding>) -> Vec<Step> {
    let mut steps = Vec::new();
    for drift in open {
        if !findings.iter().any(|finding| finding.departure.field == drift.field) {
            steps.push(Step::Resolve { id: drift.id });
        }
    }
    for finding in findings {
        match open.iter().find(|drift| drift.field == finding.departure.field) {
            None => steps.push(Step::Open(finding)),
            Some(drift) if drift.actual != finding.departure.actual || drift.expected != finding.departure.expected => {
                steps.push(Step::Update { id: drift.id, finding });
            }
            Some(_) => {}
        }
    }
    steps
}
