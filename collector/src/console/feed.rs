//! The drift feed: what departs from its baseline, newest first, live.

use askama::Template;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use trueline_drift::{HostId, ItemId, Verdict};
use trueline_store::{DriftFilter, DriftState, EventPosition, Folded, Page};

use super::age::grouped;
use super::page::{Frame, Place, frame, html};
use super::row::{Row, words};
use crate::hub;
use crate::rest::Api;
use crate::rest::access::Caller;
use crate::rest::coverage::summarise;
use crate::rest::endpoint::{Endpoint, Parameter, Routes};
use crate::rest::events::{Happening, follow};
use crate::rest::problem::Problem;
use crate::rest::query::{AFTER, HOST, Query, VERDICT};
use crate::rest::shape::SummaryShape;

static FEED: Endpoint = Endpoint {
    path: "/",
    name: "feed",
    query: &[VERDICT, HOST, AFTER, Parameter::of("state", "", &["resolved"]), Parameter::new("folded_under", "")],
    ..Endpoint::PAGE
};
static STREAM: Endpoint = Endpoint { path: "/feed/events", name: "feed_events", query: &[AFTER], ..Endpoint::PAGE };

const ROWS: u32 = 100;

pub fn routes(routes: Routes) -> Routes {
    routes.add(&FEED, feed).add(&STREAM, stream)
}

/// What the feed is narrowed to.
#[derive(Clone, PartialEq, Eq)]
enum View {
    Open,
    Verdict(Verdict),
    Resolved,
    /// What is folded under a package; everywhere else it is left out.
    Under(ItemId),
}

impl View {
    fn of(query: &Query) -> Result<Self, Problem> {
        match (query.text("state"), query.value::<Verdict>("verdict")?, query.value::<ItemId>("folded_under")?) {
            (None, None, Some(package)) => Ok(Self::Under(package)),
            (_, _, Some(_)) => Err(Problem::bad_request("folded_under: not beside state or verdict")),
            (Some("resolved"), _, None) => Ok(Self::Resolved),
            (Some(_), _, None) => Err(Problem::bad_request("state: `resolved`, or leave it out")),
            (None, Some(verdict), None) => Ok(Self::Verdict(verdict)),
            (None, None, None) => Ok(Self::Open),
        }
    }

    fn filter(&self, host: Option<HostId>) -> DriftFilter {
        DriftFilter {
            host,
            unresolved: *self != Self::Resolved,
            state: (*self == Self::Resolved).then_some(DriftState::Resolved),
            verdict: if let Self::Verdict(verdict) = self { Some(*verdict) } else { None },
            folded: if let Self::Under(package) = self { Folded::Under(package.clone()) } else { Folded::LeftOut },
            ..DriftFilter::default()
        }
    }

    /// As in a link, each parameter with its end.
    fn query(&self) -> String {
        match self {
            Self::Open => String::new(),
            Self::Verdict(verdict) => format!("verdict={}&", verdict.name()),
            Self::Resolved => "state=resolved&".to_owned(),
            Self::Under(package) => format!("folded_under={}&", escape(&package.to_string())),
        }
    }

    /// What the script needs to know which rows belong here.
    fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Verdict(verdict) => verdict.name(),
            Self::Resolved => "resolved",
            Self::Under(_) => "folded",
        }
    }
}

/// A link that narrows the feed.
struct Choice {
    name: &'static str,
    href: String,
    count: Option<String>,
    /// The count's name, for the script.
    counts: &'static str,
    chosen: bool,
}

/// Why the feed is empty, and what to do next.
struct Advice {
    title: String,
    text: String,
    commands: Vec<String>,
}

#[derive(Template)]
#[template(path = "feed.html")]
struct Feed {
    frame: Frame,
    counts: Counts,
    choices: Vec<Choice>,
    host: Option<String>,
    /// The package whose parts these are.
    under: Option<String>,
    rows: Vec<Row>,
    next: Option<String>,
    empty: Option<Advice>,
    /// Where the stream takes over from this page.
    after: String,
    view: &'static str,
    host_id: String,
}

/// The numbers at the head, as text.
struct Counts {
    hosts: String,
    connected: String,
    items: String,
    critical: String,
    notable: String,
    expected: String,
    out_of_scope: String,
    open: String,
    open_critical: String,
    folded: String,
    has_folded: bool,
}

impl Counts {
    fn of(summary: &SummaryShape) -> Self {
        Self {
            hosts: grouped(summary.hosts),
            connected: grouped(summary.connected),
            items: grouped(summary.items),
            critical: grouped(summary.critical),
            notable: grouped(summary.notable),
            expected: grouped(summary.expected),
            out_of_scope: grouped(summary.out_of_scope),
            open: grouped(summary.open_drifts),
            open_critical: grouped(summary.open_critical),
            folded: grouped(summary.folded_drifts),
            has_folded: summary.folded_drifts > 0,
        }
    }
}

