//! Which changes belong together: those of one session, those of one transaction.
//!
//! A change belongs to its session and to each transaction that it was made in. Names are as long as hosts like, so groups
//! are found by fingerprint, as items are. A name is unique among all hosts; nobody finds more by it than by reading all
//! changes of his tenant.

use sha2::{Digest, Sha256};
use trueline_drift::actor::SessionId;
use trueline_drift::transaction::{Transaction, TransactionId};
use trueline_drift::{Actor, Change};

/// The first 16 bytes of SHA-256 over what the name is of, and the name.
pub(crate) type Group = [u8; 16];

fn group(kind: &str, name: &str) -> Group {
    let digest = Sha256::new().chain_update(kind).chain_update(b":").chain_update(name).finalize();
    let mut short = [0; 16];
    short.copy_from_slice(&digest[..16]);
    short
}

pub(crate) fn of_session(session: &SessionId) -> Group {
    group("session", session.as_str())
}

pub(crate) fn of_transaction(transaction: &TransactionId) -> Group {
    group("transaction", transaction.as_str())
}

/// Each once, whatever the host says twice.
pub(crate) fn groups(change: &Change) -> Vec<Group> {
    let Change { actor: Actor { session, .. }, transaction, .. } = change;
    let transactions = transaction.iter().flat_map(Transaction::outwards).map(|run| of_transaction(&run.id));
    let mut groups: Vec<Group> = session.iter().map(|session| of_session(&session.id)).chain(transactions).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}
