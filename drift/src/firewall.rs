//! What the kernel's packet filter nf_tables is told to do, decoded from netlink and said in nft's own words.
//!
//! Items are tables, chains, sets, objects, flow tables, and each rule, keyed as a command of nft names them: `chain inet filter
//! input`, `rule inet filter input tcp dport 22 accept`. A rule has no name that lasts: its handle is another after each load of
//! the same file, and its place moves when another comes before it. So its words are its key, and its field `after` has the rule
//! before it: a rule that comes or goes is one item that does, and a change of the one that follows; the order of all is told, and
//! no others change.
//!
//! Invariants: the same rules give the same items, however often they were loaded. What counts, what was numbered by the kernel and
//! what packets put into sets is no setting, and is left out. Every text is printable.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::netlink::{self, find, number};
use crate::{FieldName, Fields, Value, text};
use datum::quotable;
pub use legacy::{Family as LegacyFamily, Hooks as LegacyHooks};
use rule::Scope;
use set::Set;

mod datum;
mod extension;
mod legacy;
mod object;
mod register;
mod rule;
mod selector;
mod set;
mod statement;
#[cfg(test)]
mod tests;

/// Of a message's type: what it brings.
pub const NEW_TABLE: u8 = 0;
pub const NEW_CHAIN: u8 = 3;
pub const NEW_RULE: u8 = 6;
pub const NEW_SET: u8 = 9;
pub const NEW_ELEMENTS: u8 = 12;
pub const NEW_OBJECT: u8 = 18;
pub const NEW_FLOWTABLE: u8 = 22;

/// Longest words of a rule in its key; of longer ones it has the beginning, and a digest.
const KEY_WORDS: usize = 400;

/// Elements of all sets together that are taken.
const ELEMENT_LIMIT: usize = 1 << 17;

/// Whether an item with this key is of iptables-legacy, of whose changes the kernel tells nobody.
pub fn is_legacy(key: &str) -> bool {
    key.split(' ').nth(1).is_some_and(|family| [LegacyFamily::Ip, LegacyFamily::Ip6].iter().any(|legacy| legacy.word() == family))
}

/// The protocol that a network header is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Ip,
    Ip6,
    Arp,
}

impl Network {
    fn of_family(family: u8) -> Option<Self> {
        match family {
            2 => Some(Self::Ip),
            3 => Some(Self::Arp),
            10 => Some(Self::Ip6),
            _ => None,
        }
    }

    fn of_ether_type(ether_type: u64) -> Option<Self> {
        match ether_type {
            0x0800 => Some(Self::Ip),
            0x0806 => Some(Self::Arp),
            0x86dd => Some(Self::Ip6),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Arp => "arp",
        }
    }
}

/// A table's family and name.
type Table = (u8, Vec<u8>);

/// All that was told in one reading. Sets and their elements come before the rules that look into them.
#[derive(Debug, Default)]
pub struct Ruleset {
    items: Vec<(String, Fields)>,
    tables: HashMap<Table, Scope>,
    /// By the beginning of their rules' keys.
    chains: HashMap<String, Chain>,
    elements: usize,
}

#[derive(Debug, Default)]
struct Chain {
    /// The last rule that was told.
    last: Option<String>,
    /// How often there was one of these words.
    seen: HashMap<[u8; 16], u32>,
}

/// A set to ask the elements of: its family, table and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetName {
    pub family: u8,
    pub table: Vec<u8>,
    pub name: Vec<u8>,
}

impl Ruleset {
    /// Takes a message of the kernel's: what it brings, its family, its attributes. `None`: it is damaged.
    pub fn take(&mut self, brings: u8, family: u8, message: &[u8]) -> Option<()> {
        let named = |attribute| netlink::text(message, attribute).filter(|name| !name.is_empty());
        let table = named(1)?;
        match brings {
            NEW_TABLE => self.table(family, table, message),
            NEW_CHAIN => self.chain(family, table, named(3)?, message),
            NEW_SET => {
                let set = Set::decode(message);
                self.tables.entry((family, table.to_vec())).or_default().sets.insert(named(2)?.to_vec(), set);
            }
            NEW_ELEMENTS => {
                let set = self.tables.get_mut(&(family, table.to_vec()))?.sets.get_mut(named(2)?)?;
                self.elements -= set.count();
                set.take(message, ELEMENT_LIMIT - self.elements);
                self.elements += set.count();
            }
            NEW_OBJECT => self.object(family, table, named(2)?, message),
            NEW_FLOWTABLE => self.flowtable(family, table, named(2)?, message),
            NEW_RULE => self.rule(family, table, named(2)?, message),
            _ => return None,
        }
        Some(())
    }

