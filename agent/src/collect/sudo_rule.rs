//! Who may act as whom: rules, defaults and aliases of /etc/sudoers and all that it includes (sudoers(5)).
//!
//! A rule's key is its line as a person would write it for one command, `alice ALL=(root) /usr/bin/apt`, so that each
//! command stands alone and a tag such as NOPASSWD that comes or goes is a change of a field. Users are told with aliases replaced by
//! who they stand for. The order of rules, of which sudo takes the last that matches, does not show.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use trueline_drift::redact::{self, RedactionKey};
use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::texts::{Links, files, read};
use super::{Collector, Listing, Place, Root, command, listing, refusal};

const TOP: &str = "/etc/sudoers";
const FILE_LIMIT: u64 = 1024 * 1024;
/// Files within files.
const DEPTH: usize = 16;
/// Files in all: more than any host has, few enough to read.
const FILES_LIMIT: usize = 1000;
/// Items in all.
const ITEMS_LIMIT: usize = 50_000;
/// Users that a rule is told with.
const USERS_LIMIT: usize = 1024;
/// Steps to find who stands behind the users of all rules.
const STEPS_LIMIT: usize = 1_000_000;
/// Bytes of users, hosts, tags and options together, which each command of a rule is told with.
const TOLD_LIMIT: usize = 4 * 1024 * 1024;

const ALIASES: [&str; 5] = ["User_Alias", "Runas_Alias", "Host_Alias", "Cmnd_Alias", "Cmd_Alias"];

pub const COLLECTOR: Collector =
    Collector { kind: ItemKind::SudoRule, sources: &[TOP, "/etc/sudoers.d"], poll: None, read: |place| Ok(read_all(place)) };

#[derive(Debug, Default)]
struct Item {
    fields: BTreeMap<&'static str, Value>,
    sources: BTreeSet<String>,
    /// As written.
    users: Rc<[String]>,
    /// What defaults are set to, in order.
    values: Vec<String>,
}

struct Found<'a> {
    key: &'a RedactionKey,
    items: BTreeMap<String, Item>,
    users: BTreeMap<String, Vec<String>>,
    files: usize,
    /// What is left of [`TOLD_LIMIT`].
    room: usize,
    skipped: u64,
}

fn read_all(place: &Place<'_>) -> Listing {
    let mut found = Found::new(place.key);
    found.file(place.root, TOP, DEPTH);
    found.listing()
}

impl<'a> Found<'a> {
    fn new(key: &'a RedactionKey) -> Self {
        Self { key, items: BTreeMap::new(), users: BTreeMap::new(), files: 0, room: TOLD_LIMIT, skipped: 0 }
    }

    fn file(&mut self, root: &Root, path: &str, depth: usize) {
        match read(root, &text::original(path), Links::Followed, FILE_LIMIT) {
            Ok(None) => {}
            Ok(Some(contents)) => self.take(root, path, &contents, depth),
            Err(error) => self.unread(path, &refusal::reason(&error)),
        }
    }

    /// A file that may hold any rule.
    fn unread(&mut self, path: &str, reason: &str) {
        let item = self.items.entry(format!("file {path}")).or_default();
        item.fields.insert("type", Value::text("file"));
        item.fields.insert("users", Value::unreadable(reason));
        item.sources.insert(path.to_owned());
    }

    fn take(&mut self, root: &Root, path: &str, contents: &[u8], depth: usize) {
        self.files += 1;
        if self.files > FILES_LIMIT {
            self.unread(path, &format!("more than {FILES_LIMIT} files are included"));
            return;
        }
        for line in lines(contents) {
            let include = ["@include ", "#include ", "@includedir ", "#includedir "].iter().find(|word| line.starts_with(**word));
            let Some(include) = include else {
                if !self.line(path, &line) {
                    self.skipped += 1;
                }
                continue;
            };
            let named = line[include.len()..].trim().trim_matches('"').replace("\\ ", " ");
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let named = if named.starts_with('/') { named } else { format!("{folder}/{named}") };
            // That there are too many is told where the first of them stands.
            if self.files > FILES_LIMIT {
                continue;
            } else if depth == 0 {
                self.unread(&named, "files are included in each other too deeply");
            } else if include.ends_with("dir ") {
                self.folder(root, &named, depth - 1);
            } else {
                self.file(root, &named, depth - 1);
            }
        }
    }

    fn folder(&mut self, root: &Root, folder: &str, depth: usize) {
        match files(root, folder, Links::Followed, FILE_LIMIT) {
            Err(error) => self.unread(folder, &refusal::reason(&error)),
            // sudo passes over names with a dot, as those of packages' backups.
            Ok(entries) => entries.into_iter().filter(|entry| !entry.name.contains('.')).for_each(|entry| match entry.text {
                Ok(contents) => self.take(root, &entry.path, &contents, depth),
                Err(reason) => self.unread(&entry.path, &reason),
            }),
        }
    }

