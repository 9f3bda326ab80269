//! Secrets in running text, whatever program it belongs to: `name=value`, `"name": "value"`, headers, the
//! passwords of URLs, and keys and tokens that are known by their shape.

use std::borrow::Cow;
use std::ops::Range;

use super::MASK;
use super::name::{is_harmless, is_secret_header, names_secret};

/// Beginnings of keys and tokens, and the least length of the whole.
const SHAPES: &[(&str, usize)] = &[
    ("ghp_", 20),
    ("gho_", 20),
    ("ghu_", 20),
    ("ghs_", 20),
    ("ghr_", 20),
    ("github_pat_", 30),
    ("glpat-", 20),
    ("xoxb-", 15),
    ("xoxp-", 15),
    ("xoxa-", 15),
    ("xoxr-", 15),
    ("xoxs-", 15),
    ("AIza", 35),
    ("sk_live_", 16),
    ("rk_live_", 16),
    ("sk-ant-", 20),
    ("sk-proj-", 20),
    ("npm_", 30),
    ("hf_", 30),
    ("hvs.", 20),
    ("dop_v1_", 30),
    ("SG.", 40),
];

/// AWS: who an access key belongs to shows in its first four letters. 20 capitals and digits.
const AWS: &[&str] = &["AKIA", "ASIA", "ABIA", "ACCA"];

/// Names in the query of a URL, besides those that name a secret anywhere.
const QUERY: &[&str] = &["key", "sig", "signature", "x-amz-signature", "x-goog-signature", "x-amz-credential"];

/// Masks what is secret in it and keeps the rest.
pub(super) fn masked(text: &str) -> Cow<'_, str> {
    let mut spans = spans(text);
    // What was masked before stays as it is.
    spans.retain(|span| !text[span.clone()].starts_with(MASK));
    replaced(text, spans, |_| MASK.to_owned())
}

/// Where secrets lie in it; the places may overlap.
pub(super) fn spans(text: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    assignments(text, &mut spans);
    bearers(text, &mut spans);
    urls(text, &mut spans);
    shapes(text, &mut spans);
    spans.retain(|span| !span.is_empty());
    spans
}

/// The text with another in place of each span. Of spans that overlap the first and longest counts, and all of them go.
pub(super) fn replaced(text: &str, mut spans: Vec<Range<usize>>, mask: impl Fn(&str) -> String) -> Cow<'_, str> {
    if spans.is_empty() {
        return Cow::Borrowed(text);
    }
    spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for span in spans {
        if span.start >= done {
            out.push_str(&text[done..span.start]);
            out.push_str(&mask(&text[span.clone()]));
        }
        done = done.max(span.end);
    }
    out.push_str(&text[done..]);
    Cow::Owned(out)
}

pub(super) fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

/// The runs of bytes that `is` holds of.
pub(super) fn runs(text: &str, is: impl Fn(u8) -> bool + Copy) -> impl Iterator<Item = Range<usize>> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + bytes[at..].iter().position(|byte| is(*byte))?;
        let end = bytes[start..].iter().position(|byte| !is(*byte)).map_or(bytes.len(), |length| start + length);
        at = end;
        Some(start..end)
    })
}

/// Whether a line ends here. Control characters come escaped: see [`crate::text`].
fn ends_line(rest: &str) -> bool {
    ["\n", "\r", "\\x0a", "\\x0d"].iter().any(|end| rest.starts_with(end))
}

fn is_blank(rest: &str) -> bool {
    rest.starts_with([' ', '\t']) || rest.starts_with("\\x09") || ends_line(rest)
}

/// The first place at or after `start` of which `is` holds, or the end.
fn find(text: &str, start: usize, is: impl Fn(&str) -> bool) -> usize {
    text[start..].char_indices().map(|(at, _)| start + at).find(|at| is(&text[*at..])).unwrap_or(text.len())
}

fn assignments(text: &str, spans: &mut Vec<Range<usize>>) {
    // No part of the text is looked at twice.
    let mut looked_to = 0;
    for run in runs(text, is_name) {
        if run.start < looked_to {
            continue;
        }
        let name = &text[run.clone()];
        let before = text[..run.start].chars().next_back();
        let is_query = matches!(before, Some('?' | '&')) && QUERY.iter().any(|known| name.eq_ignore_ascii_case(known));
        let is_header = is_secret_header(name.trim_start_matches('-'));
        if before == Some('/') || !(is_query || is_header || names_secret(name)) {
            continue;
        }
        if let Some(value) = value(text, run.end, is_header, before) {
            looked_to = value.end;
            if !is_harmless(name, &text[value.clone()]) {
                spans.push(value);
            }
        }
    }
}

