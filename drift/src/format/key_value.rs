//! `KEY=value` lines, as sh and systemd's EnvironmentFile= read them (systemd.exec(5), environment(5)): `#` and `;` begin a
//! comment, `export` may lead, quotes around a value go, the last value counts.

use super::{FormatError, Repeat, Settings, is_leftover};

pub(super) fn covers(path: &str) -> bool {
    matches!(path, "/etc/environment" | "/etc/os-release" | "/etc/default/grub")
        || path
            .strip_prefix("/etc/default/")
            .or_else(|| path.strip_prefix("/etc/sysconfig/"))
            .is_some_and(|name| !name.contains('/') && !is_leftover(name))
}

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        // A line of a script that sets nothing by itself.
        let Some((name, value)) = line.split_once('=') else { continue };
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_name {
            settings.take(Repeat::Last, name, unquoted(value.trim()));
        }
    }
    Ok(())
}

fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    value
}
