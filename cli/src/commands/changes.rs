//! `trueline changes`: what changed, when and by whom.

use clap::{Args, Subcommand};
use trueline_drift::actor::SessionId;
use trueline_drift::format::lines::Side;
use trueline_drift::transaction::TransactionId;
use trueline_drift::{Actor, Candidates, Time, Transaction};

use super::{Filters, Session};
use crate::age::{age, moment, moment_and_age, now, parse_moment};
use crate::api::Query;
use crate::failure::Failure;
use crate::listing::{Listing, Paging, list};
use crate::screen::Tone;
use crate::shape::{self, Change};
use crate::table::{Cell, Column, Fit, Sheet, Table, visible};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Changes, newest first
    List(Selection),
    /// One change: every field, the actor with its parents, the reasons of its verdict
    Show {
        /// A number from `trueline changes list`
        #[arg(value_parser = id)]
        id: u64,
    },
}

#[derive(Debug, Args)]
pub struct Selection {
    #[command(flatten)]
    filters: Filters,
    /// By processes of this login: a session's id, as `trueline changes show` tells it
    #[arg(long)]
    session: Option<SessionId>,
    /// Made in this run, or in one within it: a transaction's id, as `trueline changes show` tells it
    #[arg(long)]
    transaction: Option<TransactionId>,
    /// Received at or after: a time (RFC 3339), or 15m for fifteen minutes ago
    #[arg(long, value_parser = parse_moment)]
    since: Option<Time>,
    /// Received before: a time (RFC 3339), or 15m for fifteen minutes ago
    #[arg(long, value_parser = parse_moment)]
    until: Option<Time>,
    #[command(flatten)]
    paging: Paging,
}

pub async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(selection) => {
            let Selection { filters, session: login, transaction, since, until, .. } = &selection;
            let query = filters
                .query()
                .with("session", login.as_ref())
                .with("transaction", transaction.as_ref())
                .with("since", *since)
                .with("until", *until);
            list(session, &["changes"], query, &selection.paging, listing()).await.map(|_| ())
        }
        Verb::Show { id } => {
            let value = session.api.get(&["changes", &id.to_string()], &Query::default()).await?;
            show(session, &value)
        }
    }
}

fn id(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a change's id is a number: the first column of `trueline changes list`".to_owned())
}

fn listing() -> Listing<Change> {
    let columns = vec![
        Column::number("ID"),
        Column::new("AGE", Fit::Whole),
        Column::new("HOST", Fit::Middle),
        Column::new("ITEM", Fit::Key),
        Column::new("BEFORE → AFTER", Fit::End),
        Column::new("BY", Fit::End),
        Column::new("VERDICT", Fit::Whole),
    ];
    Listing { columns, row: Box::new(row), nothing: "No changes." }
}

fn row(change: &Change, now: Time) -> Vec<Cell> {
    let verdict = change.verdict.as_deref().unwrap_or("unjudged");
    let transition = shape::transition(change).into_iter().fold(Cell::new(""), |cell, (tone, text)| cell.then(tone, &text));
    let mut judged = Cell::toned(Tone::of_verdict(verdict), &verdict.replace('_', " "));
    if change.shipped_by.is_some() {
        judged = judged.then(Tone::Dim, ", shipped");
    }
    vec![
        Cell::new(&change.id.to_string()),
        Cell::new(&age(change.observed_at, now)),
        Cell::new(&change.host_name),
        Cell::toned(Tone::Heading, &change.item.to_string()),
        transition,
        Cell::toned(Tone::Actor, &change.actor.summary()),
        judged,
    ]
}

