//! `trueline coverage`: intervals in which changes may have been missed, what was done, and what a host's sensors tell of.

use clap::Subcommand;
use trueline_drift::{OperationCoverage, Time};

use super::Session;
use crate::age::{age, clock};
use crate::api::Query;
use crate::counted::counted;
use crate::failure::Failure;
use crate::listing::{Listing, Paging, list};
use crate::screen::Tone;
use crate::shape::{self, Gap, Host};
use crate::table::{Cell, Column, Fit, Table, visible};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Coverage gaps, newest first
    ///
    /// LOST is how many events are known to be lost; it is blank where the kernel does not say. DONE is what was done
    /// about the gap.
    List {
        /// Of this host, by name or id
        #[arg(long)]
        host: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// What a host's sensors tell of each operation, as its agent last said
    ///
    /// ACTOR is the surest that whoever did it can be; `no event` where none tells of the operation, so that reading
    /// again alone finds what it changed.
    Show {
        /// Name or id
        host: String,
    },
}

pub async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List { host, paging } => gaps(session, host, paging).await,
        Verb::Show { host } => show(session, &host).await,
    }
}

async fn show(session: &Session, host: &str) -> Result<(), Failure> {
    let value = session.api.get(&["hosts", host, "coverage"], &Query::default()).await?;
    if session.screen.is_json() {
        return Ok(session.screen.document(&value)?);
    }
    let rows: Vec<OperationCoverage> = shape::read(&value["operations"])?;
    if rows.is_empty() {
        session.screen.note("Its agent does not say: it has not connected yet, or it is of an older version.");
        return Ok(());
    }
    let columns = vec![Column::new("OPERATION", Fit::Whole), Column::new("ACTOR", Fit::Whole), Column::new("WHY NO SURER", Fit::End)];
    let cells = |row: &OperationCoverage| {
        let actor = row.actor.map_or_else(|| Cell::toned(Tone::Notable, "no event"), |actor| Cell::new(actor.name()));
        vec![Cell::toned(Tone::Heading, row.operation.name()), actor, Cell::new(row.reason.as_deref().unwrap_or(""))]
    };
    let rows: Vec<Vec<Cell>> = rows.iter().map(cells).collect();
    Ok(session.screen.raw(&Table::new(columns).page(&rows, session.screen.paint, session.screen.width))?)
}

async fn gaps(session: &Session, host: Option<String>, paging: Paging) -> Result<(), Failure> {
    let columns = vec![
        Column::new("AGE", Fit::Whole),
        Column::new("HOST", Fit::Middle),
        Column::new("SCOPE", Fit::Middle),
        Column::new("FROM", Fit::Whole),
        Column::new("UNTIL", Fit::Whole),
        Column::number("LOST"),
        Column::new("REASON", Fit::End),
        Column::new("DONE", Fit::End),
    ];
    let listing = Listing { columns, row: Box::new(row), nothing: "No coverage gaps recorded." };
    let count = list(session, &["coverage"], Query::default().with("host", host.as_ref()), &paging, listing).await?;
    if count == 0 && !session.screen.is_json() {
        tell_blind(session, host.as_deref()).await?;
    }
    Ok(())
}

/// Where a sensor does not watch there need be no gap for a change to be missed.
async fn tell_blind(session: &Session, host: Option<&str>) -> Result<(), Failure> {
    let hosts: Vec<Host> = match host {
        Some(host) => vec![shape::read(&session.api.get(&["hosts", host], &Query::default()).await?)?],
        None => super::hosts::all(session).await?,
    };
    for host in hosts {
        let blind = host.status.sensors.iter().filter(|sensor| sensor.is_blind()).count();
        if blind > 0 {
            let scopes = counted(blind as u64, "scope");
            let line = format!("On {} the sensors do not watch {scopes}; see `trueline hosts show {}`.", host.name, host.name);
            session.screen.note(&visible(&line));
        }
    }
    Ok(())
}

fn row(gap: &Gap, now: Time) -> Vec<Cell> {
    vec![
        Cell::new(&age(gap.began_at, now)),
        Cell::new(&gap.host_name),
        Cell::toned(Tone::Heading, &gap.scope),
        Cell::new(&clock(gap.began_at)),
        gap.ended_at.map_or_else(|| Cell::toned(Tone::Notable, "open"), |at| Cell::new(&clock(at))),
        Cell::new(&gap.lost.map_or_else(String::new, |lost| lost.to_string())),
        Cell::new(&gap.reason),
        Cell::new(gap.remedy.as_deref().unwrap_or("")),
    ]
}
