//! Routes that somebody decided, and the rules that choose among their tables, in the host's network namespace, from the kernel itself.

use std::io;
use std::time::Duration;

use trueline_drift::ItemKind;
use trueline_drift::network::interface::interface_name;
use trueline_drift::network::route::{Names, route, rule, together};

use super::interface::messages;
use super::{CollectError, Collector, Listing, Place, listing};
use crate::kernel::routing::Subject;

/// As of interfaces. A router of the internet has a million routes: those are a daemon's, and left out.
pub const COLLECTOR: Collector = Collector { kind: ItemKind::Route, sources: &[], poll: Some(Duration::from_secs(30)), read };

fn read(place: &Place<'_>) -> Result<Listing, CollectError> {
    // There is one kernel, whatever folder stands for the host.
    if !place.root.is_host() {
        return Ok(Listing::default());
    }
    let refused = |error: io::Error| CollectError::database("the routes", &error);
    let names: Names = messages(Subject::Links, interface_name).map_err(refused)?.into_iter().collect();
    let mut told = messages(Subject::Routes, |message| route(message, &names)).map_err(refused)?;
    told.extend(messages(Subject::Rules, rule).map_err(refused)?);
    Ok(listing(ItemKind::Route, together(told), 0))
}

#[cfg(test)]
mod tests {
    use trueline_drift::redact::RedactionKey;
    use trueline_drift::watch::WatchPolicy;

    use crate::collect::{Collectors, skipped};

    use super::*;

    #[test]
    fn this_machines_routes_can_be_read() {
        let collectors = Collectors::new(std::sync::Arc::new(WatchPolicy::default()), RedactionKey::new([1; 32]));
        match collectors.list(ItemKind::Route) {
            // Of the kernel's own table there is none.
            Ok(listing) => assert!(listing.items.iter().all(|(item, _)| !item.key.as_str().starts_with("local"))),
            Err(error) => skipped("this_machines_routes_can_be_read", &error.to_string()),
        }
    }
}
