//! A rule in nft's words, from the expressions that the kernel has of it.
//!
//! Invariants: rules that do something else are told in other words; what is not known is told by its attributes' digits. What a
//! rule asks first only because a later question needs it (`meta l4proto tcp` before `tcp dport`) is left out where that later one
//! follows at once and says it anyway.

use std::collections::HashMap;

use super::datum::{Datatype, hexadecimal, number as value_of, prefix, quotable};
use super::register::{Origin, Registers, Source};
use super::selector::{self, Field};
use super::set::Set;
use super::statement::{compatible, raw, reject, standing, verdict};
use super::{Network, name};
use crate::netlink::{attributes, find, number, text};

mod computed;
mod lookup;
mod translation;

/// What a rule can name: all of it is its own table's.
#[derive(Debug, Default)]
pub struct Scope {
    pub sets: HashMap<Vec<u8>, Set>,
    /// Chains that were written within a rule. The kernel gives each a number of its own, another after each load of the same file.
    pub nameless: Vec<Vec<u8>>,
}

impl Scope {
    /// The name of a chain, or its place among those that have none.
    pub fn chain(&self, chain: &[u8]) -> String {
        match self.nameless.iter().position(|nameless| nameless == chain) {
            Some(at) => format!("{{{}}}", at + 1),
            None => name(chain),
        }
    }
}

pub struct Rule<'a> {
    network: Option<Network>,
    /// The clause that says so, for it to be left out.
    network_clause: Option<usize>,
    protocol: Option<u8>,
    protocol_clause: Option<usize>,
    registers: Registers,
    scope: &'a Scope,
    clauses: Vec<String>,
}

/// The rule with these expressions, in a table of this family.
pub fn written(family: u8, expressions: &[u8], scope: &Scope) -> String {
    let network = Network::of_family(family);
    let mut rule = Rule {
        network,
        network_clause: None,
        protocol: None,
        protocol_clause: None,
        registers: Registers::default(),
        scope,
        clauses: Vec::new(),
    };
    let parts = |expression| (text(expression, 1).unwrap_or_default(), find(expression, 2).unwrap_or_default());
    let mut expressions = attributes(expressions).map(|(_, expression)| parts(expression)).peekable();
    while let Some((name, data)) = expressions.next() {
        if name == b"cmp"
            && let Some((b"cmp", next)) = expressions.peek()
            && let Some(range) = rule.range_of_two(data, next)
        {
            expressions.next();
            rule.clauses.push(range);
            continue;
        }
        if rule.follow(name, data).is_none() {
            rule.clauses.push(raw(name, data));
            // It may have written to any of them.
            rule.registers.forget_all();
        }
    }
    rule.clauses.join(" ")
}

fn bytes_of(data: &[u8], attribute: u16) -> Option<&[u8]> {
    find(find(data, attribute)?, 1)
}