    /// The sets whose elements are settings, or stand in a rule.
    pub fn sets_to_ask(&self) -> Vec<SetName> {
        let all = self.tables.iter().flat_map(|((family, table), scope)| {
            let asked = scope.sets.iter().filter(|(_, set)| set.has_settings() || set.is_anonymous());
            asked.map(|(name, _)| SetName { family: *family, table: table.clone(), name: name.clone() })
        });
        all.collect()
    }

    /// Whether a rule has a set within it of more elements than are taken, so that it cannot be told.
    pub fn is_cut(&self) -> bool {
        self.tables.values().flat_map(|scope| scope.sets.values()).any(|set| set.is_anonymous() && set.is_cut())
    }

    /// The items by their keys, in bytes.
    pub fn into_items(mut self) -> Vec<(Vec<u8>, Fields)> {
        for ((family, table), scope) in &self.tables {
            for (set_name, set) in scope.sets.iter().filter(|(_, set)| !set.is_anonymous()) {
                let mut fields: Fields =
                    set.settings().into_iter().map(|(name, value)| (FieldName::known(name), Value::text(&value))).collect();
                let mut elements = if set.has_settings() { set.elements() } else { Vec::new() };
                elements.sort_unstable();
                if set.is_cut() {
                    fields.set(FieldName::known("elements"), Value::unreadable("there are more of them than the agent reads"));
                } else if !elements.is_empty() {
                    fields.set(FieldName::known("elements"), Value::list(elements));
                }
                self.items.push((key(set.word(), *family, &[table, set_name]), fields));
            }
        }
        self.items.into_iter().map(|(key, fields)| (text::original(&key).into_owned(), fields)).collect()
    }

    fn table(&mut self, family: u8, table: &[u8], message: &[u8]) {
        const FLAGS: &[(u64, &str)] = &[(1, "dormant"), (2, "owner"), (4, "persist")];
        let mut fields = Fields::new().with("family", family_word(family).as_str());
        set_text(&mut fields, "flags", bits(number(message, 2).unwrap_or(0), FLAGS));
        set_comment(&mut fields, comment(find(message, 6), 0));
        self.items.push((key("table", family, &[table]), fields));
    }

    fn chain(&mut self, family: u8, table: &[u8], chain: &[u8], message: &[u8]) {
        // That it has a hook is told by the hook.
        const BASE: u64 = 1;
        const NAMELESS: u64 = 4;
        const FLAGS: &[(u64, &str)] = &[(2, "offload"), (NAMELESS, "binding")];
        let mut fields = Fields::new();
        match find(message, 4) {
            None => fields.set(FieldName::known("type"), "regular".into()),
            Some(hook) => {
                let kind = netlink::text(message, 7).map(|kind| text::printable(kind).into_owned());
                fields.set(FieldName::known("type"), Value::text(&kind.unwrap_or_else(|| "filter".to_owned())));
                set_text(&mut fields, "hook", number(hook, 1).map(|hook| hook_word(family, hook)).unwrap_or_default());
                let priority = number(hook, 2).map(|priority| (priority as u32).cast_signed().to_string());
                set_text(&mut fields, "priority", priority.unwrap_or_default());
                let one = netlink::text(hook, 3).map(|device| text::printable(device).into_owned());
                set_devices(&mut fields, one.into_iter().chain(find(hook, 4).map(object::devices).unwrap_or_default()).collect());
                let policy = number(message, 5).map(|policy| match policy {
                    0 => "drop".to_owned(),
                    1 => "accept".to_owned(),
                    other => format!("verdict {other:#x}"),
                });
                set_text(&mut fields, "policy", policy.unwrap_or_default());
            }
        }
        let flags = number(message, 10).unwrap_or(0);
        set_text(&mut fields, "flags", bits(flags & !BASE, FLAGS));
        set_comment(&mut fields, comment(find(message, 12), 0));
        let scope = self.tables.entry((family, table.to_vec())).or_default();
        if flags & NAMELESS != 0 {
            scope.nameless.push(chain.to_vec());
        }
        let key = format!("{} {}", key("chain", family, &[table]), scope.chain(chain));
        self.items.push((key, fields));
    }

    fn object(&mut self, family: u8, table: &[u8], object: &[u8], message: &[u8]) {
        let kind = number(message, 3).unwrap_or(0);
        let mut fields = Fields::new().with("type", object::word(kind).as_str());
        set_text(&mut fields, "value", object::value(kind, find(message, 4).unwrap_or_default()));
        set_comment(&mut fields, comment(find(message, 8), 0));
        self.items.push((key(&object::word(kind), family, &[table, object]), fields));
    }

