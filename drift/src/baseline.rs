//! Baselines: desired state, captured from a host or written as YAML.
//!
//! A baseline speaks for the items it lists and for the scopes it closes. In a closed scope an item
//! that is not listed should not exist; outside it is no concern of the baseline.

mod check;
mod draft;
mod fields;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::format::{self, Format};
use crate::pattern::Pattern;
use crate::{FieldName, Fields, ItemId, ItemKind, Value};

pub use check::{BaselineFaults, name_fault, scope_fault};

/// Fields that move without anybody deciding: never part of a captured baseline.
const VOLATILE: &[&str] = &["mtime", "nlink"];

/// Fields that an item may come to have, and whose coming somebody decided. Sorted. A field that agents learn to report one
/// day is not for this list while there are baselines from before: it would be drift on every host.
const OPTIONAL: &[&str] = &[
    "acl",
    "capabilities",
    "default_acl",
    "dropins",
    "dropins_sha256",
    "enabled",
    "flags",
    "gecos",
    "home",
    "instances",
    "link_target",
    "members",
    "password",
    "shell",
];

/// Extended attributes are optional too, whatever their name.
const XATTR: &str = "xattr.";

/// Fields of a file that any edit moves, one of a comment too.
const BY_CONTENTS: &[&str] = &["sha256", "size"];

/// Settings of sshd that mean another thing in another place of the file.
const PLACED: &[&str] = &["Include", "Match "];

/// What a baseline says of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// These fields, with these values; other fields are free.
    Fields(Fields),
    /// These fields, and none of those that an item need not have.
    Whole(Fields),
    /// The item should not exist.
    Absent,
    /// The baseline does not speak of it.
    Free,
}

/// A part of a host in which everything that should exist is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClosedScope {
    pub kind: ItemKind,
    /// Over item keys.
    pub keys: Pattern,
}

impl ClosedScope {
    pub fn contains(&self, item: &ItemId) -> bool {
        self.kind == item.kind && self.keys.matches(item.key.as_str())
    }
}

/// A baseline as it is written: the YAML document.
///
/// ```yaml
/// name: web
/// closed:
///   - { kind: file, keys: "/etc/cron.d/*" }
/// items:
///   "file:/etc/ssh/sshd_config": { mode: "0600", owner: root }
///   "sysctl:net.ipv4.ip_forward": { value: "0" }
///   "package:telnetd": absent
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BaselineDocument {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The fields of a listed item are all that it should have: an ACL, a capability or a member that is not written should
    /// not be there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<ClosedScope>,
    pub items: BTreeMap<ItemId, ExpectedItem>,
}

/// `absent`, or the fields that are expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ExpectedItem {
    Absent(AbsentWord),
    Fields(Fields),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AbsentWord {
    Absent,
}

impl BaselineDocument {
    /// Reads a written baseline: what no host could ever fulfil is refused, all of it at once.
    pub fn parse(source_name: &str, text: &str) -> Result<Self, BaselineFaults> {
        check::parse(source_name, text)
    }

    pub fn expectation(&self, item: &ItemId) -> Expectation {
        match self.items.get(item) {
            Some(ExpectedItem::Fields(fields)) if self.whole => Expectation::Whole(fields.clone()),
            Some(ExpectedItem::Fields(fields)) => Expectation::Fields(fields.clone()),
            Some(ExpectedItem::Absent(_)) => Expectation::Absent,
            None => unlisted(&self.closed, item),
        }
    }
}

/// What a baseline with these closed scopes says of an item that it does not list.
pub fn unlisted(closed: &[ClosedScope], item: &ItemId) -> Expectation {
    if closed.iter().any(|scope| scope.contains(item)) { Expectation::Absent } else { Expectation::Free }
}

