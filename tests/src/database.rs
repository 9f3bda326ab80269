//! The database behind a collector under test: a file, or a PostgreSQL server of its own.

use std::path::Path;

use anyhow::Context;
use trueline_store::testing::{Postgres, postgres};

use crate::{needs, process};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }

    /// Whether it can run here; see [`needs`].
    pub fn present(self) -> bool {
        match self {
            Self::Sqlite => true,
            Self::Postgres => needs::postgres(),
        }
    }
}

/// A database that lives as long as this value.
pub struct Database {
    engine: Engine,
    uri: String,
    server: Option<&'static Postgres>,
}

impl Database {
    /// SQLite keeps its file in `folder`.
    pub async fn start(engine: Engine, folder: &Path) -> anyhow::Result<Self> {
        match engine {
            Engine::Sqlite => Ok(Self { engine, uri: format!("sqlite:{}", folder.join("collector.db").display()), server: None }),
            Engine::Postgres => {
                // The server is this process's; the database is the caller's own.
                let (server, uri) = tokio::task::spawn_blocking(|| {
                    let server = postgres().map_err(|missing| anyhow::anyhow!("{missing}")).context("starting PostgreSQL")?;
                    anyhow::Ok((server, server.uri("tests")))
                })
                .await??;
                Ok(Self { engine, uri, server: Some(server) })
            }
        }
    }

    /// One that the caller keeps running.
    pub fn kept(engine: Engine, uri: String) -> Self {
        Self { engine, uri, server: None }
    }

    pub const fn engine(&self) -> Engine {
        self.engine
    }

    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Of the server and its workers; an embedded database has none of its own.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        match &self.server {
            Some(server) => process::tree_cpu_seconds(server.pid()),
            None => Ok(0.0),
        }
    }
}
