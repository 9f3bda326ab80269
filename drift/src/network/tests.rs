use proptest::prelude::*;

use super::*;
use crate::Fields;
use crate::netlink::attribute;

/// As the kernel tells of an interface: its number, its type of hardware, its flags, and what is said of it.
fn link(index: u32, hardware: u16, flags: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let header = [&[0, 0][..], &hardware.to_ne_bytes(), &index.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4]].concat();
    with(header, attributes)
}

fn own_address(family: u8, length: u8, flags: u8, index: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    with([&[family, length, flags, 0][..], &index.to_ne_bytes()].concat(), attributes)
}

/// A route of the main table, or a rule that leads to it.
fn route(family: u8, length: u8, protocol: u8, kind: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    with(vec![family, length, 0, 0, 254, protocol, 0, kind, 0, 0, 0, 0], attributes)
}

fn with(header: Vec<u8>, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let said = attributes.iter().flat_map(|(number, value)| attribute(*number, value));
    header.into_iter().chain(said).collect()
}

fn info(kind: &[u8], data: &[u8]) -> Vec<u8> {
    [attribute(1, kind), attribute(2, data)].concat()
}

fn number(number: u32) -> [u8; 4] {
    number.to_ne_bytes()
}

fn shown(items: Vec<(Vec<u8>, Fields)>) -> Vec<String> {
    let item = |(key, fields): (Vec<u8>, Fields)| format!("{} {}", crate::text::printable(&key), serde_json::to_string(&fields).unwrap());
    items.into_iter().map(item).collect()
}

const MAC: &[u8] = &[2, 0, 0, 0, 0, 1];
const MAC_SET: &[u8] = &[2, 0, 0, 0, 0, 2];

/// A network card in a bridge, a VLAN on it, and the end of a container's pair.
fn host() -> Interfaces {
    let mut interfaces = Interfaces::default();
    let mut take = |body: Vec<u8>| interfaces.take_link(&body).unwrap();
    take(link(1, 772, 1, &[(3, b"lo\0"), (1, &[0; 6]), (4, &number(65536))]));
    take(link(2, 1, 1, &[(3, b"eth0\0"), (1, MAC), (54, MAC), (4, &number(1500)), (10, &number(3)), (30, &number(1))]));
    take(link(3, 1, 1, &[(3, b"br0\0"), (1, MAC), (4, &number(1500)), (18, &info(b"bridge\0", &[]))]));
    let vlan = info(b"vlan\0", &attribute(1, &10_u16.to_ne_bytes()));
    take(link(4, 1, 0, &[(3, b"eth0.10\0"), (1, MAC_SET), (4, &number(1400)), (5, &number(2)), (18, &vlan)]));
    take(link(5, 1, 1, &[(3, b"veth1\0"), (5, &number(2)), (37, &number(0)), (10, &number(3)), (18, &info(b"veth\0", &[]))]));
    interfaces
}

#[test]
fn what_somebody_set_of_an_interface_is_told_and_what_comes_by_itself_is_not() {
    let mut interfaces = host();
    let mut take = |body: Vec<u8>| interfaces.take_address(&body).unwrap();
    take(own_address(2, 24, 0x80, 3, &[(1, &[10, 0, 0, 2]), (2, &[10, 0, 0, 2])]));
    take(own_address(2, 32, 0x80, 3, &[(1, &[10, 9, 0, 1]), (2, &[10, 0, 0, 3])]));
    // Of DHCP, then what the interface gave itself.
    take(own_address(2, 24, 0, 3, &[(1, &[192, 0, 2, 7]), (2, &[192, 0, 2, 7])]));
    take(own_address(10, 64, 0x80, 2, &[(1, &[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])]));
    assert_eq!(
        shown(interfaces.items(|name| name == b"eth0.10")),
        [
            r#"lo {"dynamic":false,"mtu":65536,"type":"loopback","up":true}"#,
            r#"eth0 {"dynamic":false,"mac":"02:00:00:00:00:01","master":"br0","mtu":1500,"promiscuous":true,"type":"ethernet","up":true}"#,
            r#"br0 {"addresses":["10.0.0.2/24","10.0.0.3 peer 10.9.0.1/32"],"dynamic":true,"mtu":1500,"type":"bridge","up":true}"#,
            r#"eth0.10 {"dynamic":false,"mac":"02:00:00:00:00:02","mtu":1400,"parent":"eth0","type":"vlan","up":false,"vlan":10}"#,
        ]
    );
}