/// What a captured baseline says of an item, from how it was then. Of a field that could not be read it says nothing, not
/// even that it should be absent: see [`departures`]. Of a file whose settings say all there is to say it holds those and no
/// digest: comments and order are nobody's decision.
pub fn captured(fields: &Fields) -> Fields {
    let is_folder = fields.value("type") == Some(&Value::text("folder"));
    let is_told_whole = is_told_whole(fields);
    fields
        .iter()
        .filter(|(name, _)| {
            // A folder's size is its file system's affair.
            let is_volatile = VOLATILE.contains(&name.as_str()) || (is_folder && name.as_str() == "size");
            !(is_volatile || (is_told_whole && BY_CONTENTS.contains(&name.as_str())))
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Whether the settings of a file were read, all of them, and stand for its contents.
fn is_told_whole(fields: &Fields) -> bool {
    let format = match fields.value("format") {
        Some(Value::Text(name)) => Format::named(name),
        _ => None,
    };
    let is_cut = ["format_error", "config_left_out"].iter().any(|name| fields.value(name).is_some());
    // Where such a line stands decides what it does, and settings do not show that.
    let is_placed = |name: &str| PLACED.iter().any(|start| name.strip_prefix(format::CONFIG).is_some_and(|rest| rest.starts_with(start)));
    format.is_some_and(Format::tells_all) && !is_cut && !fields.iter().any(|(name, _)| is_placed(name.as_str()))
}

/// A field that departs from the baseline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    pub field: FieldName,
    pub expected: Option<Value>,
    pub actual: Option<Value>,
}

/// The name of the field that stands for an item's being there at all.
pub const EXISTS: FieldName = FieldName::known("exists");

/// Where an item departs from what is expected of it; `None` stands for an item that is not there.
/// Sorted by field. An unreadable value departs: what could not be read is not compliant.
pub fn departures(expected: &Expectation, actual: Option<&Fields>) -> Vec<Departure> {
    let exists = |expected: bool, actual: bool| {
        vec![Departure { field: EXISTS, expected: Some(Value::Boolean(expected)), actual: Some(Value::Boolean(actual)) }]
    };
    match (expected, actual) {
        (Expectation::Free, _) | (Expectation::Absent, None) => Vec::new(),
        (Expectation::Absent, Some(_)) => exists(false, true),
        (Expectation::Fields(_) | Expectation::Whole(_), None) => exists(true, false),
        (Expectation::Fields(expected), Some(actual)) => differing(expected, actual),
        (Expectation::Whole(expected), Some(actual)) => {
            let mut departures = differing(expected, actual);
            departures.extend(unasked(expected, actual));
            departures.sort_by(|one, other| one.field.cmp(&other.field));
            departures
        }
    }
}

/// Fields whose value is not the expected one. What could not be read when it was captured is expected to be nothing.
fn differing(expected: &Fields, actual: &Fields) -> Vec<Departure> {
    expected
        .iter()
        .filter(|(name, value)| !value.is_unreadable() && actual.value(name.as_str()) != Some(value))
        .map(|(name, value)| Departure { field: name.clone(), expected: Some(value.clone()), actual: actual.value(name.as_str()).cloned() })
        .collect()
}

/// Fields that came to an item although nothing is said of them.
fn unasked(expected: &Fields, actual: &Fields) -> impl Iterator<Item = Departure> {
    // A baseline from before agents told settings says nothing of any.
    let speaks_of_settings = expected.iter().any(|(name, _)| format::is_of_settings(name.as_str()));
    let is_setting = move |name: &str| speaks_of_settings && name != "format" && format::is_of_settings(name);
    let is_optional = move |name: &str| OPTIONAL.binary_search(&name).is_ok() || name.starts_with(XATTR) || is_setting(name);
    actual
        .iter()
        .filter(move |(name, value)| is_optional(name.as_str()) && expected.value(name.as_str()).is_none() && !value.is_unreadable())
        .map(|(name, value)| Departure { field: name.clone(), expected: None, actual: Some(value.clone()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = r#"
name: web
closed:
  - { kind: file, keys: "/etc/cron.d/*" }
items:
  "file:/etc/ssh/sshd_config": { mode: "0600", owner: root }
  "package:telnetd": absent
"#;

    #[test]
    fn a_written_baseline_speaks_of_listed_items_and_closed_scopes() {
        let web = BaselineDocument::parse("web.yaml", WEB).unwrap();
        let expectation = |item: &str| web.expectation(&item.parse().unwrap());
        assert!(matches!(expectation("file:/etc/ssh/sshd_config"), Expectation::Fields(_)));
        assert_eq!(expectation("package:telnetd"), Expectation::Absent);
        assert_eq!(expectation("file:/etc/cron.d/evil"), Expectation::Absent);
        assert_eq!(expectation("file:/etc/hosts"), Expectation::Free);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = BaselineDocument::parse("web.yaml", "name: web\nitem: {}\n").unwrap_err().to_string();
        assert!(error.starts_with("web.yaml:2:1: unknown key `item`: did you mean `items`?"), "{error}");
    }

    fn faults(text: &str) -> Vec<String> {
        BaselineDocument::parse("bad.yaml", text).unwrap_err().0.iter().map(ToString::to_string).collect()
    }

    /// One item a line, from line 3 on.
    fn fault_of(item: &str) -> String {
        let found = faults(&format!("name: web\nitems:\n  {item}\n"));
        assert_eq!(found.len(), 1, "{found:#?}");
        found[0].clone()
    }

    #[test]
    fn a_value_of_another_type_than_hosts_report_is_refused_with_what_to_write() {
        for (item, message) in [
            ("sysctl:vm.swappiness: { value: 0 }", "bad.yaml:3:34: value is text; write value: \"0\""),
            ("file:/a: { mode: 644 }", "bad.yaml:3:20: mode is text, four octal digits in quotes; write mode: \"0644\""),
            ("file:/a: { mode: 0644 }", "bad.yaml:3:20: mode is text, four octal digits in quotes; write mode: \"0644\""),
            ("file:/a: { size: \"49\" }", "bad.yaml:3:20: size is a number, without quotes; write size: 49"),
            ("file:/a: { uid: root }", "bad.yaml:3:19: uid is a whole number, as in uid: 0"),
            ("file:/a: { mode: \"644\" }", "bad.yaml:3:20: mode: a mode has four octal digits; write mode: \"0644\""),
            ("file:/a: { mode: \"0648\" }", "bad.yaml:3:20: mode: `0648` is no mode; write four octal digits, as in mode: \"0644\""),
            ("file:/a: { type: dir }", "bad.yaml:3:20: type: `dir` is none of file, folder, symlink, fifo, socket, block, char"),
            ("file:/a: { sha256: ab }", "bad.yaml:3:22: sha256: a SHA-256 has 64 hexadecimal digits"),
            ("package:a: { version: 1.10 }", "bad.yaml:3:25: version is text; write version: \"1.10\""),
            ("user:a: { locked: \"yes\" }", "bad.yaml:3:21: locked is true or false, without quotes"),
            ("user:a: { gecos: \"\" }", "bad.yaml:3:20: gecos: no host reports an empty text; leave the field out"),
            ("group:a: { members: b }", "bad.yaml:3:23: members is a list; write members: [b]"),
            ("group:a: { members: [1] }", "bad.yaml:3:24: members: a list holds texts; write \"1\""),
        ] {
            assert_eq!(fault_of(item), message);
        }
    }

    #[test]
    fn what_no_host_has_is_refused_with_what_to_write() {
        for (item, message) in [
            ("file:/a: { mod: \"0644\" }", "bad.yaml:3:14: a file has no field `mod`: did you mean `mode`? Known here: acl, "),
            (
                "sysctl:a.b: { val: \"0\" }",
                "bad.yaml:3:17: a sysctl has no field `val`: did you mean `value`? Known here: configured, configured_by, value",
            ),
            ("file:etc/a: absent", "bad.yaml:3:3: `file:etc/a`: a file's path is absolute; write \"file:/etc/a\""),
            ("file:/etc/: absent", "bad.yaml:3:3: `file:/etc/`: take the `/` at its end away"),
            ("file:/etc/../a: absent", "bad.yaml:3:3: `file:/etc/../a`: write the path without `.` and `..`"),
            ("file:/etc//a: absent", "bad.yaml:3:3: `file:/etc//a`: write one `/` for `//`"),
            (
                "sysctl:net/ipv4/ip_forward: absent",
                "bad.yaml:3:3: `sysctl:net/ipv4/ip_forward`: write it with full stops, \"sysctl:net.ipv4.ip_forward\"",
            ),
            ("unit:ssh: absent", "bad.yaml:3:3: `unit:ssh`: a unit's name ends in its type, as in \"unit:ssh.service\""),
            ("fil:/etc/a: absent", &format!("bad.yaml:3:3: `fil` is not a kind of item: use {}", ItemKind::names())),
            (
                "file:/a: absnt",
                "bad.yaml:3:12: `absnt` is nothing that can be expected of an item: write `absent`, or the fields that are expected, as in ",
            ),
            ("file:/a: { owner: }", "bad.yaml:3:14: owner: write a value here, not nothing"),
            ("file:/a:", "bad.yaml:3:3: nothing is expected of `file:/a`: write `absent`, "),
            ("file:/a: [x]", "bad.yaml:3:12: a list is nothing that can be expected of an item: "),
        ] {
            let fault = fault_of(item);
            assert!(fault.starts_with(message), "{fault}");
        }
    }

    #[test]
    fn closed_scopes_that_hold_nothing_are_refused() {
        for (scope, message) in [
            ("{ kind: file, keys: etc/* }", "bad.yaml:3:25: keys: `etc/*` matches no file, for paths are absolute; write \"/etc/*\""),
            ("{ kind: file, keys: /etc/ }", "bad.yaml:3:25: keys: `/etc/` matches no file: take the `/` at its end away"),
            (
                "{ kind: fil, keys: /etc/* }",
                &format!("bad.yaml:3:13: `fil` is not a kind of item: use {}; did you mean `file`?", ItemKind::names()),
            ),
            ("{ kind: file }", "bad.yaml:3:5: the key `keys` is missing: "),
            ("{ kind: file, key: /etc/* }", "bad.yaml:3:19: unknown key `key`: did you mean `keys`? Known here: kind, keys"),
        ] {
            let found = faults(&format!("name: web\nclosed:\n  - {scope}\n"));
            assert!(found.len() == 1 && found[0].starts_with(message), "{found:#?}");
        }
        let all = "name: web\nclosed:\n  - { kind: file, keys: \"**\" }\n  - { kind: unit, keys: \"*\" }\n";
        assert_eq!(BaselineDocument::parse("good.yaml", all).unwrap().closed.len(), 2);
    }

    #[test]
    fn all_faults_are_told_at_once_in_the_order_of_their_lines() {
        let found = faults(
            "name: web server\nitems:\n  file:/b: { mode: 644, uid: \"0\" }\n  file:/a: absnt\n  'file:/c\\x0a': absent\n  \"file:/c\\n\": absent\nclosed: x\n",
        );
        let places: Vec<&str> = found.iter().map(|fault| &fault[..fault.find(": ").unwrap()]).collect();
        assert_eq!(
            places,
            ["bad.yaml:1:7", "bad.yaml:3:20", "bad.yaml:3:30", "bad.yaml:4:12", "bad.yaml:6:3", "bad.yaml:7:9"],
            "{found:#?}"
        );
        let many = (0..60).map(|at| format!("  file:/{at}: absnt\n")).collect::<String>();
        let told = BaselineDocument::parse("bad.yaml", &format!("name: web\nitems:\n{many}")).unwrap_err().to_string();
        assert!(told.lines().count() == 51 && told.ends_with("\nand 10 more"), "{told}");
    }

    #[test]
    fn a_baseline_written_out_reads_back_the_same() {
        let text = r#"
name: "5"
description: "yes"
closed: [{ kind: file, keys: "/etc/cron.d/*" }]
items:
  "file:/etc/a: b": { mode: "0644", size: 12, type: file, "xattr.user.note": "null" }
  "sysctl:net.ipv4.tcp_rmem": { value: "4096	87380" }
  "user:a": { locked: true, uid: 7 }
  "group:a": { members: [c, b] }
  "package:telnetd": absent
"#;
        let document = BaselineDocument::parse("a.yaml", text).unwrap();
        let written = crate::document::to_yaml(&document);
        assert_eq!(BaselineDocument::parse("b.yaml", &written).unwrap(), document, "{written}");
        assert!(written.contains("4096 87380"), "{written}");
    }

    #[test]
    fn what_comes_to_an_item_that_is_listed_whole_departs() {
        let with = |capability: Option<&str>| {
            let fields = Fields::new().with("mode", "0755").with("mtime", "1").with("nlink", 1);
            capability.map_or(fields.clone(), |capability| fields.with("capabilities", capability))
        };
        let (plain, capable) = (with(None), with(Some("cap_setuid=ep")));
        let whole = Expectation::Whole(captured(&plain));
        assert_eq!(departures(&whole, Some(&plain)), []);
        assert_eq!(departures(&whole, Some(&plain.clone().with("of_a_newer_agent", "x").with("mtime", "2"))), []);
        let departure = Departure { field: FieldName::known("capabilities"), expected: None, actual: Some(Value::text("cap_setuid=ep")) };
        assert_eq!(departures(&whole, Some(&capable)), [departure]);
        assert_eq!(departures(&Expectation::Whole(captured(&capable)), Some(&plain)).len(), 1, "and what went");
        assert_eq!(departures(&Expectation::Fields(captured(&plain)), Some(&capable)), [], "other fields are free");
        let mut unread = plain.clone();
        unread.set(FieldName::known("capabilities"), Value::unreadable("permission denied"));
        assert_eq!(departures(&Expectation::Whole(captured(&unread)), Some(&capable)), [], "nobody knows how it was");
        assert_eq!(departures(&whole, Some(&unread)), []);
        let written = BaselineDocument::parse("web.yaml", "name: web\nwhole: true\nitems:\n  file:/a: { mode: \"0755\" }\n").unwrap();
        assert!(matches!(written.expectation(&"file:/a".parse().unwrap()), Expectation::Whole(_)));
        assert!(crate::document::to_yaml(&written).contains("whole: true"));
    }

    #[test]
    fn optional_fields_are_known_ones_in_order() {
        assert!(OPTIONAL.is_sorted());
        let is_known = |name: &&str| ItemKind::ALL.into_iter().any(|kind| fields::type_of(kind, name).is_ok());
        assert!(OPTIONAL.iter().all(is_known));
    }

    /// As an agent tells a file of a format.
    fn configured(path: &str, text: &str) -> Fields {
        let format = Format::of(path).unwrap();
        let mut fields: Fields = format.read(text.as_bytes()).unwrap().fields(|_, value| value.to_owned()).into_iter().collect();
        let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(text));
        fields.set(FieldName::known("format"), Value::text(format.name()));
        fields.with("mode", "0644").with("sha256", digest.as_str()).with("size", i64::try_from(text.len()).unwrap())
    }

    #[test]
    fn a_captured_configuration_file_departs_by_what_it_sets() {
        const SSHD: &str = "/etc/ssh/sshd_config";
        let mut story = String::new();
        for (path, before, after) in [
            (SSHD, "PermitRootLogin no\n", "# who?\nPermitRootLogin  no\n"),
            (SSHD, "PermitRootLogin no\nX11Forwarding no\n", "X11Forwarding no\nPermitRootLogin no\n"),
            (SSHD, "PermitRootLogin no\n", "PermitRootLogin yes\n"),
            (SSHD, "PermitRootLogin no\n", "PermitRootLogin no\nPermitRootLogin yes\n"),
            (SSHD, "PermitRootLogin no\n", "PermitRootLogin no\nMatch User bob\nPermitRootLogin yes\n"),
            (SSHD, "# nothing\n", "PermitEmptyPasswords yes\n"),
            ("/etc/default/ssh", "A=1\n", "A=1\nrm -rf /tmp/x\n"),
            (SSHD, "Include x\nPermitRootLogin no\n", "PermitRootLogin no\nInclude x\n"),
        ] {
            let expected = Expectation::Whole(captured(&configured(path, before)));
            story.push_str(&format!("{path}: {before:?} -> {after:?}\n"));
            for departure in departures(&expected, Some(&configured(path, after))) {
                let shown = |value: Option<Value>| value.map_or_else(|| "absent".to_owned(), |value| value.to_string());
                let actual = if departure.field.as_str() == "sha256" { "another".to_owned() } else { shown(departure.actual) };
                let expected = if departure.field.as_str() == "sha256" { "one".to_owned() } else { shown(departure.expected) };
                story.push_str(&format!("  {}: {expected} -> {actual}\n", departure.field));
            }
        }
        insta::assert_snapshot!(story, @r##"
        /etc/ssh/sshd_config: "PermitRootLogin no\n" -> "# who?\nPermitRootLogin  no\n"
        /etc/ssh/sshd_config: "PermitRootLogin no\nX11Forwarding no\n" -> "X11Forwarding no\nPermitRootLogin no\n"
        /etc/ssh/sshd_config: "PermitRootLogin no\n" -> "PermitRootLogin yes\n"
          config.PermitRootLogin: no -> yes
        /etc/ssh/sshd_config: "PermitRootLogin no\n" -> "PermitRootLogin no\nPermitRootLogin yes\n"
          conflict.PermitRootLogin: absent -> [no, yes]
        /etc/ssh/sshd_config: "PermitRootLogin no\n" -> "PermitRootLogin no\nMatch User bob\nPermitRootLogin yes\n"
          config.Match User bob.PermitRootLogin: absent -> yes
        /etc/ssh/sshd_config: "# nothing\n" -> "PermitEmptyPasswords yes\n"
          config.PermitEmptyPasswords: absent -> yes
        /etc/default/ssh: "A=1\n" -> "A=1\nrm -rf /tmp/x\n"
          sha256: one -> another
          size: 4 -> 18
        /etc/ssh/sshd_config: "Include x\nPermitRootLogin no\n" -> "PermitRootLogin no\nInclude x\n"
          sha256: one -> another
        "##);
    }

    #[test]
    fn a_digest_that_somebody_wrote_counts_and_a_baseline_from_before_settings_asks_for_none() {
        let path = "/etc/ssh/sshd_config";
        let now = configured(path, "# c\nPermitRootLogin no\n");
        let before: Fields = configured(path, "PermitRootLogin no\n");
        let digest = before.value("sha256").unwrap().to_string();
        let text = format!("name: web\nwhole: true\nitems:\n  file:{path}: {{ sha256: {digest}, config.PermitRootLogin: \"no\" }}\n");
        let written = BaselineDocument::parse("web.yaml", &text).unwrap().expectation(&format!("file:{path}").parse().unwrap());
        let departed: Vec<String> = departures(&written, Some(&now)).iter().map(|departure| departure.field.to_string()).collect();
        assert_eq!(departed, ["sha256"]);
        let older: Fields = before.clone().into_iter().filter(|(name, _)| !format::is_of_settings(name.as_str())).collect();
        assert_eq!(departures(&Expectation::Whole(captured(&older)), Some(&before)), []);
        let cut = before.with("config_left_out", 3);
        assert!(captured(&cut).value("sha256").is_some(), "what is not told must show somehow");
    }

    #[test]
    fn what_cannot_be_read_departs() {
        let expected = Expectation::Fields(Fields::new().with("sha256", "ab"));
        let mut actual = Fields::new();
        actual.set(FieldName::known("sha256"), Value::unreadable("permission denied"));
        assert_eq!(departures(&expected, Some(&actual)).len(), 1);
    }
}
