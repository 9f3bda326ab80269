//! What a quickstart says once it watches: where, what, what not and why, and how to try it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use trueline_agent::sensor::Coverage;
use trueline_drift::ItemKind;
use trueline_drift::watch::WatchPolicy;

use super::folder::{Folder, WatchList};
use crate::counted::counted;
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
    pub host: &'a str,
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
                sheet.link("Console", login);
                sheet.toned("", Tone::Dim, "opens once, within 15 minutes");
            }
            None => sheet.link("Console", self.console),
        }
        sheet.row("Watching", &watched(self.items, &self.list.policy));
        for (at, sensor) in self.sensors().iter().enumerate() {
            sheet.row(if at == 0 { "Sensors" } else { "" }, sensor);
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
                &format!("and {} more: {}", spots.len() - SPOTS, self.folder.command(&format!("hosts show {}", self.host))),
            );
        }
        if !self.is_root {
            sheet.toned("", Tone::Dim, "as root (sudo, with a folder of its own) it also sees files that only root may read, has one sensor for whole file systems instead of a watch on each folder, and learns who was behind a change");
        }
        for trouble in self.troubles {
            sheet.toned("Trouble", Tone::Critical, trouble);
        }
        sheet.row("Kept in", &self.folder.shown);
        if self.list.leaves_itself_out {
            sheet.toned("", Tone::Dim, "it lies beneath a watched path and is left out of the watch");
        }
        let mut text = String::from("\n");
        text.push_str(&sheet.text(screen.paint, screen.width));
        text.push_str("\nTry it in another terminal:\n");
        for line in self.tries() {
            text.push_str(&format!("  {}\n", screen.paint.text(Tone::Heading, &visible(&line))));
        }
        text.push_str("\nAsk from there too:\n");
        for words in ["drift list", "changes list"] {
            text.push_str(&format!("  {}\n", screen.paint.text(Tone::Heading, &self.folder.command(words))));
        }
        text.push_str(&screen.paint.text(Tone::Dim, "\nLive; times are UTC. Ctrl-C stops; the next quickstart here goes on from there.\n"));
        text
    }

    /// Each sensor with what it watches: `fanotify: 17 file scopes, sysctl:*`.
    fn sensors(&self) -> Vec<String> {
        let mut sensors: BTreeMap<&str, (usize, Vec<&str>)> = BTreeMap::new();
        for row in self.coverage.iter().filter(|row| row.watching) {
            let (files, others) = sensors.entry(row.name).or_default();
            if row.scope.starts_with("file:") { *files += 1 } else { others.push(&row.scope) }
        }
        sensors
            .into_iter()
            .map(|(name, (files, others))| {
                let files = (files > 0).then(|| counted(files as u64, "file scope"));
                format!("{name}: {}", files.into_iter().chain(others.into_iter().map(str::to_owned)).collect::<Vec<_>>().join(", "))
            })
            .collect()
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
        let tries = if self.is_root {
            ["echo '# test' >> /etc/hosts", "sysctl -w net.ipv4.ip_forward=1"]
        } else {
            ["echo '# test' | sudo tee -a /etc/hosts", "sudo sysctl -w net.ipv4.ip_forward=1"]
        };
        tries.map(str::to_owned).to_vec()
    }
}

/// `214,332 items: /etc, /boot, /usr/bin and 14 more; packages, sysctls, users, groups, units`.
fn watched(items: u64, policy: &WatchPolicy) -> String {
    let shown = policy.paths.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
    let more = if policy.paths.len() > 4 { format!(" and {} more", policy.paths.len() - 4) } else { String::new() };
    let kinds: Vec<String> = ItemKind::ALL
        .into_iter()
        .filter(|kind| *kind != ItemKind::File && policy.watches_kind(*kind))
        .map(|kind| format!("{kind}s"))
        .collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!("; {}", kinds.join(", ")) };
    format!("{}: {shown}{more}{kinds}", counted(items, "item"))
}
