//! Cursors of listings: the key of a page's last row, opaque to whoever carries it.
//!
//! A cursor comes back from strangers: one that does not decode, or that belongs to another listing, is
//! refused.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Listed, Page, Result, StoreError};

/// Most rows of a page, whatever was asked for.
const PAGE_LIMIT: u32 = 5000;
/// Longest cursor taken, in bytes.
const CURSOR_LIMIT: usize = 8192;

/// How many rows to fetch: one more than the page holds tells whether another page follows.
pub(crate) fn rows_wanted(page: &Page) -> i64 {
    i64::from(page.limit.clamp(1, PAGE_LIMIT)) + 1
}

pub(crate) fn after<K: DeserializeOwned>(page: &Page, listing: &str) -> Result<Option<K>> {
    let Some(cursor) = &page.after else { return Ok(None) };
    let invalid = || StoreError::Invalid { subject: "cursor", reason: "is not one that this listing gave out".to_owned() };
    if cursor.len() > CURSOR_LIMIT {
        return Err(invalid());
    }
    let bytes = hex::decode(cursor).map_err(|_| invalid())?;
    let (given, key): (String, K) = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
    if given == listing { Ok(Some(key)) } else { Err(invalid()) }
}

pub(crate) fn cursor<K: Serialize>(listing: &str, key: &K) -> String {
    hex::encode(serde_json::to_vec(&(listing, key)).expect("numbers and texts are JSON"))
}

/// Cuts the extra row off and makes the cursor from the last one that stays.
pub(crate) fn listed<T, K: Serialize>(mut items: Vec<T>, page: &Page, listing: &str, key: impl Fn(&T) -> K) -> Listed<T> {
    let limit = rows_wanted(page) as usize - 1;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| cursor(listing, &key(last)));
    Listed { items, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_of_another_listing_or_of_a_stranger_is_refused() {
        let page = |after: &str| Page { limit: 10, after: Some(after.to_owned()) };
        let good = cursor("drift", &7i64);
        assert_eq!(after::<i64>(&page(&good), "drift").unwrap(), Some(7));
        for bad in [cursor("gaps", &7i64), cursor("drift", &"7"), "zz".to_owned(), "0".repeat(4000), String::new()] {
            assert!(matches!(after::<i64>(&page(&bad), "drift"), Err(StoreError::Invalid { .. })), "{bad}");
        }
    }
}
