//! The network of a run: one bridge on the machine, and for each host a network namespace with one end of
//! a link whose other end is in the bridge. Traffic stays on the machine.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::claim::RunNumber;
use crate::tool::ip;

/// The place of a host in its run's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    run: RunNumber,
    number: u8,
}

/// Above those of hosts.
const FIRST_FURTHER: u8 = 100;

/// The machine's own address in the run's network, as its hosts see it.
pub fn machine(run: RunNumber) -> Ipv4Addr {
    Ipv4Addr::new(10, 79, run.as_u8(), 1)
}

pub fn bridge(run: RunNumber) -> String {
    format!("tlf{run}")
}

/// What the names of the run's network namespaces and links begin with.
pub fn prefix(run: RunNumber) -> String {
    format!("tlf{run}-")
}

pub async fn make_bridge(run: RunNumber) -> anyhow::Result<()> {
    let bridge = bridge(run);
    ip(&format!("link add {bridge} type bridge")).await?;
    ip(&format!("addr add {}/24 dev {bridge}", machine(run))).await?;
    ip(&format!("link set {bridge} up")).await
}

/// This many further addresses of the machine's, for what it simulates to dial from.
pub async fn further_addresses(run: RunNumber, count: u8) -> anyhow::Result<Vec<Ipv4Addr>> {
    let addresses: Vec<Ipv4Addr> = (0..count).map(|number| Ipv4Addr::new(10, 79, run.as_u8(), FIRST_FURTHER + number)).collect();
    for address in &addresses {
        ip(&format!("addr add {address}/24 dev {}", bridge(run))).await?;
    }
    Ok(addresses)
}

impl Port {
    /// `index` counts a run's hosts from 0.
    pub fn new(run: RunNumber, index: u8) -> Self {
        Self { run, number: index + 2 }
    }

    fn name(self) -> String {
        format!("{}{}", prefix(self.run), self.number)
    }

    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 79, self.run.as_u8(), self.number)
    }

    pub fn namespace(self) -> PathBuf {
        PathBuf::from("/run/netns").join(self.name())
    }

    pub async fn make(self) -> anyhow::Result<()> {
        let (name, bridge, address) = (self.name(), bridge(self.run), self.address());
        ip(&format!("netns add {name}")).await?;
        ip(&format!("link add {name} type veth peer name eth0 netns {name}")).await?;
        ip(&format!("link set {name} master {bridge} up")).await?;
        ip(&format!("-n {name} addr add {address}/24 dev eth0")).await?;
        ip(&format!("-n {name} link set lo up")).await?;
        ip(&format!("-n {name} link set eth0 up")).await
    }

    /// Pulls the cable.
    pub async fn cut(self) -> anyhow::Result<()> {
        ip(&format!("link set {} down", self.name())).await
    }

    pub async fn restore(self) -> anyhow::Result<()> {
        ip(&format!("link set {} up", self.name())).await
    }
}
