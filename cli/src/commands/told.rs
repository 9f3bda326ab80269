//! Items that are facts of their hosts and no settings: sessions and runs, as the collector tells them.

use clap::Args;
use serde_json::{Value, json};
use trueline_drift::{Fields, ItemId, ItemKind, Time};

use super::{Session, hosts};
use crate::age::age;
use crate::api::Query;
use crate::failure::Failure;
use crate::screen::Tone;
use crate::shape;
use crate::table::Cell;

/// The hosts that are asked.
#[derive(Debug, Args)]
pub struct Asked {
    /// Of this host, by name or id [default: of every host]
    #[arg(long)]
    host: Option<String>,
}

#[derive(Debug, serde::Deserialize)]
pub struct Item {
    pub item: ItemId,
    pub fields: Fields,
}

/// An item of a host, and as the collector told it.
#[derive(Debug)]
pub struct Told {
    pub host: String,
    pub item: Item,
    pub value: Value,
}

impl Told {
    pub fn key(&self) -> &str {
        self.item.item.key.as_str()
    }

    pub fn field(&self, name: &str) -> Option<String> {
        self.item.fields.value(name).map(ToString::to_string)
    }

    pub fn list(&self, name: &str) -> Vec<String> {
        match self.item.fields.value(name) {
            Some(trueline_drift::Value::List(texts)) => texts.clone(),
            Some(value) => vec![value.to_string()],
            None => Vec::new(),
        }
    }

    pub fn time(&self, name: &str) -> Option<Time> {
        self.field(name)?.parse().ok()
    }

    pub fn is_open(&self) -> bool {
        self.field("ended_at").is_none()
    }

    /// A guess must not read like a fact.
    pub fn perhaps(&self) -> &'static str {
        if self.field("certainty").as_deref() == Some("correlated") { "perhaps " } else { "" }
    }

    pub fn ended(&self, now: Time) -> Cell {
        match self.time("ended_at") {
            Some(at) => Cell::new(&age(at, now)),
            None => Cell::toned(Tone::Good, "open"),
        }
    }
}

/// Those of a kind whose key starts with this, the newest first.
pub async fn all(session: &Session, asked: &Asked, kind: ItemKind, prefix: Option<&str>) -> Result<Vec<Told>, Failure> {
    let hosts = match &asked.host {
        Some(host) => vec![shape::read::<shape::Host>(&session.api.get(&["hosts", host], &Query::default()).await?)?],
        None => hosts::all(session).await?,
    };
    let mut told = Vec::new();
    for host in hosts {
        of_host(session, &host, kind, prefix, &mut told).await?;
    }
    told.sort_by_key(|told| std::cmp::Reverse((told.time("began_at"), told.key().to_owned())));
    Ok(told)
}

/// An agent keeps a thousand ended ones of each kind at most.
async fn of_host(session: &Session, host: &shape::Host, kind: ItemKind, prefix: Option<&str>, told: &mut Vec<Told>) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let query = Query::default().with("kind", Some(kind)).with("prefix", prefix).with("limit", Some(500)).with("after", after.as_ref());
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

pub fn document(told: Vec<Told>) -> Value {
    let items: Vec<Value> = told.into_iter().map(|told| told.value).collect();
    json!({ "items": items })
}
