use proptest::prelude::*;

use super::*;
use crate::netlink::{attribute, messages};

fn expression(name: &str, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let data: Vec<u8> = attributes.iter().flat_map(|(number, value)| attribute(*number, value)).collect();
    attribute(1, &[attribute(1, format!("{name}\0").as_bytes()), attribute(2, &data)].concat())
}

fn word(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn value(bytes: &[u8]) -> Vec<u8> {
    attribute(1, bytes)
}

fn load_port() -> Vec<u8> {
    expression("payload", &[(1, &word(1)), (2, &word(2)), (3, &word(2)), (4, &word(2))])
}

fn compared(bytes: &[u8]) -> Vec<u8> {
    expression("cmp", &[(1, &word(1)), (2, &word(0)), (3, &value(bytes))])
}

fn of_protocol(protocol: u8) -> Vec<u8> {
    [expression("meta", &[(1, &word(1)), (2, &word(16))]), compared(&[protocol])].concat()
}

fn words(expressions: &[Vec<u8>]) -> String {
    rule::written(1, &expressions.concat(), &rule::Scope::default())
}

#[test]
fn what_is_not_known_is_told_by_its_digits_and_leaves_no_register_behind() {
    let unknown = expression("novel", &[(1, &word(1)), (7, b"\x1b[2J")]);
    assert_eq!(
        words(&[load_port(), unknown, compared(&[0, 22])]),
        "[novel 1=00000001 7=1b5b324a] [cmp 1=00000001 2=00000000 3=0600010000160000]"
    );
    // A comparison of what nothing was loaded into.
    assert_eq!(words(&[compared(&[0, 22])]), "[cmp 1=00000001 2=00000000 3=0600010000160000]");
    let hostile = expression("match", &[(1, b"a\x1b\"b\0"), (3, &[1, 2, 0, 0])]);
    assert_eq!(words(&[hostile]), "xt match \"a\\x1b\\x22b\" 0x0102");
}

/// Otherwise a packet that is counted now would seem not to be.
#[test]
fn what_is_implied_stays_where_something_happens_before_the_field_that_implies_it() {
    assert_eq!(words(&[of_protocol(6), load_port(), compared(&[0, 22])]), "tcp dport 22");
    let counter = || expression("counter", &[(1, &[0; 8]), (2, &[9; 8])]);
    assert_eq!(words(&[of_protocol(6), counter(), load_port(), compared(&[0, 22])]), "meta l4proto tcp counter tcp dport 22");
    assert_eq!(words(&[load_port(), compared(&[0, 22])]), "th dport 22");
    assert_eq!(words(&[of_protocol(17)]), "meta l4proto udp");
}

#[test]
fn the_order_of_rules_is_told_by_the_one_before_and_equal_ones_are_numbered() {
    let rule =
        |port: u8| [attribute(1, b"t\0"), attribute(2, b"c d\0"), attribute(4, &[load_port(), compared(&[0, port])].concat())].concat();
    let mut ruleset = Ruleset::default();
    for port in [1, 2, 1] {
        ruleset.take(NEW_RULE, 10, &rule(port)).unwrap();
    }
    let told = |(key, fields): (Vec<u8>, Fields)| (String::from_utf8(key).unwrap(), fields.value("after").map(Value::to_string));
    let told: Vec<_> = ruleset.into_items().into_iter().map(told).collect();
    let key = |rest: &str| format!("rule ip6 t \"c d\" th dport {rest}");
    assert_eq!(told, [(key("1"), None), (key("2"), Some("th dport 1".into())), (key("1 (2)"), Some("th dport 2".into()))]);
}

/// One range that ends where the next begins, one that ends with the addresses, and one that is neither a prefix nor alone.
#[test]
fn ranges_are_told_as_they_were_given() {
    let set = [attribute(1, b"t\0"), attribute(2, b"s\0"), attribute(3, &word(4)), attribute(4, &word(7)), attribute(5, &word(4))].concat();
    let element = |address: [u8; 4], flags: u32| attribute(1, &[attribute(1, &value(&address)), attribute(3, &word(flags))].concat());
    let elements = [
        element([240, 0, 0, 0], 0),
        element([10, 1, 0, 0], 0),
        element([0, 0, 0, 0], 1),
        element([11, 0, 0, 0], 1),
        element([10, 1, 0, 0], 1),
        element([10, 0, 0, 0], 0),
        element([12, 0, 0, 0], 0),
        element([12, 0, 0, 1], 1),
    ];
    let mut ruleset = Ruleset::default();
    ruleset.take(NEW_SET, 2, &set).unwrap();
    let message = [attribute(1, b"t\0"), attribute(2, b"s\0"), attribute(3, &elements.concat())].concat();
    ruleset.take(NEW_ELEMENTS, 2, &message).unwrap();
    let (_, fields) = ruleset.into_items().remove(0);
    assert_eq!(fields.value("elements").unwrap().to_string(), "[10.0.0.0/16, 10.1.0.0-10.255.255.255, 12.0.0.0, 240.0.0.0/4]");
}

#[test]
fn a_set_too_large_is_unreadable_and_never_told_in_part() {
    let set = [attribute(1, b"t\0"), attribute(2, b"s\0"), attribute(4, &word(13)), attribute(5, &word(2))].concat();
    let mut ruleset = Ruleset::default();
    ruleset.take(NEW_SET, 2, &set).unwrap();
    let element = attribute(1, &attribute(1, &value(&[0, 1])));
    let message = [attribute(1, b"t\0"), attribute(2, b"s\0"), attribute(3, &element.repeat(1000))].concat();
    for _ in 0..=Set::LIMIT / 1000 {
        ruleset.take(NEW_ELEMENTS, 2, &message).unwrap();
    }
    let (_, fields) = ruleset.into_items().remove(0);
    assert!(fields.value("elements").unwrap().is_unreadable());
}

fn nested() -> impl Strategy<Value = Vec<u8>> {
    let leaf = proptest::collection::vec(any::<u8>(), 0..20);
    leaf.prop_recursive(5, 60, 8, |inner| {
        proptest::collection::vec((1_u16..16, inner), 0..8)
            .prop_map(|attributes| attributes.iter().flat_map(|(number, value)| attribute(*number, value)).collect())
    })
}

const EXPRESSIONS: [&str; 13] =
    ["payload", "cmp", "bitwise", "lookup", "dynset", "exthdr", "nat", "fib", "hash", "queue", "log", "limit", "immediate"];

proptest! {
    #[test]
    fn other_ports_are_other_words(a: [u8; 2], b: [u8; 2]) {
        let told = |port: &[u8]| words(&[of_protocol(6), load_port(), compared(port)]);
        prop_assert_eq!(a == b, told(&a) == told(&b));
    }

    #[test]
    fn no_table_of_the_older_kind_breaks_its_decoder(
        noise in proptest::collection::vec(any::<u8>(), 0..700),
        sizes in proptest::collection::vec((100_u16..300, 0_u16..300), 0..4),
        entry: [u32; 5],
        is_ip: bool,
    ) {
        let family = if is_ip { LegacyFamily::Ip } else { LegacyFamily::Ip6 };
        let mut bytes = noise.clone();
        let mut at = 0;
        let offsets = if is_ip { 88 } else { 140 };
        for (target, rest) in sizes {
            if let Some(place) = bytes.get_mut(at + offsets..at + offsets + 4) {
                place[..2].copy_from_slice(&target.to_ne_bytes());
                place[2..].copy_from_slice(&(target + rest).to_ne_bytes());
            }
            at += usize::from(target + rest);
        }
        bytes.truncate(at);
        let mut ruleset = Ruleset::default();
        for (bytes, valid) in [(&bytes, 0), (&bytes, 2), (&noise, u32::MAX)] {
            let hooks = LegacyHooks { valid, entry: entry.map(|offset| offset % 3) };
            let before = ruleset.items.len();
            let taken = ruleset.take_legacy(family, b"filter", &hooks, bytes);
            prop_assert_eq!(taken.is_some(), ruleset.items.len() > before);
        }
    }

    #[test]
    fn no_message_breaks_the_decoder(
        taken in proptest::collection::vec((0_u8..25, 0_u8..12, nested(), any::<bool>()), 0..8),
        named in proptest::sample::select(&EXPRESSIONS[..]),
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let _ = messages(&bytes).count();
        let mut ruleset = Ruleset::default();
        for (brings, family, attributes, is_rule) in taken {
            let named = attribute(1, &[attribute(1, format!("{named}\0").as_bytes()), attribute(2, &attributes)].concat());
            let rule = [attribute(1, b"t\0"), attribute(2, b"c\0"), attribute(4, &[load_port(), named].concat())].concat();
            let _ = ruleset.take(brings, family, &attributes);
            if is_rule {
                ruleset.take(NEW_RULE, family, &rule);
            }
        }
        for (key, fields) in ruleset.into_items() {
            prop_assert!(!crate::text::printable(&key).is_empty());
            for (_, value) in fields {
                prop_assert!(!value.to_string().chars().any(char::is_control));
            }
        }
    }
}

#[test]
fn what_is_of_iptables_legacy_is_told_by_its_key() {
    for (key, expected) in [
        ("rule iptables filter INPUT tcp dport 22 accept", true),
        ("table ip6tables mangle", true),
        ("table ip iptables", false),
        ("chain inet filter iptables", false),
        ("table", false),
    ] {
        assert_eq!(is_legacy(key), expected, "{key}");
    }
}
