//! Judgements of a run of consecutive changes, kept as one row.
//!
//! Most neighbours are judged alike, so a run is written as lengths over a short list of distinct
//! judgements: judging a thousand changes costs one row, not a thousand. The row's mask of verdicts
//! lets a search for a rare verdict skip the runs without it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use trueline_drift::{Judgement, Verdict};

use crate::encoding::{self, Numbered, corrupt};
use crate::{Position, Result, StoreError};

/// A run of equal judgements within a [`Block`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub first: i64,
    pub last: i64,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub first: i64,
    pub last: i64,
    body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    /// Distinct judgements.
    said: Vec<Judgement>,
    /// (how many changes, place in `said`), in order of position.
    runs: Vec<(u32, u32)>,
}

impl Block {
    /// The judgements must be of every change after `from` up to and with `to`, in order.
    pub fn new(from: Position, to: Position, judgements: &[(Position, Judgement)]) -> Result<Self> {
        let whole = judgements.iter().map(|(position, _)| position.0).eq(from.0 + 1..=to.0);
        if !whole || judgements.is_empty() {
            return Err(StoreError::Invalid {
                subject: "judgements",
                reason: format!("are not of every change from {} to {}", from.0 + 1, to.0),
            });
        }
        let mut places: HashMap<(Verdict, &[String]), u32> = HashMap::new();
        let mut body = Body { said: Vec::new(), runs: Vec::new() };
        for (_, judgement) in judgements {
            let place = *places.entry((judgement.verdict, &judgement.reasons)).or_insert_with(|| {
                body.said.push(judgement.clone());
                body.said.len() as u32 - 1
            });
            match body.runs.last_mut() {
                Some((count, last)) if *last == place => *count += 1,
                _ => body.runs.push((1, place)),
            }
        }
        Ok(Self { first: from.0 + 1, last: to.0, body })
    }

    pub fn from_row(first: i64, last: i64, body: &str) -> Result<Self> {
        let body: Body = encoding::from_json("judgements", body)?;
        let count: u64 = body.runs.iter().map(|(count, _)| u64::from(*count)).sum();
        let whole = u64::try_from(last - first + 1) == Ok(count);
        if !whole || body.runs.iter().any(|(_, place)| *place as usize >= body.said.len()) {
            return Err(corrupt("judgements", format!("the run from {first} to {last} does not add up")));
        }
        Ok(Self { first, last, body })
    }

    pub fn body(&self) -> String {
        encoding::json(&self.body)
    }

    /// See the table's `verdicts`.
    pub fn mask(&self) -> i64 {
        self.body.said.iter().fold(0, |mask, judgement| mask | bit(judgement.verdict))
    }

    pub fn runs(&self) -> impl Iterator<Item = Run> {
        let mut next = self.first;
        self.body.runs.iter().map(move |(count, place)| {
            let first = next;
            next += i64::from(*count);
            Run { first, last: next - 1, verdict: self.body.said[*place as usize].verdict }
        })
    }

    pub fn judgement(&self, position: i64) -> Option<&Judgement> {
        if position < self.first {
            return None;
        }
        let mut left = position - self.first;
        for (count, place) in &self.body.runs {
            if left < i64::from(*count) {
                return self.body.said.get(*place as usize);
            }
            left -= i64::from(*count);
        }
        None
    }
}

pub(crate) fn bit(verdict: Verdict) -> i64 {
    1 << verdict.number()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judgement(verdict: Verdict, reason: &str) -> Judgement {
        Judgement { verdict, reasons: vec![reason.to_owned()] }
    }

    #[test]
    fn every_judgement_of_a_run_reads_back() {
        let said = [
            judgement(Verdict::Expected, "a"),
            judgement(Verdict::Expected, "a"),
            judgement(Verdict::Critical, "b"),
            judgement(Verdict::Expected, "a"),
            judgement(Verdict::Expected, "c"),
        ];
        let judgements: Vec<_> = said.iter().enumerate().map(|(at, judgement)| (Position(8 + at as i64), judgement.clone())).collect();
        let written = Block::new(Position(7), Position(12), &judgements).unwrap();
        let block = Block::from_row(8, 12, &written.body()).unwrap();
        for (position, judgement) in &judgements {
            assert_eq!(block.judgement(position.0), Some(judgement));
        }
        assert_eq!(block.judgement(7), None);
        assert_eq!(block.judgement(13), None);
        assert_eq!(block.mask(), bit(Verdict::Expected) | bit(Verdict::Critical));
        assert_eq!(block.runs().map(|run| run.last - run.first + 1).collect::<Vec<_>>(), [2, 1, 1, 1]);
    }

    #[test]
    fn a_run_with_a_hole_is_refused() {
        let judgements = [(Position(1), judgement(Verdict::Expected, "a")), (Position(3), judgement(Verdict::Expected, "a"))];
        assert!(Block::new(Position(0), Position(3), &judgements).is_err());
        assert!(Block::from_row(1, 3, r#"{"said":[],"runs":[[3,0]]}"#).is_err());
    }
}
