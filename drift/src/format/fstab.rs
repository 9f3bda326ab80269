//! fstab(5), by mount point; what has none (swap) by its source. The last line of a mount point counts: it lies on top.
//! Options have no order unless one name comes twice or one stands for others after some have been given.

use std::collections::BTreeSet;

use super::{FormatError, Repeat, Settings, block};

/// Options that set others: what stands before one is overridden by it.
const COMPOSITE: &[&str] = &["defaults", "user", "users", "owner", "group"];

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[source, target, ref rest @ ..] = words.as_slice() else { continue };
        let place = if target == "none" || target == "swap" { format!("none {source}") } else { target.to_owned() };
        let place = block(&place);
        settings.take(Repeat::Last, &format!("{place}.source"), source);
        for (name, value) in ["type", "options", "dump", "pass"].into_iter().zip(rest) {
            let value = if name == "options" { options(value) } else { (*value).to_owned() };
            settings.take(Repeat::Last, &format!("{place}.{name}"), &value);
        }
    }
    Ok(())
}

fn options(text: &str) -> String {
    let mut options: Vec<&str> = text.split(',').collect();
    let mut names = BTreeSet::new();
    let ordered = options.iter().enumerate().any(|(at, option)| {
        let name = option.split_once('=').map_or(*option, |(name, _)| name);
        let name = if name == "ro" { "rw" } else { name.strip_prefix("no").unwrap_or(name) };
        !names.insert(name) || (at > 0 && COMPOSITE.contains(option))
    });
    if !ordered {
        let first = usize::from(options.first().is_some_and(|option| COMPOSITE.contains(option)));
        options[first..].sort_unstable();
    }
    options.join(",")
}
