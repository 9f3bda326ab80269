//! Measurements in the Prometheus text format: what each means, and those that are taken when they are asked for.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>. Invariant: what cannot be measured is NaN, never what
//! it was before.

use std::collections::BTreeMap;
use std::sync::Once;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use trueline_drift::{Time, Verdict};
use trueline_store::Measures;

use super::Api;
use super::access::Caller;
use super::coverage::troubles;
use super::endpoint::{Content, Endpoint, Routes};
use super::problem::Problem;
use super::shape::{HostState, SILENT_AFTER_SECONDS};
use crate::hub::{self, Hub, Part};

static METRICS: Endpoint = Endpoint {
    path: "/metrics",
    name: "metrics",
    summary: "Measurements in the Prometheus text format.",
    gives: Content::Text,
    ..Endpoint::DEFAULT
};

pub fn routes(routes: Routes) -> Routes {
    routes.add(&METRICS, show)
}

const COUNTERS: &[(&str, &str)] = &[
    ("trueline_ingest_records_total", "Records of agents that are durable: changes, observations, gaps"),
    ("trueline_ingest_changes_total", "Changes that are durable"),
    ("trueline_ingest_batches_total", "Batches of records that were answered, taken or refused"),
    ("trueline_ingest_duplicates_total", "Records that came again and were dropped"),
    ("trueline_ingest_retries_total", "Commits that the database did not take and that were tried again"),
    ("trueline_refusals_total", "Peers turned away and streams ended for what the peer did, by reason"),
    ("trueline_enrolments_total", "Enrolments, by outcome"),
    ("trueline_renewals_total", "Renewals of hosts' certificates, by outcome"),
    ("trueline_judgements_total", "Changes judged by this collector"),
    ("trueline_comparisons_total", "Whole hosts compared with their baselines by this collector"),
    ("trueline_database_errors_total", "Calls that the database did not answer or refused, by reason"),
    ("trueline_task_failures_total", "Background tasks that failed and were begun again, by part"),
    ("trueline_http_requests_total", "HTTP requests, by route and status"),
    ("trueline_http_refused_total", "HTTP requests without a good token"),
];

const GAUGES: &[(&str, &str)] = &[
    ("trueline_build_info", "1, with the version that runs"),
    ("trueline_connections", "Connections open, by port"),
    ("trueline_streams", "Agents whose stream ends at this collector"),
    ("trueline_event_streams", "Event streams open to consoles and programs"),
    ("trueline_ingest_queue_batches", "Batches that waited when the last commit began"),
    ("trueline_hosts", "Hosts, by state: connected, silent, revoked"),
    ("trueline_hosts_to_compare", "Hosts whose whole state waits to be compared with their baseline"),
    ("trueline_items", "Items watched on all hosts"),
    ("trueline_open_drifts", "Drift open or acknowledged that is not folded under its package's, by verdict"),
    ("trueline_folded_drifts", "Drift open or acknowledged that is folded under its package's, by verdict"),
    ("trueline_judge_lag_changes", "Changes that wait to be judged"),
    ("trueline_judge_lag_seconds", "How long the oldest change that is not judged has waited"),
    ("trueline_trouble", "1 while a part is in trouble, see /readyz"),
];

fn describe() {
    for (name, meaning) in COUNTERS {
        describe_counter!(*name, *meaning);
    }
    for (name, meaning) in GAUGES {
        describe_gauge!(*name, *meaning);
    }
    describe_histogram!("trueline_ingest_append_seconds", "Time of one commit of records");
}

async fn show(State(api): State<Api>, caller: Caller) -> Result<Response, Problem> {
    static DESCRIBED: Once = Once::new();
    let Some(handle) = &api.context.metrics else {
        return Err(Problem::not_found("this collector does not record metrics"));
    };
    DESCRIBED.call_once(describe);
    gauge!("trueline_build_info", "version" => api.context.version).set(1.0);
    gauge!("trueline_streams").set(api.hub.streams.count() as f64);
    gauge!("trueline_event_streams").set((super::STREAMS - api.streams.available_permits()) as f64);
    let troubles = troubles(&api.hub);
    for part in Part::ALL {
        let is_troubled = troubles.iter().any(|trouble| trouble.part == part.name());
        gauge!("trueline_trouble", "part" => part.name()).set(if is_troubled { 1.0 } else { 0.0 });
    }
    let now = hub::now();
    // Without the database the other measurements are worth the more.
    let measures = api.hub.store.measure(&caller.tenant, now.plus_seconds(-SILENT_AFTER_SECONDS)).await.ok();
    note(measures.as_ref(), &api.hub, now);
    handle.run_upkeep();
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render()).into_response())
}

/// Sets what is measured in the database.
fn note(measures: Option<&Measures>, hub: &Hub, now: Time) {
    let known = |measure: &dyn Fn(&Measures) -> f64| measures.map_or(f64::NAN, measure);
    let silent = |measures: &Measures| measures.unheard_hosts.iter().filter(|host| !hub.streams.is_connected(**host)).count() as f64;
    gauge!("trueline_hosts", "state" => HostState::Connected.name()).set(known(&|measures| measures.hosts as f64 - silent(measures)));
    gauge!("trueline_hosts", "state" => HostState::Silent.name()).set(known(&silent));
    gauge!("trueline_hosts", "state" => HostState::Revoked.name()).set(known(&|measures| measures.revoked_hosts as f64));
    gauge!("trueline_hosts_to_compare").set(known(&|measures| measures.uncompared_hosts as f64));
    gauge!("trueline_items").set(known(&|measures| measures.items as f64));
    for verdict in [Verdict::Notable, Verdict::Critical] {
        let count = |counts: &BTreeMap<Verdict, u64>| counts.get(&verdict).copied().unwrap_or(0) as f64;
        gauge!("trueline_open_drifts", "verdict" => verdict.name()).set(known(&|measures| count(&measures.open_drifts)));
        gauge!("trueline_folded_drifts", "verdict" => verdict.name()).set(known(&|measures| count(&measures.folded_drifts)));
    }
    gauge!("trueline_judge_lag_changes").set(known(&|measures| measures.unjudged as f64));
    let waits = |measures: &Measures| measures.unjudged_since.map_or(0.0, |since| now.micros_since(since).max(0) as f64 / 1e6);
    gauge!("trueline_judge_lag_seconds").set(known(&waits));
}
