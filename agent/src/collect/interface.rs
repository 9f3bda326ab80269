//! Network interfaces of the host's network namespace, and the addresses that they were given for good.
//!
//! Invariant: a reading is of all of them, or there is none. An end of a pair (veth) whose other end is in another network
//! namespace is a container's, and is left out.

use std::io;
use std::time::Duration;

use trueline_drift::ItemKind;
use trueline_drift::network::{Interfaces, NEW_ADDRESS, NEW_LINK};

use super::{CollectError, Collector, Listing, Place, Root, listing};
use crate::kernel::rtnetlink::Network;

/// The kernel tells of changes over netlink, if that can be heard; the poll is for where it cannot, or was lost.
pub const COLLECTOR: Collector = Collector { kind: ItemKind::Interface, sources: &[], poll: Some(Duration::from_secs(30)), read };

/// All messages of a reading together, in bytes: some 1,500 for an interface, 150 for a route.
const NETWORK_LIMIT: usize = 64 << 20;
/// Readings that a change came into the middle of, one after the other, before it is left to the next time.
const ATTEMPTS: usize = 5;

/// `struct ifinfomsg`.
const LINKS: &[u8] = &[0; 16];
/// `IFLA_EXT_MASK` with `RTEXT_FILTER_SKIP_STATS`: what was counted is not asked for.
const EXTENT: u16 = 29;
const SKIP_COUNTERS: u32 = 8;
/// `struct ifaddrmsg`.
const ADDRESSES: &[u8] = &[0; 8];

/// `NET_ADDR_PERM` and `NET_ADDR_SET`, of those that say where a hardware address is from.
const GIVEN: [&[u8]; 2] = [b"0", b"3"];

fn read(place: &Place<'_>) -> Result<Listing, CollectError> {
    // There is one kernel, whatever folder stands for the host.
    if !place.root.is_host() {
        return Ok(Listing::default());
    }
    let refused = |error: io::Error| CollectError::database("the network's interfaces", &error);
    let (interfaces, skipped) = whole(interfaces).map_err(refused)?;
    Ok(listing(ItemKind::Interface, interfaces.items(|name| is_given(place.root, name)), skipped))
}

/// Asks until no change came into the middle of the answers.
pub(super) fn whole<T>(mut ask: impl FnMut(&mut Network) -> io::Result<T>) -> io::Result<T> {
    for _ in 0..ATTEMPTS {
        match ask(&mut Network::open(NETWORK_LIMIT)?) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
    Err(io::Error::other("it changed each time it was read"))
}

/// With how many messages make no sense.
pub(super) fn interfaces(network: &mut Network) -> io::Result<(Interfaces, u64)> {
    let (mut interfaces, mut skipped) = (Interfaces::default(), 0);
    let question = [LINKS, &8_u16.to_ne_bytes(), &EXTENT.to_ne_bytes(), &SKIP_COUNTERS.to_ne_bytes()].concat();
    network.dump(NEW_LINK, &question, |body| skipped += u64::from(interfaces.take_link(body).is_none()))?;
    network.dump(NEW_ADDRESS, ADDRESSES, |body| skipped += u64::from(interfaces.take_address(body).is_none()))?;
    Ok((interfaces, skipped))
}

/// Whether an interface's hardware address is its device's own or was set: any other is a random one, or taken from another.
fn is_given(root: &Root, name: &[u8]) -> bool {
    let Some(name) = std::str::from_utf8(name).ok().filter(|name| !name.contains('/') && ![".", ".."].contains(name)) else { return false };
    let from = root.read(&format!("/sys/class/net/{name}/addr_assign_type"), 64).ok().flatten();
    from.is_some_and(|from| GIVEN.contains(&from.trim_ascii()))
}

#[cfg(test)]
pub(super) mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// What is read after `ip` ran these commands, in a network namespace of its own, so that nothing of the machine's is touched.
    pub fn apart(test: &str, commands: &[&str], read: impl FnOnce() -> Vec<String> + Send) -> Option<Vec<String>> {
        let ip = |command: &str| {
            let child = Command::new("ip").args(command.split(' ')).stdout(Stdio::null()).stderr(Stdio::null()).status();
            child.is_ok_and(|status| status.success())
        };
        let run = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
            match commands.iter().find(|command| !ip(command)) {
                Some(refused) => Err(format!("no `ip {refused}` here")),
                None => Ok(read()),
            }
        };
        let outcome = std::thread::scope(|scope| scope.spawn(run).join().expect("what it runs does not panic"));
        outcome.map_err(|reason| crate::collect::skipped(test, &reason)).ok()
    }

    pub fn shown(listing: &Listing) -> Vec<String> {
        let item = |(item, reading): &(trueline_drift::ItemId, crate::collect::Reading)| {
            format!("{item} {}", serde_json::to_string(&reading.fields).unwrap())
        };
        assert_eq!(listing.skipped, 0);
        listing.items.iter().map(item).collect()
    }

    #[test]
    fn what_ip_sets_of_an_interface_is_told() {
        const TEST: &str = "what_ip_sets_of_an_interface_is_told";
        let commands = [
            "link add tlbr0 type bridge",
            "link add tlport0 mtu 1400 type veth peer name other0",
            "link set tlport0 master tlbr0 up",
            "link add link tlbr0 name tlmac0 type macvlan",
            "address add 198.51.100.4/24 dev tlbr0",
            "address add 198.51.100.9/24 dev tlbr0 valid_lft 600 preferred_lft 600",
        ];
        let root = Root::host();
        let read = || {
            let (interfaces, skipped) = whole(interfaces).unwrap();
            shown(&listing(ItemKind::Interface, interfaces.items(|name| is_given(&root, name)), skipped))
        };
        let Some(mut shown) = apart(TEST, &commands, read) else { return };
        // A kernel may have others of its own in every namespace.
        shown.retain(|item| item.starts_with("interface:tl"));
        assert_eq!(
            shown,
            [
                r#"interface:tlbr0 {"addresses":["198.51.100.4/24"],"dynamic":true,"mtu":1400,"type":"bridge","up":false}"#,
                r#"interface:tlmac0 {"dynamic":false,"mtu":1400,"parent":"tlbr0","type":"macvlan","up":false}"#,
                r#"interface:tlport0 {"dynamic":false,"master":"tlbr0","mtu":1400,"parent":"other0","promiscuous":true,"type":"veth","up":true}"#,
            ]
        );
    }

    #[test]
    fn an_address_of_hardware_is_told_where_it_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        for (name, from) in [("eth0", "0\n"), ("dummy0", "1\n"), ("br0", "2\n"), ("br1", "3\n")] {
            let place = root.path(&format!("/sys/class/net/{name}"));
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join("addr_assign_type"), from).unwrap();
        }
        let given = ["eth0", "dummy0", "br0", "br1", "gone", "..", "a/b"].map(|name| is_given(&root, name.as_bytes()));
        assert_eq!(given, [true, false, false, true, false, false, false]);
    }
}