    /// `false` for a line that makes no sense.
    fn line(&mut self, path: &str, line: &str) -> bool {
        let first = line.split(' ').next().unwrap_or_default();
        if let Some(scope) = first.strip_prefix("Defaults")
            && (scope.is_empty() || scope.starts_with([':', '@', '>', '!']))
        {
            return self.defaults(path, first, line[first.len()..].trim());
        }
        match ALIASES.iter().find(|alias| **alias == first) {
            Some(alias) => split(line[first.len()..].trim(), ':').iter().all(|alias_of| self.alias(path, alias, alias_of)),
            None => self.rule(path, line),
        }
    }

    fn item(&mut self, key: String, kind: &'static str, path: &str) -> Option<&mut Item> {
        if self.items.len() >= ITEMS_LIMIT && !self.items.contains_key(&key) {
            return None;
        }
        let item = self.items.entry(key).or_default();
        item.fields.insert("type", Value::text(kind));
        item.sources.insert(path.to_owned());
        Some(item)
    }

    fn defaults(&mut self, path: &str, scope: &str, settings: &str) -> bool {
        let settings = split(settings, ',');
        for setting in &settings {
            let end = setting.find(['=', '+', '-']).unwrap_or(setting.len());
            let name = setting[..end].trim().trim_start_matches('!').trim();
            let value = match &setting[end..] {
                "" if setting.starts_with('!') => "false".to_owned(),
                "" => "true".to_owned(),
                given => {
                    let (sign, value) = given.split_once('=').unwrap_or(("", given));
                    let value = redact::setting(name, value.trim().trim_matches('"'), self.key);
                    // A list that is added to or taken from.
                    if sign.is_empty() { value.into_owned() } else { format!("{sign}= {value}") }
                }
            };
            let Some(item) = self.item(format!("{scope} {name}"), "defaults", path) else { return false };
            item.values.push(value);
        }
        !settings.is_empty()
    }

    fn alias(&mut self, path: &str, kind: &str, alias: &str) -> bool {
        let Some((name, members)) = alias.split_once('=') else { return false };
        let name = name.trim().trim_end_matches('+').trim();
        let mut members: Vec<String> = split(members, ',').iter().map(|member| self.told(member)).collect();
        members.sort_unstable();
        members.dedup();
        if kind == "User_Alias" {
            self.users.entry(name.to_owned()).or_default().extend(members.iter().cloned());
        }
        let kind = if kind == "Cmd_Alias" { "Cmnd_Alias" } else { kind };
        match self.item(format!("{kind} {name}"), "alias", path) {
            Some(item) => item.fields.insert("members", Value::list(members)),
            None => return false,
        };
        true
    }