async fn feed(State(api): State<Api>, caller: Caller, query: Query) -> Result<Response, Problem> {
    // Before the rows are read, so that the stream repeats rather than skips.
    let EventPosition { changes, drift, gaps } = api.hub.store.event_position().await?;
    let now = hub::now();
    let view = View::of(&query)?;
    let host = match query.text("host") {
        Some(name) => Some(crate::rest::query::host(&api, &caller, name).await?),
        None => None,
    };
    let filter = view.filter(host.as_ref().map(|host| host.id));
    let page = Page { limit: ROWS, after: query.text("after").map(str::to_owned) };
    // Parts come and go with their package: that page is not kept live.
    let is_live = page.after.is_none() && !matches!(view, View::Under(_));
    let listed = api.hub.store.drifts(&caller.tenant, &filter, page).await?;
    let summary = summarise(&api, &caller, now.plus_seconds(-3600)).await?;
    let empty = match listed.items.is_empty() {
        true => Some(advise(&api, &caller, &view).await?),
        false => None,
    };
    let suffix = host.as_ref().map(|host| format!("host={}", host.id)).unwrap_or_default();
    let next = listed.next.map(|next| {
        let query = view.query();
        let host = if suffix.is_empty() { String::new() } else { format!("{suffix}&") };
        format!("/?{query}{host}after={}", escape(&next))
    });
    let feed = Feed {
        frame: frame(&api, &caller, Place::Feed).await?,
        counts: Counts::of(&summary),
        choices: choices(&view, &summary, &suffix),
        host_id: host.as_ref().map(|host| host.id.to_string()).unwrap_or_default(),
        host: host.map(|host| host.facts.hostname),
        under: if let View::Under(package) = &view { Some(package.to_string()) } else { None },
        rows: listed.items.iter().map(|row| Row::of(row, now)).collect(),
        next,
        empty,
        after: if is_live { format!("{changes}-{drift}-{gaps}") } else { String::new() },
        view: view.name(),
    };
    Ok(html(&feed))
}

/// Part of a query: only letters and digits stay as they are.
pub fn escape(text: &str) -> String {
    text.bytes().map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn choices(view: &View, summary: &SummaryShape, suffix: &str) -> Vec<Choice> {
    let notable = summary.open_drifts.saturating_sub(summary.open_critical);
    // Counts are of all hosts: beside one host they would mislead.
    let count = |number: u64| suffix.is_empty().then(|| grouped(number));
    let href = |query: &str| match (query, suffix) {
        ("", "") => "/".to_owned(),
        ("", suffix) => format!("/?{suffix}"),
        (query, "") => format!("/?{query}"),
        (query, suffix) => format!("/?{query}&{suffix}"),
    };
    let choice = |name, query, count, counts, chosen| Choice { name, href: href(query), count, counts, chosen };
    vec![
        choice("Open", "", count(summary.open_drifts), "open_drifts", *view == View::Open),
        choice("Critical", "verdict=critical", count(summary.open_critical), "open_critical", *view == View::Verdict(Verdict::Critical)),
        choice("Notable", "verdict=notable", count(notable), "open_notable", *view == View::Verdict(Verdict::Notable)),
        choice("Resolved", "state=resolved", None, "", *view == View::Resolved),
    ]
}

/// Hosts looked at to advise; with more, advice would not fit anyway.
const HOSTS: u32 = 50;

async fn advise(api: &Api, caller: &Caller, view: &View) -> Result<Advice, Problem> {
    let advice = |title: &str, text: &str, commands: Vec<String>| Advice { title: title.to_owned(), text: text.to_owned(), commands };
    let hosts = api.hub.store.hosts(&caller.tenant, Page { limit: HOSTS, after: None }).await?.items;
    let live: Vec<_> = hosts.iter().filter(|host| host.revoked_at.is_none()).collect();
    if live.is_empty() {
        return Ok(advice(
            "No host yet",
            "Make a join token here, then enrol an agent with it on the host you want to watch.",
            vec![
                "trueline tokens create --kind join".to_owned(),
                "trueline-agent enroll --collector HOST:9441 --token TOKEN --ca-sha256 HEX".to_owned(),
            ],
        ));
    }
    if let Some(host) = live.iter().find(|host| host.inventory_completed_at.is_none()) {
        return Ok(advice(
            "The first inventory is under way",
            &format!("{}: {} items so far. Drift is found once a baseline is captured from it.", host.facts.hostname, grouped(host.items)),
            Vec::new(),
        ));
    }
    if let Some(host) = live.iter().find(|host| host.baseline.is_none()) {
        let name = text_argument(&host.facts.hostname);
        return Ok(advice(
            "No baseline yet",
            &format!("{} is watched, but nothing says how it should be. Capture how it is now:", host.facts.hostname),
            vec![format!("trueline baseline capture {name}")],
        ));
    }
    Ok(match view {
        View::Open => advice(
            "No drift",
            "Every watched item agrees with its baseline. Edit a watched file to see it here, with who did it:",
            vec!["echo hello | sudo tee /etc/trueline-hello".to_owned(), "sudo rm /etc/trueline-hello".to_owned()],
        ),
        View::Verdict(verdict) => advice(&format!("No {} drift is open", words(*verdict)), "It will appear here by itself.", Vec::new()),
        View::Under(package) => advice(
            &format!("Nothing is folded under {package}"),
            "What departs of its parts stands for itself, among all drift.",
            Vec::new(),
        ),
        View::Resolved => advice("Nothing was resolved yet", "Drift that has gone again is kept here.", Vec::new()),
    })
}

/// A host's name within a command to copy; a name that a shell would read otherwise stays out.
fn text_argument(name: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.chars().all(plain) { name } else { "HOST" }
}

/// The stream behind the page: rows ready to show. Changes only move the counts, which the page asks for.
async fn stream(State(api): State<Api>, caller: Caller, query: Query, headers: HeaderMap) -> Result<Response, Problem> {
    follow(&api, caller, &query, &headers, |happening| {
        Some(match happening {
            Happening::Change(_) => return None,
            Happening::Drift(_, row) => ("drift", serde_json::to_string(&Row::of(&row, hub::now())).unwrap_or_default()),
            Happening::Gap(row) => {
                let notice = serde_json::json!({
                    "subject": format!("{} · {}", row.host_name, row.gap.scope),
                    "text": row.gap.reason.explanation(),
                    "open": row.gap.ended_at.is_none(),
                });
                ("gap", notice.to_string())
            }
        })
    })
    .await
}
