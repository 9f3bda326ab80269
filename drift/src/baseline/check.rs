//! From a baseline as it is written to one that hosts can be held against, or all that is wrong with it.
//!
//! Invariant: what passes can be fulfilled by a host. A value of another type than the agent reports, or a name that
//! it never reports, would be drift that nothing resolves.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_saphyr::Spanned;

use super::draft::{Draft, Node};
use super::fields::type_of;
use super::{AbsentWord, BaselineDocument, ClosedScope, ExpectedItem};
use crate::document::{DocumentError, nearest, parse_yaml};
use crate::pattern::Pattern;
use crate::text::{bounded, printable};
use crate::{FieldName, Fields, ItemId, ItemKind, Value};

/// Longest name of a baseline, in bytes.
const NAME_LIMIT: usize = 128;
/// Most faults told; more would not be read.
const FAULTS_TOLD: usize = 50;

/// All that is wrong with a written baseline, in the order of its lines; one fault a line.
#[derive(Debug, thiserror::Error)]
pub struct BaselineFaults(pub Vec<DocumentError>);

impl std::fmt::Display for BaselineFaults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, fault) in self.0.iter().take(FAULTS_TOLD).enumerate() {
            write!(f, "{}{fault}", if at == 0 { "" } else { "\n" })?;
        }
        match self.0.len().saturating_sub(FAULTS_TOLD) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

pub fn parse(source_name: &str, text: &str) -> Result<BaselineDocument, BaselineFaults> {
    let draft: Draft = parse_yaml(source_name, text).map_err(|error| BaselineFaults(vec![error]))?;
    let mut check = Check { source_name, text, faults: Vec::new() };
    let document = check.document(draft);
    if check.faults.is_empty() {
        return Ok(document);
    }
    check.faults.sort_by_key(|fault| (fault.line, fault.column));
    Err(BaselineFaults(check.faults))
}

/// What is wrong with the name of a baseline.
pub fn name_fault(name: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_good = !name.is_empty() && name.len() <= NAME_LIMIT && name.chars().all(fits);
    (!is_good).then(|| format!("name: a baseline's name has 1 to {NAME_LIMIT} letters, digits, hyphens, underscores and full stops"))
}

/// What is wrong with a closed scope.
pub fn scope_fault(kind: ItemKind, keys: &str) -> Option<String> {
    let quoted = bounded(keys, 80);
    let fault = match kind {
        _ if keys.is_empty() => "keys: an empty pattern is no item's key; write `**` for all of them".to_owned(),
        ItemKind::File if !keys.starts_with('/') && !keys.starts_with("**") => {
            format!("keys: `{quoted}` matches no file, for paths are absolute; write \"/{}\"", quoted.trim_start_matches("./"))
        }
        ItemKind::File => format!("keys: `{quoted}` matches no file: {}", path_fault(keys)?),
        _ => return None,
    };
    Some(fault)
}

/// What keeps an absolute path from being the one name of a file.
fn path_fault(path: &str) -> Option<&'static str> {
    let mut components = path.split('/').skip(1);
    if path.len() > 1 && path.ends_with('/') {
        Some("take the `/` at its end away")
    } else if path.contains("//") {
        Some("write one `/` for `//`")
    } else if components.any(|component| matches!(component, "." | "..")) {
        Some("write the path without `.` and `..`")
    } else {
        None
    }
}

const UNIT_TYPES: &[&str] = &["service", "socket", "target", "timer", "path", "mount", "automount", "swap", "slice", "scope", "device"];

/// What is wrong with a key that no host would report under this kind.
fn key_fault(item: &ItemId) -> Option<String> {
    let key = item.key.as_str();
    let shown = bounded(key, 80);
    match item.kind {
        ItemKind::File if !key.starts_with('/') => Some(format!("`file:{shown}`: a file's path is absolute; write \"file:/{shown}\"")),
        ItemKind::File => path_fault(key).map(|fault| format!("`file:{shown}`: {fault}")),
        ItemKind::Sysctl if key.contains('/') && !key.contains('.') => {
            Some(format!("`sysctl:{shown}`: write it with full stops, \"sysctl:{}\"", shown.trim_matches('/').replace('/', ".")))
        }
        ItemKind::Unit if !key.rsplit_once('.').is_some_and(|(_, unit)| UNIT_TYPES.contains(&unit)) => {
            Some(format!("`unit:{shown}`: a unit's name ends in its type, as in \"unit:{shown}.service\""))
        }
        _ => None,
    }
}

struct Check<'a> {
    source_name: &'a str,
    text: &'a str,
    faults: Vec<DocumentError>,
}

