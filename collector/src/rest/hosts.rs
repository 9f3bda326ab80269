//! Hosts: what they are, what is on them, asking for a scan, revoking, holding against a baseline.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use trueline_drift::{ItemKind, text};
use trueline_store::{Baseline, ItemFilter, Page, Role};
use utoipa::ToSchema;

use super::Api;
use super::access::Caller;
use super::endpoint::{Content, Endpoint, Method, Needs, Parameter, Routes, one};
use super::problem::Problem;
use super::query::{AFTER, Body, KIND, LIMIT, Query, host};
use super::shape::{HostCoverageShape, HostShape, ItemShape, List};
use crate::hub::{self, Errand};

static LISTED: Endpoint = Endpoint {
    path: "/api/v1/hosts",
    name: "hosts",
    summary: "The hosts that are enrolled.",
    query: &[LIMIT, AFTER],
    gives: Content::List(one::<HostShape>),
    ..Endpoint::DEFAULT
};

static SHOWN: Endpoint = Endpoint {
    path: "/api/v1/hosts/{id}",
    name: "host",
    summary: "One host, by identity or by name.",
    gives: Content::Json(one::<HostShape>),
    ..Endpoint::DEFAULT
};

static ITEMS: Endpoint = Endpoint {
    path: "/api/v1/hosts/{id}/items",
    name: "host_items",
    summary: "The present state of a host, item by item.",
    query: &[KIND, Parameter::new("prefix", "Items whose key starts with this."), LIMIT, AFTER],
    gives: Content::List(one::<ItemShape>),
    ..Endpoint::DEFAULT
};

static COVERED: Endpoint = Endpoint {
    path: "/api/v1/hosts/{id}/coverage",
    name: "host_coverage",
    summary: "What a host is watched by, and what is told of each operation, as its agent last said.",
    gives: Content::Json(one::<HostCoverageShape>),
    ..Endpoint::DEFAULT
};

static REVOKED: Endpoint = Endpoint {
    method: Method::Post,
    path: "/api/v1/hosts/{id}/revoke",
    name: "revoke_host",
    summary: "Takes away a host's certificates and ends its stream at once. It must enrol anew to come back.",
    needs: Needs::Role(Role::Admin),
    status: 204,
    ..Endpoint::DEFAULT
};

static SCANNED: Endpoint = Endpoint {
    method: Method::Post,
    path: "/api/v1/hosts/{id}/scan",
    name: "scan_host",
    summary: "Asks a connected host to read a scope again now.",
    needs: Needs::Role(Role::Operator),
    takes: Content::Json(one::<ScanRequest>),
    status: 202,
    gives: Content::Json(one::<ScanAsked>),
    ..Endpoint::DEFAULT
};

static ASSIGNED: Endpoint = Endpoint {
    method: Method::Post,
    path: "/api/v1/hosts/{id}/baseline",
    name: "assign_baseline",
    summary: "Holds a host against a baseline; its whole state is compared anew.",
    needs: Needs::Role(Role::Operator),
    takes: Content::Json(one::<Assignment>),
    status: 200,
    gives: Content::Json(one::<HostShape>),
    ..Endpoint::DEFAULT
};

