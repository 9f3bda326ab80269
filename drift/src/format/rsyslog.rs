//! rsyslog.conf(5): legacy directives (`$FileOwner`), selectors with their actions (`rule auth.*`), and those objects of RainerScript that
//! are parameters alone (`input imudp.port`, `global.workDirectory`).
//!
//! All values of a directive or selector count, in their order; a parameter counts once, as there. Whatever else there is (conditions, rule sets with a
//! block, filters by property) has a meaning that only rsyslog computes: it is told as whole statements in their order,
//! with blanks between words made one.

use std::collections::BTreeMap;

use super::{FormatError, Repeat, Settings};

/// Objects, and the parameters that name one of several.
const OBJECTS: &[&str] =
    &["action", "global", "include", "input", "lookup_table", "main_queue", "module", "parser", "template", "timezone"];
const LABELS: &[&str] = &["load", "name", "type", "file"];

pub(super) fn covers(path: &str) -> bool {
    let in_folder = path.strip_prefix("/etc/rsyslog.d/").is_some_and(|name| !name.contains('/') && name.ends_with(".conf"));
    path == "/etc/rsyslog.conf" || in_folder
}

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    let mut rest = text;
    // The setting that a line with `&` adds to.
    let mut last = String::from("statement");
    let mut objects: BTreeMap<String, usize> = BTreeMap::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(());
        }
        let line = || text[..text.len() - rest.len()].matches('\n').count() + 1;
        if rest.starts_with('#') {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
            continue;
        }
        if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").ok_or_else(|| FormatError { line: line(), reason: "a comment does not end" })?.1;
            continue;
        }
        let is_script =
            ["if ", "if(", "set ", "reset ", "unset ", "foreach ", "foreach(", "call ", "else"].iter().any(|word| rest.starts_with(word));
        let word = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let is_object = rest[word..].trim_start_matches([' ', '\t']).starts_with('(') && word > 0;
        let length = if is_script || is_object {
            script(rest).ok_or_else(|| FormatError { line: line(), reason: "a statement does not end" })?
        } else {
            legacy(rest)
        };
        let (statement, after) = rest.split_at(length);
        rest = after;
        if is_object && let Some(parameters) = OBJECTS.contains(&&statement[..word]).then(|| parameters(&statement[word..])).flatten() {
            let label = LABELS.iter().find_map(|label| parameters.iter().find(|(name, _)| name == label).map(|(_, value)| value.as_str()));
            let mut path = statement[..word].to_owned();
            if let Some(label) = label {
                path = format!("{path} {}", crate::text::bounded(label, 120));
            }
            let times = objects.entry(path.clone()).or_insert(0);
            *times += 1;
            if *times > 1 {
                path = format!("{path} #{times}");
            }
            for (name, value) in &parameters {
                settings.take(Repeat::Last, &format!("{path}.{name}"), value);
            }
            continue;
        }
        let plain = statement.replace("\\\n", " ").split_whitespace().collect::<Vec<_>>().join(" ");
        let (first, action) = plain.split_once(' ').unwrap_or((&plain, ""));
        if is_object || is_script || first.starts_with([':', '!', '+', '-']) {
            last = "statement".to_owned();
            settings.take(Repeat::Ordered, &last, &plain);
        } else if first == "&" || first == "~" || action.is_empty() {
            settings.take(Repeat::Ordered, &last, &plain);
        } else if first.starts_with('$') {
            settings.take(Repeat::Ordered, first, action);
        } else {
            last = format!("rule {}", crate::text::bounded(first, 200));
            settings.take(Repeat::Ordered, &last, action);
        }
    }
}

/// The length of a line, with those that it goes on in.
fn legacy(text: &str) -> usize {
    let mut at = 0;
    loop {
        match text[at..].find('\n') {
            None => return text.len(),
            Some(end) if text[..at + end].ends_with('\\') => at += end + 1,
            Some(end) => return at + end,
        }
    }
}

/// The length of a statement of RainerScript: up to the end of a line at which all brackets are closed and nothing is to
/// follow; `None` where that is not found.
fn script(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                at += 1;
                while *bytes.get(at)? != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'#' => at += bytes[at..].iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len() - at).saturating_sub(1),
            b'(' | b'{' | b'[' => depth += 1,
            b')' | b'}' | b']' => depth = depth.checked_sub(1)?,
            b'\n' if depth == 0 => {
                let before = text[..at].trim_end();
                let next = text[at..].trim_start();
                let goes_on = ["then", "else", "and", "or", "do", "="].iter().any(|word| before.ends_with(word));
                if !goes_on && !next.starts_with(['{', '(']) && !next.starts_with("else") && !next.starts_with("then") {
                    return Some(at);
                }
                // What was looked at is not looked at again.
                at = text.len() - next.len();
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    (depth == 0).then_some(text.len())
}

/// `(name="value" …)` and nothing behind it; `None` where there is anything else.
fn parameters(text: &str) -> Option<Vec<(String, String)>> {
    let mut rest = text.trim().strip_prefix('(')?.strip_suffix(')')?.trim_start();
    let mut parameters = Vec::new();
    while !rest.is_empty() {
        if let Some(comment) = rest.strip_prefix('#') {
            rest = comment.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
            continue;
        }
        let (name, behind) = rest.split_once('=')?;
        let name = name.trim();
        let inner = behind.trim_start().strip_prefix('"')?;
        let mut value = String::new();
        let mut characters = inner.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at + 1,
                (_, '\\') => value.extend(['\\', characters.next()?.1]),
                (_, c) => value.push(c),
            }
        };
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if !is_name || parameters.len() >= super::SETTINGS_LIMIT {
            return None;
        }
        parameters.push((name.to_owned(), value));
        rest = inner[end..].trim_start();
    }
    Some(parameters)
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::nested_tests::{refused, told};

    #[test]
    fn what_is_understood_is_told_by_name_and_the_rest_whole() {
        let text = "# c\nmodule(load=\"imuxsock\" # local\n       SysSock.Use=\"off\")\nmodule(load=\"imudp\")\ninput(type=\"imudp\" port=\"514\")\ninput(type=\"imudp\" port=\"515\")\nglobal(workDirectory=\"/var/spool\")\n$FileOwner root\n$IncludeConfig /etc/rsyslog.d/*.conf\nauth,authpriv.*\t\t/var/log/auth.log\n*.*;auth.none   -/var/log/syslog\n& stop\n:msg, contains, \"x\" /var/log/x\nif $programname == 'a' then {\n  action(type=\"omfile\" file=\"/a\")\n  stop\n}\nruleset(name=\"r\") {\n  *.* /b\n}\naction(type=\"omfwd\" target=\"h\")\nif $x == 1 then\n  stop\nmail.* /m\n";
        insta::assert_snapshot!(told(Format::Rsyslog, text));
    }

    #[test]
    fn hostile_files_end() {
        for text in ["if (".to_owned() + &"(".repeat(1 << 19), "module(\"".to_owned(), "/*".to_owned(), "if }".to_owned()] {
            refused(Format::Rsyslog, &text);
        }
        told(Format::Rsyslog, &"a\\\n".repeat(1 << 18));
        told(Format::Rsyslog, &"& x\n".repeat(1 << 17));
        told(Format::Rsyslog, &("if x then\n".repeat(1 << 16) + "stop"));
        told(Format::Rsyslog, &"if x\n".repeat(1 << 16));
        assert!(told(Format::Rsyslog, "a.* \u{1b}[31m").contains("\\\\x1b[31m"));
    }
}