fn show(session: &Session, value: &serde_json::Value) -> Result<(), Failure> {
    let screen = session.screen;
    if screen.is_json() {
        return Ok(screen.document(value)?);
    }
    let change: Change = shape::read(value)?;
    let now = now();
    let mut sheet = Sheet::default();
    sheet.toned("change", Tone::Heading, &format!("{} · {} {}", change.id, change.item, change.kind));
    sheet.row("host", &change.host_name);
    sheet.row("seen", &moment_and_age(change.observed_at, now));
    sheet.row("happened after", &moment(change.observed_after));
    sheet.row("received", &moment(change.received_at));
    if change.cause == "rescan" {
        sheet.row("found by", "a scan, not by an event: the time it happened is only bounded");
    }
    match change.verdict.as_deref() {
        Some(verdict) => sheet.toned("verdict", Tone::of_verdict(verdict), &verdict.replace('_', " ")),
        None => sheet.row("verdict", "not judged yet"),
    }
    for reason in &change.reasons {
        sheet.row("because", reason);
    }
    sheet.maybe("shipped by", change.shipped_by.as_ref().map(ToString::to_string).as_deref());
    describe(&mut sheet, &change.actor);
    describe_runs(&mut sheet, change.transaction.as_ref());
    describe_candidates(&mut sheet, &change.candidates);
    screen.raw(&sheet.text(screen.paint, screen.width))?;
    screen.line("")?;
    let columns = vec![Column::new("FIELD", Fit::End), Column::new("BEFORE", Fit::End), Column::new("AFTER", Fit::End)];
    let text = |value: &Option<trueline_drift::Value>| value.as_ref().map_or_else(|| "–".to_owned(), ToString::to_string);
    let rows: Vec<Vec<Cell>> = change
        .fields
        .iter()
        .map(|field| {
            vec![
                Cell::new(field.name.as_str()),
                Cell::toned(Tone::Before, &text(&field.before)),
                Cell::toned(Tone::After, &text(&field.after)),
            ]
        })
        .collect();
    screen.raw(&Table::new(columns).page(&rows, screen.paint, screen.width))?;
    let Some(lines) = &change.lines else { return Ok(()) };
    screen.line("")?;
    for line in &lines.told {
        let tone = match line.side {
            Side::Removed => Tone::Before,
            Side::Added => Tone::After,
        };
        screen.line(&screen.paint.text(tone, &visible(&line.to_string())))?;
    }
    match lines.remark() {
        Some(remark) => Ok(screen.line(&screen.paint.text(Tone::Dim, &remark))?),
        None => Ok(()),
    }
}

/// The runs that it was made in, innermost first.
pub fn describe_runs(sheet: &mut Sheet, transaction: Option<&Transaction>) {
    for (at, run) in transaction.into_iter().flat_map(Transaction::outwards).enumerate() {
        sheet.row(if at == 0 { "transaction" } else { "within" }, &format!("{} ({}, {})", run.summary(), run.id, run.certainty));
    }
}

/// Who may have been it, where nobody was seen.
fn describe_candidates(sheet: &mut Sheet, candidates: &Candidates) {
    for candidate in &candidates.offered {
        sheet.row("perhaps", &candidate.line(moment));
    }
    if candidates.more > 0 {
        sheet.row("and", &format!("{} more in that time", candidates.more));
    }
}

