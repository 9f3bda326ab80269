//! crontab(5): tables of the system and of users, whose jobs have no order. A setting of the environment holds for the jobs after it; the
//! last of a name is told, and another before it as a conflict. Which user a job of the system's runs as is its first word after the time.

use super::{FormatError, Repeat, Settings, in_folder_of_names, is_leftover, spaced};

const FOLDERS: [&str; 3] = ["/etc/cron.d/", "/var/spool/cron/crontabs/", "/var/spool/cron/tabs/"];

pub(super) fn covers(path: &str) -> bool {
    let is_of = |folder: &str| in_folder_of_names(path, folder).is_some_and(|name| !is_leftover(name));
    path == "/etc/crontab" || FOLDERS.iter().any(|folder| is_of(folder))
}

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.split_once('=').filter(|(name, _)| is_name(name.trim())) {
            Some((name, value)) => settings.take(Repeat::Last, name.trim(), unquoted(value.trim())),
            None => settings.take(Repeat::Unordered, "jobs", &spaced(line)),
        }
    }
    Ok(())
}

/// A job has a blank before any `=`.
fn is_name(name: &str) -> bool {
    let name = unquoted(name);
    !name.is_empty() && !name.contains(|letter: char| letter.is_ascii_whitespace() || letter == '*')
}

fn unquoted(text: &str) -> &str {
    let within = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(text)
}
