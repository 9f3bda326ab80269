//! `trueline check`: does a host agree with its baseline? Pass, fail, or not known, which is no pass.
//!
//! Invariant: a host passes only by one reading of it that says all at once: no drift, folded or not, and the comparison
//! with its baseline is current.

use std::time::{Duration, Instant};

use clap::Args;
use indicatif::HumanCount;
use serde_json::json;

use super::Session;
use crate::api::Query;
use crate::counted::counted;
use crate::failure::Failure;
use crate::listing::list;
use crate::progress::{Meter, STEP};
use crate::screen::Tone;
use crate::shape::{self, Host};
use crate::table::visible;

/// How long is waited without showing that it is.
const QUIET: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub struct Options {
    /// Name or id
    host: String,
    /// How long a comparison that is under way is waited for
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=3600))]
    wait: u64,
    #[command(flatten)]
    paging: crate::listing::Paging,
}

pub async fn run(session: &Session, options: Options) -> Result<(), Failure> {
    let host = compared(session, &options).await?;
    if let Some(reason) = unknown(&host).or_else(|| pending(&host, options.wait)) {
        let reason = format!("{} cannot be called compliant: {reason}", host.name);
        if session.screen.is_json() {
            unread(session.screen.document(&json!({ "items": [], "unknown": reason })).map_err(Failure::from))?;
        }
        return Err(Failure::Refused(reason));
    }
    let query = Query::default().with("host", Some(&host.id)).with("state", Some("unresolved"));
    let mut listing = super::drift::listing();
    listing.nothing = "";
    let count = match unread(list(session, &["drift"], query, &options.paging, listing).await)? {
        Some(count) => count,
        None if host.open_drifts + host.folded_drifts > 0 => 0,
        None => return Err(Failure::Refused(format!("{} cannot be called compliant: nobody read the whole answer", host.name))),
    };
    if count > 0 || host.open_drifts + host.folded_drifts > 0 {
        let folded = match host.folded_drifts {
            0 => String::new(),
            folded => format!(", and in {} more that are folded under its packages", HumanCount(folded)),
        };
        let fields = counted(host.open_drifts.max(count as u64), "field");
        let sentence = format!("{} departs from its baseline in {fields}{folded}.", host.name);
        session.screen.note(&visible(&sentence));
        return Err(Failure::Drift);
    }
    if !session.screen.is_json() {
        let sentence = format!("{} agrees with {}: {}.", host.name, baseline(&host), counted(host.items, "item"));
        // From here on it has passed, whoever reads it.
        session.screen.line(&session.screen.paint.text(Tone::Good, &visible(&sentence)))?;
    }
    Ok(())
}

/// What came of writing, or nothing where whoever read it has gone: that alone is no failure, and before the verdict it is no
/// pass either.
fn unread<T>(written: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match written {
        Ok(value) => Ok(Some(value)),
        Err(Failure::Closed) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The host, once its comparison is current, or nothing is to be waited for, or the wait is over.
async fn compared(session: &Session, options: &Options) -> Result<Host, Failure> {
    let began = Instant::now();
    let mut meter = None;
    loop {
        let host: Host = shape::read(&session.api.get(&["hosts", &options.host], &Query::default()).await?)?;
        let waited = began.elapsed();
        if host.is_compared() || unknown(&host).is_some() || waited >= Duration::from_secs(options.wait) {
            return Ok(host);
        }
        if waited >= QUIET && meter.is_none() && !session.screen.is_json() {
            meter = Some(Meter::spinner(&visible(&format!("Waiting until {} is compared with {}", host.name, baseline(&host)))));
        }
        tokio::time::sleep(STEP).await;
    }
}

/// Why nothing can be said of the host, however long one waits.
fn unknown(host: &Host) -> Option<String> {
    if host.revoked_at.is_some() {
        Some("it is revoked".to_owned())
    } else if host.has_twin {
        Some(format!(
            "two machines speak as this host, and what is known of it may be the other's; `trueline hosts show {}` says what to do",
            host.name
        ))
    } else if host.baseline.is_none() {
        Some(format!("it has no baseline; `trueline baseline capture {}` takes its present state as one", host.name))
    } else if host.inventory_completed_at.is_none() {
        Some("its first inventory is not complete; try again when it is".to_owned())
    } else if host.state != "connected" {
        Some(format!("it is {}: what is known of it is old", host.state))
    } else {
        None
    }
}

fn pending(host: &Host, waited: u64) -> Option<String> {
    let reason = || {
        format!(
            "after {waited} s its state is still not compared with {}; try again, or wait longer with --wait SECONDS. \
            If it stays so, `trueline hosts show {}` and the collector's /readyz say what holds it up",
            baseline(host),
            host.name
        )
    };
    (!host.is_compared()).then(reason)
}

fn baseline(host: &Host) -> String {
    host.baseline.as_ref().map_or_else(|| "its baseline".to_owned(), |baseline| format!("baseline {baseline}"))
}
