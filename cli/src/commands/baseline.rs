//! `trueline baseline`: desired states, captured from a host or written as YAML.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Map, Value, json};
use trueline_drift::Time;
use trueline_drift::baseline::BaselineDocument;
use trueline_drift::document::BASELINE_LIMIT;

use super::Session;
use crate::age::age;
use crate::api::Query;
use crate::counted::counted;
use crate::failure::Failure;
use crate::listing::{Listing, Paging, list};
use crate::screen::{Screen, Tone};
use crate::shape::{self, Baseline, BaselineName, Host};
use crate::table::{Cell, Column, Fit, lines_visible, visible};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Take a host's present state as a new version of a baseline
    Capture {
        /// Name or id
        host: String,
        /// The baseline's name [default: the host's]
        #[arg(long)]
        name: Option<String>,
        /// Hold the host against it at once (the default)
        #[arg(long, overrides_with = "no_assign")]
        assign: bool,
        /// Only keep it
        #[arg(long)]
        no_assign: bool,
    },
    /// Every baseline, each version by itself, newest first, with the hosts held against it
    List(Paging),
    /// What a baseline holds, as YAML that `apply` takes (or --output json)
    Show {
        /// NAME for its newest version, or NAME@VERSION
        baseline: String,
    },
    /// Send a YAML baseline to the collector as a new version
    Apply {
        /// The document
        file: PathBuf,
        /// Hold this host against it
        #[arg(long)]
        host: Option<String>,
    },
    /// Hold a host against an older version of its baseline
    Rollback {
        /// Name or id
        host: String,
        /// The version [default: the one before the present one]
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
        to: Option<u64>,
    },
    /// Check a YAML baseline without a collector
    Lint {
        /// The document
        file: PathBuf,
    },
}

/// Needs no collector.
pub fn lint(file: &Path, screen: Screen) -> Result<(), Failure> {
    let (_, document) = read(file)?;
    let sentence = format!(
        "{}: baseline {}, {}, {}: fine",
        file.display(),
        document.name,
        counted(document.items.len() as u64, "item"),
        counted(document.closed.len() as u64, "closed scope")
    );
    if screen.is_json() {
        let counts = json!({ "name": document.name, "items": document.items.len(), "closed": document.closed.len() });
        return Ok(screen.document(&counts)?);
    }
    Ok(screen.line(&screen.paint.text(Tone::Good, &visible(&sentence)))?)
}

pub async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Lint { file } => lint(&file, session.screen),
        Verb::List(paging) => {
            let hosts = if session.screen.is_json() { Vec::new() } else { super::hosts::all(session).await? };
            list(session, &["baselines"], Query::default(), &paging, listing(hosts)).await.map(|_| ())
        }
        Verb::Show { baseline } => show(session, &baseline).await,
        Verb::Rollback { host, to } => roll_back(session, &host, to).await,
        Verb::Capture { host, name, assign: _, no_assign } => {
            let host: Host = shape::read(&session.api.get(&["hosts", &host], &Query::default()).await?)?;
            let name = name.unwrap_or_else(|| baseline_name(&host.name));
            let value =
                session.api.post(&["baselines", "capture"], &json!({ "host": host.id, "name": name, "assign": !no_assign })).await?;
            tell(session, &value, if no_assign { None } else { Some(&host.name) })
        }
        Verb::Apply { file, host } => {
            let (text, _) = read(&file)?;
            // Found first: a version that no host is held against would otherwise stay behind.
            let host: Option<Host> = match &host {
                Some(host) => Some(shape::read(&session.api.get(&["hosts", host], &Query::default()).await?)?),
                None => None,
            };
            let value = session.api.post_yaml(&["baselines"], text).await?;
            if let Some(host) = &host {
                session.api.post(&["hosts", &host.id, "baseline"], &json!({ "baseline": value["id"] })).await?;
            }
            tell(session, &value, host.as_ref().map(|host| host.name.as_str()))?;
            match &host {
                Some(host) if host.inventory_completed_at.is_some() => warn_of_unwatched(session, &value, host).await,
                _ => Ok(()),
            }
        }
    }
}

/// Most items that are not watched told by name.
const UNWATCHED_TOLD: usize = 10;

async fn warn_of_unwatched(session: &Session, baseline: &Value, host: &Host) -> Result<(), Failure> {
    let (id, query) = (baseline["id"].to_string(), Query::default().with("host", Some(&host.id)));
    let (_, page) = session.api.page(&["baselines", &id, "unwatched"], &query).await?;
    for item in page.items.iter().take(UNWATCHED_TOLD) {
        session.screen.note(&visible(&format!("warning: {} is not watched on {}", item["item"].as_str().unwrap_or_default(), host.name)));
    }
    match page.items.len().saturating_sub(UNWATCHED_TOLD) {
        0 => {}
        more => session.screen.note(&visible(&format!("warning: {} more are not watched on {}", more, host.name))),
    }
    Ok(())
}

