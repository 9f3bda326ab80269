//! Whether the process lives, and whether it can do its work.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::Api;
use super::access::Caller;
use super::coverage::troubles;
use super::endpoint::{Content, Endpoint, Needs, Routes, one};
use super::problem::Problem;
use crate::hub;

static ALIVE: Endpoint = Endpoint {
    path: "/healthz",
    name: "alive",
    summary: "That the process is alive. Says nothing of its parts: see /readyz.",
    needs: Needs::Nothing,
    gives: Content::Text,
    ..Endpoint::DEFAULT
};

static READY: Endpoint = Endpoint {
    path: "/readyz",
    name: "ready",
    summary: "Whether the collector can do its work: the database takes writes and no part is in trouble. 503 names the part \
              and what to do; with a token, also the reason.",
    needs: Needs::Nothing,
    gives: Content::Json(one::<Readiness>),
    ..Endpoint::DEFAULT
};

pub fn routes(routes: Routes) -> Routes {
    routes.add(&ALIVE, alive).add(&READY, ready)
}

/// The longest a probe may take before the database counts as not answering.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// The result of a probe serves everybody this long: health is open to all, writes must not be.
const PROBE_LIFE: Duration = Duration::from_secs(1);

/// The last proof that the database takes writes; at most one is under way.
#[derive(Debug)]
pub struct Probe {
    turn: Semaphore,
    last: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Default for Probe {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), last: Mutex::new(None) }
    }
}

impl Probe {
    fn fresh(&self) -> Option<Result<(), String>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(at, _)| at.elapsed() < PROBE_LIFE).map(|(_, result)| result.clone())
    }

    async fn result(&self, api: &Api) -> Result<(), String> {
        if let Some(result) = self.fresh() {
            return result;
        }
        let Ok(_turn) = self.turn.acquire().await else {
            return Err("the collector is ending".to_owned());
        };
        // Somebody may have asked while we waited for our turn.
        if let Some(result) = self.fresh() {
            return result;
        }
        let result = match tokio::time::timeout(PROBE_LIMIT, api.hub.store.probe(hub::now())).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("the database took longer than {} seconds to commit a row", PROBE_LIMIT.as_secs())),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), result.clone()));
        result
    }
}

async fn alive() -> &'static str {
    "alive\n"
}

#[derive(Debug, Serialize, ToSchema)]
struct Readiness {
    /// `ready`.
    status: &'static str,
    /// Only with a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
}

async fn ready(State(api): State<Api>, caller: Option<Caller>) -> Result<Json<Readiness>, Problem> {
    let mut wrong: Vec<(&'static str, String)> = Vec::new();
    if let Err(reason) = api.probe.result(&api).await {
        wrong.push(("database", reason));
    }
    for trouble in troubles(&api.hub) {
        if !wrong.iter().any(|(part, _)| *part == trouble.part) {
            wrong.push((trouble.part, trouble.reason));
        }
    }
    if wrong.is_empty() {
        return Ok(Json(Readiness { status: "ready", version: caller.map(|_| api.context.version) }));
    }
    let told: Vec<String> = wrong
        .into_iter()
        .map(|(part, reason)| match caller {
            Some(_) => format!("{part}: {reason}. {}", remedy(part)),
            None => format!("{part}: {}", remedy(part)),
        })
        .collect();
    Err(Problem::unavailable(told.join(" ")).titled("Not ready"))
}

/// What an operator can do about a part.
fn remedy(part: &str) -> &'static str {
    match part {
        "database" => "See that the database runs and its disk has space; the collector goes on by itself.",
        "ingest" => "Agents keep their changes until it works again; see the collector's log.",
        "judge" | "compare" => "Changes are kept and will be judged; see the collector's log.",
        "certificates" => "Hosts may fail to enrol or renew; see the collector's log.",
        _ => "See the collector's log.",
    }
}
