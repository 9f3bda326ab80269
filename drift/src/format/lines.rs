//! What changed in a text whose format is not known: lines that went and lines that came, bounded and with their secrets masked.
//!
//! A text is masked first and compared then, so that what it was may be kept without its secrets: printable, lines bounded, secrets as
//! keyed digests, which differ where the secrets do. What lies within the block of a private key is masked whatever it looks like, and so
//! is what stands deeper behind the name of a secret that has no value of its own.
//! What is beyond a limit is counted and never left out in silence.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::{TEXT_LIMIT, is_leftover};
use crate::redact::{self, RedactionKey};
use crate::text;

/// Most lines that are told.
pub const LINES_LIMIT: usize = 64;
/// Most bytes of all lines told together.
pub const BYTES_LIMIT: usize = 16 * 1024;
/// Longest line that is told whole, in bytes.
pub const LINE_LIMIT: usize = 512;
/// Most lines on both sides, between what both texts begin and end with, in which the smallest difference is sought: that takes time in
/// proportion to their number times the number of those that differ. Beyond it all of them count as changed.
const SOUGHT: usize = 4096;

/// Folders of configuration.
const FOLDERS: &[&str] = &["/boot/grub/", "/boot/grub2/", "/etc/", "/usr/local/etc/"];
/// Within them, what is made of other files and not written by people.
const MADE: &[&str] = &["/etc/alternatives/", "/etc/ssl/certs/"];
/// Of paths whose lines are secrets without a name beside them.
const SECRET: &[&str] =
    &["credential", "htdigest", "htpasswd", "keytab", "netrc", "passw", "pgpass", "private", "secret", "shadow", "token"];

/// Whether the lines of the file at a path may be told, as far as its name says.
pub(super) fn covers(path: &str) -> bool {
    let is_within = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
    let name = path.rsplit('/').next().unwrap_or_default();
    let is_leftover = is_leftover(name.trim_start_matches('.')) || name.ends_with(['-', '#']);
    is_within(FOLDERS) && !is_within(MADE) && !is_leftover && {
        let path = path.to_ascii_lowercase();
        !SECRET.iter().any(|word| path.contains(word)) && !path.ends_with(".key")
    }
}

/// How one text became another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// In the order of the file.
    pub told: Vec<Line>,
    /// How many lines went and came in all, with those that are not told.
    pub removed: usize,
    pub added: usize,
    /// Whether these are all that differ and no others. If not, more lines may be called changed than are.
    pub is_smallest: bool,
}

/// A line that went or came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub side: Side,
    /// From 1, in the text that it stands in.
    pub number: usize,
    /// Printable, masked and bounded.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Removed,
    Added,
}

impl Side {
    pub const ALL: [Self; 2] = [Self::Removed, Self::Added];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Added => "added",
        }
    }

    pub const fn sign(self) -> char {
        match self {
            Self::Removed => '-',
            Self::Added => '+',
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} {}", self.side.sign(), self.number, self.text)
    }
}

impl Lines {
    /// How many lines went or came that are not among those told.
    pub fn left_out(&self) -> usize {
        (self.removed + self.added).saturating_sub(self.told.len())
    }

    /// What is to be said besides the lines that are told.
    pub fn remark(&self) -> Option<String> {
        match (self.removed + self.added, self.left_out()) {
            (0, _) => Some("no line differs: only ends of lines do".to_owned()),
            (_, 0) => None,
            (_, left_out) => Some(format!("{left_out} more lines are not shown: {} went and {} came in all", self.removed, self.added)),
        }
    }
}

/// A text's lines as they may be kept and told: none holds a line's end. `None`: it is longer than [`TEXT_LIMIT`] or holds a NUL byte, as no
/// text does.
pub fn masked(text: &[u8], key: &RedactionKey) -> Option<Vec<String>> {
    if text.len() > TEXT_LIMIT || text.contains(&0) {
        return None;
    }
    let lines = split(text);
    Some(lines.iter().zip(hidden(&lines, key)).map(|(line, hidden)| told(line, hidden, key)).collect())
}