impl Rule<'_> {
    /// `None`: it is not known, or damaged.
    fn follow(&mut self, name: &[u8], data: &[u8]) -> Option<()> {
        match name {
            b"payload" => self.payload(data)?,
            b"meta" => {
                let key = number(data, 2)?;
                let (word, datatype) = selector::meta(key);
                if let Some(register) = number(data, 3) {
                    let value = self.value(register, datatype)?;
                    self.clauses.push(format!("{word} set {value}"));
                } else {
                    let origin = Origin::Named { name: word, datatype, meta: Some(key) };
                    let (is_host_order, length) = (selector::is_meta_in_host_order(key, datatype), length_of(datatype));
                    self.registers.store(number(data, 1)?, Source { origin, length, is_host_order, mask: None });
                }
            }
            b"ct" => {
                let key = number(data, 2)?;
                let (word, datatype) = selector::ct(key, number(data, 3));
                if let Some(register) = number(data, 4) {
                    let value = self.value(register, datatype)?;
                    self.clauses.push(format!("{word} set {value}"));
                } else {
                    let is_host_order = selector::is_ct_in_host_order(key, datatype);
                    self.registers.store(number(data, 1)?, Source { is_host_order, ..Source::named(word, datatype, length_of(datatype)) });
                }
            }
            b"cmp" => {
                let clause = self.comparison(data)?;
                self.clauses.push(clause);
                self.learn(data);
            }
            b"range" => {
                let not = if number(data, 2)? == 1 { "!= " } else { "" };
                let (name, datatype, is_big) = self.described(number(data, 1)?)?;
                let (first, last) = (bytes_of(data, 3)?, bytes_of(data, 4)?);
                self.clauses.push(format!("{name} {not}{}-{}", datatype.write(first, is_big), datatype.write(last, is_big)));
            }
            b"bitwise" => self.bitwise(data)?,
            b"byteorder" => {
                const TO_NETWORK: u64 = 1;
                let mut source = self.registers.at(number(data, 1)?)?.clone();
                source.is_host_order = number(data, 3)? != TO_NETWORK;
                self.registers.store(number(data, 2)?, source);
            }
            b"immediate" => match (number(data, 1)?, find(data, 2)?) {
                (0, told) => self.clauses.push(verdict(find(told, 2)?, |chain| self.scope.chain(chain))),
                (register, told) => {
                    let constant = find(told, 1)?.to_vec();
                    let length = constant.len();
                    self.registers.store(register, Source { origin: Origin::Constant(constant), length, is_host_order: false, mask: None });
                }
            },
            b"lookup" => self.lookup(data)?,
            b"dynset" => self.dynset(data)?,
            b"objref" => {
                let clause = match (number(data, 1), text(data, 2)) {
                    (Some(kind), Some(object)) => format!("{} name \"{}\"", super::object::word(kind), quotable(object)),
                    _ => {
                        let set = text(data, 4)?;
                        let key = self.concatenation(number(data, 3)?, set)?;
                        format!("object name {key} map {}", self.set(set))
                    }
                };
                self.clauses.push(clause);
            }
            b"nat" | b"masq" | b"redir" | b"tproxy" | b"dup" | b"fwd" => {
                let clause = self.translation(name, data)?;
                self.clauses.push(clause);
            }
            b"reject" => self.clauses.push(reject(data, self.network)?),
            b"exthdr" => self.extension_header(data)?,
            b"fib" | b"rt" | b"socket" | b"numgen" | b"hash" | b"osf" | b"xfrm" | b"tunnel" => self.computed(name, data)?,
            b"match" | b"target" => self.clauses.push(compatible(name, data, self.network)?),
            _ => self.clauses.push(standing(name, data)?),
        }
        Some(())
    }

    fn payload(&mut self, data: &[u8]) -> Option<()> {
        let (base, offset, length) = (number(data, 2)?, number(data, 3)? as usize, number(data, 4)? as usize);
        let source = Source { origin: Origin::Payload { base, offset }, length, is_host_order: false, mask: None };
        let Some(register) = number(data, 5) else {
            self.registers.store(number(data, 1)?, source);
            return Some(());
        };
        let (name, datatype, _) = self.words(&source);
        let value = self.value(register, datatype)?;
        let mut clause = format!("{name} set {value}");
        for (attribute, what) in [(6, "checksum type"), (7, "checksum offset"), (8, "checksum flags")] {
            clause += &number(data, attribute).filter(|number| *number != 0).map(|number| format!(" {what} {number}")).unwrap_or_default();
        }
        self.clauses.push(clause);
        Some(())
    }

    /// The header that a place lies in, if it is known which one that is.
    fn header(&self, base: u64) -> Option<&'static [Field]> {
        match base {
            0 => Some(selector::ETHER),
            1 => match self.network? {
                Network::Ip => Some(selector::IP),
                Network::Ip6 => Some(selector::IP6),
                Network::Arp => Some(selector::ARP),
            },
            2 => Some(self.protocol.and_then(selector::transport).unwrap_or(selector::PORTS)),
            _ => None,
        }
    }

    /// The fields that lie one after the other from a place on, the last of them perhaps in part.
    fn fields(&self, base: u64, offset: usize, length: usize) -> Option<Vec<(Field, usize)>> {
        let header = self.header(base)?;
        let (mut at, end, mut fields) = (offset, offset.saturating_add(length), Vec::new());
        while at < end {
            let field = header.iter().find(|field| field.offset == at)?;
            let known = field.length.min(end - at);
            if known < field.length && !matches!(field.datatype, Datatype::Ipv4 | Datatype::Ipv6) {
                return None;
            }
            fields.push((*field, known));
            at += field.length;
        }
        Some(fields).filter(|fields| !fields.is_empty())
    }

    /// Leaves out what was asked only because these fields need it.
    fn leave_out_what_is_implied(&mut self, base: u64) {
        let (implied, other) = match base {
            1 if self.network.is_some() => (&mut self.network_clause, &mut self.protocol_clause),
            2 if self.protocol.and_then(selector::transport).is_some() => (&mut self.protocol_clause, &mut self.network_clause),
            _ => return,
        };
        let Some(at) = implied.take() else { return };
        // Between it and these fields nothing may lie that does something, or a packet would be counted that is not now.
        match (self.clauses.len() - at, *other) {
            (1, _) => {}
            (2, Some(last)) if last == at + 1 => *other = Some(at),
            _ => return,
        }
        self.clauses.remove(at);
    }

    /// How a source is called, how its values are written, and whether their most significant byte comes first.
    fn words(&mut self, source: &Source) -> (String, Datatype, bool) {
        let (name, datatype) = match &source.origin {
            Origin::Constant(constant) => (hexadecimal(constant, true), Datatype::Integer),
            Origin::Named { name, datatype, .. } => (name.clone(), *datatype),
            Origin::Payload { base, offset } => match self.fields(*base, *offset, source.length) {
                Some(fields) if fields.iter().all(|(field, known)| field.length == *known) => {
                    self.leave_out_what_is_implied(*base);
                    let datatype = if fields.len() == 1 { fields[0].0.datatype } else { Datatype::Integer };
                    (fields.iter().map(|(field, _)| field.name).collect::<Vec<_>>().join(" . "), datatype)
                }
                _ => {
                    let base = ["ll", "nh", "th", "ih"].get(*base as usize).map_or_else(|| base.to_string(), |base| (*base).to_owned());
                    (format!("@{base},{},{}", offset.saturating_mul(8), source.length.saturating_mul(8)), Datatype::Integer)
                }
            },
        };
        (name, datatype, !source.is_host_order)
    }

    fn masked_words(&mut self, source: &Source) -> (String, Datatype, bool) {
        let (name, datatype, is_big) = self.words(source);
        let Some((mask, turned)) = &source.mask else { return (name, datatype, is_big) };
        let turned = if turned.iter().all(|byte| *byte == 0) { String::new() } else { format!(" ^ {}", datatype.write(turned, is_big)) };
        (format!("{name} & {}{turned}", datatype.write(mask, is_big)), datatype, is_big)
    }

    fn described(&mut self, register: u64) -> Option<(String, Datatype, bool)> {
        let source = self.registers.at(register)?.clone();
        Some(self.masked_words(&source))
    }

    /// What a register holds, where it is to become something of this type.
    fn value(&mut self, register: u64, datatype: Datatype) -> Option<String> {
        let source = self.registers.at(register)?.clone();
        Some(match &source.origin {
            Origin::Constant(constant) if source.mask.is_none() => datatype.write(constant, !datatype.is_in_host_order()),
            _ => self.masked_words(&source).0,
        })
    }

    fn comparison(&mut self, data: &[u8]) -> Option<String> {
        const OPERATORS: [&str; 6] = ["", "!= ", "< ", "<= ", "> ", ">= "];
        let (register, operator, value) = (number(data, 1)?, number(data, 2)?, bytes_of(data, 3)?);
        let sign = *OPERATORS.get(usize::try_from(operator).ok()?)?;
        let source = self.registers.at(register)?.clone();
        let is_zero = value.iter().all(|byte| *byte == 0);
        if let Some((mask, turned)) = &source.mask {
            let (name, datatype, is_big) = self.words(&source);
            if turned.iter().any(|byte| *byte != 0) || mask.len() != value.len() {
                let (name, ..) = self.masked_words(&source);
                return Some(format!("{name} {}{}", equal(sign), datatype.write(value, is_big)));
            }
            let is_beneath = value.iter().zip(mask).all(|(value, mask)| value & !mask == 0);
            return Some(match prefix(mask) {
                Some(bits) if operator <= 1 && is_beneath && matches!(datatype, Datatype::Ipv4 | Datatype::Ipv6) => {
                    format!("{name} {sign}{}/{bits}", datatype.write(value, is_big))
                }
                _ if operator == 1 && is_zero && datatype.is_mask() => format!("{name} {}", datatype.write(mask, is_big)),
                _ => format!("{name} & {} {}{}", datatype.write(mask, is_big), equal(sign), datatype.write(value, is_big)),
            });
        }
        if let Origin::Payload { base, offset } = source.origin
            && value.len() == source.length
            && let Some(fields) = self.fields(base, offset, source.length)
            && (fields.len() > 1 && operator == 0 || fields[0].1 < fields[0].0.length && fields.len() == 1 && operator <= 1)
        {
            self.leave_out_what_is_implied(base);
            let mut at = 0;
            let mut clauses = Vec::new();
            for (field, known) in fields {
                let mut part = value[at..at + known].to_vec();
                at += known;
                part.resize(field.length, 0);
                let cut = if known < field.length { format!("/{}", known * 8) } else { String::new() };
                clauses.push(format!("{} {sign}{}{cut}", field.name, field.datatype.write(&part, true)));
            }
            return Some(clauses.join(" "));
        }
        let (name, datatype, is_big) = self.words(&source);
        // Without it, nft means that any of the bits is set.
        let sign = if datatype.is_mask() { equal(sign) } else { sign };
        Some(format!("{name} {sign}{}", datatype.write(value, is_big)))
    }

    /// A register compared with both ends of a range.
    fn range_of_two(&mut self, first: &[u8], last: &[u8]) -> Option<String> {
        const AT_MOST: u64 = 3;
        const AT_LEAST: u64 = 5;
        let register = number(first, 1)?;
        let is_range = number(first, 2)? == AT_LEAST && number(last, 2)? == AT_MOST && number(last, 1)? == register;
        let (first, last) = (bytes_of(first, 3)?, bytes_of(last, 3)?);
        if !is_range {
            return None;
        }
        let (name, datatype, is_big) = self.described(register)?;
        Some(format!("{name} {}-{}", datatype.write(first, is_big), datatype.write(last, is_big)))
    }

    /// What is known of every packet that passed this comparison.
    fn learn(&mut self, data: &[u8]) {
        let (Some(source), Some(0), Some(value)) =
            (number(data, 1).and_then(|register| self.registers.at(register)), number(data, 2), bytes_of(data, 3))
        else {
            return;
        };
        let Some(value) = value_of(value, !source.is_host_order).filter(|_| source.mask.is_none()) else { return };
        let clause = self.clauses.len().checked_sub(1);
        match &source.origin {
            Origin::Named { meta: Some(selector::META_L4PROTO), .. } => {
                (self.protocol, self.protocol_clause) = (u8::try_from(value).ok(), clause);
            }
            Origin::Named { meta: Some(selector::META_FAMILY), .. } => {
                (self.network, self.network_clause) = (u8::try_from(value).ok().and_then(Network::of_family), clause);
            }
            Origin::Named { meta: Some(selector::META_PROTOCOL), .. } => {
                (self.network, self.network_clause) = (Network::of_ether_type(value), clause);
            }
            Origin::Payload { base: 0, offset: 12 } if source.length == 2 => {
                (self.network, self.network_clause) = (Network::of_ether_type(value), None);
            }
            // Told of by a header of its own, and told all the same.
            Origin::Payload { base: 1, offset } if source.length == 1 => {
                if matches!((self.network, offset), (Some(Network::Ip), 9) | (Some(Network::Ip6), 6)) {
                    (self.protocol, self.protocol_clause) = (u8::try_from(value).ok(), None);
                }
            }
            _ => {}
        }
    }

    fn bitwise(&mut self, data: &[u8]) -> Option<()> {
        let (from, to, length) = (number(data, 1)?, number(data, 2)?, number(data, 3)? as usize);
        let mut source = self.registers.at(from)?.clone();
        if source.mask.is_some() || matches!(source.origin, Origin::Constant(_)) {
            let (name, datatype, is_big) = self.masked_words(&source);
            source = Source { is_host_order: !is_big, ..Source::named(format!("({name})"), datatype, source.length) };
        }
        match number(data, 6).unwrap_or(0) {
            0 => source.mask = Some((bytes_of(data, 4)?.to_vec(), bytes_of(data, 5)?.to_vec())),
            shift @ (1 | 2) => {
                let (name, datatype, is_big) = self.masked_words(&source);
                let bits = value_of(bytes_of(data, 7)?, false)?;
                let sign = if shift == 1 { "<<" } else { ">>" };
                source = Source { is_host_order: !is_big, ..Source::named(format!("{name} {sign} {bits}"), datatype, length) };
            }
            _ => return None,
        }
        self.registers.store(to, source);
        Some(())
    }
}

/// The sign that stands where nothing would mean something else.
fn equal(sign: &'static str) -> &'static str {
    if sign.is_empty() { "== " } else { sign }
}

fn length_of(datatype: Datatype) -> usize {
    match datatype {
        Datatype::Ipv6 | Datatype::Name => 16,
        _ => 4,
    }
}
