//! Units of systemd, their drop-ins and systemd's own files (systemd.syntax(7), systemd.unit(5)), named `Section.Key`. Keys known to
//! accumulate keep all values, in order, and an empty assignment takes back those before it; of any other key the last
//! counts. A file by itself tells what it takes back; what a unit's file and its drop-ins come to together tells [`effective`].

use super::{FormatError, Repeat, Settings, block, decoded};

/// Not networkd's files: a section that stands twice is two things there.
const TYPES: &[&str] = &["service", "socket", "target", "timer", "mount", "automount", "swap", "path", "slice", "scope"];

/// Keys of which all assignments count. Beside them stand those that begin with `Exec`, `Listen`, `Condition` or `Assert`.
const ACCUMULATING: &[&str] = &[
    "After",
    "Also",
    "Alias",
    "AmbientCapabilities",
    "Before",
    "BindPaths",
    "BindReadOnlyPaths",
    "BindsTo",
    "CapabilityBoundingSet",
    "Conflicts",
    "DeviceAllow",
    "Documentation",
    "Environment",
    "EnvironmentFile",
    "IPAddressAllow",
    "IPAddressDeny",
    "InaccessiblePaths",
    "LoadCredential",
    "OnCalendar",
    "OnFailure",
    "PartOf",
    "PassEnvironment",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "RequiredBy",
    "Requires",
    "Requisite",
    "RestrictAddressFamilies",
    "SetCredential",
    "SupplementaryGroups",
    "SystemCallFilter",
    "UnsetEnvironment",
    "WantedBy",
    "Wants",
];

const PREFIXES: &[&str] = &["Exec", "Listen", "Condition", "Assert"];

pub(super) fn covers(path: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    let Some((stem, suffix)) = name.rsplit_once('.') else { return false };
    if stem.is_empty() || name.starts_with('.') {
        return false;
    }
    if folder == "/etc/systemd" && suffix == "conf" {
        return true;
    }
    let tops = ["/etc/systemd/", "/run/systemd/", "/usr/local/lib/systemd/", "/usr/lib/systemd/", "/lib/systemd/"];
    let Some(below) = tops.iter().find_map(|top| folder.strip_prefix(top)) else { return false };
    match below.split_once('/') {
        None if below.ends_with(".conf.d") => suffix == "conf",
        None => matches!(below, "system" | "user") && TYPES.contains(&suffix),
        Some((kind, dropins)) => matches!(kind, "system" | "user") && dropins.ends_with(".d") && !dropins.contains('/') && suffix == "conf",
    }
}

/// What a unit's file and its drop-ins, in the order in which systemd reads them, set together. An assignment that takes others back
/// leaves nothing.
pub fn effective<'a>(files: impl IntoIterator<Item = &'a [u8]>) -> Result<Settings, FormatError> {
    let mut settings = Settings::default();
    for file in files {
        read(&decoded(file)?, &mut settings)?;
    }
    settings.settings.retain(|_, setting| {
        if setting.repeat == Repeat::Last {
            // What stood in the file before the drop-in is no conflict with it.
            setting.values.drain(..setting.values.len().saturating_sub(1));
        }
        setting.values.retain(|value| !value.is_empty());
        !setting.values.is_empty()
    });
    Ok(settings)
}

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    let mut section = String::new();
    let mut joined = String::new();
    for line in text.lines() {
        let line = line.trim();
        // A comment within a continued line is passed over, and the line goes on.
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(begun) = line.strip_suffix('\\') {
            joined.push_str(begun.trim_end());
            joined.push(' ');
            continue;
        }
        joined.push_str(line);
        assign(joined.trim(), &mut section, settings);
        joined.clear();
    }
    assign(joined.trim(), &mut section, settings);
    Ok(())
}

fn assign(line: &str, section: &mut String, settings: &mut Settings) {
    if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        *section = block(name).into_owned();
        return;
    }
    let Some((key, value)) = line.split_once('=') else { return };
    let (key, value) = (key.trim(), value.trim());
    let name = format!("{section}.{key}");
    if !ACCUMULATING.contains(&key) && !PREFIXES.iter().any(|prefix| key.starts_with(prefix)) {
        settings.take(Repeat::Last, &name, value);
        return;
    }
    // That values were taken back is itself what a drop-in does, so the empty one stays to be seen.
    if value.is_empty() {
        settings.forget(&name);
    }
    settings.take(Repeat::Ordered, &name, value);
}
