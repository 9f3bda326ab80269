//! `trueline sessions`: who was logged in where, and what they became through su and sudo.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use trueline_drift::{Fields, ItemId, ItemKind, Time};

use super::{Session, hosts};
use crate::age::{age, moment, now};
use crate::api::Query;
use crate::failure::Failure;
use crate::screen::Tone;
use crate::shape;
use crate::table::{Cell, Column, Fit, Table};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Sessions of the last day, newest first; what one changed: `trueline changes list --session ID`
    List(Selection),
}

#[derive(Debug, Args)]
pub struct Selection {
    /// Of this host, by name or id [default: of every host]
    #[arg(long)]
    host: Option<String>,
    /// Only those that have not ended
    #[arg(long)]
    open: bool,
}

#[derive(Debug, serde::Deserialize)]
struct Item {
    item: ItemId,
    fields: Fields,
}

/// A session of a host, and as the collector told it.
struct Told {
    host: String,
    item: Item,
    value: Value,
}

impl Told {
    fn field(&self, name: &str) -> Option<String> {
        self.item.fields.value(name).map(ToString::to_string)
    }

    fn time(&self, name: &str) -> Option<Time> {
        self.field(name)?.parse().ok()
    }
}

pub async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(selection) => list(session, selection).await,
    }
}

async fn list(session: &Session, selection: Selection) -> Result<(), Failure> {
    let hosts = match &selection.host {
        Some(host) => vec![shape::read::<shape::Host>(&session.api.get(&["hosts", host], &Query::default()).await?)?],
        None => hosts::all(session).await?,
    };
    let mut told = Vec::new();
    for host in hosts {
        of_host(session, &host, &mut told).await?;
    }
    told.retain(|told| !selection.open || told.field("ended_at").is_none());
    told.sort_by_key(|told| std::cmp::Reverse((told.time("began_at"), told.item.item.key.as_str().to_owned())));
    let screen = session.screen;
    if screen.is_json() {
        let items: Vec<Value> = told.into_iter().map(|told| told.value).collect();
        return Ok(screen.document(&json!({ "items": items }))?);
    }
    if told.is_empty() {
        screen.note("No sessions. `trueline hosts show HOST` says whether a host tells of them.");
        return Ok(());
    }
    let now = now();
    let rows: Vec<Vec<Cell>> = told.iter().map(|told| row(told, now)).collect();
    Ok(screen.raw(&Table::new(columns()).page(&rows, screen.paint, screen.width))?)
}

/// The agent keeps a thousand ended ones at most.
async fn of_host(session: &Session, host: &shape::Host, told: &mut Vec<Told>) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let query = Query::default().with("kind", Some(ItemKind::Session)).with("limit", Some(500)).with("after", after.as_ref());
        let (_, page) = session.api.page(&["hosts", &host.id, "items"], &query).await?;
        for mut value in page.items {
            let item = shape::read(&value)?;
            if let Some(object) = value.as_object_mut() {
                object.insert("host".to_owned(), json!(host.id));
                object.insert("host_name".to_owned(), json!(host.name));
            }
            told.push(Told { host: host.name.clone(), item, value });
        }
        match page.next {
            Some(next) if Some(&next) != after.as_ref() => after = Some(next),
            _ => return Ok(()),
        }
    }
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
    // A guess must not read like a fact.
    let perhaps = if text("certainty").as_deref() == Some("correlated") { "perhaps " } else { "" };
    let user = match (text("user"), text("as_user")) {
        (Some(user), Some(as_user)) => format!("{user} as {as_user}"),
        (None, Some(as_user)) => format!("as {as_user}"),
        (user, None) => user.unwrap_or_else(|| "–".to_owned()),
    };
    let ended = match told.time("ended_at") {
        Some(at) => Cell::new(&age(at, now)),
        None => Cell::toned(Tone::Good, "open"),
    };
    vec![
        Cell::new(&told.time("began_at").map_or_else(|| "–".to_owned(), moment)),
        ended,
        Cell::new(&told.host),
        Cell::new(&format!("{perhaps}{kind}")),
        Cell::toned(Tone::Actor, &user),
        Cell::new(text("origin").as_deref().unwrap_or("–")),
        Cell::toned(Tone::Heading, told.item.item.key.as_str()),
        Cell::new(text("command").as_deref().unwrap_or("")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::Paint;

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
