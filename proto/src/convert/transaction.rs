//! Transactions between wire and domain: on the wire a list, innermost first, so that no depth has to be trusted.

use trueline_drift::Time;
use trueline_drift::transaction::{Transaction, TransactionKind};

use super::actor::{certainty_from_wire, certainty_to_wire};
use super::{ConvertError, checked_option, missing, moment, numbered};
use crate::v1;

numbered!(kind_to_wire, kind_from_wire, "transaction kind", TransactionKind, v1::TransactionKind, {
    Apt, Dpkg, UnattendedUpgrades, Rpm, Dnf, Zypper, Ansible, Puppet, Salt, Chef, Cfengine, CloudInit, Cron, Timer, ContainerBuild
});

pub fn to_wire(innermost: Option<Transaction>) -> Vec<v1::Transaction> {
    let mut wire = Vec::new();
    let mut next = innermost;
    while let Some(run) = next
        && wire.len() < Transaction::DEPTH
    {
        wire.push(v1::Transaction {
            id: run.id.as_str().to_owned(),
            kind: kind_to_wire(run.kind).into(),
            certainty: certainty_to_wire(run.certainty).into(),
            name: run.name,
            command: run.command,
            requested_by: run.requested_by,
            began_at: run.began_at.map(Time::micros),
        });
        next = run.within.map(|around| *around);
    }
    wire
}

pub fn from_wire(wire: Vec<v1::Transaction>) -> Result<Option<Transaction>, ConvertError> {
    if wire.len() > Transaction::DEPTH {
        return Err(ConvertError::TooLong { what: "list of transactions", limit: Transaction::DEPTH });
    }
    wire.into_iter().rev().try_fold(None, |within, run| {
        Ok(Some(Transaction {
            id: run.id.parse().map_err(|_| ConvertError::Malformed { what: "transaction's id" })?,
            kind: kind_from_wire(run.kind)?,
            certainty: certainty_from_wire(run.certainty)?,
            name: checked_option("transaction's name", run.name)?,
            command: checked_option("transaction's command", run.command)?,
            requested_by: checked_option("user", run.requested_by)?,
            began_at: run.began_at.map(moment),
            within: within.map(Box::new),
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use trueline_drift::Certainty;

    fn run(id: &str, within: Option<Transaction>) -> Transaction {
        Transaction {
            id: id.parse().unwrap(),
            kind: TransactionKind::Apt,
            certainty: Certainty::Exact,
            name: Some("install".to_owned()),
            command: Some("apt-get install nginx".to_owned()),
            requested_by: Some("alice".to_owned()),
            began_at: Some(Time::from_seconds(1)),
            within: within.map(Box::new),
        }
    }

    #[test]
    fn runs_within_runs_come_back_as_they_went() {
        let nested = run("a", Some(run("b", Some(run("c", None)))));
        assert_eq!(from_wire(to_wire(Some(nested.clone()))).unwrap(), Some(nested));
        assert_eq!(from_wire(to_wire(None)).unwrap(), None);
    }

    #[test]
    fn only_so_many_run_within_each_other() {
        let deep = (0..Transaction::DEPTH + 3).fold(None, |within, at| Some(run(&format!("r{at}"), within)));
        let wire = to_wire(deep);
        assert_eq!(wire.len(), Transaction::DEPTH);
        assert!(from_wire(wire.clone()).is_ok());
        assert!(matches!(from_wire([&wire[..], &wire[..1]].concat()), Err(ConvertError::TooLong { .. })));
        let mut unnamed = wire;
        unnamed[0].id = String::new();
        assert!(matches!(from_wire(unnamed), Err(ConvertError::Malformed { .. })));
    }
}
