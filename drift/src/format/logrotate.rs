//! logrotate.conf(8): what holds for all logs, and what holds for the files of one block, by its patterns: `/var/log/a.log.rotate`.
//!
//! The last of a directive counts, as there, and a conflict is shown. A directive and its opposite are one setting (`compress` and `nocompress`:
//! `yes` or `no`), and so are the intervals (`frequency`) and the scripts as a whole.

use super::blocks::{self, Block, Statement};
use super::{FormatError, Repeat, Settings};

/// Directives that another undoes with `no` before it.
const SWITCHES: &[&str] = &[
    "compress",
    "copy",
    "copytruncate",
    "create",
    "createolddir",
    "dateext",
    "datehourago",
    "dateyesterday",
    "delaycompress",
    "mail",
    "missingok",
    "olddir",
    "renamecopy",
    "sharedscripts",
    "shred",
];
const FREQUENCIES: &[&str] = &["daily", "hourly", "monthly", "weekly", "yearly"];
const SCRIPTS: &[&str] = &["firstaction", "lastaction", "postrotate", "preremove", "prerotate"];
const SEVERAL: &[&str] = &["include", "taboopat", "tabooext"];

pub(super) fn covers(path: &str) -> bool {
    let is_ours = |name: &str| {
        !name.is_empty() && !name.contains(['/', '~']) && !name.starts_with('.') && !name.contains(".dpkg-") && !name.contains(".rpm")
    };
    path == "/etc/logrotate.conf" || path.strip_prefix("/etc/logrotate.d/").is_some_and(is_ours)
}

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    let root = tree(text)?;
    blocks::take(
        &root,
        "",
        settings,
        &|_, statement, settings, path| {
            let (name, arguments) = (statement.name.as_str(), statement.arguments.join(" "));
            let opposite = name.strip_prefix("no").filter(|name| SWITCHES.contains(name));
            let (name, value) = match (name, opposite) {
                ("ifempty", _) => ("ifempty", "yes".to_owned()),
                ("notifempty", _) => ("ifempty", "no".to_owned()),
                (_, Some(opposite)) => (opposite, "no".to_owned()),
                (name, _) if FREQUENCIES.contains(&name) => ("frequency", format!("{name} {arguments}").trim().to_owned()),
                (name, _) if arguments.is_empty() => (name, "yes".to_owned()),
                (name, _) => (name, arguments),
            };
            let repeat = if SEVERAL.contains(&name) { Repeat::Ordered } else { Repeat::Last };
            settings.take(repeat, &blocks::joined(path, name), &value);
        },
        &|_, _| vec![String::new()],
    )
}

fn tree(text: &str) -> Result<Block, FormatError> {
    let mut root = Block::default();
    // The block that is not closed yet, and the patterns before one that may stand on several lines.
    let mut open: Option<(String, Block)> = None;
    let mut patterns = String::new();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let fail = |reason| FormatError { line: number, reason };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let is_pattern = open.is_none() && (line.starts_with(['/', '"', '\'', '~', '*']) || !patterns.is_empty() || line.ends_with('{'));
        if is_pattern {
            let (names, rest) = line.split_once('{').map_or((line, None), |(names, rest)| (names, Some(rest.trim())));
            for name in names.split_whitespace() {
                let gap = if patterns.is_empty() { "" } else { " " };
                patterns = format!("{}{gap}{name}", crate::text::bounded(&patterns, 512));
            }
            match rest {
                Some("") => open = Some((std::mem::take(&mut patterns), Block::default())),
                Some(_) => return Err(fail("a directive stands behind the `{`")),
                None => {}
            }
            continue;
        }
        if line == "}" {
            let (name, block) = open.take().ok_or_else(|| fail("a `}` closes nothing"))?;
            root.statements.push(Statement { name, arguments: Vec::new(), block: Some(block) });
            continue;
        }
        let (name, rest) = line.split_once(|c: char| c.is_whitespace() || c == '=').unwrap_or((line, ""));
        let mut arguments: Vec<String> = rest.trim_start_matches(['=', ' ', '\t']).split_whitespace().map(str::to_owned).collect();
        if SCRIPTS.contains(&name) {
            let mut script = String::new();
            loop {
                match lines.next() {
                    Some((line, _)) if line.trim() == "endscript" => break,
                    Some((line, _)) => {
                        script.push_str(line.trim());
                        script.push('\n');
                    }
                    None => return Err(fail("a script does not end")),
                }
            }
            arguments = vec![script.trim_end().to_owned()];
        }
        let block = open.as_mut().map_or(&mut root, |(_, block)| block);
        block.statements.push(Statement { name: name.to_owned(), arguments, block: None });
    }
    match (open.is_none(), patterns.is_empty()) {
        (true, true) => Ok(root),
        _ => Err(FormatError { line: 0, reason: "a block does not end" }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::nested_tests::{refused, told};

    #[test]
    fn directives_are_told_by_the_files_they_hold_for() {
        let text = "# all\nweekly\nrotate 4\ncreate\nnocompress\ninclude /etc/logrotate.d\n/var/log/a.log\n/var/log/b.log {\n  daily\n  rotate=7\n  compress\n  nocompress\n  notifempty\n  create 0640 root adm\n  postrotate\n    kill -HUP 1\n    # done\n  endscript\n}\n\"/var/log/c d\" {\n  missingok\n}\n";
        insta::assert_snapshot!(told(Format::Logrotate, text));
    }

    #[test]
    fn hostile_files_end() {
        for text in ["/a {\n".repeat(1 << 17), "}".to_owned(), "/a {\n postrotate\n x".to_owned(), "/x\n".repeat(1 << 17)] {
            refused(Format::Logrotate, &text);
        }
        assert!(told(Format::Logrotate, &"/a {\nrotate 1\n}\n".repeat(20_000)).contains("config_left_out"));
        assert!(told(Format::Logrotate, "a \u{1b}[31m").contains("\\\\x1b[31m"));
    }
}