/// The lines in which two texts differ, of both as [`masked`] yields them.
pub fn between<Before: AsRef<str>, After: AsRef<str>>(before: &[Before], after: &[After]) -> Lines {
    let old: Vec<&str> = before.iter().map(AsRef::as_ref).collect();
    let new: Vec<&str> = after.iter().map(AsRef::as_ref).collect();
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let end = old[start..].iter().rev().zip(new[start..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_range, new_range) = (start..old.len() - end, start..new.len() - end);
    let is_smallest = old_range.len() + new_range.len() <= SOUGHT;
    let mut changed: Vec<(Range<usize>, Range<usize>)> = Vec::new();
    if is_smallest {
        for op in capture_diff_slices(Algorithm::Myers, &old[old_range.clone()], &new[new_range.clone()]) {
            if !matches!(op, DiffOp::Equal { .. }) {
                let (gone, come) = (op.old_range(), op.new_range());
                changed.push((start + gone.start..start + gone.end, start + come.start..start + come.end));
            }
        }
    } else {
        changed.push((old_range, new_range));
    }
    let mut found = Lines { is_smallest, ..Lines::default() };
    let mut room = BYTES_LIMIT;
    for (gone, come) in changed {
        found.removed += gone.len();
        found.added += come.len();
        for (side, range, lines) in [(Side::Removed, gone, &old), (Side::Added, come, &new)] {
            for at in range {
                if found.told.len() >= LINES_LIMIT {
                    break;
                }
                match room.checked_sub(lines[at].len()) {
                    Some(rest) => room = rest,
                    None => break,
                }
                found.told.push(Line { side, number: at + 1, text: lines[at].to_owned() });
            }
        }
    }
    found
}

/// Lines without what ends them. That the last one has no end does not show.
fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    lines
}

fn told(line: &[u8], is_hidden: bool, key: &RedactionKey) -> String {
    if is_hidden {
        return key.digest(line);
    }
    let line = String::from_utf8_lossy(line);
    let masked = redact::line(&line, key);
    let told = text::printable(masked.as_bytes());
    if told.len() <= LINE_LIMIT {
        return told.into_owned();
    }
    // What differs behind the cut must show.
    format!("{} sha256 {}", text::bounded(&told, LINE_LIMIT), hex::encode(&Sha256::digest(told.as_bytes())[..8]))
}

