//! The event stream: what was judged, opened, updated, resolved or missed, as server-sent events
//! that resume exactly where a client left off.
//!
//! Invariants: an event's id is the place in every log up to which the client has seen all, so that
//! a resumed stream neither repeats nor skips; a client holds at most one batch of memory; a stream
//! ends with its token and at shutdown.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use trueline_store::{ChangeRow, DriftEvent, DriftRow, EventPosition, Events, GapRow};

use super::Api;
use super::access::{self, Caller};
use super::endpoint::{Content, Endpoint, Parameter, Routes};
use super::problem::Problem;
use super::query::Query;
use super::shape::{ChangeShape, CoverageShape, DriftShape};

static EVENTS: Endpoint = Endpoint {
    path: "/api/v1/events",
    name: "events",
    summary: "Changes as they are judged, drift as it opens, moves and resolves, and coverage gaps, as server-sent events. \
              The first event, `ready`, carries the place where the stream begins; `Last-Event-ID` resumes after an id.",
    query: &[Parameter::new("after", "The id to resume after, for clients that cannot send Last-Event-ID.")],
    gives: Content::Events,
    ..Endpoint::DEFAULT
};

/// Events of each log held for one client at most.
const BATCH: u32 = 256;
/// A lost bell heals after this.
const IMPATIENCE: Duration = Duration::from_secs(1);
/// Gathers what arrives in a burst.
const GATHER: Duration = Duration::from_millis(5);
/// How often the stream's token is looked at again.
const RECHECK: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How soon a browser comes back after a break.
const RETRY: Duration = Duration::from_secs(1);

pub fn routes(routes: Routes) -> Routes {
    routes.add(&EVENTS, events)
}

/// A position as the client sees it: `changes-drift-gaps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EventId(EventPosition);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.0.changes, self.0.drift, self.0.gaps)
    }
}

impl FromStr for EventId {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let mut numbers = text.split('-').map(|part| part.parse::<i64>().ok().filter(|number| *number >= 0));
        match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Some(changes)), Some(Some(drift)), Some(Some(gaps)), None) => Ok(Self(EventPosition { changes, drift, gaps })),
            _ => Err(Problem::bad_request("Last-Event-ID: this is not an id that this stream gave out; leave it out to begin now")),
        }
    }
}

/// One thing that happened.
pub enum Happening {
    Change(Box<ChangeRow>),
    Drift(DriftEvent, Box<DriftRow>),
    Gap(Box<GapRow>),
}

/// How a stream shows what happened: the event's name and its JSON. `None` leaves it out.
pub type Show = fn(Happening) -> Option<(&'static str, String)>;

fn json(shape: &impl Serialize) -> String {
    serde_json::to_string(shape).unwrap_or_default()
}

fn show(happening: Happening) -> Option<(&'static str, String)> {
    Some(match happening {
        Happening::Change(row) => ("change", json(&ChangeShape::from(*row))),
        Happening::Drift(event, row) => {
            let mut shape = DriftShape::from(*row);
            shape.event = Some(event);
            ("drift", json(&shape))
        }
        Happening::Gap(row) => ("gap", json(&CoverageShape::from(*row))),
    })
}

async fn events(State(api): State<Api>, caller: Caller, query: Query, headers: HeaderMap) -> Result<Response, Problem> {
    follow(&api, caller, &query, &headers, show).await
}

/// Opens a stream for a caller: from where the client left off, or from now.
pub async fn follow(api: &Api, caller: Caller, query: &Query, headers: &HeaderMap, show: Show) -> Result<Response, Problem> {
    let permit = Arc::clone(&api.streams)
        .try_acquire_owned()
        .map_err(|_| Problem::unavailable("as many event streams are open as this collector serves; try again later"))?;
    let listen = api.hub.news.listen();
    let now = api.hub.store.event_position().await?;
    let header = headers.get("last-event-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    let from = match header.or_else(|| query.text("after")) {
        // A place beyond the end is of another database: begin at the end of this one.
        Some(id) => {
            let EventPosition { changes, drift, gaps } = id.parse::<EventId>()?.0;
            EventPosition { changes: changes.min(now.changes), drift: drift.min(now.drift), gaps: gaps.min(now.gaps) }
        }
        None => now,
    };
    let ready = Event::default().event("ready").id(EventId(from).to_string()).retry(RETRY).data("{}");
    let follower = Follower {
        api: api.clone(),
        caller,
        show,
        at: from,
        waiting: VecDeque::from([ready]),
        listen,
        checked: Instant::now(),
        _permit: permit,
    };
    let events = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// One client's stream.
struct Follower {
    api: Api,
    caller: Caller,
    show: Show,
    /// All before this is in `waiting` or sent.
    at: EventPosition,
    waiting: VecDeque<Event>,
    listen: watch::Receiver<u64>,
    checked: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    /// The next event; `None` when the stream is over. Cancelling it loses nothing: `at` moves only
    /// together with `waiting`.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.api.hub.shutdown.is_cancelled() {
                return None;
            }
            if self.checked.elapsed() >= RECHECK {
                match access::standing(&self.api, &self.caller.digest, self.caller.kind).await {
                    Ok(_) => self.checked = Instant::now(),
                    Err(problem) if problem.status.is_server_error() => {}
                    Err(_) => return None,
                }
            }
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            self.listen.borrow_and_update();
            match self.api.hub.store.events_after(&self.caller.tenant, self.at, BATCH).await {
                Ok(events) => self.take(events),
                Err(error) => tracing::debug!(%error, "an event stream waits for the database"),
            }
            if self.waiting.is_empty() {
                self.wait().await;
            }
        }
    }

    fn take(&mut self, events: Events) {
        for row in events.changes {
            self.at.changes = row.position.0;
            self.push(Happening::Change(Box::new(row)));
        }
        for (place, event, row) in events.drift {
            self.at.drift = place;
            self.push(Happening::Drift(event, Box::new(row)));
        }
        for row in events.gaps {
            self.at.gaps = row.id;
            self.push(Happening::Gap(Box::new(row)));
        }
    }

    fn push(&mut self, happening: Happening) {
        if let Some((name, data)) = (self.show)(happening) {
            self.waiting.push_back(Event::default().event(name).id(EventId(self.at).to_string()).data(data));
        }
    }

    async fn wait(&mut self) {
        tokio::select! {
            () = self.api.hub.shutdown.cancelled() => {}
            // The bell's owner outlives us: an error here would only mean that nothing rings any more.
            _ = self.listen.changed() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(IMPATIENCE) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_anything_else_is_refused() {
        let id = EventId(EventPosition { changes: 12, drift: 0, gaps: 7 });
        assert_eq!(id.to_string(), "12-0-7");
        assert_eq!(id.to_string().parse::<EventId>().unwrap(), id);
        for text in ["", "12", "1-2", "1-2-3-4", "1-2-x", "-1-2-3", "1--2-3", "99999999999999999999-1-1"] {
            assert!(text.parse::<EventId>().is_err(), "{text}");
        }
    }
}
