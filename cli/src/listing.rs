//! Lists: one page, or all of them, as a table or as the JSON that came.

use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use trueline_drift::Time;

use crate::age::now;
use crate::api::{Page, Query};
use crate::commands::Session;
use crate::failure::Failure;
use crate::shape;
use crate::table::{Cell, Column, Table, visible};

/// The collector's own bound on a page.
const LARGEST_PAGE: u32 = 500;

#[derive(Debug, Clone, Args)]
pub struct Paging {
    /// At most this many, 1 to 500 [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(LARGEST_PAGE)))]
    limit: Option<u32>,
    /// What comes after this cursor: `next` of an earlier page
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Every page
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

impl Paging {
    fn query(&self, query: Query, after: Option<&str>) -> Query {
        let limit = if self.all { Some(LARGEST_PAGE) } else { self.limit };
        query.with("limit", limit).with("after", after)
    }
}

/// An object as a row of cells, at a time.
type Row<T> = Box<dyn Fn(&T, Time) -> Vec<Cell> + Send + Sync>;

/// What a list is made of: its columns, and an object as a row of them.
pub struct Listing<T> {
    pub columns: Vec<Column>,
    pub row: Row<T>,
    /// Said where the list is empty; the empty text where the caller says more.
    pub nothing: &'static str,
}

/// Prints the list; returns how many objects there were.
pub async fn list<T>(session: &Session, path: &[&str], query: Query, paging: &Paging, listing: Listing<T>) -> Result<usize, Failure>
where
    T: for<'de> Deserialize<'de>,
{
    list_looking(session, path, query, paging, listing, |_| {}).await
}

/// As [`list`], with a look at each object that becomes a row.
pub async fn list_looking<T>(
    session: &Session,
    path: &[&str],
    query: Query,
    paging: &Paging,
    listing: Listing<T>,
    mut look: impl FnMut(&T),
) -> Result<usize, Failure>
where
    T: for<'de> Deserialize<'de>,
{
    let (mut table, mut count, mut after) = (Table::new(listing.columns), 0, paging.after.clone());
    loop {
        let (value, page) = session.api.page(path, &paging.query(query.clone(), after.as_deref())).await?;
        let next = page.next.clone();
        if session.screen.is_json() {
            print_json(session, paging, value, &page, count == 0)?;
        } else if !page.items.is_empty() {
            let mut rows = Vec::with_capacity(page.items.len());
            for item in &page.items {
                let item = shape::read::<T>(item)?;
                look(&item);
                rows.push((listing.row)(&item, now()));
            }
            session.screen.raw(&table.page(&rows, session.screen.paint, session.screen.width))?;
        }
        count += page.items.len();
        match next {
            Some(next) if paging.all && Some(&next) != after.as_ref() => after = Some(next),
            next => {
                if !session.screen.is_json() && count == 0 {
                    if !listing.nothing.is_empty() {
                        session.screen.note(listing.nothing);
                    }
                } else if let Some(next) = next {
                    session.screen.note(&visible(&format!("There is more: --all, or --after {next}")));
                }
                return Ok(count);
            }
        }
    }
}

/// One page is one document; all of them are one `{items}` that is written as it arrives.
fn print_json(session: &Session, paging: &Paging, value: Value, page: &Page, first: bool) -> Result<(), Failure> {
    if !paging.all {
        return Ok(session.screen.document(&value)?);
    }
    let mut text = String::from(if first { "{\"items\":[" } else { "" });
    for (at, item) in page.items.iter().enumerate() {
        if at > 0 || !first {
            text.push(',');
        }
        text.push('\n');
        text.push_str(&item.to_string());
    }
    if page.next.is_none() {
        text.push_str("\n]}\n");
    }
    Ok(session.screen.raw(&text)?)
}
