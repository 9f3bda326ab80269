//! The REST API and, on the same listener, the console: `/api/v1`, its OpenAPI description, the
//! event stream, health and metrics.
//!
//! Invariants:
//! - Every route but health, the login page and the console's style and script needs a token; the
//!   one table of endpoints says which role, and is also what the OpenAPI document is made from.
//! - Every refusal is a problem document (RFC 9457); what went wrong inside is logged, not shown.
//! - Every body, list and stream is bounded. Nothing here decides a verdict.

pub mod access;
mod baselines;
mod changes;
pub(crate) mod coverage;
pub(crate) mod drift;
pub(crate) mod endpoint;
pub mod events;
mod finish;
mod health;
mod hosts;
mod metrics;
mod openapi;
pub mod problem;
pub(crate) mod query;
pub mod shape;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::middleware;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::console;
use crate::hub::Hub;
use endpoint::Routes;

/// What the router needs to know besides the hub.
#[derive(Debug, Clone)]
pub struct RestContext {
    /// Absent where metrics are not recorded: `/metrics` says so.
    pub metrics: Option<PrometheusHandle>,
    pub version: &'static str,
    /// How people reach this collector, without a slash at its end: `http://127.0.0.1:8089`.
    pub public_url: String,
}

/// Shared by every handler.
#[derive(Debug)]
pub struct Shared {
    pub hub: Arc<Hub>,
    pub context: RestContext,
    pub(crate) streams: Arc<tokio::sync::Semaphore>,
    probe: health::Probe,
    openapi: std::sync::OnceLock<String>,
}

/// The state of the router.
#[derive(Debug, Clone)]
pub struct Api(Arc<Shared>);

impl std::ops::Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Api {
    /// Whether browsers reach this collector over HTTPS, so that its cookies can insist on it.
    pub fn is_https(&self) -> bool {
        self.context.public_url.starts_with("https://")
    }
}

impl FromRef<Api> for Arc<Hub> {
    fn from_ref(api: &Api) -> Self {
        Arc::clone(&api.hub)
    }
}

/// Most event streams at once, of all clients together.
const STREAMS: usize = 256;

/// Everything that is served over HTTP: REST, OpenAPI, events, health, metrics and the console.
pub fn router(hub: Arc<Hub>, context: RestContext) -> Router {
    let api = Api(Arc::new(Shared {
        hub,
        context,
        streams: Arc::new(tokio::sync::Semaphore::new(STREAMS)),
        probe: health::Probe::default(),
        openapi: std::sync::OnceLock::new(),
    }));
    let mut routes = Routes::new(api.clone());
    for add in [
        hosts::routes,
        changes::routes,
        drift::routes,
        baselines::routes,
        coverage::routes,
        tokens::routes,
        events::routes,
        health::routes,
        metrics::routes,
        console::routes,
    ] {
        routes = add(routes);
    }
    let (routes, endpoints) = routes.add(&openapi::OPENAPI, openapi::show).finish();
    let document = openapi::document(&api.context, &endpoints);
    api.openapi.get_or_init(|| document);
    routes
        .fallback(finish::nothing_here)
        .method_not_allowed_fallback(finish::not_that_way)
        .layer(middleware::from_fn_with_state(api.clone(), finish::finish))
        .with_state(api)
}