#[test]
fn routes_that_somebody_set_are_told_and_those_that_come_by_themselves_are_not() {
    let interfaces = host();
    let mut routes = Routes::new(&interfaces);
    let mut take = |body: Vec<u8>| routes.take_route(&body).unwrap();
    let bridge = (4, &number(3)[..]);
    take(route(2, 0, 3, 1, &[(5, &[10, 0, 0, 1]), bridge]));
    take(route(10, 0, 3, 1, &[(5, &[1; 16]), bridge, (6, &number(1024))]));
    take(route(2, 8, 4, 6, &[(1, &[10, 0, 0, 0]), (6, &number(50)), (15, &number(100))]));
    let hop = |gateway: [u8; 4]| [&16_u16.to_ne_bytes()[..], &[0, 1], &number(3), &attribute(5, &gateway)].concat();
    take(route(2, 16, 4, 1, &[(1, &[10, 1, 0, 0]), (9, &[hop([10, 0, 0, 9]), hop([10, 0, 0, 8])].concat())]));
    // The same twice, and told in another order than that of their gateways.
    take(route(2, 24, 4, 1, &[(1, &[10, 2, 0, 0]), (5, &[10, 0, 0, 6]), bridge]));
    take(route(2, 24, 4, 1, &[(1, &[10, 2, 0, 0]), (5, &[10, 0, 0, 5]), bridge]));
    for by_itself in [1, 2, 9, 16, 186] {
        take(route(2, 24, by_itself, 1, &[(1, &[10, 3, 0, 0]), bridge]));
    }
    // Of the table local, of a container's interface, with an end.
    take(route(2, 24, 3, 1, &[(1, &[10, 3, 0, 0]), (15, &number(255))]));
    take(route(2, 24, 3, 1, &[(1, &[10, 3, 0, 0]), (4, &number(5))]));
    take(route(2, 24, 3, 1, &[(1, &[10, 3, 0, 0]), (12, &[0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0])]));
    let mut take = |body: Vec<u8>| routes.take_rule(&body).unwrap();
    take(route(2, 0, 0, 1, &[(6, &number(32766)), (21, &[2])]));
    let ports = [80_u16.to_ne_bytes(), 90_u16.to_ne_bytes()].concat();
    take(route(10, 0, 0, 7, &[(6, &number(9)), (3, b"br0\0"), (10, &number(7)), (16, &number(15)), (24, &ports), (21, &[3])]));
    assert!(!routes.is_torn() && !routes.is_cut());
    assert_eq!(
        shown(routes.into_items()),
        [
            r#"10.0.0.0/8 table 100 metric 50 {"destination":"10.0.0.0/8","metric":50,"protocol":"static","scope":"global","table":"100","type":"blackhole"}"#,
            r#"10.1.0.0/16 {"destination":"10.1.0.0/16","next_hops":["via 10.0.0.8 dev br0 weight 2","via 10.0.0.9 dev br0 weight 2"],"protocol":"static","scope":"global","table":"main","type":"unicast"}"#,
            r#"10.2.0.0/24 {"destination":"10.2.0.0/24","device":"br0","gateway":"10.0.0.5","protocol":"static","scope":"global","table":"main","type":"unicast"}"#,
            r#"10.2.0.0/24 (2) {"destination":"10.2.0.0/24","device":"br0","gateway":"10.0.0.6","protocol":"static","scope":"global","table":"main","type":"unicast"}"#,
            r#"default {"destination":"default","device":"br0","gateway":"10.0.0.1","protocol":"boot","scope":"global","table":"main","type":"unicast"}"#,
            r#"default inet6 metric 1024 {"destination":"default","device":"br0","gateway":"101:101:101:101:101:101:101:101","metric":1024,"protocol":"boot","table":"main","type":"unicast"}"#,
            r#"rule 32766 from all {"action":"lookup main","protocol":"kernel","selector":"from all"}"#,
            r#"rule 9 inet6 from all fwmark 0x7/0xf iif br0 dport 80-90 {"action":"unreachable","protocol":"boot","selector":"from all fwmark 0x7/0xf iif br0 dport 80-90"}"#,
        ]
    );
}

