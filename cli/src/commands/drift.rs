//! `trueline drift`: where hosts depart from their baselines, and that somebody has seen it.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use indicatif::HumanCount;
use serde_json::json;
use trueline_drift::baseline::EXISTS;
use trueline_drift::{ItemId, Time};

use super::{Filters, Session};
use crate::age::{age, moment_and_age, now};
use crate::api::Query;
use crate::counted::counted;
use crate::failure::Failure;
use crate::listing::{Listing, Paging, list_looking};
use crate::screen::Tone;
use crate::shape::{self, Drift};
use crate::table::{Cell, Column, Fit, Sheet};

const UNRESOLVED: &str = "unresolved";

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Drift, newest first; what is unresolved, unless --state says otherwise
    List(Selection),
    /// One drift: what was expected, what is, since when, by whom
    Show {
        /// A number from `trueline drift list`
        #[arg(value_parser = id)]
        id: u64,
    },
    /// Say that you have seen a drift; it stays until it is resolved
    Ack {
        /// A number from `trueline drift list`
        #[arg(value_parser = id)]
        id: u64,
        /// Why, for those who come after
        #[arg(long)]
        note: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct Selection {
    #[command(flatten)]
    filters: Filters,
    /// In this state; unresolved is open or acknowledged
    #[arg(long, default_value = UNRESOLVED, value_parser = ["open", "acknowledged", "resolved", "unresolved", "all"])]
    state: String,
    /// With this severity
    #[arg(long, value_parser = ["info", "warning", "critical"])]
    severity: Option<String>,
    /// What is folded under its package's drift: left out, listed too, or listed alone [default: no; yes beside --item]
    #[arg(long, value_parser = ["no", "yes", "only"])]
    folded: Option<String>,
    /// Only what is folded under this package, as in package:nginx
    #[arg(long, value_name = "PACKAGE", conflicts_with = "folded")]
    folded_under: Option<ItemId>,
    #[command(flatten)]
    paging: Paging,
}

pub async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(selection) => select(session, selection).await,
        Verb::Show { id } => {
            let value = session.api.get(&["drift", &id.to_string()], &Query::default()).await?;
            show(session, &value)
        }
        Verb::Ack { id, note } => {
            let value = session.api.post(&["drift", &id.to_string(), "acknowledge"], &json!({ "note": note })).await?;
            show(session, &value)
        }
    }
}

async fn select(session: &Session, selection: Selection) -> Result<(), Failure> {
    let narrows = selection.filters.narrow_more_than_host() || selection.severity.is_some() || selection.state != UNRESOLVED;
    let query = selection.filters.query().with("state", Some(selection.state)).with("severity", selection.severity);
    let leaves_out = match selection.folded.as_deref() {
        None => selection.filters.item.is_none() && selection.folded_under.is_none(),
        Some(folded) => folded == "no",
    };
    let asked = query.clone().with("folded", selection.folded).with("folded_under", selection.folded_under);
    let mut folds = Folds::default();
    list_looking(session, &["drift"], asked, &selection.paging, listing(), |drift| folds.look(drift)).await?;
    if !leaves_out || session.screen.is_json() {
        return Ok(());
    }
    if narrows {
        // What is left out may be folded under a package that the filters leave out too.
        let (_, page) = session.api.page(&["drift"], &query.with("folded", Some("only")).with("limit", Some(1))).await?;
        if !page.items.is_empty() {
            session.screen.note("There is more, folded under packages: --folded yes");
        }
    } else if let Some(sentence) = folds.sentence() {
        session.screen.note(&sentence);
    }
    Ok(())
}

/// What is folded under the packages of a list.
#[derive(Default)]
pub struct Folds(BTreeMap<(String, ItemId), u64>);

impl Folds {
    /// Each of a package's drifts tells the same.
    pub fn look(&mut self, drift: &Drift) {
        if drift.folds > 0 {
            self.0.insert((drift.host.clone(), drift.item.clone()), drift.folds);
        }
    }

    fn sentence(&self) -> Option<String> {
        let count: u64 = self.0.values().sum();
        let are = if count == 1 { "is" } else { "are" };
        let packages = if self.0.len() == 1 { "a package" } else { "packages" };
        (count > 0).then(|| format!("{} more {are} folded under {packages} listed here: --folded yes", HumanCount(count)))
    }
}

fn id(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a drift's id is a number: the first column of `trueline drift list`".to_owned())
}

