//! Which names a file has: of those with several, kept beside the items.
//!
//! Invariant: a row stands here exactly while the item's row says that its file had several names when it was read; both change in
//! one transaction.

use std::ops::Bound;

use redb::{ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use trueline_drift::{ItemId, ItemKind};

use super::{ITEMS, Scope, State, StateError, encoding};
use crate::kernel::file::Inode;

/// The key is device and inode, big-endian, and the item's key.
const NAMES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("names");
/// A row says all by its key. Of the same types as the items, whose code it shares.
const NOTHING: &[u8] = &[];
/// Of one file. Who makes more links than this has the rest read by the next scan.
const MOST: usize = 1024;

/// What a slice of a walk met.
#[derive(Debug, Default)]
pub struct Bearers {
    pub items: Vec<(ItemId, Inode)>,
    /// Where the next slice goes on; `None` at the end.
    pub last: Option<ItemId>,
}

pub(super) struct Names<'a>(Table<'a, &'static [u8], &'static [u8]>);

impl<'a> Names<'a> {
    pub(super) fn open(transaction: &'a WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self(transaction.open_table(NAMES)?))
    }

    /// The item's row was this one and is that one now.
    pub(super) fn change(&mut self, key: &[u8], before: Option<Inode>, after: Option<Inode>) -> Result<(), redb::Error> {
        if before == after {
            return Ok(());
        }
        if let Some(inode) = before {
            self.0.remove(name(inode, key).as_slice())?;
        }
        if let Some(inode) = after {
            self.0.insert(name(inode, key).as_slice(), NOTHING)?;
        }
        Ok(())
    }

    /// Agents of before kept none.
    pub(super) fn make(transaction: &'a WriteTransaction) -> Result<(), redb::Error> {
        if transaction.list_tables()?.any(|table| redb::TableHandle::name(&table) == redb::TableHandle::name(&NAMES)) {
            return Ok(());
        }
        let mut names = Self::open(transaction)?;
        for row in transaction.open_table(ITEMS)?.iter()? {
            let (key, row) = row?;
            names.change(key.value(), None, encoding::shared_inode(key.value(), row.value()))?;
        }
        Ok(())
    }
}

impl State {
    /// The items that bore this file when they were read, among several.
    pub fn names_of(&self, inode: Inode) -> Result<Vec<ItemId>, StateError> {
        let low = name(inode, &[]);
        let guard = self.database();
        let database = guard.as_ref().ok_or_else(|| self.closed())?;
        let read = || -> Result<Vec<Option<ItemId>>, redb::Error> {
            let names = database.begin_read()?.open_table(NAMES)?;
            let mut found = Vec::new();
            for row in names.range::<&[u8]>((Bound::Included(low.as_slice()), Bound::Unbounded))?.take(MOST) {
                let (key, _) = row?;
                let Some(key) = key.value().strip_prefix(low.as_slice()) else { break };
                found.push(encoding::item(key));
            }
            Ok(found)
        };
        let found = read().map_err(|error| self.storage("read", error))?;
        found.into_iter().map(|item| item.ok_or_else(|| self.damaged())).collect()
    }

    /// Of the next `rows` files after `after`, those that bore one which is sought.
    pub fn bearers(&self, is_sought: &dyn Fn(Inode) -> bool, after: Option<&ItemId>, rows: usize) -> Result<Bearers, StateError> {
        let mut found = Vec::new();
        let (mut count, mut last) = (0, None);
        self.walk(&Scope::kind(ItemKind::File), after, |key, row| {
            count += 1;
            if let Some(inode) = encoding::inode(key, row).filter(|inode| is_sought(*inode)) {
                found.push((encoding::item(key), inode));
            }
            last = (count == rows).then(|| encoding::item(key));
            count < rows
        })?;
        let whole = |item: Option<ItemId>| item.ok_or_else(|| self.damaged());
        let items = found.into_iter().map(|(item, inode)| Ok((whole(item)?, inode))).collect::<Result<_, StateError>>()?;
        Ok(Bearers { items, last: last.map(whole).transpose()? })
    }
}

fn name(inode: Inode, key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(16 + key.len());
    name.extend_from_slice(&inode.device.to_be_bytes());
    name.extend_from_slice(&inode.number.to_be_bytes());
    name.extend_from_slice(key);
    name
}
