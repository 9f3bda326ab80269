//! The hosts: whether they are heard, what is watched on them, and how they stand.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use trueline_drift::operation::{Alike, alike};
use trueline_drift::{Certainty, Time};
use trueline_store::{Comparison, Host, Page};

use super::age::grouped;
use super::page::{Frame, Moment, Place, frame, html};
use crate::hub::{self, Hub};
use crate::rest::Api;
use crate::rest::access::Caller;
use crate::rest::endpoint::{Endpoint, Routes};
use crate::rest::problem::Problem;
use crate::rest::query::{AFTER, Query};
use crate::rest::shape::{HostState, state_of};

static HOSTS: Endpoint = Endpoint { path: "/hosts", name: "hosts_page", query: &[AFTER], ..Endpoint::PAGE };

const ROWS: u32 = 100;

pub fn routes(routes: Routes) -> Routes {
    routes.add(&HOSTS, list)
}

#[derive(Template)]
#[template(path = "hosts.html")]
struct Hosts {
    frame: Frame,
    hosts: Vec<HostView>,
    next: Option<String>,
}

struct HostView {
    id: String,
    name: String,
    state: &'static str,
    system: String,
    last_seen: Option<Moment>,
    inventory: Option<Moment>,
    items: String,
    baseline: Option<String>,
    is_compared: bool,
    open_drifts: u64,
    folded_drifts: u64,
    sensors: Vec<SensorView>,
    told: Vec<ToldView>,
    troubles: Vec<String>,
    agent: String,
    holding: Option<String>,
}

struct SensorView {
    name: String,
    scope: String,
    watching: bool,
    reason: String,
}

/// Operations of which the same is told.
struct ToldView {
    operations: String,
    /// The surest that the actor can be, or `no event`.
    actor: &'static str,
    is_told: bool,
    reason: String,
}

impl From<Alike> for ToldView {
    fn from(group: Alike) -> Self {
        Self {
            operations: group.names(),
            actor: group.actor.map_or("no event", Certainty::name),
            is_told: group.actor.is_some(),
            reason: group.reason.unwrap_or_default(),
        }
    }
}

async fn list(State(api): State<Api>, caller: Caller, query: Query) -> Result<Response, Problem> {
    let now = hub::now();
    let page = Page { limit: ROWS, after: query.text("after").map(str::to_owned) };
    let listed = api.hub.store.hosts(&caller.tenant, page).await?;
    let hosts = Hosts {
        frame: frame(&api, &caller, Place::Hosts).await?,
        hosts: listed.items.into_iter().map(|host| HostView::of(host, &api.hub, now)).collect(),
        next: listed.next,
    };
    Ok(html(&hosts))
}

impl HostView {
    fn of(host: Host, hub: &Hub, now: Time) -> Self {
        let state = match state_of(&host, hub, now) {
            // Enrolled, and its agent has not come yet.
            HostState::Silent if host.last_seen_at.is_none() => "new",
            state => state.name(),
        };
        let facts = &host.facts;
        let system = [facts.os.as_deref(), facts.kernel.as_deref(), facts.architecture.as_deref()];
        let holding = host.status.spool.as_ref().and_then(|spool| {
            let since = spool.holding_since?;
            Some(format!(
                "holding changes back for {}: {} of {} bytes",
                super::age::age(since, now),
                grouped(spool.bytes),
                grouped(spool.limit_bytes)
            ))
        });
        Self {
            id: host.id.to_string(),
            name: facts.hostname.clone(),
            state,
            system: system.into_iter().flatten().collect::<Vec<_>>().join(" · "),
            last_seen: Moment::when(host.last_seen_at, now),
            inventory: Moment::when(host.inventory_completed_at, now),
            items: grouped(host.items),
            baseline: host.baseline.map(|name| format!("{} v{}", name.name, name.version)),
            is_compared: host.comparison != Some(Comparison::Pending),
            open_drifts: host.open_drifts,
            folded_drifts: host.folded_drifts,
            sensors: host
                .status
                .sensors
                .into_iter()
                .map(|sensor| SensorView {
                    name: sensor.name,
                    scope: sensor.scope,
                    watching: sensor.watching,
                    reason: sensor.reason.unwrap_or_default(),
                })
                .collect(),
            told: alike(&host.status.operations).into_iter().map(ToldView::from).collect(),
            troubles: host.status.troubles,
            agent: host.agent_version.unwrap_or_default(),
            holding,
        }
    }
}
