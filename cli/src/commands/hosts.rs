//! `trueline hosts`: what is enrolled, how it is doing, and taking it away.

use clap::Subcommand;
use serde_json::json;
use trueline_drift::Time;

use super::Session;
use crate::age::{age, moment, moment_and_age, now};
use crate::api::Query;
use crate::counted::counted;
use crate::failure::Failure;
use crate::listing::{Listing, Paging, list};
use crate::screen::Tone;
use crate::shape::{self, Host, Sensor};
use crate::table::{Cell, Column, Fit, Sheet, Table};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Every host, with its state
    List(Paging),
    /// One host: facts, sensors, troubles
    Show {
        /// Name or id
        host: String,
    },
    /// Take away a host's certificates and end its stream at once
    Revoke {
        /// Name or id
        host: String,
    },
    /// Ask a connected host to read a scope again now
    Scan {
        /// Name or id
        host: String,
        /// `*` for everything, or kind:prefix, as in file:/etc
        #[arg(long, default_value = "*")]
        scope: String,
    },
}

pub async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(paging) => {
            let listing = Listing {
                columns: columns(),
                row: Box::new(row),
                nothing: "No host is enrolled yet: `trueline tokens create --kind join` begins it.",
            };
            list(session, &["hosts"], Query::default(), &paging, listing).await.map(|_| ())
        }
        Verb::Show { host } => show(session, &host).await,
        Verb::Revoke { host } => revoke(session, &host).await,
        Verb::Scan { host, scope } => scan(session, &host, &scope).await,
    }
}

fn columns() -> Vec<Column> {
    vec![
        Column::new("HOST", Fit::Middle),
        Column::new("STATE", Fit::Whole),
        Column::number("ITEMS"),
        Column::number("DRIFT"),
        Column::new("BASELINE", Fit::End),
        Column::new("OS", Fit::End),
        Column::new("AGENT", Fit::End),
        Column::new("SEEN", Fit::Whole),
    ]
}

fn state_tone(state: &str) -> Tone {
    match state {
        "connected" => Tone::Good,
        "new" => Tone::Plain,
        "silent" => Tone::Notable,
        _ => Tone::Critical,
    }
}

fn drift_tone(count: u64) -> Tone {
    if count > 0 { Tone::Notable } else { Tone::Plain }
}

/// What is open, and what is folded under it.
fn drifts(host: &Host) -> Cell {
    let open = Cell::toned(drift_tone(host.open_drifts), &host.open_drifts.to_string());
    if host.folded_drifts == 0 { open } else { open.then(Tone::Dim, &format!(" +{}", host.folded_drifts)) }
}

fn row(host: &Host, now: Time) -> Vec<Cell> {
    vec![
        Cell::toned(Tone::Heading, &host.name),
        Cell::toned(state_tone(host.standing()), host.standing()),
        Cell::new(&host.items.to_string()),
        drifts(host),
        Cell::new(&host.baseline.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)),
        Cell::new(host.facts.os.as_deref().unwrap_or("–")),
        Cell::new(host.agent_version.as_deref().unwrap_or("–")),
        Cell::new(&host.last_seen_at.map_or_else(|| "not yet".to_owned(), |seen| age(seen, now))),
    ]
}

/// Most pages of hosts that are asked for.
const PAGES: usize = 20;