    /// `users hosts = (run_as) TAG: command, command`.
    fn rule(&mut self, path: &str, line: &str) -> bool {
        let Some(at) = position(line, '=') else { return false };
        let left = split(&line[..at], ',');
        // The one part with a blank in it ends the users and begins the hosts.
        let Some(border) = left.iter().position(|part| position(part, ' ').is_some()) else { return false };
        let (last, first) = left[border].split_at(position(left[border], ' ').unwrap_or_default());
        let users: Vec<&str> = left[..border].iter().copied().chain([last.trim()]).collect();
        let hosts: Vec<&str> = [first.trim()].into_iter().chain(left[border + 1..].iter().copied()).collect();
        let (mut run_as, mut tags, mut options) = ("root".to_owned(), BTreeSet::new(), BTreeMap::<String, String>::new());
        let commands = split(&line[at + 1..], ',');
        let mut options_size = 0;
        let written: Rc<[String]> = users.iter().map(|user| (*user).to_owned()).collect();
        let hosts_told: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect::<BTreeSet<_>>().into_iter().collect();
        for command in &commands {
            let mut rest = *command;
            if let Some((given, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
                run_as = given.split_ascii_whitespace().collect();
                rest = after.trim();
            }
            // What is given for one command holds for those after it too.
            while let Some(end) = rest.find(|letter: char| !letter.is_ascii_uppercase() && letter != '_') {
                let word = &rest[..end];
                match rest.as_bytes()[end] {
                    b':' if !word.is_empty() => {
                        let opposite = word.strip_prefix("NO").map_or_else(|| format!("NO{word}"), str::to_owned);
                        tags.remove(&opposite);
                        tags.insert(word.to_owned());
                        rest = rest[end + 1..].trim();
                    }
                    b'=' if !word.is_empty() => {
                        let (option, after) = rest.split_once(' ').unwrap_or((rest, ""));
                        options_size += word.len() + option.len();
                        options.insert(word.to_owned(), option.to_owned());
                        rest = after.trim();
                    }
                    _ => break,
                }
            }
            if rest.is_empty() {
                return false;
            }
            let size = line[..at].len() + run_as.len() + options_size + tags.iter().map(String::len).sum::<usize>();
            let Some(room) = self.room.checked_sub(size) else {
                self.unread(path, "its rules have more users and commands than are told");
                return true;
            };
            self.room = room;
            let command = self.told(rest);
            let key = format!("{} {}=({run_as}) {command}", users.join(","), hosts.join(","));
            let Some(item) = self.item(key, "rule", path) else { return false };
            item.users = Rc::clone(&written);
            item.fields.insert("command", Value::text(&command));
            item.fields.insert("hosts", Value::list(hosts_told.clone()));
            item.fields.insert("run_as", Value::text(&run_as));
            // Of two lines for the same the later counts, with its tags and no others.
            for (name, given) in [("tags", tags.iter().cloned().collect::<Vec<String>>()), ("options", options.values().cloned().collect())]
            {
                item.fields.remove(name);
                if !given.is_empty() {
                    item.fields.insert(name, Value::list(given));
                }
            }
        }
        !commands.is_empty()
    }

    fn told(&self, command: &str) -> String {
        command::masked(command, self.key)
    }

    /// Who a list of users stands for. An alias that names itself stands for nobody more. `None` where finding out takes too long.
    fn expanded(&self, users: &[String], steps: &mut usize) -> Option<Vec<String>> {
        let mut told = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut open: Vec<&str> = users.iter().map(String::as_str).collect();
        while let Some(user) = open.pop() {
            *steps = steps.checked_sub(1)?;
            match self.users.get(user) {
                Some(members) if seen.insert(user) => open.extend(members.iter().map(String::as_str)),
                Some(_) => {}
                None if told.len() < USERS_LIMIT => {
                    told.insert(user.to_owned());
                }
                None => break,
            }
        }
        Some(told.into_iter().collect())
    }

    fn listing(mut self) -> Listing {
        let items = std::mem::take(&mut self.items);
        let mut steps = STEPS_LIMIT;
        let entries = items.into_iter().map(|(key, item)| {
            let mut fields: Fields = item.fields.into_iter().map(|(name, value)| (FieldName::known(name), value)).collect();
            if !item.users.is_empty() {
                let users = self.expanded(&item.users, &mut steps).map(Value::list);
                let users = users.unwrap_or_else(|| Value::unreadable("aliases stand for more users than are told"));
                fields.set(FieldName::known("users"), users);
            }
            if !item.values.is_empty() {
                fields.set(FieldName::known("value"), Value::list(item.values));
            }
            let mut sources: Vec<String> = item.sources.into_iter().collect();
            let source = if sources.len() == 1 { Value::Text(sources.remove(0)) } else { Value::list(sources) };
            fields.set(FieldName::known("source"), source);
            (text::original(&key).into_owned(), fields)
        });
        listing(ItemKind::SudoRule, entries.collect::<Vec<_>>(), self.skipped)
    }
}

/// Printable lines without comments, those that a backslash continues joined, blanks made one.
fn lines(contents: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut joined: Vec<u8> = Vec::new();
    let mut quoted = false;
    let mut rest = contents.split(|byte| *byte == b'\n').peekable();
    while let Some(line) = rest.next() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // A comment ends with its line, whatever it ends in.
        let end = if joined.is_empty() && is_include(line) { line.len() } else { comment(line, &mut quoted) };
        let begun = line[..end].strip_suffix(b"\\").filter(|_| end == line.len());
        joined.extend_from_slice(begun.unwrap_or(&line[..end]));
        if begun.is_some() && rest.peek().is_some() {
            joined.push(b' ');
            continue;
        }
        let words: Vec<&[u8]> = joined.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
        if !words.is_empty() {
            lines.push(plain(&words.join(&b' ')));
        }
        joined.clear();
        quoted = false;
    }
    lines
}

/// Whether a line is an include that begins as a comment does.
fn is_include(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    [b"#include".as_slice(), b"#includedir"]
        .iter()
        .any(|word| line.strip_prefix(*word).and_then(<[u8]>::first).is_some_and(u8::is_ascii_whitespace))
}

/// Printable, with backslashes as they stand: they are what keeps a blank or a comma within a word.
fn plain(line: &[u8]) -> String {
    let parts = line.split_inclusive(|byte| *byte == b'\\');
    let told = parts.map(|part| match part.strip_suffix(b"\\") {
        Some(before) => format!("{}\\", text::printable(before)),
        None => text::printable(part).into_owned(),
    });
    told.collect()
}

/// Where the comment begins: `#` is none before the number of a user or group or in quotes, which may go on from line to line.
fn comment(line: &[u8], quoted: &mut bool) -> usize {
    for (at, byte) in line.iter().enumerate() {
        match byte {
            b'"' => *quoted = !*quoted,
            b'#' if !*quoted && (at == 0 || line[at - 1] != b'\\') && !line.get(at + 1).is_some_and(u8::is_ascii_digit) => return at,
            _ => {}
        }
    }
    line.len()
}

/// The first of a letter outside quotes, parentheses and escapes.
fn position(text: &str, wanted: char) -> Option<usize> {
    let (mut quoted, mut depth, mut escaped) = (false, 0_usize, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            letter if letter == wanted && depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

fn split(mut text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    while let Some(at) = position(text, separator) {
        parts.push(text[..at].trim());
        text = &text[at + separator.len_utf8()..];
    }
    parts.push(text.trim());
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
#[path = "sudo_rule_test.rs"]
mod tests;
