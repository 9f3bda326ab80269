//! What the registers hold while a rule is followed: where each value comes from, in words.
//!
//! Invariant: a register whose value is not known holds nothing; it is never taken for what lay there before.

use super::datum::Datatype;

const SLOTS: usize = 16;
const SLOT: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Given in the rule.
    Constant(Vec<u8>),
    Named {
        name: String,
        datatype: Datatype,
        /// The key, if it is one of `meta`.
        meta: Option<u64>,
    },
    Payload {
        base: u64,
        offset: usize,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub origin: Origin,
    /// In bytes.
    pub length: usize,
    pub is_host_order: bool,
    /// Mask and bits turned round.
    pub mask: Option<(Vec<u8>, Vec<u8>)>,
}

impl Source {
    pub fn named(name: impl Into<String>, datatype: Datatype, length: usize) -> Self {
        let origin = Origin::Named { name: name.into(), datatype, meta: None };
        Self { origin, length, is_host_order: datatype.is_in_host_order(), mask: None }
    }
}

#[derive(Debug, Default)]
pub struct Registers([Option<Source>; SLOTS]);

/// Registers have two numberings: four of 16 bytes, and sixteen of four over the same room.
fn slot(register: u64) -> Option<usize> {
    let slot = match register {
        1..=4 => (register - 1) * 4,
        8..=23 => register - 8,
        _ => return None,
    };
    usize::try_from(slot).ok()
}

impl Registers {
    pub fn store(&mut self, register: u64, source: Source) {
        let Some(first) = slot(register) else { return };
        let end = (first + source.length.div_ceil(SLOT).max(1)).min(SLOTS);
        for (at, held) in self.0[..end].iter_mut().enumerate() {
            let reaches = held.as_ref().is_some_and(|held| at + held.length.div_ceil(SLOT).max(1) > first);
            if reaches {
                *held = None;
            }
        }
        self.0[first] = Some(source);
    }

    pub fn forget_all(&mut self) {
        *self = Self::default();
    }

    pub fn at(&self, register: u64) -> Option<&Source> {
        self.0.get(slot(register)?)?.as_ref()
    }

    /// Whether it holds a part of what begins in an earlier one.
    pub fn is_within(&self, register: u64, first: u64) -> bool {
        let (Some(register), Some(first)) = (slot(register), slot(first)) else { return false };
        let reaches = |source: &Source| first + source.length.div_ceil(SLOT) > register;
        first < register && self.0[register].is_none() && self.0[first].as_ref().is_some_and(reaches)
    }

    /// What lies from a register on, one after the other, `length` bytes of it. `None` if any of it is not known.
    pub fn concatenation(&self, register: u64, length: usize) -> Option<Vec<Source>> {
        let mut at = slot(register)?;
        let end = at + length.div_ceil(SLOT).max(1);
        let mut sources = Vec::new();
        while at < end {
            let source = self.0.get(at)?.clone()?;
            at += source.length.div_ceil(SLOT).max(1);
            sources.push(source);
        }
        Some(sources)
    }
}
