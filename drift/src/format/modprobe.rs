//! modprobe.d(5): options of a module add up in order, the first `install`, `remove` or `softdep` of a module counts, and a
//! blacklist has no order. `_` and `-` in a module's name are the same and told as `_`.

use super::{FormatError, Repeat, Settings, continued, in_folder, spaced};

pub(super) fn covers(path: &str) -> bool {
    let folders = ["/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"];
    in_folder(path, &folders, ".conf")
}

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    for line in continued(text) {
        let line = spaced(&line);
        let mut parts = line.splitn(3, ' ');
        let (Some(command), Some(module)) = (parts.next(), parts.next()) else { continue };
        if command.starts_with('#') {
            continue;
        }
        let (module, rest) = (module.replace('-', "_"), parts.next().unwrap_or(""));
        match command {
            "blacklist" => settings.take(Repeat::Unordered, command, &module),
            "alias" | "options" => settings.take(Repeat::Ordered, &format!("{command}.{module}"), rest),
            "install" | "remove" | "softdep" => settings.take(Repeat::First, &format!("{command}.{module}"), rest),
            _ => {}
        }
    }
    Ok(())
}
