//! The history of changes.

use axum::Json;
use axum::extract::{Path, State};
use trueline_drift::actor::SessionId;
use trueline_drift::transaction::TransactionId;
use trueline_drift::{ItemId, ItemKind, Time, Verdict};
use trueline_store::{ChangeFilter, Position};

use super::Api;
use super::access::Caller;
use super::endpoint::{Content, Endpoint, Parameter, Routes, one};
use super::problem::Problem;
use super::query::{AFTER, HOST, ITEM, KIND, LIMIT, Query, VERDICT, number};
use super::shape::{ChangeShape, List};

static LISTED: Endpoint = Endpoint {
    path: "/api/v1/changes",
    name: "changes",
    summary: "Changes, newest first. A page of large changes is shorter than its limit; `next` says whether more follow.",
    query: &[
        HOST,
        ITEM,
        KIND,
        VERDICT,
        Parameter::new("session", "By processes of this login: the `id` of an actor's `session`."),
        Parameter::new("transaction", "Made in this run, or in one within it: the `id` of a `transaction`."),
        Parameter::new("since", "Received at or after this time, RFC 3339."),
        Parameter::new("until", "Received before this time, RFC 3339."),
        LIMIT,
        AFTER,
    ],
    gives: Content::List(one::<ChangeShape>),
    ..Endpoint::DEFAULT
};

static SHOWN: Endpoint = Endpoint {
    path: "/api/v1/changes/{id}",
    name: "change",
    summary: "One change.",
    gives: Content::Json(one::<ChangeShape>),
    ..Endpoint::DEFAULT
};

pub fn routes(routes: Routes) -> Routes {
    routes.add(&LISTED, list).add(&SHOWN, show)
}

pub(crate) async fn filter(api: &Api, caller: &Caller, query: &Query) -> Result<ChangeFilter, Problem> {
    Ok(ChangeFilter {
        host: query.host(api, caller).await?,
        item: query.value::<ItemId>("item")?,
        kind: query.value::<ItemKind>("kind")?,
        verdict: query.value::<Verdict>("verdict")?,
        session: query.value::<SessionId>("session")?,
        transaction: query.value::<TransactionId>("transaction")?,
        since: query.value::<Time>("since")?,
        until: query.value::<Time>("until")?,
    })
}

async fn list(State(api): State<Api>, caller: Caller, query: Query) -> Result<Json<List<ChangeShape>>, Problem> {
    let filter = filter(&api, &caller, &query).await?;
    let listed = api.hub.store.changes(&caller.tenant, &filter, query.page()?).await?;
    Ok(Json(List::of(listed, ChangeShape::from)))
}

async fn show(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Result<Json<ChangeShape>, Problem> {
    let position = Position(number(&id, "change")?);
    let row = api.hub.store.change(&caller.tenant, position).await?;
    row.map(|row| Json(ChangeShape::from(row))).ok_or_else(|| Problem::not_found(format!("there is no change {}", position.0)))
}
