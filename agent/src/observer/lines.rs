//! In which lines a file differs that is told by its lines.
//!
//! Invariant: lines are compared only where those of both readings are known, each by the digest of its contents: what is told is the
//! difference of these two readings and never of others.

use tracing::warn;
use trueline_drift::format::lines::{Lines as Difference, between};
use trueline_drift::{Fields, ItemId, ItemKind};

use super::{Observer, Sink};
use crate::collect::Lines;

const CONTENTS: &str = "sha256";
/// Of every file that was read as a text.
const FORMAT: &str = "format";

impl<S: Sink> Observer<S> {
    /// Lines of these contents that were read and are not in the state yet.
    pub(super) fn pending_lines(&self, item: &ItemId, fields: &Fields) -> Option<Lines> {
        let pending = self.offer.updates.get(item)?.as_ref()?;
        let is_same = pending.fields.value(CONTENTS) == Some(fields.value(CONTENTS)?);
        pending.lines.clone().filter(|_| is_same)
    }

    /// Between what an item was and what it is, whose lines are these. An item that was not there, or is there no longer, has none.
    pub(super) fn differing_lines(
        &self,
        item: &ItemId,
        before: Option<&Fields>,
        after: Option<&Fields>,
        lines: Option<&[String]>,
    ) -> Option<Difference> {
        let contents = |fields: Option<&Fields>| fields.and_then(|fields| fields.value(CONTENTS).cloned());
        let is_text = |fields: &Fields| fields.value(FORMAT).is_some();
        if item.kind != ItemKind::File || !before.or(after).is_some_and(is_text) || contents(before) == contents(after) {
            return None;
        }
        let now = if after.is_some() { lines? } else { &[] };
        let known = match before {
            Some(before) => Some(self.pending_lines(item, before).or_else(|| self.kept_lines(item, before))?),
            None => None,
        };
        Some(between(known.as_deref().unwrap_or_default(), now))
    }

    fn kept_lines(&self, item: &ItemId, fields: &Fields) -> Option<Lines> {
        self.parts.state.lines(item, fields).unwrap_or_else(|error| {
            warn!(%item, %error, "the lines that the file had before are not known: which of them changed is not told");
            None
        })
    }
}
