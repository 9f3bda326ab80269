//! The lines of files that are told by them, kept beside the items: what the next reading of one is compared with.
//!
//! Invariants: no secret stands here, lines come masked; lines are those of one digest of contents and count for nothing where the
//! item has another, as after a replay; a row goes with its item.

use redb::{ReadableDatabase, Table, TableDefinition, WriteTransaction};
use trueline_drift::{Fields, ItemId, Value};

use super::{State, StateError, Stored, encoding};
use crate::collect::Lines;

/// The key is the item's; the row is compressed: the digest and the lines, each with its end.
const TEXTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("texts");
const DIGEST: &str = "sha256";
const LEVEL: i32 = 3;
/// Of one row: more than a reading yields.
const ROW_LIMIT: usize = 4 * 1024 * 1024;

pub(super) struct Texts<'a>(Table<'a, &'static [u8], &'static [u8]>);

impl<'a> Texts<'a> {
    pub(super) fn open(transaction: &'a WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self(transaction.open_table(TEXTS)?))
    }

    pub(super) fn keep(&mut self, key: &[u8], stored: &Stored) -> Result<(), redb::Error> {
        let (Some(lines), Some(digest)) = (&stored.lines, digest(&stored.fields)) else { return Ok(()) };
        let mut text = String::with_capacity(digest.len() + 1 + lines.iter().map(|line| line.len() + 1).sum::<usize>());
        for line in std::iter::once(digest).chain(lines.iter().map(String::as_str)) {
            text.push_str(line);
            text.push('\n');
        }
        let row = zstd::bulk::compress(text.as_bytes(), LEVEL)?;
        self.0.insert(key, row.as_slice())?;
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Result<(), redb::Error> {
        self.0.remove(key)?;
        Ok(())
    }
}

impl State {
    /// The lines of a file that is told by them, if those are known that it had with these fields.
    pub fn lines(&self, item: &ItemId, fields: &Fields) -> Result<Option<Lines>, StateError> {
        let Some(digest) = digest(fields) else { return Ok(None) };
        let key = encoding::key(item);
        let guard = self.database();
        let database = guard.as_ref().ok_or_else(|| self.closed())?;
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let texts = database.begin_read()?.open_table(TEXTS)?;
            Ok(texts.get(key.as_slice())?.map(|row| row.value().to_vec()))
        };
        let Some(row) = read().map_err(|error| self.storage("read", error))? else { return Ok(None) };
        let text =
            zstd::bulk::decompress(&row, ROW_LIMIT).ok().and_then(|text| String::from_utf8(text).ok()).ok_or_else(|| self.damaged())?;
        let mut lines = text.lines();
        Ok((lines.next() == Some(digest)).then(|| lines.map(str::to_owned).collect()))
    }
}

fn digest(fields: &Fields) -> Option<&str> {
    match fields.value(DIGEST) {
        Some(Value::Text(digest)) => Some(digest),
        _ => None,
    }
}