/// Where the value lies that the name before `end` stands for.
fn value(text: &str, end: usize, is_header: bool, before: Option<char>) -> Option<Range<usize>> {
    let mut at = end;
    let is_quoted = matches!(before, Some('"' | '\''));
    if is_quoted {
        at += text[at..].len() - text[at..].trim_start_matches('\\').len();
        at += usize::from(text[at..].starts_with(['"', '\'']));
    }
    let gap = text[at..].len() - text[at..].trim_start_matches(' ').len();
    let separator = text[at + gap..].chars().next().filter(|c| matches!(c, '=' | ':'))?;
    if separator == ':' && gap > 0 && !is_quoted {
        return None;
    }
    at += gap + 1;
    let rest = &text[at..];
    if separator == ':' && (rest.starts_with(':') || rest.starts_with("//")) {
        return None;
    }
    let space = rest.len() - rest.trim_start_matches(' ').len();
    at += space;
    let rest = &text[at..];
    // The same number of backslashes opens and closes.
    let slashes = rest.len() - rest.trim_start_matches('\\').len();
    if let Some(quote) = rest[slashes..].chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let closing = format!("{}{quote}", &rest[..slashes]);
        let start = at + closing.len();
        let end = text[start..].find(&closing).map_or(text.len(), |length| start + length);
        return Some(start..end);
    }
    let is_line = is_header || (separator == ':' && space > 0);
    let end = find(text, at, |rest| match is_line {
        true => rest.starts_with(['"', '\'']) || ends_line(rest),
        false => rest.starts_with(['"', '\'']) || is_blank(rest) || (rest.starts_with(['&', ';', ',']) && begins_another(&rest[1..])),
    });
    if separator == ':' && space == 0 && !is_quoted && !is_header && is_path(&text[at..end]) {
        return None;
    }
    Some(at..end)
}

/// `/run/secrets`, or `/run/secrets:ro` of a volume: what `NAME:` stands before in a command line is then a place. Two words at
/// least, and no capitals: a secret in base64 hardly ever looks like it.
fn is_path(value: &str) -> bool {
    let (path, mode) = value.split_once(':').unwrap_or((value, "ro"));
    let is_word = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.'))
    };
    let is_mode = mode.split(',').all(|part| matches!(part, "ro" | "rw" | "z" | "Z" | "U" | "nocopy" | "cached" | "delegated"));
    is_mode && path.strip_prefix('/').is_some_and(|rest| rest.contains('/') && rest.split('/').all(is_word))
}

/// Whether a separator is one: what follows is another assignment, or nothing.
fn begins_another(rest: &str) -> bool {
    let rest = rest.trim_start_matches(' ');
    let name = rest.bytes().take_while(|byte| is_name(*byte)).count();
    rest.is_empty() || (name > 0 && rest[name..].starts_with('='))
}

fn bearers(text: &str, spans: &mut Vec<Range<usize>>) {
    for run in runs(text, is_name).filter(|run| text[run.clone()].eq_ignore_ascii_case("bearer")) {
        let start = run.end + (text[run.end..].len() - text[run.end..].trim_start_matches(' ').len());
        if start > run.end {
            spans.push(start..find(text, start, |rest| is_blank(rest) || rest.starts_with(['"', '\''])));
        }
    }
}

fn urls(text: &str, spans: &mut Vec<Range<usize>>) {
    let (mut at, mut end) = (0, 0);
    while let Some(found) = text[at..].find("://") {
        let start = at + found + 3;
        at = start;
        if start > end {
            end = find(text, start, |rest| is_blank(rest) || rest.starts_with(['"', '\'', '<', '>', '`']));
        }
        let host_end = find(&text[..end], start, |rest| rest.starts_with(['/', '?', '#']));
        let authority = &text[start..host_end];
        let sign = match authority.rfind('@') {
            Some(sign) => start + sign,
            // A password with a slash in it ends the authority before its time. A port does not.
            None => match (authority.split_once(':'), text[host_end..end].rfind('@')) {
                (Some((_, port)), Some(sign)) if !authority.starts_with('[') && !port.bytes().all(|byte| byte.is_ascii_digit()) => {
                    host_end + sign
                }
                _ => continue,
            },
        };
        let user = &text[start..sign];
        match user.find(':') {
            Some(colon) => spans.push(start + colon + 1..sign),
            None if user.len() >= 20 && user.bytes().any(|byte| byte.is_ascii_digit()) => spans.push(start..sign),
            None => {}
        }
    }
}

fn shapes(text: &str, spans: &mut Vec<Range<usize>>) {
    for run in runs(text, is_name) {
        let word = &text[run.clone()];
        let is_aws = word.len() == 20
            && AWS.iter().any(|start| word.starts_with(start))
            && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
        // A JSON web token: two objects in base64, and a signature.
        let is_web_token = word.len() >= 30 && word.starts_with("eyJ") && word.split('.').count() == 3;
        if is_aws || is_web_token || SHAPES.iter().any(|(start, least)| word.len() >= *least && word.starts_with(start)) {
            spans.push(run);
        }
    }
    if let Some(begin) = text.find("-----BEGIN")
        && let Some(end) = text[begin..].find("PRIVATE KEY-----")
    {
        spans.push(begin + end + "PRIVATE KEY-----".len()..text.len());
    }
}
