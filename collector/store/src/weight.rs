//! Sets of rows bounded in bytes: one row may be half a megabyte, and most are some hundred bytes.
//!
//! Small values are read at once. A large one is read as NULL beside the size of the whole row, so that it is known
//! whether it still fits before it is fetched. What is usual costs no further statement.

use crate::Result;
use crate::session::Row;

/// A value of more bytes than this is large.
const SMALL: usize = 4096;

/// The column, or NULL where its value is large.
pub(crate) fn small(column: &str) -> String {
    format!("CASE WHEN octet_length({column}) <= {SMALL} THEN {column} END")
}

/// How many bytes these columns have in all.
pub(crate) fn bytes(columns: &[&str]) -> String {
    let lengths: Vec<String> = columns.iter().map(|column| format!("COALESCE(octet_length({column}), 0)")).collect();
    lengths.join(" + ")
}

/// Cuts off what goes beyond the bytes that are left, but never the first row, and takes the others off them. Rows begin
/// `number, three small columns, bytes`; the numbers of those that stay and have a large value are returned.
pub(crate) fn keep_within(rows: &mut Vec<Row>, left: &mut usize) -> Result<Vec<i64>> {
    let (mut large, mut kept) = (Vec::new(), 0);
    for row in rows.iter() {
        let mut cells = row.cells();
        let number = cells.integer()?;
        let read = cells.length()? + cells.length()? + cells.length()?;
        let whole = usize::try_from(cells.count()?).unwrap_or(usize::MAX);
        if whole > *left && kept > 0 {
            *left = 0;
            break;
        }
        *left = left.saturating_sub(whole);
        if read < whole {
            large.push(number);
        }
        kept += 1;
    }
    rows.truncate(kept);
    Ok(large)
}
