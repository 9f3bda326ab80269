//! `trueline baseline`: desired states, captured from a host or written as YAML.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};
use trueline_drift::Time;
use trueline_drift::baseline::BaselineDocument;

use super::Session;
use crate::age::age;
use crate::api::Query;
use crate::failure::Failure;
use crate::listing::{Listing, Paging, list};
use crate::screen::{Screen, Tone};
use crate::shape::{self, Baseline, Host};
use crate::table::{Cell, Column, Fit};

/// The collector's own bound on a written baseline, in bytes.
const DOCUMENT_LIMIT: u64 = 16 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Take a host's present state as a new version of a baseline
    Capture {
        /// Name or id
        host: String,
        /// The baseline's name; the host's where not given
        #[arg(long)]
        name: Option<String>,
        /// Hold the host against it at once (the default)
        #[arg(long, overrides_with = "no_assign")]
        assign: bool,
        /// Only keep it
        #[arg(long)]
        no_assign: bool,
    },
    /// Every baseline, each version by itself, newest first
    List(Paging),
    /// Send a YAML baseline to the collector as a new version
    Apply {
        file: PathBuf,
        /// Hold this host against it
        #[arg(long)]
        host: Option<String>,
    },
    /// Check a YAML baseline without a collector
    Lint { file: PathBuf },
}

/// Needs no collector.
pub fn lint(file: &Path, screen: Screen) -> Result<(), Failure> {
    let (_, document) = read(file)?;
    let sentence = format!(
        "{}: baseline {}, {} items, {} closed scopes: fine",
        file.display(),
        document.name,
        document.items.len(),
        document.closed.len()
    );
    if screen.is_json() {
        let counts = json!({ "name": document.name, "items": document.items.len(), "closed": document.closed.len() });
        return Ok(screen.document(&counts)?);
    }
    Ok(screen.line(&screen.paint.text(Tone::Good, &crate::table::visible(&sentence)))?)
}

pub async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Lint { file } => lint(&file, session.screen),
        Verb::List(paging) => list(session, &["baselines"], Query::default(), &paging, listing()).await.map(|_| ()),
        Verb::Capture { host, name, assign: _, no_assign } => {
            let host: Host = shape::read(&session.api.get(&["hosts", &host], &Query::default()).await?)?;
            let name = name.unwrap_or_else(|| baseline_name(&host.name));
            let value =
                session.api.post(&["baselines", "capture"], &json!({ "host": host.id, "name": name, "assign": !no_assign })).await?;
            tell(session, &value, if no_assign { None } else { Some(&host.name) })
        }
        Verb::Apply { file, host } => {
            let (text, _) = read(&file)?;
            let value = session.api.post_yaml(&["baselines"], text).await?;
            if let Some(host) = &host {
                session.api.post(&["hosts", host, "baseline"], &json!({ "baseline": value["id"] })).await?;
            }
            tell(session, &value, host.as_deref())
        }
    }
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
    let sentence = format!("Baseline {} v{} has {} items{held}.", baseline.name, baseline.version, baseline.items);
    Ok(session.screen.line(&crate::table::visible(&sentence))?)
}

fn read(file: &Path) -> Result<(String, BaselineDocument), Failure> {
    let name = file.display().to_string();
    let fail = |error: std::io::Error| Failure::Usage(format!("cannot read {name}: {error}"));
    let mut text = String::new();
    let open = std::fs::File::open(file).map_err(fail)?;
    open.take(DOCUMENT_LIMIT + 1).read_to_string(&mut text).map_err(fail)?;
    if text.len() as u64 > DOCUMENT_LIMIT {
        return Err(Failure::Refused(format!("{name} has more than {DOCUMENT_LIMIT} bytes, the limit of a written baseline")));
    }
    let document = BaselineDocument::parse(&name, &text).map_err(|error| Failure::Refused(error.to_string()))?;
    Ok((text, document))
}

fn listing() -> Listing<Baseline> {
    let columns = vec![
        Column::number("ID"),
        Column::new("BASELINE", Fit::Middle),
        Column::new("ORIGIN", Fit::Whole),
        Column::number("ITEMS"),
        Column::number("HOSTS"),
        Column::new("AGE", Fit::Whole),
        Column::new("BY", Fit::End),
    ];
    Listing { columns, row, nothing: "No baseline yet: `trueline baseline capture HOST` takes a host's present state as one." }
}

fn row(baseline: &Baseline, now: Time) -> Vec<Cell> {
    vec![
        Cell::new(&baseline.id.to_string()),
        Cell::toned(Tone::Heading, &format!("{} v{}", baseline.name, baseline.version)),
        Cell::new(&baseline.origin),
        Cell::new(&baseline.items.to_string()),
        Cell::new(&baseline.hosts.to_string()),
        Cell::new(&age(baseline.created_at, now)),
        Cell::new(&baseline.created_by),
    ]
}