async fn show(session: &Session, reference: &str) -> Result<(), Failure> {
    let mut value = session.api.get(&["baselines", reference], &Query::default()).await?;
    let baseline: Baseline = shape::read(&value)?;
    // By its id from here on: a newer version may come meanwhile.
    let id = baseline.id.to_string();
    let (mut items, mut after) = (Map::new(), None);
    loop {
        let query = Query::default().with("limit", Some(500)).with("after", after.as_ref());
        let (_, page) = session.api.page(&["baselines", &id, "items"], &query).await?;
        for item in page.items {
            items.insert(item["item"].as_str().unwrap_or_default().to_owned(), item["expected"].clone());
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if session.screen.is_json() {
        value["items"] = Value::Object(items);
        return Ok(session.screen.document(&value)?);
    }
    let document = Written { name: &baseline.name, whole: baseline.whole, closed: &value["closed"], items: &items };
    let origin = format!("# {} v{}, {} by {}", baseline.name, baseline.version, baseline.origin, baseline.created_by);
    session.screen.line(&visible(&origin))?;
    Ok(session.screen.raw(&lines_visible(&trueline_drift::document::to_yaml(&document)))?)
}

/// A baseline in the order in which it is written.
#[derive(serde::Serialize)]
struct Written<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    whole: bool,
    closed: &'a Value,
    items: &'a Map<String, Value>,
}

async fn roll_back(session: &Session, host: &str, to: Option<u64>) -> Result<(), Failure> {
    let host: Host = shape::read(&session.api.get(&["hosts", host], &Query::default()).await?)?;
    let Some(BaselineName { name, version }) = &host.baseline else {
        return Err(Failure::Refused(format!("{} is held against no baseline: there is nothing to go back from", host.name)));
    };
    let to = match to {
        Some(to) if to == *version => return Err(Failure::Refused(format!("{} is held against {name} v{to} already", host.name))),
        Some(to) => to,
        None if *version == 1 => {
            return Err(Failure::Refused(format!("{} is held against {name} v1, the first version: there is none before it", host.name)));
        }
        None => version - 1,
    };
    let value = session.api.post(&["hosts", &host.id, "baseline"], &json!({ "baseline": format!("{name}@{to}") })).await?;
    if session.screen.is_json() {
        return Ok(session.screen.document(&value)?);
    }
    Ok(session.screen.line(&visible(&format!("{} is held against {name} v{to}; it was {name} v{version}.", host.name)))?)
}

/// A host's name as a baseline's: letters, digits, `-`, `_` and `.`.
pub fn baseline_name(host: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = host.chars().map(|c| if fits(c) { c } else { '-' }).take(128).collect();
    if name.is_empty() { "host".to_owned() } else { name }
}

fn tell(session: &Session, value: &Value, host: Option<&str>) -> Result<(), Failure> {
    if session.screen.is_json() {
        return Ok(session.screen.document(value)?);
    }
    let baseline: Baseline = shape::read(value)?;
    let held = host.map(|host| format!("; {host} is held against it")).unwrap_or_default();
    let sentence = format!("Baseline {} v{} has {}{held}.", baseline.name, baseline.version, counted(baseline.items, "item"));
    Ok(session.screen.line(&visible(&sentence))?)
}

fn read(file: &Path) -> Result<(String, BaselineDocument), Failure> {
    let name = file.display().to_string();
    let fail = |error: std::io::Error| Failure::Usage(format!("cannot read {name}: {error}"));
    let mut text = String::new();
    let open = std::fs::File::open(file).map_err(fail)?;
    open.take(BASELINE_LIMIT as u64 + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() > BASELINE_LIMIT {
        return Err(Failure::Refused(format!("{name} has more than {BASELINE_LIMIT} bytes, the limit of a written baseline")));
    }
    let document = BaselineDocument::parse(&name, &text).map_err(|error| Failure::Refused(error.to_string()))?;
    Ok((text, document))
}

/// Most hosts of a baseline told by name.
const HOSTS_TOLD: usize = 3;

fn listing(hosts: Vec<Host>) -> Listing<Baseline> {
    let columns = vec![
        Column::number("ID"),
        Column::new("BASELINE", Fit::Middle),
        Column::new("ORIGIN", Fit::Whole),
        Column::number("ITEMS"),
        Column::new("HOSTS", Fit::End),
        Column::new("AGE", Fit::Whole),
        Column::new("BY", Fit::End),
    ];
    let row = move |baseline: &Baseline, now: Time| row(baseline, &hosts, now);
    Listing {
        columns,
        row: Box::new(row),
        nothing: "No baseline yet: `trueline baseline capture HOST` takes a host's present state as one.",
    }
}

/// `web1, web2, web3 and 4 more`.
fn held(baseline: &Baseline, hosts: &[Host]) -> String {
    let is_held = |host: &&Host| host.revoked_at.is_none() && host.baseline.as_ref().is_some_and(|held| held.is(baseline));
    let names: Vec<&str> = hosts.iter().filter(is_held).take(HOSTS_TOLD).map(|host| host.name.as_str()).collect();
    match baseline.hosts.saturating_sub(names.len() as u64) {
        _ if baseline.hosts == 0 => "–".to_owned(),
        0 => names.join(", "),
        _ if names.is_empty() => baseline.hosts.to_string(),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn row(baseline: &Baseline, hosts: &[Host], now: Time) -> Vec<Cell> {
    vec![
        Cell::new(&baseline.id.to_string()),
        Cell::toned(Tone::Heading, &format!("{} v{}", baseline.name, baseline.version)),
        Cell::new(&baseline.origin),
        Cell::new(&baseline.items.to_string()),
        Cell::new(&held(baseline, hosts)),
        Cell::new(&age(baseline.created_at, now)),
        Cell::new(&baseline.created_by),
    ]
}
