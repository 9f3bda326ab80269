//! Drift: what departs from its baseline, and that a person has seen it.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use trueline_drift::{ItemId, ItemKind, Severity, Verdict};
use trueline_store::{DriftFilter, DriftRow, DriftState, Folded, Role};
use utoipa::ToSchema;

use super::Api;
use super::access::Caller;
use super::endpoint::{Content, Endpoint, Method, Needs, Parameter, Routes, one};
use super::problem::Problem;
use super::query::{AFTER, Body, HOST, ITEM, KIND, LIMIT, Query, VERDICT, number};
use super::shape::{DriftShape, List};
use crate::hub;

static LISTED: Endpoint = Endpoint {
    path: "/api/v1/drift",
    name: "drifts",
    summary: "Drift, newest first.",
    query: &[
        HOST,
        ITEM,
        KIND,
        Parameter::of(
            "state",
            "In this state; `unresolved` is open or acknowledged, `all` the same as no state.",
            &["open", "acknowledged", "resolved", "unresolved", "all"],
        ),
        VERDICT,
        Parameter::of("severity", "With this severity.", &["info", "warning", "critical"]),
        Parameter::of(
            "folded",
            "Drift that is folded under its package's: `no` leaves it out, `yes` lists it too, `only` nothing else. Where not given \
             `no`; beside `item` `yes`; beside `folded_under` `only`.",
            &["no", "yes", "only"],
        ),
        Parameter::new("folded_under", "Only what is folded under this package: `package:name`."),
        LIMIT,
        AFTER,
    ],
    gives: Content::List(one::<DriftShape>),
    ..Endpoint::DEFAULT
};

static SHOWN: Endpoint = Endpoint {
    path: "/api/v1/drift/{id}",
    name: "drift",
    summary: "One drift.",
    gives: Content::Json(one::<DriftShape>),
    ..Endpoint::DEFAULT
};

static ACKNOWLEDGED: Endpoint = Endpoint {
    method: Method::Post,
    path: "/api/v1/drift/{id}/acknowledge",
    name: "acknowledge_drift",
    summary: "Notes that a person has seen a drift. It stays until it is resolved.",
    needs: Needs::Role(Role::Operator),
    takes: Content::Json(one::<Acknowledgement>),
    gives: Content::Json(one::<DriftShape>),
    ..Endpoint::DEFAULT
};

/// Longest note kept, in bytes.
const NOTE_LIMIT: usize = 4096;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Acknowledgement {
    /// At most 4096 bytes.
    note: Option<String>,
}

pub fn routes(routes: Routes) -> Routes {
    routes.add(&LISTED, list).add(&SHOWN, show).add(&ACKNOWLEDGED, acknowledge_by_api)
}

async fn list(State(api): State<Api>, caller: Caller, query: Query) -> Result<Json<List<DriftShape>>, Problem> {
    let (state, unresolved) = match query.text("state") {
        None | Some("all") => (None, false),
        Some("unresolved") => (None, true),
        Some(_) => (query.value::<DriftState>("state")?, false),
    };
    let filter = DriftFilter {
        host: query.host(&api, &caller).await?,
        item: query.value::<ItemId>("item")?,
        kind: query.value::<ItemKind>("kind")?,
        state,
        unresolved,
        verdict: query.value::<Verdict>("verdict")?,
        severity: query.value::<Severity>("severity")?,
        folded: folded(&query)?,
    };
    let listed = api.hub.store.drifts(&caller.tenant, &filter, query.page()?).await?;
    Ok(Json(List::of(listed, DriftShape::from)))
}

/// Who names an item asks for it, folded or not.
fn folded(query: &Query) -> Result<Folded, Problem> {
    let under = query.value::<ItemId>("folded_under")?;
    if under.as_ref().is_some_and(|item| item.kind != ItemKind::Package) {
        return Err(Problem::bad_request("folded_under: drift is folded under a package; write `package:name`"));
    }
    match (query.text("folded"), under) {
        (None | Some("only"), Some(package)) => Ok(Folded::Under(package)),
        (Some(_), Some(_)) => Err(Problem::bad_request("folded: beside folded_under it can only be `only`, or left out")),
        (None, None) if query.text("item").is_some() => Ok(Folded::Listed),
        (None | Some("no"), None) => Ok(Folded::LeftOut),
        (Some("yes"), None) => Ok(Folded::Listed),
        (Some("only"), None) => Ok(Folded::Only),
        (Some(_), None) => Err(Problem::bad_request("folded: `no`, `yes` or `only`")),
    }
}

/// The drift that a path names.
pub(crate) async fn find(api: &Api, caller: &Caller, id: &str) -> Result<DriftRow, Problem> {
    let id = number(id, "drift")?;
    api.hub.store.drift(&caller.tenant, id).await?.ok_or_else(|| Problem::not_found(format!("there is no drift {id}")))
}

async fn show(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Result<Json<DriftShape>, Problem> {
    Ok(Json(find(&api, &caller, &id).await?.into()))
}

async fn acknowledge_by_api(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Body(body): Body<Acknowledgement>,
) -> Result<Json<DriftShape>, Problem> {
    Ok(Json(acknowledge(&api, &caller, &id, body.note).await?.into()))
}

/// Notes that the caller has seen a drift; returns it as it is then.
pub(crate) async fn acknowledge(api: &Api, caller: &Caller, id: &str, note: Option<String>) -> Result<DriftRow, Problem> {
    let note = note.map(|note| note.trim().to_owned()).filter(|note| !note.is_empty());
    if note.as_ref().is_some_and(|note| note.len() > NOTE_LIMIT) {
        return Err(Problem::bad_request(format!("note: at most {NOTE_LIMIT} bytes")));
    }
    let row = find(api, caller, id).await?;
    let now = hub::now();
    if !api.hub.store.acknowledge_drift(&caller.tenant, row.id, &caller.name, note.as_deref(), now).await? {
        return Err(Problem::conflict(format!("drift {} is resolved: there is nothing left to acknowledge", row.id)));
    }
    api.hub.news.ring();
    caller.note(api, now, "drift.acknowledge", format!("drift:{}", row.id), note).await;
    find(api, caller, id).await
}
