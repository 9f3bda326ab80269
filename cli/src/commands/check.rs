//! `trueline check`: does a host agree with its baseline? Pass, fail, or not known, which is no pass.

use clap::Args;
use serde_json::json;

use super::Session;
use crate::api::Query;
use crate::failure::Failure;
use crate::listing::list;
use crate::screen::Tone;
use crate::shape::{self, Host};

#[derive(Debug, Args)]
pub struct Options {
    /// Name or id
    host: String,
    #[command(flatten)]
    paging: crate::listing::Paging,
}

pub async fn run(session: &Session, options: Options) -> Result<(), Failure> {
    let host: Host = shape::read(&session.api.get(&["hosts", &options.host], &Query::default()).await?)?;
    if let Some(reason) = unknown(&host) {
        let reason = format!("{} cannot be called compliant: {reason}", host.name);
        if session.screen.is_json() {
            session.screen.document(&json!({ "items": [], "unknown": reason }))?;
        }
        return Err(Failure::Refused(reason));
    }
    let query = Query::default().with("host", Some(&host.id)).with("state", Some("unresolved"));
    let mut listing = super::drift::listing();
    listing.nothing = "";
    let count = list(session, &["drift"], query, &options.paging, listing).await?;
    if count > 0 || host.open_drifts > 0 {
        session.screen.note(&format!("{} departs from its baseline in {} fields.", host.name, host.open_drifts.max(count as u64)));
        return Err(Failure::Drift);
    }
    let baseline = host.baseline.map_or_else(|| "its baseline".to_owned(), |baseline| format!("baseline {baseline}"));
    let sentence = format!("{} agrees with {baseline}: {} items.", host.name, host.items);
    session.screen.note(&session.screen.paint.text(Tone::Good, &sentence));
    Ok(())
}

/// Why nothing can be said of the host.
fn unknown(host: &Host) -> Option<String> {
    if host.revoked_at.is_some() {
        Some("it is revoked".to_owned())
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
