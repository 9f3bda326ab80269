//! What an operator types: a file for each noun, a function for each verb.

pub mod baseline;
pub mod changes;
pub mod check;
pub mod coverage;
pub mod drift;
pub mod events;
pub mod hosts;
pub mod sessions;
pub mod tokens;
pub mod told;
pub mod transactions;

use std::path::PathBuf;

use clap::Args;
use trueline_drift::{ItemId, ItemKind};

use crate::api::{Api, Query};
use crate::context::{self, Places};
use crate::failure::Failure;
use crate::screen::Screen;

/// A collector to ask and a screen to answer on.
#[derive(Debug)]
pub struct Session {
    pub api: Api,
    pub screen: Screen,
}

impl Session {
    pub fn open(context: Option<PathBuf>, screen: Screen) -> Result<Self, Failure> {
        let context = context::load(&Places::of_environment(context)).map_err(|error| Failure::Usage(error.to_string()))?;
        if context.exposed {
            screen.note(&format!("warning: other users can read the token in {0}: chmod 600 {0}", context.path.display()));
        }
        Ok(Self { api: Api::new(&context)?, screen })
    }
}

/// Filters that several lists share.
#[derive(Debug, Clone, Args)]
pub struct Filters {
    /// Of this host, by name or id
    #[arg(long)]
    host: Option<String>,
    /// Of this item: kind:key, as in file:/etc/hosts
    #[arg(long)]
    item: Option<ItemId>,
    /// Of this kind of item, as in file, package or sysctl
    #[arg(long)]
    kind: Option<ItemKind>,
    /// With this verdict
    #[arg(long, value_parser = ["expected", "out_of_scope", "notable", "critical"])]
    verdict: Option<String>,
}

impl Filters {
    fn narrow_more_than_host(&self) -> bool {
        self.item.is_some() || self.kind.is_some() || self.verdict.is_some()
    }

    fn query(&self) -> Query {
        Query::default()
            .with("host", self.host.as_ref())
            .with("item", self.item.as_ref())
            .with("kind", self.kind)
            .with("verdict", self.verdict.as_ref())
    }
}
