//! What may have been missed, what was done, and the counts of it all.

use axum::Json;
use axum::extract::State;
use trueline_drift::Time;
use trueline_store::GapFilter;

use super::Api;
use super::access::Caller;
use super::endpoint::{Content, Endpoint, Parameter, Routes, one};
use super::problem::Problem;
use super::query::{AFTER, HOST, LIMIT, Query};
use super::shape::{ActionShape, CoverageShape, List, SummaryShape, TroubleShape};
use crate::hub::{self, Hub};

static GAPS: Endpoint = Endpoint {
    path: "/api/v1/coverage",
    name: "coverage",
    summary: "Coverage gaps, newest first: intervals and scopes in which changes may have been missed.",
    query: &[HOST, LIMIT, AFTER],
    gives: Content::List(one::<CoverageShape>),
    ..Endpoint::DEFAULT
};

static ACTIONS: Endpoint = Endpoint {
    path: "/api/v1/actions",
    name: "actions",
    summary: "What the product and its operators did, newest first.",
    query: &[LIMIT, AFTER],
    gives: Content::List(one::<ActionShape>),
    ..Endpoint::DEFAULT
};

static SUMMARY: Endpoint = Endpoint {
    path: "/api/v1/summary",
    name: "summary",
    summary: "Counts of hosts, items, changes by verdict and open drift, with the collector's present troubles.",
    query: &[Parameter::new("since", "Count changes and gaps from this time, RFC 3339; an hour ago where not given.")],
    gives: Content::Json(one::<SummaryShape>),
    ..Endpoint::DEFAULT
};

pub fn routes(routes: Routes) -> Routes {
    routes.add(&GAPS, gaps).add(&ACTIONS, actions).add(&SUMMARY, summary)
}

async fn gaps(State(api): State<Api>, caller: Caller, query: Query) -> Result<Json<List<CoverageShape>>, Problem> {
    let filter = GapFilter { host: query.host(&api, &caller).await? };
    let listed = api.hub.store.gaps(&caller.tenant, &filter, query.page()?).await?;
    Ok(Json(List::of(listed, CoverageShape::from)))
}

async fn actions(State(api): State<Api>, caller: Caller, query: Query) -> Result<Json<List<ActionShape>>, Problem> {
    let listed = api.hub.store.actions(&caller.tenant, query.page()?).await?;
    Ok(Json(List::of(listed, ActionShape::from)))
}

async fn summary(State(api): State<Api>, caller: Caller, query: Query) -> Result<Json<SummaryShape>, Problem> {
    let since = query.value::<Time>("since")?.unwrap_or_else(|| hub::now().plus_seconds(-3600));
    Ok(Json(summarise(&api, &caller, since).await?))
}

pub(crate) async fn summarise(api: &Api, caller: &Caller, since: Time) -> Result<SummaryShape, Problem> {
    let counts = api.hub.store.summary(&caller.tenant, since).await?;
    Ok(SummaryShape {
        since,
        hosts: counts.hosts,
        connected: api.hub.streams.count() as u64,
        items: counts.items,
        expected: counts.expected,
        out_of_scope: counts.out_of_scope,
        notable: counts.notable,
        critical: counts.critical,
        open_drifts: counts.open_drifts,
        open_critical: counts.open_critical,
        folded_drifts: counts.folded_drifts,
        gaps: counts.gaps,
        troubles: troubles(&api.hub),
    })
}

pub(crate) fn troubles(hub: &Hub) -> Vec<TroubleShape> {
    hub.health
        .troubles()
        .into_iter()
        .map(|(part, trouble)| TroubleShape { part: part.name(), since: trouble.since, reason: trouble.reason })
        .collect()
}
