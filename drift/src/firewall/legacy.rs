//! Tables of iptables-legacy: not nf_tables but the older ip_tables and ip6_tables, as `IPT_SO_GET_ENTRIES` has them. See
//! linux/netfilter_ipv4/ip_tables.h and linux/netfilter/x_tables.h.
//!
//! Invariant: what is not a whole table is none: the rules would seem to have gone.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::datum::{Datatype, prefix, quotable};
use super::extension::extension;
use super::{Network, Ruleset, name, set_text};
use crate::Fields;
use crate::netlink::until_zero;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Ip,
    Ip6,
}

/// Where the parts of an entry are.
struct Layout {
    address: usize,
    protocol: usize,
    flags: usize,
    target_offset: usize,
    matches: usize,
}

const IP: Layout = Layout { address: 4, protocol: 80, flags: 82, target_offset: 88, matches: 112 };
const IP6: Layout = Layout { address: 16, protocol: 128, flags: 131, target_offset: 140, matches: 168 };
/// `struct xt_entry_match` and `xt_entry_target`: size, name, revision.
const EXTENSION_HEADER: usize = 32;
const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];

impl Family {
    /// The command that lists it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ip => "iptables",
            Self::Ip6 => "ip6tables",
        }
    }

    fn layout(self) -> &'static Layout {
        match self {
            Self::Ip => &IP,
            Self::Ip6 => &IP6,
        }
    }
}

/// Of `struct ipt_getinfo`: which hooks there are, and where their chains begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hooks {
    pub valid: u32,
    pub entry: [u32; 5],
}

struct Entry<'a> {
    offset: usize,
    bytes: &'a [u8],
    /// Up to the target, which begins there.
    target: usize,
}

impl Ruleset {
    /// Takes a table of iptables-legacy. `None`: it is damaged, and nothing of it is taken.
    pub fn take_legacy(&mut self, family: Family, table: &[u8], hooks: &Hooks, entries: &[u8]) -> Option<()> {
        let entries = entries_of(family, entries)?;
        let chains = chains_of(hooks, &entries)?;
        let word = family.word();
        let mut told = Vec::new();
        for (at, chain) in &chains {
            let end = chains.range(at + 1..).next().map_or(entries.len().saturating_sub(1), |(next, _)| *next);
            // The head of a chain of one's own is no rule, and the last entry of any is its policy.
            let rules = entries.get(at + usize::from(chain.hook.is_none())..end.checked_sub(1)?)?;
            let mut words = Vec::new();
            for (place, entry) in rules.iter().enumerate() {
                words.push(rule(family, entry, &entries, &chains, rules.get(place + 1).map(|next| next.offset)));
            }
            let policy = chain.hook.and_then(|_| standard(entries.get(end - 1)?)).map(verdict);
            told.push((chain, policy, words));
        }
        let table = name(table);
        self.items.push((format!("table {word} {table}"), Fields::new().with("family", word)));
        for (chain, policy, words) in told {
            let mut fields = Fields::new().with("type", if chain.hook.is_some() { table.as_str() } else { "regular" });
            set_text(&mut fields, "hook", chain.hook.map(|hook| HOOKS[hook].to_owned()).unwrap_or_default());
            set_text(&mut fields, "policy", policy.flatten().unwrap_or_default().to_lowercase());
            self.items.push((format!("chain {word} {table} {}", chain.name), fields));
            for words in words {
                self.next_rule(format!("rule {word} {table} {}", chain.name), words, None);
            }
        }
        Some(())
    }
}

struct Chain {
    name: String,
    hook: Option<usize>,
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().map(|bytes| usize::from(u16::from_ne_bytes(*bytes)))
}

fn entries_of(family: Family, bytes: &[u8]) -> Option<Vec<Entry<'_>>> {
    let (layout, mut at, mut entries) = (family.layout(), 0, Vec::new());
    while at < bytes.len() {
        let rest = &bytes[at..];
        let (target, next) = (half(rest, layout.target_offset)?, half(rest, layout.target_offset + 2)?);
        if target < layout.matches || next < target + EXTENSION_HEADER {
            return None;
        }
        entries.push(Entry { offset: at, bytes: rest.get(..next)?, target });
        at += next;
    }
    Some(entries)
}

