//! pam.d(5): each type is a stack whose order means something, so all lines count in order. `@include` stands in every stack, at its place.

use super::{FormatError, Repeat, Settings, is_leftover, joined, spaced};

const TYPES: &[&str] = &["account", "auth", "password", "session"];

pub(super) fn covers(path: &str) -> bool {
    path.strip_prefix("/etc/pam.d/").is_some_and(|name| !name.is_empty() && !name.contains('/') && !is_leftover(name))
}

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    for line in joined(text, |line| line.split_once('#').map_or(line, |(line, _)| line)) {
        let line = line.trim();
        let (kind, rest) = line.split_once(|letter: char| letter.is_ascii_whitespace()).unwrap_or((line, ""));
        if kind == "@include" {
            TYPES.iter().for_each(|name| settings.take(Repeat::Ordered, name, &spaced(line)));
            continue;
        }
        // A `-` before the type keeps a missing module out of the log; it stays with the value.
        let (quiet, kind) = kind.strip_prefix('-').map_or(("", kind), |kind| ("-", kind));
        if let Some(name) = TYPES.iter().find(|name| name.eq_ignore_ascii_case(kind)) {
            settings.take(Repeat::Ordered, name, &format!("{quiet}{}", spaced(rest)));
        }
    }
    Ok(())
}
