//! What most stories begin with: a collector, and a host that it watches.

use crate::collector::{Collector, Setting, Watched};
use crate::fleet::Fleet;
use crate::packages::Packages;

/// On the watched host, empty, for what the story changes.
pub const FOLDER: &str = "/etc/story";

#[derive(Debug)]
pub struct Scene {
    pub collector: Collector,
    pub watched: Watched,
}

impl Scene {
    /// With the host's first inventory at the collector.
    pub async fn begin(fleet: &Fleet, packages: &Packages, host: &str) -> anyhow::Result<Self> {
        let collector = Collector::install(fleet, packages, Setting::default()).await?;
        let watched = Watched::install(fleet, &collector, packages, host).await?;
        watched.host.root(&format!("mkdir {FOLDER}")).await?;
        Ok(Self { collector, watched })
    }
}
