//! passwd(5), group(5), shadow(5) and gshadow(5), by the name of the user or group: the first line of a name counts. Members
//! have no order. Of a password only its state is told, never the hash nor any part of it but a known algorithm's id.

use super::{FormatError, Repeat, Settings, block};

/// Ids of crypt(5) that may be told.
const ALGORITHMS: &[&str] = &["1", "2a", "2b", "2y", "5", "6", "7", "y", "gy", "md5", "sha1"];

const PASSWD: &[&str] = &["password", "uid", "gid", "gecos", "home", "shell"];
const GROUP: &[&str] = &["password", "gid", "members"];
const SHADOW: &[&str] = &["password", "last_change", "minimum_age", "maximum_age", "warning", "inactive", "expires"];
const GSHADOW: &[&str] = &["password", "administrators", "members"];

pub(super) fn read_passwd(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    read(text, PASSWD, settings)
}

pub(super) fn read_group(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    read(text, GROUP, settings)
}

pub(super) fn read_shadow(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    read(text, SHADOW, settings)
}

pub(super) fn read_gshadow(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    read(text, GSHADOW, settings)
}

fn read(text: &str, columns: &[&str], settings: &mut Settings) -> Result<(), FormatError> {
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        // The line is not told as it stands: it may be a hash that lost its name.
        let (name, rest) = line.split_once(':').ok_or(FormatError { line: at + 1, reason: "it has no colon" })?;
        let name = block(name);
        for (column, value) in columns.iter().zip(rest.split(':')) {
            let value = match *column {
                "password" => state(value),
                "members" | "administrators" => sorted(value),
                _ => value.trim().to_owned(),
            };
            settings.take(Repeat::First, &format!("{name}.{column}"), &value);
        }
    }
    Ok(())
}

fn state(password: &str) -> String {
    match password {
        "" => return "empty".to_owned(),
        "x" => return "shadow".to_owned(),
        _ => {}
    }
    let hash = password.trim_start_matches(['!', '*']);
    let state = if hash.len() < password.len() { "locked" } else { "set" };
    let id = hash.strip_prefix('$').and_then(|rest| rest.split_once('$')).map(|(id, _)| id);
    match id.and_then(|id| ALGORITHMS.iter().find(|known| **known == id)) {
        Some(id) => format!("{state} (${id}$)"),
        None => state.to_owned(),
    }
}

fn sorted(names: &str) -> String {
    let mut names: Vec<&str> = names.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    names.join(",")
}
