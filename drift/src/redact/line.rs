//! Secrets in the lines of files that no format is known of: what stands behind the name of a secret, and what is one by its
//! shape or its look, as in a setting (`setting.rs`).

use std::borrow::Cow;
use std::ops::Range;

use super::name::{is_secret_header, names_secret};
use super::setting::{setting, within};
use super::{LOOKED_AT, RedactionKey, Rules};

/// Words of a line in whose place the name of its setting may stand.
const LEADING: usize = 2;
/// The same in a line of netrc(5): `machine h login bob password x`.
const NETRC: usize = 8;

/// A line of a file in no known format with what is secret in it masked: what stands behind the name of a secret, and what is one
/// by its shape or its look.
pub fn line<'a>(line: &'a str, key: &RedactionKey) -> Cow<'a, str> {
    if line.len() > LOOKED_AT {
        return Cow::Owned(key.digest(line.as_bytes()));
    }
    let once = line_once(line, key);
    // A mask that made another secret of what stands beside it: none of the line is told.
    match line_once(&once, key) == once {
        true => once,
        false => Cow::Owned(key.digest(line.as_bytes())),
    }
}

fn line_once<'a>(line: &'a str, key: &RedactionKey) -> Cow<'a, str> {
    let Some((name, value)) = named(line, key.rules()) else { return within(Some(""), line, key) };
    // What stands before the value holds the name, and may hold another secret.
    let before = within(Some(""), &line[..value.start], key);
    let masked = format!("{before}{}{}", setting(name, &line[value.clone()], key), &line[value.end..]);
    Cow::Owned(masked)
}

/// Whether a line names a secret and says that its value stands in the lines that follow.
pub(crate) fn opens_secret(line: &str, key: &RedactionKey) -> bool {
    let line = line.trim().trim_end_matches('\\').trim_end();
    let opened = ["|", ">", "|-", ">-", "|+", ">+", "[", "{"].iter().find_map(|mark| line.strip_suffix(mark)).unwrap_or(line).trim_end();
    let name = opened.strip_suffix([':', '=']).map(|name| name.trim().trim_start_matches("- ").trim_matches(['"', '\'']));
    let name = name.map(|name| name.rsplit([' ', '\t']).next().unwrap_or(name));
    name.is_some_and(|name| names_secret(name) || key.rules().masks(name))
}

/// Whether a line names a secret whatever stands behind it.
pub(crate) fn names_secret_in(line: &str, key: &RedactionKey) -> bool {
    named(line, key.rules()).is_some()
}

/// The name of a secret in a line, and where the value behind it lies.
fn named<'a>(line: &'a str, rules: &Rules) -> Option<(&'a str, Range<usize>)> {
    let is_comment = line.trim_start().starts_with(['#', ';', '/']);
    let trimmed = |start: usize, end: usize| {
        let value = line[start..end].trim_end().trim_end_matches([',', ';']).trim_end();
        let begin = value.len() - value.trim_start().len();
        let inner = value.trim_start();
        let quoted = ['"', '\''].into_iter().any(|quote| inner.len() >= 2 && inner.starts_with(quote) && inner.ends_with(quote));
        match quoted {
            true => start + begin + 1..start + value.len() - 1,
            false => start + begin..start + value.len(),
        }
    };
    // Whatever it sets: a name that only sounds like a secret speaks for its value too.
    let speaks = |name: &str| names_secret(name) || rules.masks(name) || is_secret_header(name);
    let secret = |name: &'a str, range: Range<usize>| (!line[range.clone()].is_empty() && speaks(name)).then_some((name, range));
    let assigned = || {
        if let Some(at) = line.find(['=', ':']) {
            let name = line[..at].trim_matches(['"', '\'', ' ', '\t', '#', ';', '-', '+', '?', '<', '[', ']', '*']);
            let name = name.rsplit([' ', '\t', '{', ',', '"']).next().unwrap_or(name);
            let start = at + line[at..].len() - line[at..].trim_start_matches(['=', ':', '>']).len();
            // An address or a path of modules, not an assignment.
            let is_sign = start - at == 1 || line[at..start].contains('=');
            if is_sign && let Some(found) = secret(name, trimmed(start, line.len())) {
                return Some(found);
            }
        }
        None
    };
    let led = || {
        let mut at = 0;
        let is_netrc = ["machine ", "default ", "login "].iter().any(|word| line.trim_start().starts_with(word));
        for _ in 0..if is_netrc { NETRC } else { LEADING } {
            let start = at + line[at..].len() - line[at..].trim_start().len();
            let end = line[start..].find(char::is_whitespace).map_or(line.len(), |length| start + length);
            if end == line.len() {
                return None;
            }
            let value = trimmed(end, line.len());
            let (said, rest) = (&line[start..end], &line[value.start..]);
            let is_prose = said.ends_with(['.', ',', '"', '\'']) || said.starts_with(['<', '"', '\'']);
            if !is_prose
                && !rest.starts_with(['=', ':'])
                && let Some(found) = secret(line[start..end].trim_matches(['"', '\'', ':']), value)
            {
                return Some(found);
            }
            at = end;
        }
        None
    };
    // What stands first counts: the value of one may look like the name of the next.
    let assigned = assigned();
    let led = if is_comment { None } else { led() };
    match (assigned, led) {
        (Some(assigned), Some(led)) => Some(if led.1.start < assigned.1.start { led } else { assigned }),
        (assigned, led) => assigned.or(led),
    }
}
