//! sources.list(5): lines of one source each, and stanzas of deb822. Sources have no order that says which package is taken, but for equal
//! versions; they are told as lists. A stanza is led by what it names: its addresses and suites.

use super::{FormatError, Repeat, Settings, block, in_folder, spaced};

pub(super) fn covers(path: &str) -> bool {
    path == "/etc/apt/sources.list" || in_folder(path, &["/etc/apt/sources.list.d"], ".list")
}

pub(super) fn covers_stanzas(path: &str) -> bool {
    in_folder(path, &["/etc/apt/sources.list.d"], ".sources")
}

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    for line in text.lines() {
        let line = line.split_once('#').map_or(line, |(line, _)| line).trim();
        let (kind, rest) = line.split_once(|letter: char| letter.is_ascii_whitespace()).unwrap_or((line, ""));
        if matches!(kind, "deb" | "deb-src") {
            settings.take(Repeat::Ordered, kind, &spaced(rest));
        }
    }
    Ok(())
}

pub(super) fn read_stanzas(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    let mut stanza: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            take(std::mem::take(&mut stanza), settings);
        } else if line.starts_with('#') {
            continue;
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            stanza.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    Ok(())
}

fn take(stanza: Vec<(String, String)>, settings: &mut Settings) {
    let named = |wanted: &str| stanza.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map_or("", |(_, value)| value);
    let of = spaced(&format!("{} {}", named("URIs"), named("Suites")));
    for (name, value) in &stanza {
        // As the manual spells it, whatever its case.
        let name =
            KEYS.iter().find(|key| key.eq_ignore_ascii_case(name)).map_or_else(|| name.to_ascii_lowercase(), |key| (*key).to_owned());
        settings.take(Repeat::Last, &format!("{}.{name}", block(&of)), &spaced(value));
    }
}

const KEYS: [&str; 14] = [
    "Allow-Downgrade-To-Insecure",
    "Allow-Insecure",
    "Allow-Weak",
    "Architectures",
    "By-Hash",
    "Check-Valid-Until",
    "Components",
    "Enabled",
    "Languages",
    "Signed-By",
    "Suites",
    "Trusted",
    "Types",
    "URIs",
];