    fn flowtable(&mut self, family: u8, table: &[u8], flowtable: &[u8], message: &[u8]) {
        const FLAGS: &[(u64, &str)] = &[(1, "offload"), (2, "counter")];
        let (hook, priority, devices) = object::hook(message);
        let mut fields = Fields::new().with("type", "flowtable");
        // Its only hook, which has the number of a device's ingress in every family.
        let hook = hook.map(|hook| if hook == 0 { "ingress".to_owned() } else { hook.to_string() });
        set_text(&mut fields, "hook", hook.unwrap_or_default());
        set_text(&mut fields, "priority", priority.map(|priority| priority.to_string()).unwrap_or_default());
        set_devices(&mut fields, devices);
        set_text(&mut fields, "flags", bits(number(message, 7).unwrap_or(0), FLAGS));
        self.items.push((key("flowtable", family, &[table, flowtable]), fields));
    }

    fn rule(&mut self, family: u8, table: &[u8], chain: &[u8], message: &[u8]) {
        let none = Scope::default();
        let scope = self.tables.get(&(family, table.to_vec())).unwrap_or(&none);
        let words = rule::written(family, find(message, 4).unwrap_or_default(), scope);
        self.next_rule(format!("{} {}", key("rule", family, &[table]), scope.chain(chain)), words, comment(find(message, 7), 0));
    }

    /// The rule after the last one of its chain. `chain`: how the keys of the chain's rules begin.
    fn next_rule(&mut self, chain: String, words: String, comment: Option<Vec<u8>>) {
        let of_chain = self.chains.entry(chain.clone()).or_default();
        let times = of_chain.seen.entry(Sha256::digest(words.as_bytes())[..16].try_into().unwrap_or_default()).or_default();
        *times += 1;
        let mut short = shortened(&words);
        if *times > 1 {
            short += &format!(" ({times})");
        }
        let mut fields = Fields::new();
        set_text(&mut fields, "after", of_chain.last.replace(short.clone()).unwrap_or_default());
        set_comment(&mut fields, comment);
        set_text(&mut fields, "rule", words);
        self.items.push((format!("{chain} {short}").trim_end().to_owned(), fields));
    }
}

fn set_text(fields: &mut Fields, name: &'static str, value: String) {
    if !value.is_empty() {
        fields.set(FieldName::known(name), Value::text(&value));
    }
}

fn set_comment(fields: &mut Fields, comment: Option<Vec<u8>>) {
    if let Some(comment) = comment.filter(|comment| !comment.is_empty()) {
        fields.set(FieldName::known("comment"), Value::bytes(&comment));
    }
}

fn set_devices(fields: &mut Fields, mut devices: Vec<String>) {
    devices.sort_unstable();
    // The kernel tells of an only one twice.
    devices.dedup();
    if !devices.is_empty() {
        fields.set(FieldName::known("devices"), Value::list(devices));
    }
}

/// As a command of nft names it.
fn key(word: &str, family: u8, names: &[&[u8]]) -> String {
    let names: Vec<String> = names.iter().map(|part| name(part)).collect();
    format!("{word} {} {}", family_word(family), names.join(" "))
}

fn family_word(family: u8) -> String {
    let word = match family {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        other => return format!("family {other}"),
    };
    word.to_owned()
}

fn hook_word(family: u8, hook: u64) -> String {
    const NETDEV: u8 = 5;
    let words: &[&str] = match family {
        NETDEV => &["ingress", "egress"],
        3 => &["input", "output", "forward"],
        _ => &["prerouting", "input", "forward", "output", "postrouting", "ingress"],
    };
    usize::try_from(hook).ok().and_then(|hook| words.get(hook)).map_or_else(|| hook.to_string(), |word| (*word).to_owned())
}

/// A name as nft takes it: between quotation marks where it is not plain.
fn name(name: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./".contains(byte);
    if !name.is_empty() && name.iter().all(is_plain) {
        String::from_utf8_lossy(name).into_owned()
    } else {
        format!("\"{}\"", quotable(name))
    }
}

/// The names of the bits that are set, and the rest as a number.
fn bits(flags: u64, names: &[(u64, &str)]) -> String {
    let mut set: Vec<String> = names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| (*name).to_owned()).collect();
    let rest = names.iter().fold(flags, |rest, (bit, _)| rest & !bit);
    set.extend((rest != 0).then(|| format!("{rest:#x}")));
    set.join(",")
}

/// A comment in what userspace has the kernel keep for it: entries of a type, a length, and bytes.
fn comment(kept: Option<&[u8]>, kind: u8) -> Option<Vec<u8>> {
    let mut rest = kept?;
    loop {
        let [found, length, ..] = *rest else { return None };
        let value = rest.get(2..2 + usize::from(length))?;
        if found == kind {
            return Some(netlink::until_zero(value).to_vec());
        }
        rest = &rest[2 + usize::from(length)..];
    }
}

fn shortened(words: &str) -> String {
    if words.len() <= KEY_WORDS {
        return words.to_owned();
    }
    let end = (0..=KEY_WORDS).rev().find(|end| words.is_char_boundary(*end)).unwrap_or(0);
    format!("{}… sha256 {}", &words[..end], digest(words.as_bytes()))
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..8])
}
