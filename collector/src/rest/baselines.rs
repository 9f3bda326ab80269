//! Baselines: captured from a host, or written as YAML.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use trueline_drift::baseline::{BaselineDocument, ClosedScope, name_fault, scope_fault};
use trueline_drift::document::BASELINE_LIMIT;
use trueline_drift::{HostId, ItemId, ItemKey, ItemKind};
use trueline_store::{ItemFilter, Listed, NewCapture, Page, Role};
use utoipa::ToSchema;

use super::Api;
use super::access::Caller;
use super::endpoint::{Content, Endpoint, Method, Needs, Routes, one};
use super::hosts::named;
use super::problem::Problem;
use super::query::{AFTER, Body, HOST, LIMIT, Query, Yaml, host};
use super::shape::{BaselineItemShape, BaselineShape, List, ScopeShape, UnwatchedShape};
use crate::hub;

static LISTED: Endpoint = Endpoint {
    path: "/api/v1/baselines",
    name: "baselines",
    summary: "Baselines, each version by itself, newest first.",
    query: &[LIMIT, AFTER],
    gives: Content::List(one::<BaselineShape>),
    ..Endpoint::DEFAULT
};

static SHOWN: Endpoint = Endpoint {
    path: "/api/v1/baselines/{id}",
    name: "baseline",
    summary: "One version of a baseline, by its id, its name (the newest version) or `name@version`.",
    gives: Content::Json(one::<BaselineShape>),
    ..Endpoint::DEFAULT
};

static ITEMS: Endpoint = Endpoint {
    path: "/api/v1/baselines/{id}/items",
    name: "baseline_items",
    summary: "What a version of a baseline says of each item that it lists.",
    query: &[LIMIT, AFTER],
    gives: Content::List(one::<BaselineItemShape>),
    ..Endpoint::DEFAULT
};

static UNWATCHED: Endpoint = Endpoint {
    path: "/api/v1/baselines/{id}/unwatched",
    name: "baseline_unwatched",
    summary: "Items that a version of a baseline lists and that lie outside what a host reports: 500 at most.",
    query: &[HOST],
    gives: Content::List(one::<UnwatchedShape>),
    seconds: 120,
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
    summary: "A new version of a baseline from a YAML document. All that no host could fulfil is an error with its line.",
    needs: Needs::Role(Role::Operator),
    takes: Content::Yaml,
    status: 201,
    gives: Content::Json(one::<BaselineShape>),
    body_limit: BASELINE_LIMIT,
    seconds: 120,
    ..Endpoint::DEFAULT
};

/// Most items told as not watched.
const UNWATCHED_TOLD: usize = 500;
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
    routes.add(&LISTED, list).add(&CAPTURED, capture).add(&WRITTEN, write).add(&SHOWN, show).add(&ITEMS, items).add(&UNWATCHED, unwatched)
}

async fn show(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Result<Json<BaselineShape>, Problem> {
    Ok(Json(named(&api, &caller, &id).await?.into()))
}

async fn items(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<List<BaselineItemShape>>, Problem> {
    let baseline = named(&api, &caller, &id).await?;
    let listed = api.hub.store.baseline_items(&caller.tenant, baseline.id, query.page()?).await?;
    Ok(Json(List::of(listed, BaselineItemShape::from)))
}

async fn unwatched(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    query: Query,
) -> Result<Json<List<UnwatchedShape>>, Problem> {
    let host = query.host(&api, &caller).await?.ok_or_else(|| Problem::bad_request("host: say of which host"))?;
    let baseline = named(&api, &caller, &id).await?;
    let reported = reported_kinds(&api, &caller, host).await?;
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let listed = api.hub.store.baseline_items(&caller.tenant, baseline.id, Page { limit: 500, after }).await?;
        found.extend(outside(&api, &caller, host, &reported, listed.items.into_iter().map(|item| item.item).collect()).await?);
        after = listed.next;
        if after.is_none() || found.len() >= UNWATCHED_TOLD {
            break;
        }
    }
    found.truncate(UNWATCHED_TOLD);
    Ok(Json(List::of(Listed { items: found, next: None }, |item| UnwatchedShape { item })))
}

/// The kinds of which a host reports any item.
async fn reported_kinds(api: &Api, caller: &Caller, host: HostId) -> Result<Vec<ItemKind>, Problem> {
    let mut kinds = Vec::new();
    for kind in ItemKind::ALL {
        let filter = ItemFilter { kind: Some(kind), prefix: None };
        if !api.hub.store.host_items(&caller.tenant, host, &filter, Page { limit: 1, after: None }).await?.items.is_empty() {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

/// Those of the items that a host would not report if they were there: of its kind it reports none, or, of a file, neither
/// itself nor any folder above it.
async fn outside(api: &Api, caller: &Caller, host: HostId, reported: &[ItemKind], items: Vec<ItemId>) -> Result<Vec<ItemId>, Problem> {
    let mut looked_for: Vec<ItemId> = items.iter().filter(|item| item.kind == ItemKind::File).flat_map(path_upwards).collect();
    looked_for.sort_unstable();
    looked_for.dedup();
    let mut present = api.hub.store.present_items(&caller.tenant, host, &looked_for).await?;
    present.sort_unstable();
    let is_seen = |item: &ItemId| {
        reported.contains(&item.kind)
            && (item.kind != ItemKind::File || path_upwards(item).iter().any(|folder| present.binary_search(folder).is_ok()))
    };
    Ok(items.into_iter().filter(|item| !is_seen(item)).collect())
}

/// A file and the folders above it, as items.
fn path_upwards(file: &ItemId) -> Vec<ItemId> {
    let paths = std::path::Path::new(file.key.as_str()).ancestors().filter_map(|path| path.to_str());
    paths.filter_map(|path| ItemKey::from_text(path).ok()).map(|key| ItemId::new(ItemKind::File, key)).collect()
}

async fn list(State(api): State<Api>, caller: Caller, query: Query) -> Result<Json<List<BaselineShape>>, Problem> {
    let listed = api.hub.store.baselines(&caller.tenant, query.page()?).await?;
    Ok(Json(List::of(listed, BaselineShape::from)))
}

fn check_name(name: &str) -> Result<(), Problem> {
    name_fault(name).map_or(Ok(()), |fault| Err(Problem::bad_request(fault)))
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
    if let Some(fault) = capture.scopes.iter().find_map(|scope| scope_fault(scope.kind, scope.keys.as_str())) {
        return Err(Problem::bad_request(fault));
    }
    let host = host(&api, &caller, &capture.host).await?;
    if host.inventory_completed_at.is_none() {
        return Err(Problem::conflict(format!(
            "the first inventory of {} is not complete: a baseline of half a host would call the rest drift; try again when it is",
            host.facts.hostname
        )));
    }
    if capture.assign && host.revoked_at.is_some() {
        return Err(Problem::conflict(format!("{} was revoked: capture it without assigning", host.facts.hostname)));
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
    let at = hub::now();
    let baseline = api.hub.store.write_baseline(&caller.tenant, &document, &caller.name, at).await?;
    caller.note(&api, at, "baseline.write", format!("baseline:{}", baseline.id), Some(baseline.name.to_string())).await;
    Ok((StatusCode::CREATED, Json(baseline.into())))
}