/// Which lines are part of a secret that began in a line above.
fn hidden(lines: &[&[u8]], key: &RedactionKey) -> Vec<bool> {
    let indent = |line: &[u8]| line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let mut in_key = false;
    // How deep the name stands whose value follows in deeper lines.
    let mut behind: Option<usize> = None;
    // A line that is continued.
    let mut continues = false;
    let mut hidden = Vec::with_capacity(lines.len());
    for line in lines {
        let text = String::from_utf8_lossy(&line[..line.len().min(redact::LOOKED_AT)]);
        let (begins, ends) = (text.contains("-----BEGIN") && text.contains("PRIVATE KEY"), text.contains("-----END"));
        let is_blank = text.trim().is_empty();
        // The entries of a YAML list may stand as deep as its name.
        let is_entry = text.trim_start().starts_with("- ");
        if behind.is_some_and(|depth| !is_blank && (indent(line) < depth || (indent(line) == depth && !is_entry))) {
            behind = None;
        }
        let is_within = (in_key && !begins && !ends) || continues || (behind.is_some() && !is_blank);
        hidden.push(is_within);
        in_key = (in_key || begins) && !ends;
        let is_open = redact::opens_secret(&text, key);
        if !is_within && is_open && !text.trim_end().ends_with('\\') {
            behind = Some(indent(line));
        }
        continues = text.trim_end().ends_with('\\') && (continues || is_open || redact::names_secret_in(&text, key));
    }
    hidden
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> RedactionKey {
        RedactionKey::new([7; 32])
    }

    fn of(text: &[u8]) -> Option<Vec<String>> {
        masked(text, &key())
    }

    fn diff(before: &str, after: &str) -> Lines {
        between(&of(before.as_bytes()).unwrap(), &of(after.as_bytes()).unwrap())
    }

    fn shown(before: &str, after: &str) -> String {
        diff(before, after).told.iter().map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn only_what_people_write_and_keep_no_secrets_in_is_told_by_its_lines() {
        for path in ["/etc/motd", "/etc/profile.d/proxy.sh", "/etc/skel/.bashrc", "/usr/local/etc/app/rules", "/boot/grub/grub.cfg"] {
            assert!(covers(path), "{path}");
        }
        for path in [
            "/etc/ppp/chap-secrets",
            "/etc/nginx/.htpasswd",
            "/etc/ssl/private/site.pem",
            "/etc/ssl/certs/site.pem",
            "/etc/shadow-",
            "/etc/passwd-",
            "/etc/app/site.KEY",
            "/etc/.motd.swp",
            "/etc/motd.dpkg-new",
            "/etcetera/motd",
            "/usr/bin/ls",
        ] {
            assert!(!covers(path), "{path}");
        }
    }

    #[test]
    fn what_differs_is_told_by_line() {
        insta::assert_snapshot!(shown("a\nb\nc\nport 1\nz\n", "a\nc\nport 2\nz\nnew \u{1b}[31m\n"), @r"
        -2 b
        -4 port 1
        +3 port 2
        +5 new \x1b[31m
        ");
        assert_eq!(diff("a\r\nb", "a\nb\n"), Lines { is_smallest: true, ..Lines::default() });
    }

    #[test]
    fn a_secret_over_several_lines_is_masked_in_each() {
        let text = |secret: &str| {
            format!(
                "-----BEGIN RSA PRIVATE KEY-----\n{secret}1\n{secret}2\n-----END RSA PRIVATE KEY-----\npassword: |\n  {secret}3\n  {secret}4\nnext: x\ntoken = \\\n{secret}5\nsecret:\n- {secret}6\n"
            )
        };
        let told = shown(&text("Zq9a"), &text("Zq9b"));
        assert!(!told.contains("Zq9"), "{told}");
        assert_eq!(told.matches("keyed:").count(), 12, "{told}");
    }

    #[test]
    fn much_is_bounded_and_counted() {
        let many = |word: &str| (0..9_000).map(|n| format!("{word}{n}\n")).collect::<String>();
        let found = diff(&many("a"), &many("b"));
        assert_eq!((found.told.len(), found.removed, found.added, found.is_smallest), (LINES_LIMIT, 9_000, 9_000, false));
        let few = |word: &str| (0..1_000).map(|n| format!("{word}{n}\n")).collect::<String>();
        assert!(diff(&few("a"), &few("b")).is_smallest);
        let long = diff("", &"x ".repeat(TEXT_LIMIT / 2));
        assert!(long.told[0].text.starts_with("keyed:"));
        assert!(of(&vec![b'a'; TEXT_LIMIT + 1]).is_none());
        assert!(of(b"\0").is_none());
    }

    #[test]
    fn what_differs_in_a_long_line_or_a_secret_shows() {
        let long = |end: &str| format!("{}{end}\n", "word ".repeat(200));
        let found = diff(&long("a"), &long("b"));
        assert_eq!((found.removed, found.added), (1, 1), "{found:?}");
        assert_ne!(found.told[0].text, found.told[1].text);
        let found = diff("password = Zq9first1\n", "password = Zq9second\n");
        assert_eq!((found.removed, found.added), (1, 1), "{found:?}");
    }

    proptest! {
        #[test]
        fn what_is_told_is_bounded_and_printable(before in "([ -~\u{1b}é]{0,20}\n){0,12}", after in "([ -~\u{1b}é]{0,20}\n){0,12}") {
            let found = diff(&before, &after);
            let size: usize = found.told.iter().map(|line| line.text.len()).sum();
            prop_assert!(size <= BYTES_LIMIT && found.told.len() <= LINES_LIMIT);
            prop_assert!(!found.told.iter().any(|line| line.text.chars().any(char::is_control)));
            prop_assert_eq!(found.removed + found.added == 0, split(before.as_bytes()) == split(after.as_bytes()));
            prop_assert_eq!(diff(&before, &before).told.len(), 0);
        }

        #[test]
        fn a_secret_is_never_told_in_a_line(secret in "[a-zA-Z0-9!#%+,./:=@^_~$-]{6,24}", other in "[a-z =:]{0,12}") {
            let marked = format!("Zq9{secret}");
            let found = diff(&other, &format!("{other}\npassword={marked}\n\"api_key\": \"{marked}\",\n  token {marked}\n"));
            prop_assert!(!found.told.iter().any(|line| line.text.contains("Zq9")), "{:?}", found);
        }
    }
}