pub fn routes(routes: Routes) -> Routes {
    routes
        .add(&LISTED, list)
        .add(&SHOWN, show)
        .add(&ITEMS, items)
        .add(&COVERED, coverage)
        .add(&REVOKED, revoke)
        .add(&SCANNED, scan)
        .add(&ASSIGNED, assign)
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ScanRequest {
    /// `*` for everything, or `kind:prefix`, as in `file:/etc`.
    #[serde(default = "everything")]
    #[schema(default = "*")]
    scope: String,
}

fn everything() -> String {
    "*".to_owned()
}

#[derive(Debug, Serialize, ToSchema)]
struct ScanAsked {
    /// Names this request in the agent's and the collector's logs.
    id: String,
    scope: String,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Assignment {
    /// The id of a baseline, its name (the newest version), or `name@version`.
    #[schema(value_type = String)]
    baseline: BaselineReference,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum BaselineReference {
    Id(i64),
    Name(String),
}

async fn list(State(api): State<Api>, caller: Caller, query: Query) -> Result<Json<List<HostShape>>, Problem> {
    let now = hub::now();
    let listed = api.hub.store.hosts(&caller.tenant, query.page()?).await?;
    Ok(Json(List::of(listed, |host| HostShape::of(host, &api.hub, now))))
}

async fn show(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Result<Json<HostShape>, Problem> {
    let host = host(&api, &caller, &id).await?;
    Ok(Json(HostShape::of(host, &api.hub, hub::now())))
}

async fn items(State(api): State<Api>, caller: Caller, Path(id): Path<String>, query: Query) -> Result<Json<List<ItemShape>>, Problem> {
    let host = host(&api, &caller, &id).await?;
    let filter = ItemFilter { kind: query.value::<ItemKind>("kind")?, prefix: query.text("prefix").map(str::to_owned) };
    let listed = api.hub.store.host_items(&caller.tenant, host.id, &filter, query.page()?).await?;
    Ok(Json(List::of(listed, ItemShape::from)))
}

async fn coverage(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Result<Json<HostCoverageShape>, Problem> {
    Ok(Json(host(&api, &caller, &id).await?.into()))
}

async fn revoke(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let host = host(&api, &caller, &id).await?;
    let now = hub::now();
    if !api.hub.store.revoke_host(&caller.tenant, host.id, now).await? {
        return Err(Problem::conflict(format!("the host {} is revoked already", host.facts.hostname)));
    }
    api.hub.end_host(host.id);
    api.hub.news.ring();
    caller.note(&api, now, "host.revoke", format!("host:{}", host.id), Some(host.facts.hostname)).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn scan(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Body(request): Body<ScanRequest>,
) -> Result<(StatusCode, Json<ScanAsked>), Problem> {
    check_scope(&request.scope)?;
    let host = host(&api, &caller, &id).await?;
    let name = &host.facts.hostname;
    if !api.hub.streams.is_connected(host.id) {
        return Err(Problem::conflict(format!("{name} is not connected to this collector: start its agent, then ask again")));
    }
    let id = uuid::Uuid::now_v7().to_string();
    if !api.hub.streams.send(host.id, Errand::Scan { id: id.clone(), scope: request.scope.clone() }) {
        return Err(Problem::unavailable(format!("{name} has several requests waiting; try again when it has done them")));
    }
    caller.note(&api, hub::now(), "host.scan", format!("host:{}", host.id), Some(request.scope.clone())).await;
    Ok((StatusCode::ACCEPTED, Json(ScanAsked { id, scope: request.scope })))
}

fn check_scope(scope: &str) -> Result<(), Problem> {
    if scope == "*" {
        return Ok(());
    }
    let kind = scope.split_once(':').map(|(kind, _)| kind.parse::<ItemKind>());
    match kind {
        Some(Ok(_)) if scope.len() <= 8192 => Ok(()),
        _ => {
            let scope = text::printable(scope.as_bytes());
            Err(Problem::bad_request(format!("scope: `{}` is neither `*` nor `kind:prefix`, as in file:/etc", text::bounded(&scope, 80))))
        }
    }
}

async fn assign(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Body(assignment): Body<Assignment>,
) -> Result<Json<HostShape>, Problem> {
    let found = host(&api, &caller, &id).await?;
    let baseline = match assignment.baseline {
        BaselineReference::Id(id) => id,
        BaselineReference::Name(name) => named(&api, &caller, &name).await?.id,
    };
    if found.revoked_at.is_some() {
        return Err(Problem::conflict(format!("{} was revoked: it is held against nothing any more", found.facts.hostname)));
    }
    if !api.hub.store.assign_baseline(&caller.tenant, found.id, baseline).await? {
        return Err(Problem::not_found(format!("there is no baseline {baseline}; see /api/v1/baselines")));
    }
    api.hub.compare.ring();
    let now = hub::now();
    caller.note(&api, now, "baseline.assign", format!("host:{}", found.id), Some(format!("baseline {baseline}"))).await;
    let host = host(&api, &caller, &found.id.to_string()).await?;
    Ok(Json(HostShape::of(host, &api.hub, now)))
}

/// Most pages of baselines that a name is looked for in.
const NAME_PAGES: usize = 20;

/// The baseline that `name`, `name@version` or a number in text refers to.
pub(crate) async fn named(api: &Api, caller: &Caller, reference: &str) -> Result<Baseline, Problem> {
    let number = reference.parse::<i64>().ok();
    let (name, version) = match reference.rsplit_once('@') {
        Some((name, version)) => match version.parse::<u64>() {
            Ok(version) => (name, Some(version)),
            Err(_) => (reference, None),
        },
        None => (reference, None),
    };
    let mut best: Option<Baseline> = None;
    let mut after = None;
    for _ in 0..NAME_PAGES {
        let listed = api.hub.store.baselines(&caller.tenant, Page { limit: 500, after }).await?;
        for baseline in listed.items {
            if Some(baseline.id) == number {
                return Ok(baseline);
            }
            let fits = baseline.name.name == name && version.is_none_or(|version| baseline.name.version == version);
            if fits && best.as_ref().is_none_or(|best| best.name.version < baseline.name.version) {
                best = Some(baseline);
            }
        }
        after = listed.next;
        if after.is_none() {
            break;
        }
    }
    best.ok_or_else(|| {
        let shown = text::printable(reference.as_bytes());
        Problem::not_found(format!("there is no baseline `{}`; see /api/v1/baselines", text::bounded(&shown, 80)))
    })
}
