//! Lines of /proc/PID/mountinfo, taken apart. Pure. See proc_pid_mountinfo(5).

/// One mount. Numbers and paths as the kernel wrote them, its escapes undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    pub id: u64,
    pub major: u32,
    pub minor: u32,
    /// What of the file system is mounted; `/` for all of it.
    pub root: Vec<u8>,
    pub point: Vec<u8>,
    /// Of this mount, separated by commas.
    pub options: &'a [u8],
    /// `shared:7`, `master:2`: how mounts beneath spread.
    pub tags: Vec<&'a [u8]>,
    /// `ext4`, `overlay`.
    pub kind: &'a [u8],
    pub source: Vec<u8>,
    /// Of the file system, separated by commas.
    pub super_options: &'a [u8],
}

/// In the order of the table: of two on one point the later hides the earlier. `None` for a line that makes no sense.
pub fn entries(table: &[u8]) -> impl Iterator<Item = Option<Entry<'_>>> {
    table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(entry)
}

fn entry(line: &[u8]) -> Option<Entry<'_>> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let (major, minor) = std::str::from_utf8(fields.nth(1)?).ok()?.split_once(':')?;
    let (root, point, options) = (unescape(fields.next()?), unescape(fields.next()?), fields.next()?);
    let tags: Vec<&[u8]> = fields.by_ref().take_while(|field| *field != b"-").collect();
    let (kind, source) = (fields.next()?, unescape(fields.next()?));
    // A file system without options of its own ends its line there.
    let super_options = fields.next().unwrap_or_default();
    Some(Entry { id, major: major.parse().ok()?, minor: minor.parse().ok()?, root, point, options, tags, kind, source, super_options })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Blank, tab, newline and backslash are written as three octal digits.
pub fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.first_chunk::<3>().filter(|digits| *first == b'\\' && digits.iter().all(|digit| matches!(digit, b'0'..=b'7')));
        match digits {
            Some([a, b, c]) => {
                out.push((a - b'0').wrapping_mul(64) + (b - b'0') * 8 + (c - b'0'));
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let table = b"30 27 0:30 /part /nowhere/etc/a\\040b rw,nosuid shared:1 master:2 - tmpfs none rw,size=4k\nbroken line\n";
        let entries: Vec<_> = entries(table).collect();
        let entry = entries[0].as_ref().unwrap();
        assert_eq!((entry.id, entry.major, entry.minor), (30, 0, 30));
        assert_eq!((&entry.root[..], &entry.point[..], entry.options), (&b"/part"[..], &b"/nowhere/etc/a b"[..], &b"rw,nosuid"[..]));
        assert_eq!((entry.tags.len(), entry.kind, &entry.source[..]), (2, &b"tmpfs"[..], &b"none"[..]));
        assert_eq!((entry.super_options, entries.len(), entries[1].is_none()), (&b"rw,size=4k"[..], 2, true));
    }

    #[test]
    fn escapes_that_are_none_stay() {
        assert_eq!(unescape(b"a\\040b\\134c\\9\\01"), b"a b\\c\\9\\01");
        assert_eq!(unescape(b"\\777"), [255]);
    }

    proptest! {
        #[test]
        fn noise_never_panics(table in proptest::collection::vec(any::<u8>(), 0..300), text in "([0-9: /-]|rw|\\\\0){0,60}\n?") {
            entries(&table).chain(entries(text.as_bytes())).for_each(drop);
        }
    }
}
