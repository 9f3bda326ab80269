//! One drift in full: what is expected and what is, why it matters, who did it, and when.

use askama::Template;
use axum::Form;
use axum::extract::{FromRequest, Path, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use trueline_drift::actor::Process;
use trueline_drift::format::lines::{Line, Lines};
use trueline_drift::{Actor, Certainty, ItemId, Time, Transaction, Value};
use trueline_store::{ChangeRow, DriftFilter, DriftRow, DriftState, Page, Role};

use super::age::grouped;
use super::feed::escape;
use super::page::{Frame, Moment, Place, frame, html};
use super::row::{actor, in_words, state, words};
use crate::hub;
use crate::rest::Api;
use crate::rest::access::Caller;
use crate::rest::drift::{acknowledge, find};
use crate::rest::endpoint::{Endpoint, Method, Needs, Routes};
use crate::rest::problem::Problem;

static SHOWN: Endpoint = Endpoint { path: "/drift/{id}", name: "drift_page", ..Endpoint::PAGE };
static ACKNOWLEDGED: Endpoint = Endpoint {
    method: Method::Post,
    path: "/drift/{id}/acknowledge",
    name: "acknowledge_drift_page",
    needs: Needs::Role(Role::Operator),
    ..Endpoint::PAGE
};

pub fn routes(routes: Routes) -> Routes {
    routes.add(&SHOWN, show).add(&ACKNOWLEDGED, acknowledge_by_form)
}

#[derive(Template)]
#[template(path = "drift.html")]
struct Detail {
    frame: Frame,
    id: i64,
    host: String,
    host_id: String,
    item: String,
    field: String,
    expected: Option<String>,
    actual: Option<String>,
    verdict: &'static str,
    verdict_text: &'static str,
    state: &'static str,
    severity: &'static str,
    drift_type: &'static str,
    reasons: Vec<String>,
    who: Who,
    steps: Vec<Step>,
    change: Option<ChangeView>,
    folded: Option<FoldedView>,
    folds: Option<FoldsView>,
    may_acknowledge: bool,
}

/// The actor, laid out.
struct Who {
    summary: String,
    certainty: &'static str,
    meaning: &'static str,
    facts: Vec<(&'static str, String)>,
    /// Farthest ancestor first, the acting process last.
    tree: Vec<ProcessView>,
}

struct ProcessView {
    line: String,
    pid: u32,
    exe: Option<String>,
    acting: bool,
}

struct Step {
    name: &'static str,
    at: Moment,
    text: String,
}

/// The package whose drift stands for this one.
struct FoldedView {
    package: String,
    /// Its newest drift, where it still has one.
    drift: Option<i64>,
}

/// What is folded under this one.
struct FoldsView {
    count: String,
    is_one: bool,
    href: String,
}

struct ChangeView {
    id: i64,
    kind: &'static str,
    after: Moment,
    at: Moment,
    fields: Vec<(String, Option<String>, Option<String>)>,
    /// Innermost first.
    transactions: Vec<String>,
    shipped_by: Option<String>,
    /// Who may have made it.
    candidates: Vec<String>,
    more_candidates: u32,
    lines: Option<LinesView>,
}

/// In which lines a file differs that is not told by its settings.
struct LinesView {
    told: Vec<LineView>,
    remark: Option<String>,
}

struct LineView {
    side: &'static str,
    sign: char,
    number: usize,
    text: String,
}

async fn show(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    let row = find(&api, &caller, &id).await?;
    let change = match &row.change {
        Some(change) => api.hub.store.change(&caller.tenant, change.position).await?,
        None => None,
    };
    let folded = match &row.folded_under {
        Some(package) => Some(folded(&api, &caller, &row, package).await?),
        None => None,
    };
    let frame = frame(&api, &caller, Place::Detail).await?;
    Ok(html(&Detail::of(frame, row, change, folded, hub::now())))
}

async fn folded(api: &Api, caller: &Caller, row: &DriftRow, package: &ItemId) -> Result<FoldedView, Problem> {
    let filter = DriftFilter { host: Some(row.host), item: Some(package.clone()), unresolved: true, ..DriftFilter::default() };
    let of_package = api.hub.store.drifts(&caller.tenant, &filter, Page { limit: 1, after: None }).await?.items;
    Ok(FoldedView { package: package.to_string(), drift: of_package.first().map(|drift| drift.id) })
}

impl Detail {
    fn of(frame: Frame, row: DriftRow, change: Option<ChangeRow>, folded: Option<FoldedView>, now: Time) -> Self {
        let text = |value: &Option<Value>| value.as_ref().map(|value| in_words(row.field.as_str(), value));
        Self {
            may_acknowledge: frame.may_operate && row.state == DriftState::Open,
            frame,
            id: row.id,
            host: row.host_name.clone(),
            host_id: row.host.to_string(),
            item: row.item.to_string(),
            field: row.field.to_string(),
            expected: text(&row.expected),
            actual: text(&row.actual),
            verdict: row.verdict.name(),
            verdict_text: words(row.verdict),
            state: state(row.state),
            severity: row.severity.name(),
            drift_type: row.drift_type.name(),
            steps: steps(&row, now),
            who: Who::of(row.change.as_ref().map(|change| &change.actor)),
            reasons: row.reasons,
            change: change.map(|row| ChangeView::of(row, now)),
            folds: (row.folds > 0).then(|| FoldsView {
                count: grouped(row.folds),
                is_one: row.folds == 1,
                href: format!("/?folded_under={}&host={}", escape(&row.item.to_string()), row.host),
            }),
            folded,
        }
    }
}

fn steps(row: &DriftRow, now: Time) -> Vec<Step> {
    let step = |name, at, text: String| Step { name, at: Moment::of(at, now), text };
    let mut steps = vec![step("Opened", row.opened_at, String::new())];
    if let Some(acknowledged) = &row.acknowledged {
        let text = match &acknowledged.note {
            Some(note) => format!("by {}: {note}", acknowledged.by),
            None => format!("by {}", acknowledged.by),
        };
        steps.push(step("Acknowledged", acknowledged.at, text));
    }
    let is_own = |at: Time| at != row.opened_at && Some(at) != row.resolved_at;
    if is_own(row.updated_at) && row.acknowledged.as_ref().is_none_or(|acknowledged| acknowledged.at != row.updated_at) {
        steps.push(step("Updated", row.updated_at, "departs in another way, or is explained now".to_owned()));
    }
    if let Some(resolved_at) = row.resolved_at {
        let text = row.resolved_by.map(|position| format!("by change {}", position.0)).unwrap_or_default();
        steps.push(step("Resolved", resolved_at, text));
    }
    steps.sort_by_key(|step| step.at.millis);
    steps
}

impl Who {
    fn of(by: Option<&Actor>) -> Self {
        let (summary, certainty) = actor(by);
        let meaning = match by.map(|actor| actor.certainty) {
            Some(Certainty::Exact) => "the kernel told it in one piece with the change",
            Some(Certainty::Strong) => "the kernel named the process, which was read while alive",
            Some(Certainty::Correlated) => "only time and object agree",
            Some(Certainty::Unknown) | None => "no source says who did it",
        };
        let (mut facts, mut tree) = (Vec::new(), Vec::new());
        if let Some(actor) = by {
            facts = described(actor);
            tree = actor.parents.iter().rev().map(|process| ProcessView::of(process, false)).collect();
            tree.extend(actor.process.iter().map(|process| ProcessView::of(process, true)));
        }
        Self { summary, certainty, meaning, facts, tree }
    }
}

fn described(actor: &Actor) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(user) = &actor.user {
        let name = |name: &Option<String>, uid: u32| name.as_ref().map_or_else(|| format!("uid {uid}"), |name| format!("{name} ({uid})"));
        facts.push(("User", name(&user.name, user.uid)));
        if let Some(uid) = user.login_uid {
            facts.push(("Logged in as", name(&user.login_name, uid)));
        }
    }
    if let Some(session) = &actor.session {
        facts.push(("Session", format!("{} ({}, {})", session.summary(), session.id, session.certainty)));
        facts.extend(session.began_at.map(|at| ("Logged in at", Moment::of(at, at).plain())));
    }
    if let Some(sudo) = &actor.sudo {
        facts.push(("Through sudo", format!("{} ({})", sudo.summary(), sudo.certainty)));
    }
    let mut add = |name, value: &Option<String>| facts.extend(value.clone().map(|value| (name, value)));
    add("Unit", &actor.unit);
    add("Slice", &actor.slice);
    if let Some(container) = &actor.container {
        add("Container", &Some(format!("{} ({})", container.id, container.certainty)));
        add("Image", &container.image);
    }
    if let Some(process) = &actor.process {
        add("Script", &process.script);
        add("In folder", &process.cwd);
        add("Executable's SHA-256", &process.sha256.map(|digest| digest.to_string()));
    }
    add("Limits", &actor.reason);
    if !actor.via.is_empty() {
        facts.push(("Told by", actor.via.join(", ")));
    }
    facts
}

impl ProcessView {
    fn of(process: &Process, acting: bool) -> Self {
        let line = match (process.argv.is_empty(), &process.exe) {
            (false, _) => process.argv.join(" "),
            (true, Some(exe)) => exe.clone(),
            (true, None) => "process".to_owned(),
        };
        let exe = process.exe.clone().filter(|exe| !line.starts_with(exe.as_str()));
        Self { line, pid: process.pid, exe, acting }
    }
}

impl ChangeView {
    fn of(row: ChangeRow, now: Time) -> Self {
        let change = row.change;
        let text = |value: Option<Value>| value.map(|value| value.to_string());
        Self {
            id: row.position.0,
            kind: change.kind.name(),
            after: Moment::of(change.observed_after, now),
            at: Moment::of(change.observed_at, now),
            fields: change.fields.into_iter().map(|field| (field.name.to_string(), text(field.before), text(field.after))).collect(),
            transactions: change
                .transaction
                .iter()
                .flat_map(Transaction::outwards)
                .map(|run| format!("{} ({}, {})", run.summary(), run.id, run.certainty))
                .collect(),
            shipped_by: change.shipped_by.map(|package| package.to_string()),
            candidates: change.candidates.offered.iter().map(|candidate| candidate.line(|at| Moment::of(at, now).plain())).collect(),
            more_candidates: change.candidates.more,
            lines: change.lines.map(LinesView::of),
        }
    }
}

impl LinesView {
    fn of(lines: Lines) -> Self {
        let remark = lines.remark();
        let line = |line: Line| LineView { side: line.side.name(), sign: line.side.sign(), number: line.number, text: line.text };
        Self { told: lines.told.into_iter().map(line).collect(), remark }
    }
}

#[derive(Deserialize)]
struct AcknowledgeForm {
    #[serde(default)]
    note: String,
}

async fn acknowledge_by_form(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let Ok(Form(form)) = Form::<AcknowledgeForm>::from_request(request, &()).await else {
        return Err(Problem::bad_request("the form has one field, the note"));
    };
    let row = acknowledge(&api, &caller, &id, Some(form.note)).await?;
    Ok(Redirect::to(&format!("/drift/{}", row.id)).into_response())
}
