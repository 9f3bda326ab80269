//! The colon-separated databases of accounts: /etc/passwd, /etc/shadow, /etc/group.
//!
//! An account whose line makes no sense is not gone: it keeps its name, and what cannot be read of it is
//! unreadable. A database of which that holds too often is an error as a whole.

use std::io;

use trueline_drift::{FieldName, Fields, Value};

/// As many as a line of /etc/shadow has; no database has more.
const FIELDS: usize = 9;

/// A text file that is none of these databases has many such lines.
const MISSHAPEN_LIMIT: usize = 1000;

/// The fields of each line that is neither empty nor a comment. Where there are more than any database
/// has, the last holds the rest of the line.
pub fn records(database: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let lines = database.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#');
    lines.map(|line| line.splitn(FIELDS + 1, |byte| *byte == b':').collect())
}

/// Accounts of one database that cannot be read, up to a bound.
#[derive(Debug, Default)]
pub struct Misshapen(usize);

impl Misshapen {
    /// An account of which nothing but its name can be told, because its line has not `expected` fields.
    pub fn account(&mut self, record: &[&[u8]], expected: usize, fields: &[&'static str]) -> io::Result<(Vec<u8>, Fields)> {
        self.0 += 1;
        if self.0 > MISSHAPEN_LIMIT {
            return Err(io::Error::other(format!("more than {MISSHAPEN_LIMIT} of its lines have not {expected} fields")));
        }
        let count = if record.len() > FIELDS { format!("more than {FIELDS}") } else { record.len().to_string() };
        let value = Value::unreadable(format!("its line has {count} fields between colons, not {expected}"));
        let fields = fields.iter().map(|field| (FieldName::known(field), value.clone())).collect();
        Ok((record.first().copied().unwrap_or_default().to_vec(), fields))
    }
}

pub fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// The number of a user or group as a value.
pub fn number_value(field: &[u8]) -> Value {
    number(field).map_or_else(|| Value::unreadable("it is not a number"), |number| Value::Integer(i64::from(number)))
}
