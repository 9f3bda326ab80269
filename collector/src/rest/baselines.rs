//! Baselines: captured from a host, or written as YAML.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use trueline_drift::baseline::{BaselineDocument, ClosedScope};
use trueline_store::{NewCapture, Role};
use utoipa::ToSchema;

use super::Api;
use super::access::Caller;
use super::endpoint::{Content, Endpoint, Method, Needs, Routes, one};
use super::problem::Problem;
use super::query::{AFTER, Body, LIMIT, Query, Yaml, host};
use super::shape::{BaselineShape, List, ScopeShape};
use crate::hub;

static LISTED: Endpoint = Endpoint {
    path: "/api/v1/baselines",
    name: "baselines",
    summary: "Baselines, each version by itself, newest first.",
    query: &[LIMIT, AFTER],
    gives: Content::List(one::<BaselineShape>),
    ..Endpoint::DEFAULT
};

static CAPTURED: Endpoint = Endpoint {
    method: Method::Post,
    path: "/api/v1/baselines/capture",
    name: "capture_baseline",
    summary: "A new version of a baseline from the present state of a host.",
    needs: Needs::Role(Role::Operator),
    takes: Content::Json(one::<Capture>),
    status: 201,
    gives: Content::Json(one::<BaselineShape>),
    seconds: 300,
    ..Endpoint::DEFAULT
};

static WRITTEN: Endpoint = Endpoint {
    method: Method::Post,
    path: "/api/v1/baselines",
    name: "write_baseline",
    summary: "A new version of a baseline from a YAML document. An unknown key is an error with its line.",
    needs: Needs::Role(Role::Operator),
    takes: Content::Yaml,
    status: 201,
    gives: Content::Json(one::<BaselineShape>),
    body_limit: 16 * 1024 * 1024,
    seconds: 120,
    ..Endpoint::DEFAULT
};

/// Longest name of a baseline, in bytes.
const NAME_LIMIT: usize = 128;
/// Most scopes of one capture.
const SCOPES: usize = 256;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Capture {
    /// By identity or name.
    host: String,
    /// Letters, digits, `-`, `_` and `.`.
    name: String,
    /// What to capture; everything that the host reports where not given.
    #[serde(default)]
    scopes: Vec<ScopeShape>,
    /// Hold the host against it at once.
    #[serde(default)]
    assign: bool,
}

pub fn routes(routes: Routes) -> Routes {
    routes.add(&LISTED, list).add(&CAPTURED, capture).add(&WRITTEN, write)
}

async fn list(State(api): State<Api>, caller: Caller, query: Query) -> Result<Json<List<BaselineShape>>, Problem> {
    let listed = api.hub.store.baselines(&caller.tenant, query.page()?).await?;
    Ok(Json(List::of(listed, BaselineShape::from)))
}

fn check_name(name: &str) -> Result<(), Problem> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_LIMIT || !name.chars().all(fits) {
        return Err(Problem::bad_request(format!(
            "name: a baseline's name has 1 to {NAME_LIMIT} letters, digits, hyphens, underscores and full stops"
        )));
    }
    Ok(())
}

async fn capture(
    State(api): State<Api>,
    caller: Caller,
    Body(capture): Body<Capture>,
) -> Result<(StatusCode, Json<BaselineShape>), Problem> {
    check_name(&capture.name)?;
    if capture.scopes.len() > SCOPES {
        return Err(Problem::bad_request(format!("scopes: at most {SCOPES}")));
    }
    let host = host(&api, &caller, &capture.host).await?;
    if host.inventory_completed_at.is_none() {
        return Err(Problem::conflict(format!(
            "the first inventory of {} is not complete: a baseline of half a host would call the rest drift; try again when it is",
            host.facts.hostname
        )));
    }
    let at = hub::now();
    let assign = capture.assign;
    let baseline = api
        .hub
        .store
        .capture_baseline(NewCapture {
            tenant: caller.tenant.clone(),
            host: host.id,
            name: capture.name,
            scopes: capture.scopes.into_iter().map(ClosedScope::from).collect(),
            by: caller.name.clone(),
            at,
            assign,
        })
        .await?;
    if assign {
        api.hub.compare.ring();
    }
    let detail = format!("{}, from {}{}", baseline.name, host.facts.hostname, if assign { ", assigned to it" } else { "" });
    caller.note(&api, at, "baseline.capture", format!("baseline:{}", baseline.id), Some(detail)).await;
    Ok((StatusCode::CREATED, Json(baseline.into())))
}

async fn write(State(api): State<Api>, caller: Caller, Yaml(text): Yaml) -> Result<(StatusCode, Json<BaselineShape>), Problem> {
    // Large documents take long to parse.
    let parsed = tokio::task::spawn_blocking(move || BaselineDocument::parse("baseline.yaml", &text)).await;
    let document = match parsed {
        Ok(Ok(document)) => document,
        Ok(Err(error)) => return Err(Problem::bad_request(error.to_string())),
        Err(error) => {
            tracing::error!(%error, "the parser of baselines panicked");
            return Err(Problem::internal());
        }
    };
    check_name(&document.name)?;
    let at = hub::now();
    let baseline = api.hub.store.write_baseline(&caller.tenant, &document, &caller.name, at).await?;
    caller.note(&api, at, "baseline.write", format!("baseline:{}", baseline.id), Some(baseline.name.to_string())).await;
    Ok((StatusCode::CREATED, Json(baseline.into())))
}
