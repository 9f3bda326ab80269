//! `trueline sessions`: who was logged in where, and what they became through su and sudo.

use clap::{Args, Subcommand};
use trueline_drift::{ItemKind, Time};

use super::Session;
use super::told::{self, Asked, Told};
use crate::age::{moment, now};
use crate::failure::Failure;
use crate::screen::Tone;
use crate::table::{Cell, Column, Fit, Table};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Sessions of the last day, newest first; what one changed: `trueline changes list --session ID`
    List(Selection),
}

#[derive(Debug, Args)]
pub struct Selection {
    #[command(flatten)]
    asked: Asked,
    /// Only those that have not ended
    #[arg(long)]
    open: bool,
}

pub async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(selection) => list(session, selection).await,
    }
}

async fn list(session: &Session, selection: Selection) -> Result<(), Failure> {
    let mut told = told::all(session, &selection.asked, ItemKind::Session, None).await?;
    told.retain(|told| !selection.open || told.is_open());
    let screen = session.screen;
    if screen.is_json() {
        return Ok(screen.document(&told::document(told))?);
    }
    if told.is_empty() {
        screen.note("No sessions. `trueline hosts show HOST` says whether a host tells of them.");
        return Ok(());
    }
    let now = now();
    let rows: Vec<Vec<Cell>> = told.iter().map(|told| row(told, now)).collect();
    Ok(screen.raw(&Table::new(columns()).page(&rows, screen.paint, screen.width))?)
}

fn columns() -> Vec<Column> {
    vec![
        Column::new("BEGAN", Fit::Whole),
        Column::new("ENDED", Fit::Whole),
        Column::new("HOST", Fit::Middle),
        Column::new("TYPE", Fit::Whole),
        Column::new("USER", Fit::Middle),
        Column::new("FROM", Fit::End),
        Column::new("SESSION", Fit::Key),
        Column::new("COMMAND", Fit::End),
    ]
}

fn row(told: &Told, now: Time) -> Vec<Cell> {
    let text = |name: &str| told.field(name);
    let kind = text("type").unwrap_or_default();
    let user = match (text("user"), text("as_user")) {
        (Some(user), Some(as_user)) => format!("{user} as {as_user}"),
        (None, Some(as_user)) => format!("as {as_user}"),
        (user, None) => user.unwrap_or_else(|| "–".to_owned()),
    };
    vec![
        Cell::new(&told.time("began_at").map_or_else(|| "–".to_owned(), moment)),
        told.ended(now),
        Cell::new(&told.host),
        Cell::new(&format!("{}{kind}", told.perhaps())),
        Cell::toned(Tone::Actor, &user),
        Cell::new(text("origin").as_deref().unwrap_or("–")),
        Cell::toned(Tone::Heading, told.key()),
        Cell::new(text("command").as_deref().unwrap_or("")),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::screen::Paint;
    use crate::shape;

    #[test]
    fn a_login_and_what_it_became_through_sudo_are_two_lines() {
        let told = |key: &str, fields: Value| {
            let value = json!({ "item": format!("session:{key}"), "fields": fields });
            Told { host: "web1".to_owned(), item: shape::read(&value).unwrap(), value }
        };
        let rows = [
            told(
                "3f2a9c01d4e7-42/sudo-812-1795367151",
                json!({
                    "type": "sudo", "certainty": "correlated", "user": "alice", "as_user": "root", "command": "apt-get install nginx",
                    "began_at": "2026-02-12T10:30:01.000000Z", "ended_at": "2026-02-12T10:31:00.000000Z", "within": "3f2a9c01d4e7-42"
                }),
            ),
            told(
                "3f2a9c01d4e7-42",
                json!({
                    "type": "ssh", "certainty": "strong", "user": "alice", "origin": "10.0.4.17 port 51022",
                    "began_at": "2026-02-12T10:30:00.000000Z"
                }),
            ),
        ];
        let now = "2026-02-12T10:32:00Z".parse().unwrap();
        let rows: Vec<Vec<Cell>> = rows.iter().map(|told| row(told, now)).collect();
        insta::assert_snapshot!(Table::new(columns()).page(&rows, Paint::PLAIN, None), @r"
        BEGAN                 ENDED  HOST  TYPE          USER           FROM                  SESSION                              COMMAND
        2026-02-12 10:30:01Z  1m     web1  perhaps sudo  alice as root  –                     3f2a9c01d4e7-42/sudo-812-1795367151  apt-get install nginx
        2026-02-12 10:30:00Z  open   web1  ssh           alice          10.0.4.17 port 51022  3f2a9c01d4e7-42
        ");
    }
}
