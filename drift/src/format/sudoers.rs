//! sudoers(5): of the rules of one user or group the last that matches counts, so that all are told in their order; so are defaults. An alias
//! is set once. What is included is shown and not followed. A `#` begins a comment but before a number, which is a user's, and `#include`.

use super::{FormatError, Repeat, Settings, block, in_folder_of_names, joined, spaced};

const ALIASES: [&str; 5] = ["User_Alias", "Runas_Alias", "Host_Alias", "Cmnd_Alias", "Cmd_Alias"];
const INCLUDES: [&str; 4] = ["@include", "@includedir", "#include", "#includedir"];

pub(super) fn covers(path: &str) -> bool {
    // sudo passes over names with a dot or a `~` at their end.
    path == "/etc/sudoers" || in_folder_of_names(path, "/etc/sudoers.d/").is_some_and(|name| !name.contains('.') && !name.ends_with('~'))
}

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    for line in joined(text, uncommented) {
        let line = line.trim();
        let (first, rest) = line.split_once(|letter: char| letter.is_ascii_whitespace()).unwrap_or((line, ""));
        let rest = spaced(rest);
        if first.is_empty() {
            continue;
        } else if INCLUDES.contains(&first) {
            settings.take(Repeat::Ordered, &format!("@{}", &first[1..]), &rest);
        } else if first == "Defaults" || first.strip_prefix("Defaults").is_some_and(|of| of.starts_with([':', '@', '>', '!'])) {
            settings.take(Repeat::Ordered, &block(first), &rest);
        } else if let Some(kind) = ALIASES.iter().find(|kind| **kind == first) {
            let kind = if *kind == "Cmd_Alias" { "Cmnd_Alias" } else { kind };
            for (name, members) in aliases(&rest) {
                settings.take(Repeat::First, &format!("{kind}.{}", block(name)), members);
            }
        } else {
            settings.take(Repeat::Ordered, &format!("rules.{}", block(first)), &rest);
        }
    }
    Ok(())
}

/// `A = x, y : B = z`: several stand between colons. One that no name and `=` follow is of a member, as of an address of IPv6.
fn aliases(rest: &str) -> Vec<(&str, &str)> {
    // Not looked for beyond the next of these: there may be many colons.
    let is_name = |text: &str| {
        let end = text.find(['=', ',', ':']).filter(|end| text[*end..].starts_with('='));
        end.map(|end| text[..end].trim()).is_some_and(|name| !name.is_empty() && !name.contains(' '))
    };
    let ends = rest.match_indices(':').map(|(at, _)| at).filter(|at| is_name(&rest[at + 1..]) && !rest[..*at].ends_with('\\'));
    let (mut aliases, mut begin) = (Vec::new(), 0);
    for end in ends.chain([rest.len()]) {
        aliases.extend(rest[begin..end].split_once('=').map(|(name, members)| (name.trim(), members.trim())));
        begin = (end + 1).min(rest.len());
    }
    aliases
}

fn uncommented(line: &str) -> &str {
    let begin = line.len() - line.trim_start().len();
    let is_comment = |at: usize| {
        let after = &line[at + 1..];
        let is_word = at == begin && INCLUDES.iter().any(|include| line[begin..].starts_with(include));
        !is_word && !after.starts_with(|letter: char| letter.is_ascii_digit()) && !line[..at].ends_with('\\')
    };
    let mut marks = line.match_indices('#').map(|(at, _)| at);
    marks.find(|at| is_comment(*at)).map_or(line, |at| line[..at].trim_end())
}
