//! Routes of the host's network namespace, of all tables but `local`, and the rules that choose a table.
//!
//! Invariant: a reading is of all of them, or there is none. Routes that come and go by themselves are left out, by the protocol
//! that they carry: who may set routes may choose it, as he may set the kernel's own.

use std::io;
use std::time::Duration;

use trueline_drift::network::{NEW_ROUTE, NEW_RULE, Routes};
use trueline_drift::{Fields, ItemKind};

use super::{CollectError, Collector, Listing, Place, interface, listing};
use crate::kernel::rtnetlink::Network;

/// The kernel tells of changes over netlink, if that can be heard; the poll is for where it cannot, or was lost.
pub const COLLECTOR: Collector = Collector { kind: ItemKind::Route, sources: &[], poll: Some(Duration::from_secs(30)), read };

/// `struct rtmsg`, and `struct fib_rule_hdr`.
const QUESTION: &[u8] = &[0; 12];

fn read(place: &Place<'_>) -> Result<Listing, CollectError> {
    // There is one kernel, whatever folder stands for the host.
    if !place.root.is_host() {
        return Ok(Listing::default());
    }
    read_all()
}

fn read_all() -> Result<Listing, CollectError> {
    let (items, skipped) = interface::whole(routes).map_err(|error| CollectError::database("the network's routes", &error))?;
    Ok(listing(ItemKind::Route, items, skipped))
}

type Items = Vec<(Vec<u8>, Fields)>;

/// With how many messages make no sense.
fn routes(network: &mut Network) -> io::Result<(Items, u64)> {
    let (interfaces, mut skipped) = interface::interfaces(network)?;
    let mut routes = Routes::new(&interfaces);
    network.dump(NEW_ROUTE, QUESTION, |body| skipped += u64::from(routes.take_route(body).is_none()))?;
    match network.dump(NEW_RULE, QUESTION, |body| skipped += u64::from(routes.take_rule(body).is_none())) {
        // A kernel that has no rules.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        other => other?,
    }
    if routes.is_cut() {
        return Err(io::Error::other("there are more of them than the agent reads"));
    }
    if routes.is_torn() {
        return Err(io::ErrorKind::Interrupted.into());
    }
    Ok((routes.into_items(), skipped))
}

#[cfg(test)]
mod tests {
    use super::super::interface::tests::{apart, shown};
    use super::*;

    #[test]
    fn what_ip_sets_of_routes_and_rules_is_told() {
        const TEST: &str = "what_ip_sets_of_routes_and_rules_is_told";
        let commands = [
            "link add tl0 type veth peer name other0",
            "address add 198.51.100.4/24 dev tl0",
            "link set tl0 up",
            "route add default via 198.51.100.1 metric 50",
            "route add blackhole 203.0.113.0/25 proto static",
            "route add 203.0.113.128/25 table 100 src 198.51.100.4 nexthop via 198.51.100.2 weight 2 nexthop via 198.51.100.3",
            "route add 192.0.2.0/24 via 198.51.100.1 proto dhcp",
            "rule add from 203.0.113.0/24 lookup 100 priority 1000 protocol static",
        ];
        let Some(shown) = apart(TEST, &commands, || shown(&read_all().unwrap())) else { return };
        let own: Vec<&String> = shown.iter().filter(|item| !item.contains("\"kernel\"")).collect();
        assert_eq!(
            own,
            [
                r#"route:203.0.113.0/25 {"destination":"203.0.113.0/25","protocol":"static","scope":"global","table":"main","type":"blackhole"}"#,
                r#"route:203.0.113.128/25 table 100 {"destination":"203.0.113.128/25","next_hops":["via 198.51.100.2 dev tl0 weight 2","via 198.51.100.3 dev tl0 weight 1"],"protocol":"boot","scope":"global","source":"198.51.100.4","table":"100","type":"unicast"}"#,
                r#"route:default metric 50 {"destination":"default","device":"tl0","gateway":"198.51.100.1","metric":50,"protocol":"boot","scope":"global","table":"main","type":"unicast"}"#,
                r#"route:rule 1000 from 203.0.113.0/24 {"action":"lookup 100","protocol":"static","selector":"from 203.0.113.0/24"}"#,
            ]
        );
        // Rules alone are the kernel's and told.
        let kernels: Vec<&String> = shown.iter().filter(|item| item.contains("\"kernel\"")).collect();
        assert!(kernels.iter().all(|item| item.starts_with("route:rule ")), "{kernels:?}");
        assert!(kernels.iter().any(|item| item.starts_with("route:rule 32766 from all ") && item.contains("lookup main")), "{kernels:?}");
    }
}