/// Every host, of the first ten thousand.
pub async fn all(session: &Session) -> Result<Vec<Host>, Failure> {
    let (mut hosts, mut after) = (Vec::new(), None);
    for _ in 0..PAGES {
        let (_, page) = session.api.page(&["hosts"], &Query::default().with("limit", Some(500)).with("after", after.as_ref())).await?;
        for host in &page.items {
            hosts.push(shape::read(host)?);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(hosts)
}

async fn show(session: &Session, host: &str) -> Result<(), Failure> {
    let value = session.api.get(&["hosts", host], &Query::default()).await?;
    if session.screen.is_json() {
        return Ok(session.screen.document(&value)?);
    }
    let host: Host = shape::read(&value)?;
    let (now, screen) = (now(), session.screen);
    let mut sheet = Sheet::default();
    sheet.toned("host", Tone::Heading, &host.name);
    sheet.row("id", &host.id);
    sheet.toned("state", state_tone(host.standing()), host.standing());
    sheet.maybe("os", host.facts.os.as_deref());
    sheet.maybe("kernel", host.facts.kernel.as_deref());
    sheet.maybe("architecture", host.facts.architecture.as_deref());
    sheet.maybe("agent", host.agent_version.as_deref());
    sheet.row("enrolled", &moment_and_age(host.enrolled_at, now));
    sheet.maybe("last seen", host.last_seen_at.map(|seen| moment_and_age(seen, now)).as_deref());
    sheet.maybe("revoked", host.revoked_at.map(|at| moment_and_age(at, now)).as_deref());
    sheet.maybe("certificate until", host.certificate_expires_at.map(moment).as_deref());
    match host.inventory_completed_at {
        Some(at) => sheet.row("inventory", &format!("{}, whole since {}", counted(host.items, "item"), moment_and_age(at, now))),
        None => sheet.toned("inventory", Tone::Notable, &format!("{} so far, not whole yet", counted(host.items, "item"))),
    }
    sheet.row("records taken in", &host.acknowledged.to_string());
    match &host.baseline {
        None => sheet.row("baseline", "none: nothing can drift"),
        Some(baseline) if host.is_compared() => sheet.row("baseline", &baseline.to_string()),
        Some(baseline) => sheet.toned("baseline", Tone::Notable, &format!("{baseline}, not compared yet")),
    }
    sheet.toned("unresolved drift", drift_tone(host.open_drifts), &host.open_drifts.to_string());
    if host.folded_drifts > 0 {
        sheet.row("folded", &format!("{} more, under packages whose drift stands for their parts", host.folded_drifts));
    }
    for trouble in &host.status.troubles {
        sheet.toned("trouble", Tone::Critical, trouble);
    }
    screen.raw(&sheet.text(screen.paint, screen.width))?;
    if !host.status.sensors.is_empty() {
        screen.line("")?;
        screen.raw(&sensors(session, &host.status.sensors))?;
    }
    Ok(())
}

fn sensors(session: &Session, sensors: &[Sensor]) -> String {
    let columns = vec![
        Column::new("SENSOR", Fit::Whole),
        Column::new("SCOPE", Fit::Middle),
        Column::new("WATCHING", Fit::Whole),
        Column::new("REASON", Fit::End),
    ];
    let rows: Vec<Vec<Cell>> = sensors
        .iter()
        .map(|sensor| {
            let watching = if sensor.watching { Cell::toned(Tone::Good, "yes") } else { Cell::toned(Tone::Notable, "no") };
            vec![Cell::new(&sensor.name), Cell::new(&sensor.scope), watching, Cell::new(sensor.reason.as_deref().unwrap_or(""))]
        })
        .collect();
    Table::new(columns).page(&rows, session.screen.paint, session.screen.width)
}

async fn revoke(session: &Session, host: &str) -> Result<(), Failure> {
    session.api.post(&["hosts", host, "revoke"], &json!({})).await?;
    session
        .screen
        .note(&format!("{host} is revoked: its stream has ended and its certificates are refused. To come back it must enrol anew."));
    Ok(())
}

async fn scan(session: &Session, host: &str, scope: &str) -> Result<(), Failure> {
    let value = session.api.post(&["hosts", host, "scan"], &json!({ "scope": scope })).await?;
    if session.screen.is_json() {
        return Ok(session.screen.document(&value)?);
    }
    session.screen.note(&format!("{host} was asked to read {scope} again; what has changed will show in `trueline changes list`."));
    Ok(())
}
