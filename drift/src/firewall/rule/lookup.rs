//! Rules that look into sets, or put something into them.

use super::Rule;
use crate::firewall::datum::Datatype;
use crate::firewall::name;
use crate::firewall::register::Source;
use crate::firewall::set::Set;
use crate::firewall::statement::{raw, standing};
use crate::netlink::{attributes, find, number, text};

impl Rule<'_> {
    /// What is looked up in a set, which says how much of the registers that is.
    pub(super) fn concatenation(&mut self, register: u64, set: &[u8]) -> Option<String> {
        let length = match self.scope.sets.get(set) {
            Some(set) => set.key_length,
            None => self.registers.at(register)?.length,
        };
        let sources = self.registers.concatenation(register, length)?;
        Some(sources.iter().map(|source| self.masked_words(source).0).collect::<Vec<_>>().join(" . "))
    }

    pub(super) fn set(&self, set: &[u8]) -> String {
        match self.scope.sets.get(set) {
            Some(anonymous) if anonymous.is_anonymous() => format!("{{ {} }}", anonymous.elements().join(", ")),
            _ => format!("@{}", name(set)),
        }
    }

    pub(super) fn lookup(&mut self, data: &[u8]) -> Option<()> {
        let set = text(data, 1)?;
        let key = self.concatenation(number(data, 2)?, set)?;
        let shown = self.set(set);
        match number(data, 3) {
            Some(0) => self.clauses.push(format!("{key} vmap {shown}")),
            Some(register) => {
                let (datatype, length) = self.scope.sets.get(set).map_or((Datatype::Integer, 4), |set| (set.data(), set.data_length()));
                self.registers.store(register, Source::named(format!("{key} map {shown}"), datatype, length));
            }
            None => {
                let not = if number(data, 5).unwrap_or(0) & 1 != 0 { "!= " } else { "" };
                self.clauses.push(format!("{key} {not}{shown}"));
            }
        }
        Some(())
    }

    pub(super) fn dynset(&mut self, data: &[u8]) -> Option<()> {
        let set = text(data, 1)?;
        let word = *["add", "update", "delete"].get(number(data, 3)? as usize)?;
        let not = if number(data, 9).unwrap_or(0) & 1 != 0 { "!= " } else { "" };
        let mut element = self.concatenation(number(data, 4)?, set)?;
        if let Some(timeout) = number(data, 6).filter(|timeout| *timeout != 0) {
            element += &format!(" timeout {}", crate::firewall::set::duration(timeout));
        }
        for expression in find(data, 7).into_iter().chain(find(data, 10).into_iter().flat_map(attributes).map(|(_, one)| one)) {
            let (name, data) = (text(expression, 1)?, find(expression, 2).unwrap_or_default());
            element += &format!(" {}", standing(name, data).unwrap_or_else(|| raw(name, data)));
        }
        if let Some(register) = number(data, 5) {
            let datatype = self.scope.sets.get(set).map_or(Datatype::Integer, Set::data);
            element += &format!(" : {}", self.value(register, datatype)?);
        }
        self.clauses.push(format!("{word} {not}@{} {{ {element} }}", name(set)));
        Some(())
    }
}
