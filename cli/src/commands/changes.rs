//! `trueline changes`: what changed, when and by whom.

use clap::{Args, Subcommand};
use trueline_drift::{Actor, Time};

use super::{Filters, Session};
use crate::age::{age, moment, moment_and_age, now, parse_moment};
use crate::api::Query;
use crate::failure::Failure;
use crate::listing::{Listing, Paging, list};
use crate::screen::Tone;
use crate::shape::{self, Change};
use crate::table::{Cell, Column, Fit, Sheet, Table};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Changes, newest first
    List(Selection),
    /// One change: every field, the actor with its parents, the reasons of its verdict
    Show {
        /// A number from `trueline changes list`
        #[arg(value_parser = id)]
        id: u64,
    },
}

#[derive(Debug, Args)]
pub struct Selection {
    #[command(flatten)]
    filters: Filters,
    /// Received at or after: a time (RFC 3339), or 15m for fifteen minutes ago
    #[arg(long, value_parser = parse_moment)]
    since: Option<Time>,
    /// Received before: a time (RFC 3339), or 15m for fifteen minutes ago
    #[arg(long, value_parser = parse_moment)]
    until: Option<Time>,
    #[command(flatten)]
    paging: Paging,
}

pub async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(selection) => {
            let query = selection.filters.query().with("since", selection.since).with("until", selection.until);
            list(session, &["changes"], query, &selection.paging, listing()).await.map(|_| ())
        }
        Verb::Show { id } => {
            let value = session.api.get(&["changes", &id.to_string()], &Query::default()).await?;
            show(session, &value)
        }
    }
}

fn id(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a change's id is a number: the first column of `trueline changes list`".to_owned())
}

fn listing() -> Listing<Change> {
    let columns = vec![
        Column::number("ID"),
        Column::new("AGE", Fit::Whole),
        Column::new("HOST", Fit::Middle),
        Column::new("ITEM", Fit::Key),
        Column::new("BEFORE → AFTER", Fit::End),
        Column::new("BY", Fit::End),
        Column::new("VERDICT", Fit::Whole),
    ];
    Listing { columns, row: Box::new(row), nothing: "No changes." }
}

fn row(change: &Change, now: Time) -> Vec<Cell> {
    let verdict = change.verdict.as_deref().unwrap_or("unjudged");
    let transition = shape::transition(change).into_iter().fold(Cell::new(""), |cell, (tone, text)| cell.then(tone, &text));
    vec![
        Cell::new(&change.id.to_string()),
        Cell::new(&age(change.observed_at, now)),
        Cell::new(&change.host_name),
        Cell::toned(Tone::Heading, &change.item.to_string()),
        transition,
        Cell::toned(Tone::Actor, &change.actor.summary()),
        Cell::toned(Tone::of_verdict(verdict), &verdict.replace('_', " ")),
    ]
}

fn show(session: &Session, value: &serde_json::Value) -> Result<(), Failure> {
    let screen = session.screen;
    if screen.is_json() {
        return Ok(screen.document(value)?);
    }
    let change: Change = shape::read(value)?;
    let now = now();
    let mut sheet = Sheet::default();
    sheet.toned("change", Tone::Heading, &format!("{} · {} {}", change.id, change.item, change.kind));
    sheet.row("host", &change.host_name);
    sheet.row("seen", &moment_and_age(change.observed_at, now));
    sheet.row("happened after", &moment(change.observed_after));
    sheet.row("received", &moment(change.received_at));
    if change.cause == "rescan" {
        sheet.row("found by", "a scan, not by an event: the time it happened is only bounded");
    }
    match change.verdict.as_deref() {
        Some(verdict) => sheet.toned("verdict", Tone::of_verdict(verdict), &verdict.replace('_', " ")),
        None => sheet.row("verdict", "not judged yet"),
    }
    for reason in &change.reasons {
        sheet.row("because", reason);
    }
    sheet.maybe("transaction", change.transaction.as_deref());
    describe(&mut sheet, &change.actor);
    screen.raw(&sheet.text(screen.paint, screen.width))?;
    screen.line("")?;
    let columns = vec![Column::new("FIELD", Fit::End), Column::new("BEFORE", Fit::End), Column::new("AFTER", Fit::End)];
    let text = |value: &Option<trueline_drift::Value>| value.as_ref().map_or_else(|| "–".to_owned(), ToString::to_string);
    let rows: Vec<Vec<Cell>> = change
        .fields
        .iter()
        .map(|field| {
            vec![
                Cell::new(field.name.as_str()),
                Cell::toned(Tone::Before, &text(&field.before)),
                Cell::toned(Tone::After, &text(&field.after)),
            ]
        })
        .collect();
    Ok(screen.raw(&Table::new(columns).page(&rows, screen.paint, screen.width))?)
}

/// Who it was, and how sure that is.
pub fn describe(sheet: &mut Sheet, actor: &Actor) {
    sheet.toned("actor", Tone::Actor, &actor.summary());
    let via = if actor.via.is_empty() { String::new() } else { format!(" (by {})", actor.via.join(", ")) };
    sheet.row("certainty", &format!("{}{via}", actor.certainty));
    if actor.process.is_some() || actor.user.is_some() {
        sheet.maybe("why no surer", actor.reason.as_deref());
    }
    if let Some(process) = &actor.process {
        sheet.maybe("executable", process.exe.as_deref());
        sheet.maybe("folder", process.cwd.as_deref());
    }
    for parent in &actor.parents {
        sheet.row("parent", &parent.summary());
    }
    if let Some(session) = &actor.session {
        let origin = session.origin.as_ref().map(|origin| format!(" from {origin}")).unwrap_or_default();
        sheet.row("session", &format!("{}{origin}", session.id));
    }
    sheet.maybe("sudo", actor.sudo.as_deref());
    sheet.maybe("unit", actor.unit.as_deref());
    sheet.maybe("container", actor.container.as_deref());
}
