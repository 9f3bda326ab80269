//! `trueline coverage`: intervals in which changes may have been missed, and what was done.

use clap::Subcommand;
use trueline_drift::Time;

use super::Session;
use crate::age::{age, clock};
use crate::api::Query;
use crate::failure::Failure;
use crate::listing::{Listing, Paging, list};
use crate::screen::Tone;
use crate::shape::Gap;
use crate::table::{Cell, Column, Fit};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Coverage gaps, newest first
    List {
        /// Of this host, by name or id
        #[arg(long)]
        host: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
}

pub async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    let Verb::List { host, paging } = verb;
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
    let listing = Listing { columns, row, nothing: "No coverage gaps: nothing can have been missed." };
    list(session, &["coverage"], Query::default().with("host", host), &paging, listing).await.map(|_| ())
}

fn row(gap: &Gap, now: Time) -> Vec<Cell> {
    vec![
        Cell::new(&age(gap.began_at, now)),
        Cell::new(&gap.host_name),
        Cell::toned(Tone::Heading, &gap.scope),
        Cell::new(&clock(gap.began_at)),
        gap.ended_at.map_or_else(|| Cell::toned(Tone::Notable, "open"), |at| Cell::new(&clock(at))),
        Cell::new(&gap.lost.map_or_else(|| "?".to_owned(), |lost| lost.to_string())),
        Cell::new(&gap.reason),
        Cell::new(gap.remedy.as_deref().unwrap_or("")),
    ]
}
