//! What was made and gone before it could be read.
//!
//! Each is counted. One where what lies there decides who may enter or what runs is told too, as made and removed by whoever did it:
//! a file that was there long enough to be run or included may have done its work.

use std::sync::atomic::Ordering;

use trueline_drift::sensitivity::{Severity, classify};
use trueline_drift::{Actor, Cause, FieldName, Fields, ItemId, Value};

use super::compare::{By, Novelty};
use super::unpacking::PROGRAMS;
use super::{Observer, Sink};
use crate::collect::Reading;

const CONTENTS: FieldName = FieldName::known("sha256");
const GONE: &str = "it was gone before it could be read";

impl<S: Sink> Observer<S> {
    /// Of an item that is neither known nor there.
    pub(super) fn note_transient(&mut self, item: &ItemId, actor: &Actor) {
        self.parts.status.transients.fetch_add(1, Ordering::Relaxed);
        let (severity, _) = classify(item, CONTENTS.as_str(), None);
        if severity < Severity::Critical || self.novelty(item) != Novelty::Created {
            return;
        }
        let (actor, transaction) = self.parts.completion.complete(actor, &self.parts.state);
        // A package manager keeps what it replaces beside it until it is done. Its packages' scripts are told of as anybody is.
        let program = actor.process.as_ref().and_then(|process| process.exe.as_deref());
        if transaction.is_some() && program.is_some_and(|program| PROGRAMS.contains(&program)) {
            return;
        }
        self.note_runs(&actor, transaction.as_ref());
        let mut fields = Fields::new();
        fields.set(CONTENTS, Value::unreadable(GONE));
        let made = Reading::of(fields);
        for reading in [Some(made), None] {
            let by = By::Known(&actor, transaction.as_ref());
            self.compare_by(item.clone(), reading, Cause::Event, by, Novelty::Created);
        }
    }
}