/// The chains by the number of the entry that each begins with.
fn chains_of(hooks: &Hooks, entries: &[Entry<'_>]) -> Option<BTreeMap<usize, Chain>> {
    let mut chains = BTreeMap::new();
    for (hook, offset) in hooks.entry.iter().enumerate().filter(|(hook, _)| hooks.valid & 1 << hook != 0) {
        let at = entries.binary_search_by_key(&(*offset as usize), |entry| entry.offset).ok()?;
        chains.insert(at, Chain { name: HOOKS[hook].to_uppercase(), hook: Some(hook) });
    }
    // The last of all ends the table.
    for (at, entry) in entries.iter().enumerate().take(entries.len().saturating_sub(1)) {
        if extension_name(&entry.bytes[entry.target..]) == b"ERROR" {
            let own = until_zero(entry.bytes.get(entry.target + EXTENSION_HEADER..)?);
            chains.insert(at, Chain { name: name(own), hook: None });
        }
    }
    Some(chains)
}

fn extension_name(extension: &[u8]) -> &[u8] {
    until_zero(extension.get(2..31).unwrap_or_default())
}

/// The verdict of a target that is none of an extension's.
fn standard(entry: &Entry<'_>) -> Option<i32> {
    let target = &entry.bytes[entry.target..];
    let verdict = target.get(EXTENSION_HEADER..)?.first_chunk()?;
    extension_name(target).is_empty().then(|| i32::from_ne_bytes(*verdict))
}

/// `None` for a jump.
fn verdict(verdict: i32) -> Option<String> {
    Some(match verdict {
        -1 => "DROP".to_owned(),
        -2 => "ACCEPT".to_owned(),
        -4 => "QUEUE".to_owned(),
        -5 => "RETURN".to_owned(),
        0.. => return None,
        other => format!("verdict {other}"),
    })
}

/// As `iptables -S` writes it, without the chain.
fn rule(family: Family, entry: &Entry<'_>, all: &[Entry<'_>], chains: &BTreeMap<usize, Chain>, next: Option<usize>) -> String {
    const GOTO: u8 = 2;
    let (layout, bytes) = (family.layout(), entry.bytes);
    let part = |at: usize, length: usize| bytes.get(at..at + length).unwrap_or_default();
    let flags = bytes[layout.flags];
    let inverted = bytes[layout.flags + 1];
    let not = |flag: u8| if inverted & flag != 0 { "! " } else { "" };
    let mut words: Vec<String> = Vec::new();
    let size = layout.address;
    for (option, at, flag) in [("-s", 0, 0x08), ("-d", size, 0x10)] {
        let (address, mask) = (part(at, size), part(2 * size + at, size));
        if mask.iter().any(|byte| *byte != 0) || inverted & flag != 0 {
            let all = size * 8;
            let mask = match prefix(mask) {
                Some(bits) if bits == all => String::new(),
                Some(bits) => format!("/{bits}"),
                None => format!("/{}", written(mask)),
            };
            words.push(format!("{}{option} {}{mask}", not(flag), written(address)));
        }
    }
    for (option, at, flag) in [("-i", 0, 0x01), ("-o", 16, 0x02)] {
        let (device, mask) = (part(4 * size + at, 16), part(4 * size + 32 + at, 16));
        let asked = mask.iter().filter(|byte| **byte != 0).count();
        if asked > 0 {
            // All of a name is asked for with the zero that ends it.
            let known = until_zero(device);
            let device = if asked > known.len() { name(known) } else { format!("{}+", name(&known[..asked])) };
            words.push(format!("{}{option} {device}", not(flag)));
        }
    }
    let protocol = half(bytes, layout.protocol).unwrap_or(0);
    if protocol != 0 {
        let protocol = u8::try_from(protocol).map_or_else(|_| protocol.to_string(), |number| Datatype::Protocol.write(&[number], true));
        words.push(format!("{}-p {protocol}", not(0x40)));
    }
    // In IPv6 the first flag says that a protocol is given, and there are no fragments to ask for.
    let of_words = if family == Family::Ip6 { 0x01 | GOTO } else { GOTO };
    let rest = flags & !of_words;
    if family == Family::Ip && rest & 1 != 0 {
        words.push(format!("{}-f", not(0x20)));
    } else if rest != 0 {
        words.push(format!("[flags {rest:#04x}]"));
    }
    let mut at = layout.matches;
    while at + EXTENSION_HEADER <= entry.target {
        let length = half(bytes, at).filter(|length| *length >= EXTENSION_HEADER && at + length <= entry.target);
        let Some(length) = length else {
            words.push(format!("[damaged {}]", hex::encode(&bytes[at..entry.target])));
            break;
        };
        words.push(format!("-m {}", extension_words(family, &bytes[at..at + length])));
        at += length;
    }
    let target = &bytes[entry.target..];
    let go = if flags & GOTO != 0 { "-g" } else { "-j" };
    match standard(entry) {
        None => words.push(format!("{go} {}", extension_words(family, target))),
        // On to the next: it only counts.
        Some(on) if on >= 0 && Some(on as usize) == next.or(Some(entry.offset + bytes.len())) => {}
        Some(told) => {
            let to = verdict(told).unwrap_or_else(|| {
                // The first entry of a chain of one's own, after its head.
                let entry = all.binary_search_by_key(&(told as usize), |entry| entry.offset).ok();
                let chain = entry.and_then(|entry| chains.get(&entry.checked_sub(1)?));
                chain.map_or_else(|| format!("\"{}\"", quotable(told.to_string().as_bytes())), |chain| chain.name.clone())
            });
            words.push(format!("{go} {to}"));
        }
    }
    words.join(" ")
}

fn extension_words(family: Family, bytes: &[u8]) -> String {
    let network = if family == Family::Ip { Network::Ip } else { Network::Ip6 };
    let (own, revision) = (extension_name(bytes), bytes[EXTENSION_HEADER - 1]);
    format!("{}{}", name(own), extension(own, revision.into(), &bytes[EXTENSION_HEADER..], Some(network)))
}

fn written(address: &[u8]) -> String {
    match (<[u8; 4]>::try_from(address), <[u8; 16]>::try_from(address)) {
        (Ok(address), _) => Ipv4Addr::from(address).to_string(),
        (_, Ok(address)) => Ipv6Addr::from(address).to_string(),
        _ => hex::encode(address),
    }
}
