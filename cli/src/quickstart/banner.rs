//! What a quickstart says once it watches: where, what, what not and why, and how to try it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use trueline_agent::sensor::Coverage;
use trueline_drift::ItemKind;
use trueline_drift::watch::WatchPolicy;

use super::folder::{Folder, WatchList};
use super::progress::count;
use crate::screen::{Screen, Tone};
use crate::table::{Sheet, visible};

/// Most blind spots told one by one.
const SPOTS: usize = 5;

pub struct Scene<'a> {
    pub folder: &'a Folder,
    pub list: &'a WatchList,
    pub coverage: &'a [Coverage],
    pub troubles: &'a [String],
    pub console: &'a str,
    /// Opens the console once, without a token.
    pub login: Option<&'a str>,
    pub items: u64,
    pub baseline: Option<&'a str>,
    pub is_root: bool,
}

impl Scene<'_> {
    pub fn json(&self) -> Value {
        let coverage: Vec<Value> = self
            .coverage
            .iter()
            .map(|row| {
                let mut object = json!({ "name": row.name, "scope": row.scope, "watching": row.watching });
                if let Some(reason) = &row.reason {
                    object["reason"] = json!(reason);
                }
                object
            })
            .collect();
        json!({
            "phase": "watching",
            "console": self.console,
            "login": self.login,
            "context": self.folder.context_path(),
            "items": self.items,
            "paths": self.list.policy.paths,
            "baseline": self.baseline,
            "coverage": coverage,
        })
    }

    pub fn text(&self, screen: Screen) -> String {
        let mut sheet = Sheet::default();
        match self.login {
            Some(login) => {
                sheet.toned("Console", Tone::Actor, login);
                sheet.toned("", Tone::Dim, "opens once, within 15 minutes; `trueline tokens create --kind login` makes another");
            }
            None => sheet.toned("Console", Tone::Actor, self.console),
        }
        sheet.row("Watching", &watched(self.items, &self.list.policy));
        for (sensor, scopes) in self.sensors() {
            sheet.row("", &format!("{} by {sensor}", scopes.join(", ")));
        }
        if let Some(baseline) = self.baseline {
            sheet.row("Baseline", &format!("{baseline}: this host as it was when it was captured"));
        }
        let spots = self.blind_spots();
        for (at, spot) in spots.iter().take(SPOTS).enumerate() {
            sheet.toned(if at == 0 { "Not seen" } else { "" }, Tone::Notable, spot);
        }
        if spots.len() > SPOTS {
            sheet.toned(
                "",
                Tone::Notable,
                &format!("and {} more: `trueline hosts list`, then `trueline hosts show HOST`", spots.len() - SPOTS),
            );
        }
        if !self.is_root {
            sheet.toned("", Tone::Dim, "sudo trueline quickstart adds: files only root may read, one sensor for the whole disk instead of a watch on each folder, and who was behind a change");
        }
        for trouble in self.troubles {
            sheet.toned("Trouble", Tone::Critical, trouble);
        }
        sheet.row("Kept in", &format!("{}  (run `trueline drift list`, `trueline changes list` beside it)", self.folder.shown));
        if self.list.leaves_itself_out {
            sheet.toned("", Tone::Dim, "it lies beneath a watched path and is left out of the watch");
        }
        let mut text = String::from("\n");
        text.push_str(&sheet.text(screen.paint, screen.width));
        text.push_str("\nTry it in another terminal:\n");
        for line in self.tries() {
            text.push_str(&format!("  {}\n", screen.paint.text(Tone::Heading, &visible(&line))));
        }
        text.push_str(&screen.paint.text(Tone::Dim, "\nLive; times are UTC. Ctrl-C stops; the next quickstart here goes on from there.\n"));
        text
    }

    /// Scopes that are watched, by sensor.
    fn sensors(&self) -> BTreeMap<&'static str, Vec<String>> {
        let mut sensors: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        for row in self.coverage.iter().filter(|row| row.watching) {
            sensors.entry(row.name).or_default().push(row.scope.clone());
        }
        for scopes in sensors.values_mut() {
            scopes.sort();
            scopes.dedup();
            if scopes.len() > 8 {
                let more = scopes.len() - 7;
                scopes.truncate(7);
                scopes.push(format!("{more} more"));
            }
        }
        sensors
    }

    /// What is not watched, or not as well as it could be, and why.
    fn blind_spots(&self) -> Vec<String> {
        let mut reasons: BTreeMap<(bool, &str), Vec<&str>> = BTreeMap::new();
        for row in self.coverage {
            match &row.reason {
                Some(reason) => reasons.entry((row.watching, reason)).or_default().push(&row.scope),
                None if !row.watching => reasons.entry((false, "only reading it again will find changes")).or_default().push(&row.scope),
                None => {}
            }
        }
        reasons
            .into_iter()
            .map(|((watching, reason), mut scopes)| {
                scopes.sort_unstable();
                scopes.dedup();
                let more = if scopes.len() > 3 { format!(" and {} more", scopes.len() - 3) } else { String::new() };
                scopes.truncate(3);
                let how = if watching { " (watched in a lesser way)" } else { "" };
                format!("{}{more}{how}: {reason}", scopes.join(", "))
            })
            .collect()
    }

    fn tries(&self) -> Vec<String> {
        if self.list.chosen {
            let path = self.list.policy.paths.first().map_or("/etc", String::as_str);
            let is_folder = std::path::Path::new(path).is_dir();
            let target = if is_folder { format!("{path}/trueline-try") } else { path.to_owned() };
            return vec![format!("echo '# test' >> '{}'", target.replace('\'', r"'\''"))];
        }
        vec!["echo '# test' | sudo tee -a /etc/hosts".to_owned(), "sudo sysctl -w net.ipv4.ip_forward=1".to_owned()]
    }
}

/// `214,332 items: /etc, /boot, /usr/bin and 14 more; packages, sysctls, users, groups, units`.
fn watched(items: u64, policy: &WatchPolicy) -> String {
    let shown = policy.paths.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
    let more = if policy.paths.len() > 4 { format!(" and {} more paths", policy.paths.len() - 4) } else { String::new() };
    let kinds: Vec<String> = ItemKind::ALL
        .into_iter()
        .filter(|kind| *kind != ItemKind::File && policy.watches_kind(*kind))
        .map(|kind| format!("{kind}s"))
        .collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!("; {}", kinds.join(", ")) };
    format!("{} items: {shown}{more}{kinds}", count(items))
}
