//! The colon-separated databases of accounts: /etc/passwd, /etc/shadow, /etc/group.

/// Longest line taken; glibc's own readers give up far earlier.
pub const LINE_LIMIT: usize = 64 * 1024;

/// The fields of each line that is not empty, a comment or longer than [`LINE_LIMIT`].
pub fn records(database: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    lines(database).filter(|line| line.len() <= LINE_LIMIT).map(|line| line.split(|byte| *byte == b':').collect())
}

/// Lines that [`records`] leaves out although they say something.
pub fn overlong(database: &[u8]) -> u64 {
    lines(database).filter(|line| line.len() > LINE_LIMIT).count() as u64
}

fn lines(database: &[u8]) -> impl Iterator<Item = &[u8]> {
    database.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#')
}

pub fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}
