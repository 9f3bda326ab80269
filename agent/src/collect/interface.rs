//! Network interfaces with the addresses that were given to them, in the host's network namespace, from the kernel itself.

use std::io;
use std::time::Duration;

use trueline_drift::ItemKind;
use trueline_drift::network::interface::{fields, interface, interface_address};

use super::{CollectError, Collector, Listing, Place, Root, folder, listing};
use crate::kernel::routing::{self, Subject};

/// The kernel tells of changes over netlink, if that can be heard; the poll is for where it cannot, or was lost.
pub const COLLECTOR: Collector = Collector { kind: ItemKind::Interface, sources: &[], poll: Some(Duration::from_secs(30)), read };

/// All messages of a reading together, in bytes: some 1,500 for an interface.
const LIMIT: usize = 32 << 20;
/// Readings that a change came into the middle of, one after the other, before it is left to the next time.
const ATTEMPTS: usize = 5;

/// `NET_ADDR_PERM` and `NET_ADDR_SET` of linux/netdevice.h: the device's own, or one that somebody set.
const OWN: [&str; 2] = ["0", "3"];

fn read(place: &Place<'_>) -> Result<Listing, CollectError> {
    // There is one kernel, whatever folder stands for the host.
    if !place.root.is_host() {
        return Ok(Listing::default());
    }
    let refused = |error: io::Error| CollectError::database("the network interfaces", &error);
    let interfaces = messages(Subject::Links, interface).map_err(refused)?;
    let addresses = messages(Subject::Addresses, interface_address).map_err(refused)?;
    Ok(listing(ItemKind::Interface, fields(&interfaces, &addresses, |name| is_own_mac(place.root, name)), 0))
}

/// What each message of a reading tells.
pub(super) fn messages<T>(subject: Subject, told: impl Fn(&[u8]) -> Option<T>) -> io::Result<Vec<T>> {
    for _ in 0..ATTEMPTS {
        let mut all = Vec::new();
        match routing::read(subject, LIMIT, |message| all.extend(told(message))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome.map(|()| all),
        }
    }
    Err(io::Error::other("they changed each time they were read"))
}

fn is_own_mac(root: &Root, name: &[u8]) -> bool {
    let path = folder::beneath("/sys/class/net", name).map(|path| format!("{path}/addr_assign_type"));
    let how = path.and_then(|path| folder::word(root, &path).ok().flatten());
    how.is_some_and(|how| OWN.contains(&how.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::{Collectors, skipped};
    use trueline_drift::Value;
    use trueline_drift::redact::RedactionKey;
    use trueline_drift::watch::WatchPolicy;

    #[test]
    fn this_machines_interfaces_can_be_read() {
        let collectors = Collectors::new(std::sync::Arc::new(WatchPolicy::default()), RedactionKey::new([1; 32]));
        let listing = match collectors.list(ItemKind::Interface) {
            Ok(listing) => listing,
            Err(error) => return skipped("this_machines_interfaces_can_be_read", &error.to_string()),
        };
        let (_, own) = listing.items.iter().find(|(item, _)| item.key.as_str() == "lo").expect("each namespace has one");
        assert_eq!(own.fields.value("type"), Some(&Value::text("loopback")));
        assert!(own.fields.value("mac").is_none());
    }
}
