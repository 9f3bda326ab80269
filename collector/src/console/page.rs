//! What all pages share: the frame around them and how a template becomes a response.

use askama::Template;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use trueline_drift::Time;
use trueline_store::{GapFilter, Page, Role};

use super::age::{age, grouped};
use crate::hub;
use crate::rest::Api;
use crate::rest::access::Caller;
use crate::rest::coverage::troubles;
use crate::rest::problem::Problem;
use crate::rest::shape;

/// The frame of a page: who is logged in, and what everybody should know now.
pub struct Frame {
    pub here: Place,
    pub version: &'static str,
    pub who: String,
    pub role: &'static str,
    pub may_operate: bool,
    pub troubles: Vec<Notice>,
    pub gaps: Vec<Notice>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Feed,
    Hosts,
    Detail,
}

impl Frame {
    pub fn is_feed(&self) -> bool {
        self.here == Place::Feed
    }

    pub fn is_hosts(&self) -> bool {
        self.here == Place::Hosts
    }
}

/// A line of a banner.
pub struct Notice {
    pub subject: String,
    pub text: String,
    pub at: Moment,
    /// Not over yet.
    pub open: bool,
}

/// A time for a page: its age as text, and what the script needs to keep it moving.
#[derive(Clone)]
pub struct Moment {
    pub text: String,
    pub age: String,
    pub millis: i64,
}

impl Moment {
    pub fn of(at: Time, now: Time) -> Self {
        Self { text: at.to_string(), age: age(at, now), millis: at.micros() / 1000 }
    }

    pub fn when(at: Option<Time>, now: Time) -> Option<Self> {
        at.map(|at| Self::of(at, now))
    }

    /// `14s ago`, `just now`.
    pub fn ago(&self) -> String {
        if self.age == "now" { "just now".to_owned() } else { format!("{} ago", self.age) }
    }

    /// `2026-02-12 10:30:00 UTC`.
    pub fn plain(&self) -> String {
        match (self.text.get(..10), self.text.get(11..19)) {
            (Some(day), Some(hour)) => format!("{day} {hour} UTC"),
            _ => self.text.clone(),
        }
    }
}

/// Gaps older than this are found under coverage, not in the banner.
const GAP_SECONDS: i64 = 3600;
const GAPS_SHOWN: usize = 3;

pub async fn frame(api: &Api, caller: &Caller, here: Place) -> Result<Frame, Problem> {
    let now = hub::now();
    let page = Page { limit: 20, after: None };
    let gaps = api.hub.store.gaps(&caller.tenant, &GapFilter::default(), page).await?;
    let gaps = gaps
        .items
        .into_iter()
        .filter(|row| now.micros_since(row.received_at) < GAP_SECONDS * 1_000_000)
        .take(GAPS_SHOWN)
        .map(|row| {
            let gap = row.gap;
            let lost = gap.lost.map(|lost| format!(", {} events lost", grouped(lost))).unwrap_or_default();
            let after = match (&gap.remedy, gap.ended_at) {
                (Some(remedy), _) => format!("; {remedy}"),
                (None, Some(_)) => "; the scope has been read again".to_owned(),
                (None, None) => "; the scope is being read again".to_owned(),
            };
            Notice {
                subject: format!("{} · {}", row.host_name, gap.scope),
                text: format!("{}{lost}{after}", gap.reason.explanation()),
                at: Moment::of(gap.began_at, now),
                open: gap.ended_at.is_none(),
            }
        })
        .collect();
    let troubles = troubles(&api.hub)
        .into_iter()
        .map(|trouble| Notice { subject: trouble.part.to_owned(), text: trouble.reason, at: Moment::of(trouble.since, now), open: true })
        .collect();
    Ok(Frame {
        here,
        version: api.context.version,
        who: caller.name.clone(),
        role: shape::role(caller.role),
        may_operate: caller.role >= Role::Operator,
        troubles,
        gaps,
    })
}

#[derive(Template)]
#[template(path = "refusal.html")]
pub struct Refusal<'a> {
    pub version: &'static str,
    pub title: &'a str,
    pub detail: &'a str,
}

pub fn html(template: &impl Template) -> Response {
    match template.render() {
        Ok(page) => ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            Problem::internal().into_response()
        }
    }
}
