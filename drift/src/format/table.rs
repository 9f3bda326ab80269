//! Small tables of words, each by its manual page: hosts(5), resolv.conf(5), nsswitch.conf(5), login.defs(5), limits.conf(5).
//!
//! - hosts: by address; all names of all its lines count, in order, since the first is the canonical one.
//! - resolv.conf: name servers in order; options in any; of `search` and `domain`, which exclude each other, and of the rest the last counts.
//! - nsswitch.conf: the last line of a database counts, its services in order.
//! - login.defs, limits.conf: the last counts; limits are named `domain.type.item`.

use super::{FormatError, Repeat, Settings, in_folder, spaced};

pub(super) fn covers_limits(path: &str) -> bool {
    path == "/etc/security/limits.conf" || in_folder(path, &["/etc/security/limits.d"], ".conf")
}

/// The lines that hold anything, without what stands after `#`.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split_once('#').map_or(line, |(line, _)| line).trim()).filter(|line| !line.is_empty())
}

pub(super) fn read_hosts(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    for line in lines(text) {
        let mut words = line.split_ascii_whitespace();
        let Some(address) = words.next() else { continue };
        words.for_each(|name| settings.take(Repeat::Ordered, address, name));
    }
    Ok(())
}

pub(super) fn read_resolv_conf(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    for line in lines(text).filter(|line| !line.starts_with(';')) {
        let (name, value) = line.split_once(|letter: char| letter.is_ascii_whitespace()).unwrap_or((line, ""));
        match name {
            "nameserver" => settings.take(Repeat::Ordered, name, value.trim()),
            "options" => value.split_ascii_whitespace().for_each(|option| settings.take(Repeat::Unordered, name, option)),
            "domain" | "search" => settings.take(Repeat::Last, "search", &spaced(value)),
            _ => settings.take(Repeat::Last, name, &spaced(value)),
        }
    }
    Ok(())
}

pub(super) fn read_nsswitch(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    for line in lines(text) {
        if let Some((database, services)) = line.split_once(':') {
            settings.take(Repeat::Last, database.trim(), &spaced(services));
        }
    }
    Ok(())
}

pub(super) fn read_login_defs(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, value) = line.split_once(|letter: char| letter.is_ascii_whitespace()).unwrap_or((line, ""));
        settings.take(Repeat::Last, name, value.trim().trim_matches('"'));
    }
    Ok(())
}

pub(super) fn read_limits(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    for line in lines(text) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        // `domain -` alone lifts every limit. What stands behind a value pam_limits passes over.
        match words[..] {
            [domain, kind, item, value, ..] => settings.take(Repeat::Last, &format!("{domain}.{kind}.{item}"), value),
            [domain, "-"] => settings.take(Repeat::Last, &format!("{domain}.-"), ""),
            _ => {}
        }
    }
    Ok(())
}