pub fn listing() -> Listing<Drift> {
    let columns = vec![
        Column::number("ID"),
        Column::new("AGE", Fit::Whole),
        Column::new("HOST", Fit::Middle),
        Column::new("ITEM", Fit::Key),
        Column::new("FIELD", Fit::End),
        Column::new("EXPECTED → ACTUAL", Fit::End),
        Column::new("BY", Fit::End),
        Column::new("VERDICT", Fit::Whole),
    ];
    Listing { columns, row: Box::new(row), nothing: "No drift." }
}

fn row(drift: &Drift, now: Time) -> Vec<Cell> {
    let (expected, actual) = shape::departure(drift);
    let mut verdict = match drift.state.as_str() {
        "open" => Cell::toned(Tone::of_verdict(&drift.verdict), &drift.verdict),
        "resolved" => Cell::toned(Tone::of_verdict(&drift.verdict), &drift.verdict).then(Tone::Good, ", resolved"),
        _ => Cell::toned(Tone::of_verdict(&drift.verdict), &drift.verdict).then(Tone::Dim, ", seen"),
    };
    if drift.folded_under.is_some() {
        verdict = verdict.then(Tone::Dim, ", folded");
    } else if drift.folds > 0 {
        verdict = verdict.then(Tone::Dim, &format!(", folds {}", HumanCount(drift.folds)));
    }
    vec![
        Cell::new(&drift.id.to_string()),
        Cell::new(&age(drift.opened_at, now)),
        Cell::new(&drift.host_name),
        Cell::toned(Tone::Heading, &drift.item.to_string()),
        Cell::new(&drift.field),
        Cell::toned(Tone::Before, &expected).then(Tone::Dim, " → ").then(Tone::After, &actual),
        Cell::toned(Tone::Actor, &drift.actor.as_ref().map_or_else(|| "–".to_owned(), trueline_drift::Actor::summary)),
        verdict,
    ]
}

fn show(session: &Session, value: &serde_json::Value) -> Result<(), Failure> {
    if session.screen.is_json() {
        return Ok(session.screen.document(value)?);
    }
    let drift: Drift = shape::read(value)?;
    let now = now();
    let whole = |value: &Option<trueline_drift::Value>| value.as_ref().map_or_else(|| "–".to_owned(), ToString::to_string);
    let (expected, actual) =
        if drift.field == EXISTS.as_str() { shape::departure(&drift) } else { (whole(&drift.expected), whole(&drift.actual)) };
    let mut sheet = Sheet::default();
    sheet.toned("drift", Tone::Heading, &format!("{} · {} {}", drift.id, drift.item, drift.field));
    sheet.row("host", &drift.host_name);
    sheet.toned("expected", Tone::Before, &expected);
    sheet.toned("actual", Tone::After, &actual);
    sheet.toned("verdict", Tone::of_verdict(&drift.verdict), &format!("{} ({}, {})", drift.verdict, drift.severity, drift.drift_type));
    for reason in &drift.reasons {
        sheet.row("because", reason);
    }
    sheet.row("state", &drift.state);
    if let Some(package) = &drift.folded_under {
        sheet.row("folded under", &format!("{package}: it is a part of that, whose drift stands for it"));
    }
    if drift.folds > 0 {
        let list = format!("trueline drift list --host {} --folded-under {}", drift.host_name, drift.item);
        sheet.row("folds", &format!("{} of its parts ({list})", counted(drift.folds, "drift")));
    }
    sheet.row("opened", &moment_and_age(drift.opened_at, now));
    if drift.updated_at != drift.opened_at {
        sheet.row("updated", &moment_and_age(drift.updated_at, now));
    }
    if let Some(at) = drift.resolved_at {
        let by = drift.resolved_by.map(|change| format!(", by change {change}")).unwrap_or_default();
        sheet.toned("resolved", Tone::Good, &format!("{}{by}", moment_and_age(at, now)));
    }
    if let Some(seen) = &drift.acknowledged {
        let note = seen.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        sheet.row("acknowledged", &format!("{} by {}{note}", moment_and_age(seen.at, now), seen.by));
    }
    if let Some(actor) = &drift.actor {
        super::changes::describe(&mut sheet, actor);
    }
    super::changes::describe_runs(&mut sheet, drift.transaction.as_ref());
    let label = if drift.updated_at == drift.opened_at { "opened by" } else { "last change" };
    sheet.maybe(label, drift.change.map(|change| format!("{change} (trueline changes show {change})")).as_deref());
    Ok(session.screen.raw(&sheet.text(session.screen.paint, session.screen.width))?)
}