#[test]
fn a_route_to_an_interface_that_came_since_is_no_reading() {
    let interfaces = host();
    let mut routes = Routes::new(&interfaces);
    routes.take_route(&route(2, 0, 3, 1, &[(4, &number(77))])).unwrap();
    assert!(routes.is_torn());
}

/// Or an agent on a host that learns the routes of the internet, or starts containers all day, would do nothing else.
#[test]
fn news_of_what_is_not_told_touch_nothing() {
    let nothing = Touched::default();
    let routes = Touched { interfaces: false, routes: true };
    let learned = route(2, 24, 186, 1, &[(1, &[10, 3, 0, 0])]);
    let set = route(2, 24, 4, 1, &[(1, &[10, 3, 0, 0])]);
    for (kind, body, touched) in [
        (NEW_ROUTE, &learned, nothing),
        (NEW_ROUTE + 1, &learned, nothing),
        (NEW_ROUTE, &set, routes),
        (NEW_ROUTE + 1, &set, routes),
        (NEW_RULE + 1, &set, routes),
        (NEW_LINK, &link(5, 1, 1, &[(3, b"veth1\0"), (37, &number(0)), (18, &info(b"veth\0", &[]))]), nothing),
        (NEW_LINK + 1, &link(4, 1, 0, &[(3, b"eth0.10\0")]), Touched::ALL),
        (NEW_ADDRESS, &own_address(2, 24, 0x80, 3, &[(2, &[10, 0, 0, 2])]), Touched::ALL),
        (NEW_ADDRESS, &own_address(10, 64, 0x80, 2, &[(1, &[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])]), nothing),
        (104 + 1, &Vec::from([2, 0, 4, 0, 0, 0, 0, 0]), routes),
        (104, &Vec::from([2, 0, 186, 0, 0, 0, 0, 0]), nothing),
        (28, &set, nothing),
        (NEW_LINK, &Vec::from([0; 3]), Touched::ALL),
    ] {
        assert_eq!(Touched::by(kind, body), touched, "{kind} {body:?}");
    }
}

proptest! {
    #[test]
    fn whatever_the_bytes_nothing_breaks(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        family in prop_oneof![Just(2_u8), Just(10), any::<u8>()],
        said in proptest::collection::vec((0_u16..60, proptest::collection::vec(any::<u8>(), 0..40)), 0..12),
    ) {
        let said: Vec<(u16, &[u8])> = said.iter().map(|(number, value)| (*number, value.as_slice())).collect();
        let mut interfaces = host();
        for body in [bytes.clone(), link(9, 1, 1, &said)] {
            interfaces.take_link(&body);
        }
        for body in [bytes.clone(), own_address(family, 24, 0x80, 2, &said)] {
            interfaces.take_address(&body);
        }
        prop_assert!(interfaces.items(|_| true).len() <= 7);
        let mut routes = Routes::new(&interfaces);
        for body in [bytes.clone(), route(family, 24, 3, 1, &said)] {
            routes.take_route(&body);
            routes.take_rule(&body);
            for kind in (16..36).chain(104..106) {
                Touched::by(kind, &body);
            }
        }
        prop_assert!(routes.into_items().len() <= 4);
    }
}
