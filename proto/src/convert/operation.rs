//! What is told of each operation, between wire and domain.

use trueline_drift::{Operation, OperationCoverage};

use super::actor::{certainty_from_wire, certainty_to_wire};
use super::{ConvertError, checked_option, missing, numbered};
use crate::v1;

numbered!(operation_to_wire, operation_from_wire, "operation", Operation, v1::Operation, {
    Create, Write, Truncate, Rename, Link, Unlink, Chmod, Chown, Xattr, Acl, Flags, Mount, SysctlWrite, MmapWrite
});

impl From<OperationCoverage> for v1::OperationCoverage {
    fn from(row: OperationCoverage) -> Self {
        Self {
            operation: operation_to_wire(row.operation).into(),
            actor: row.actor.map(|actor| certainty_to_wire(actor).into()),
            reason: row.reason,
        }
    }
}

impl TryFrom<v1::OperationCoverage> for OperationCoverage {
    type Error = ConvertError;

    fn try_from(row: v1::OperationCoverage) -> Result<Self, ConvertError> {
        Ok(Self {
            operation: operation_from_wire(row.operation)?,
            actor: row.actor.map(certainty_from_wire).transpose()?,
            reason: checked_option("reason", row.reason)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trueline_drift::Certainty;

    #[test]
    fn each_operation_comes_back_as_it_went_and_no_two_are_one_on_the_wire() {
        let mut numbers = std::collections::HashSet::new();
        for (at, operation) in Operation::ALL.into_iter().enumerate() {
            let actor = Certainty::ALL.get(at % 5).copied();
            let row = OperationCoverage { operation, actor, reason: actor.map(|actor| actor.name().to_owned()) };
            let wire = v1::OperationCoverage::from(row.clone());
            assert!(numbers.insert(wire.operation), "{operation}");
            assert_eq!(OperationCoverage::try_from(wire).unwrap(), row);
        }
    }

    #[test]
    fn what_is_not_an_operation_is_refused() {
        for (operation, actor) in [(0, None), (99, None), (1, Some(99))] {
            assert!(OperationCoverage::try_from(v1::OperationCoverage { operation, actor, reason: None }).is_err(), "{operation}");
        }
    }
}