impl Check<'_> {
    fn fault<T>(&mut self, at: &Spanned<T>, message: impl AsRef<str>) {
        self.faults.push(DocumentError {
            source_name: self.source_name.to_owned(),
            line: usize::try_from(at.referenced.line()).unwrap_or(1).max(1),
            column: usize::try_from(at.referenced.column()).unwrap_or(1).max(1),
            message: printable(message.as_ref().as_bytes()).into_owned(),
        });
    }

    /// A plain value as it stands in the text.
    fn written<T>(&self, at: &Spanned<T>) -> String {
        // Found by its offset, not by its column: a document can be one line, and each of its values a fault.
        let offset = at.defined.span().byte_offset().and_then(|offset| usize::try_from(offset).ok());
        let rest = offset.and_then(|offset| self.text.get(offset..)).unwrap_or_default();
        let text: String = rest.chars().take_while(|c| !c.is_whitespace() && !",]}".contains(*c)).take(80).collect();
        text.trim_matches(['"', '\'']).to_owned()
    }

    fn document(&mut self, draft: Draft) -> BaselineDocument {
        BaselineDocument {
            name: self.name(draft.name),
            description: draft.description.and_then(|description| self.description(description)),
            whole: draft.whole.is_some_and(|whole| self.whole(&whole)),
            closed: draft.closed.map(|closed| self.closed(closed)).unwrap_or_default(),
            items: draft.items.map(|items| self.items(items)).unwrap_or_default(),
        }
    }

    fn name(&mut self, name: Spanned<Node>) -> String {
        let text = match &name.value {
            Node::Text(text) => text.clone(),
            Node::Integer(_) | Node::Number | Node::Boolean(_) => self.written(&name),
            _ => String::new(),
        };
        if let Some(fault) = name_fault(&text) {
            self.fault(&name, fault);
        }
        text
    }

    fn description(&mut self, description: Spanned<Node>) -> Option<String> {
        match description.value {
            Node::Text(text) => Some(text),
            Node::Nothing => None,
            Node::Integer(_) | Node::Number | Node::Boolean(_) => Some(self.written(&description)),
            _ => {
                self.fault(&description, format!("description: write a text here, not {}", description.value.name()));
                None
            }
        }
    }

    fn whole(&mut self, whole: &Spanned<Node>) -> bool {
        match whole.value {
            Node::Boolean(whole) => whole,
            _ => {
                self.fault(whole, "whole is true or false, without quotes");
                false
            }
        }
    }

    fn closed(&mut self, closed: Spanned<Node>) -> Vec<ClosedScope> {
        match closed.value {
            Node::List(scopes) => scopes.into_iter().filter_map(|scope| self.scope(scope)).collect(),
            Node::Nothing => Vec::new(),
            _ => {
                self.fault(&closed, "closed: write a list of scopes, each as in - { kind: file, keys: \"/etc/cron.d/*\" }");
                Vec::new()
            }
        }
    }

    fn scope(&mut self, scope: Spanned<Node>) -> Option<ClosedScope> {
        const SHAPE: &str = "a closed scope is written as { kind: file, keys: \"/etc/cron.d/*\" }";
        let Node::Map(entries) = &scope.value else {
            self.fault(&scope, format!("{SHAPE}, not as {}", scope.value.name()));
            return None;
        };
        let (mut kind, mut keys) = (None, None);
        let before = self.faults.len();
        for (name, value) in entries {
            match (name.value.as_str(), &value.value) {
                ("kind", Node::Text(text)) => match text.parse::<ItemKind>() {
                    Ok(parsed) => kind = Some(parsed),
                    Err(error) => {
                        let near = nearest(text, &ItemKind::ALL.map(ItemKind::name));
                        self.fault(value, format!("{error}{}", near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()));
                    }
                },
                ("keys", Node::Text(text)) => keys = Some((value, text.as_str())),
                ("kind" | "keys", other) => self.fault(value, format!("{}: write a text here, not {}", name.value, other.name())),
                (unknown, _) => {
                    let near =
                        nearest(unknown, &["kind", "keys"]).map(|near| format!(": did you mean `{near}`?")).unwrap_or(".".to_owned());
                    self.fault(name, format!("unknown key `{}`{near} Known here: kind, keys", bounded(unknown, 80)));
                }
            }
        }
        match (kind, keys) {
            (Some(kind), Some((at, keys))) => {
                let fault = scope_fault(kind, keys);
                let scope = ClosedScope { kind, keys: Pattern::new(keys) };
                fault.map_or(Some(scope), |fault| {
                    self.fault(at, fault);
                    None
                })
            }
            (kind, _) => {
                if self.faults.len() == before {
                    self.fault(&scope, format!("the key `{}` is missing: {SHAPE}", if kind.is_none() { "kind" } else { "keys" }));
                }
                None
            }
        }
    }

    fn items(&mut self, items: Spanned<Node>) -> BTreeMap<ItemId, ExpectedItem> {
        let entries = match items.value {
            Node::Map(entries) => entries,
            Node::Nothing => Vec::new(),
            _ => {
                self.fault(
                    &items,
                    "items: write each item with what is expected of it, as in \"sysctl:net.ipv4.ip_forward\": { value: \"0\" }",
                );
                Vec::new()
            }
        };
        let mut kept = BTreeMap::new();
        for (key, node) in entries {
            let item: ItemId = match key.value.parse() {
                Ok(item) => item,
                Err(error) => {
                    self.fault(&key, error.to_string());
                    continue;
                }
            };
            if let Some(fault) = key_fault(&item) {
                self.fault(&key, fault);
            }
            let Some(expected) = self.expected(item.kind, &key, node) else { continue };
            match kept.entry(item) {
                Entry::Vacant(place) => drop(place.insert(expected)),
                Entry::Occupied(place) => {
                    let message = format!("`{}` stands here a second time: keep one of the two", bounded(&place.key().to_string(), 80));
                    self.fault(&key, message);
                }
            }
        }
        kept
    }

    fn expected(&mut self, kind: ItemKind, key: &Spanned<String>, node: Spanned<Node>) -> Option<ExpectedItem> {
        let example = || {
            let example = super::fields::example_of(kind);
            format!("write `absent`, or the fields that are expected, as in {example}")
        };
        match node.value {
            Node::Map(entries) => Some(ExpectedItem::Fields(self.fields(kind, entries))),
            Node::Text(word) if word == "absent" => Some(ExpectedItem::Absent(AbsentWord::Absent)),
            Node::Text(word) => {
                // Its place is that of the value; a text over several lines has none of its own.
                let place = Spanned::new((), node.referenced, node.defined);
                self.fault(&place, format!("`{}` is nothing that can be expected of an item: {}", bounded(&word, 40), example()));
                None
            }
            Node::Nothing => {
                self.fault(key, format!("nothing is expected of `{}`: {}", bounded(&key.value, 80), example()));
                None
            }
            other => {
                let place = Spanned::new((), node.referenced, node.defined);
                self.fault(&place, format!("{} is nothing that can be expected of an item: {}", other.name(), example()));
                None
            }
        }
    }

    fn fields(&mut self, kind: ItemKind, entries: Vec<(Spanned<String>, Spanned<Node>)>) -> Fields {
        let mut fields = Fields::new();
        for (name, node) in entries {
            let shown = bounded(&name.value, 80).into_owned();
            let field_type = match type_of(kind, &name.value) {
                Ok(field_type) => field_type,
                Err(fault) => {
                    self.fault(&name, bounded(&fault, 600));
                    continue;
                }
            };
            if matches!(node.value, Node::Nothing) {
                self.fault(&name, format!("{shown}: write a value here, not nothing"));
                continue;
            }
            let value = match self.value(&shown, &node) {
                Some(value) => field_type.check(&shown, value, || self.written(&node)),
                None => continue,
            };
            match value {
                Ok(value) => fields.set(FieldName::new(&name.value), value),
                Err(fault) => self.fault(&node, fault),
            }
        }
        fields
    }

    /// The value of a field; a number that is none of ours goes as its text, which no number field takes.
    fn value(&mut self, name: &str, node: &Spanned<Node>) -> Option<Value> {
        match &node.value {
            Node::Boolean(boolean) => Some(Value::Boolean(*boolean)),
            Node::Integer(number) => Some(Value::Integer(*number)),
            // Refused whatever the field's type is, with the right words.
            Node::Number => Some(Value::Integer(-1)),
            Node::Text(text) => Some(Value::Text(text.clone())),
            Node::List(nodes) => {
                let mut texts = Vec::with_capacity(nodes.len());
                for node in nodes {
                    match &node.value {
                        Node::Text(text) => texts.push(text.clone()),
                        other => {
                            let written = self.written(node);
                            let what = match other {
                                Node::Integer(_) | Node::Number | Node::Boolean(_) => format!("; write \"{written}\""),
                                _ => format!(", not {}", other.name()),
                            };
                            self.fault(node, format!("{name}: a list holds texts{what}"));
                        }
                    }
                }
                (texts.len() == nodes.len()).then_some(Value::List(texts))
            }
            Node::Nothing | Node::Map(_) => {
                self.fault(node, format!("{name}: write a value here, not {}", node.value.name()));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Far more than it takes, and far less than to look through the line once for each of its faults.
    const GUARD: Duration = Duration::from_secs(30);

    #[test]
    fn a_document_of_one_line_is_checked_in_one_go_and_its_values_are_quoted_as_written() {
        let items: Vec<String> = (0..30_000).map(|number| format!("\"sysctl:é.{number}\": {{ value: {number} }}")).collect();
        let text = format!("\u{feff}{{ name: web, items: {{ {} }} }}", items.join(", "));
        let began = Instant::now();
        let faults = parse("line.yaml", &text).unwrap_err().0;
        assert!(began.elapsed() < GUARD, "{:?}", began.elapsed());
        assert_eq!(faults.len(), 30_000);
        for (number, fault) in faults.iter().enumerate() {
            assert_eq!(fault.message, format!("value is text; write value: \"{number}\""));
        }
    }
}
