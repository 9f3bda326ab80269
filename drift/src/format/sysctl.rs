//! sysctl.d(5) and sysctl.conf(5): the last value of a file counts. `net/ipv4/ip_forward` and `net.ipv4.ip_forward` are one name,
//! told with dots. Globs stay as written. The `-` that lets an assignment fail does not show; `-name` alone, which excludes
//! a name from globs, is told as `-name`.

use super::{FormatError, Repeat, Settings, in_folder, spaced};

pub(super) fn covers(path: &str) -> bool {
    let folders = ["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"];
    path == "/etc/sysctl.conf" || in_folder(path, &folders, ".conf")
}

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    for Assignment { name, value, .. } in assignments(text) {
        match value {
            Some(value) => settings.take(Repeat::Last, &name, &value),
            None => settings.take(Repeat::Last, &format!("-{name}"), ""),
        }
    }
    Ok(())
}

/// A line that says something of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// With dots; perhaps a glob.
    pub name: String,
    /// Absent where the name is excluded from globs.
    pub value: Option<String>,
    /// From 1.
    pub line: usize,
}

pub fn assignments(text: &str) -> impl Iterator<Item = Assignment> {
    let lines = text.lines().map(str::trim).zip(1..).filter(|(line, _)| !line.is_empty() && !line.starts_with(['#', ';']));
    lines.filter_map(|(text, line)| match text.split_once('=') {
        Some((name, value)) => {
            let name = name.trim();
            Some(Assignment { name: dotted(name.strip_prefix('-').unwrap_or(name).trim()), value: Some(spaced(value)), line })
        }
        // Any other line without a value is passed over by the reader too.
        None => text.strip_prefix('-').map(|name| Assignment { name: dotted(name.trim()), value: None, line }),
    })
}

/// The name with dots; where its first separator is a slash, a dot within a part becomes a slash.
fn dotted(name: &str) -> String {
    if name.find(['/', '.']).is_none_or(|at| name.as_bytes()[at] == b'.') {
        return name.to_owned();
    }
    let swapped = |letter| match letter {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    name.chars().map(swapped).collect()
}