/// Who it was, and how sure that is.
pub fn describe(sheet: &mut Sheet, actor: &Actor) {
    sheet.toned("actor", Tone::Actor, &actor.summary());
    let via = if actor.via.is_empty() { String::new() } else { format!(" (by {})", actor.via.join(", ")) };
    sheet.row("certainty", &format!("{}{via}", actor.certainty));
    if actor.process.is_some() || actor.user.is_some() {
        sheet.maybe("why no surer", actor.reason.as_deref());
    }
    if let Some(process) = &actor.process {
        sheet.maybe("executable", process.exe.as_deref());
        sheet.maybe("its sha256", process.sha256.as_ref().map(ToString::to_string).as_deref());
        sheet.maybe("script", process.script.as_deref());
        sheet.maybe("folder", process.cwd.as_deref());
        sheet.maybe("started", process.started_at.map(moment).as_deref());
    }
    for parent in &actor.parents {
        // What it calls itself is its own choice.
        let exe = parent.exe.as_ref().filter(|exe| parent.argv.first() != Some(exe));
        let exe = exe.map(|exe| format!(" · {exe}")).unwrap_or_default();
        sheet.row("parent", &format!("{}{exe}", parent.summary()));
    }
    if let Some(session) = &actor.session {
        sheet.row("session", &format!("{} ({}, {})", session.summary(), session.id, session.certainty));
        sheet.maybe("logged in", session.began_at.map(moment).as_deref());
    }
    if let Some(sudo) = &actor.sudo {
        sheet.row("sudo", &format!("{} ({})", sudo.summary(), sudo.certainty));
    }
    sheet.maybe("unit", actor.unit.as_deref());
    sheet.maybe("slice", actor.slice.as_deref());
    if let Some(container) = &actor.container {
        let image = container.image.as_ref().map(|image| format!(" of image {image}")).unwrap_or_default();
        sheet.row("container", &format!("{}{image} ({})", container.id, container.certainty));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::screen::Paint;

    #[test]
    fn who_may_have_done_it_is_told_as_perhaps_and_how_it_was_matched() {
        let session = json!({
            "id": "3f2a9c01d4e7-2238", "certainty": "strong", "kind": "ssh", "user": "alice", "origin": {"address": "10.0.0.9"}
        });
        let candidates: Candidates = shape::read(&json!({
            "offered": [
                {
                    "kind": "package", "matched": "object_and_time", "distance_seconds": 0,
                    "began_at": "2026-11-22T00:11:00Z", "ended_at": "2026-11-22T00:11:05Z",
                    "package": {
                        "action": "upgrade", "name": "openssl", "version_before": "3.0.1", "version": "3.0.2",
                        "command": "apt-get upgrade", "requested_by": "alice (1000)"
                    }
                },
                {
                    "kind": "sudo", "matched": "time", "distance_seconds": 3, "session": session,
                    "began_at": "2026-11-22T00:12:00Z", "ended_at": "2026-11-22T00:12:01Z",
                    "sudo": {"certainty": "correlated", "by": "alice", "as_user": "root", "command": "/usr/bin/vim x\u{1b}[31m"}
                },
                {"kind": "login", "matched": "time", "distance_seconds": 0, "session": session, "began_at": "2026-11-22T00:10:00Z"}
            ],
            "more": 2
        }))
        .unwrap();
        let mut sheet = Sheet::default();
        describe_candidates(&mut sheet, &candidates);
        insta::assert_snapshot!(sheet.text(Paint::PLAIN, None), @r"
        perhaps  upgrade of openssl 3.0.1 -> 3.0.2 by apt-get upgrade, for alice (1000), 2026-11-22 00:11:00Z to 2026-11-22 00:11:05Z (object and time)
        perhaps  alice's sudo as root: /usr/bin/vim x�[31m, within ssh session 3f2a9c01d4e7-2238 from 10.0.0.9, 2026-11-22 00:12:00Z to 2026-11-22 00:12:01Z (time alone)
        perhaps  alice's ssh session 3f2a9c01d4e7-2238 from 10.0.0.9, since 2026-11-22 00:10:00Z (time alone)
        and      2 more in that time
        ");
    }

    /// From the process to the login, with what a host may put into a terminal made visible.
    #[test]
    fn the_whole_chain_is_told() {
        let actor: Actor = shape::read(&json!({
            "certainty": "exact", "via": ["fanotify", "ebpf"],
            "process": {
                "pid": 8123, "exe": "/usr/bin/python3.11", "sha256": "ab".repeat(32), "script": "/usr/bin/unattended-upgrade",
                "argv": ["python3", "/usr/bin/unattended-upgrade"], "cwd": "/"
            },
            "parents": [{"pid": 8001, "exe": "/usr/bin/bash", "argv": ["-bash"]}],
            "user": {"uid": 0, "name": "root", "login_uid": 1000, "login_name": "alice"},
            "session": {
                "id": "3f2a9c01d4e7-42", "certainty": "strong", "kind": "ssh", "user": "alice",
                "origin": {"address": "10.0.4.17", "port": 51022}, "terminal": "pts/0", "key": "SHA256:Zk3v", "began_at": "2026-02-12T10:30:00Z"
            },
            "sudo": {"certainty": "strong", "by": "alice", "as_user": "root", "command": "x\u{1b}[31m", "terminal": "pts/0"},
            "unit": "session-42.scope", "slice": "user-1000.slice",
            "container": {"certainty": "correlated", "id": "web", "image": "debian:12"}
        }))
        .unwrap();
        let run: Transaction = shape::read(&json!({
            "id": "apt-1", "kind": "apt", "certainty": "exact", "command": "apt-get install nginx", "requested_by": "alice",
            "within": {"id": "ansible-1", "kind": "ansible", "certainty": "correlated", "name": "apt"}
        }))
        .unwrap();
        let mut sheet = Sheet::default();
        describe(&mut sheet, &actor);
        describe_runs(&mut sheet, Some(&run));
        insta::assert_snapshot!(sheet.text(Paint::PLAIN, None), @r"
        actor        alice as root · python3 /usr/bin/unattended-upgrade (pid 8123)
        certainty    exact (by fanotify, ebpf)
        executable   /usr/bin/python3.11
        its sha256   abababababababababababababababababababababababababababababababab
        script       /usr/bin/unattended-upgrade
        folder       /
        parent       -bash (pid 8001) · /usr/bin/bash
        session      ssh of alice from 10.0.4.17 port 51022 with key SHA256:Zk3v on pts/0 (3f2a9c01d4e7-42, strong)
        logged in    2026-02-12 10:30:00Z
        sudo         alice as root: x�[31m, on pts/0 (strong)
        unit         session-42.scope
        slice        user-1000.slice
        container    web of image debian:12 (correlated)
        transaction  apt: apt-get install nginx, for alice (apt-1, exact)
        within       perhaps ansible: apt (ansible-1, correlated)
        ");
    }
}
