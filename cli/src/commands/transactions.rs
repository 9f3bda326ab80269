//! `trueline transactions`: which runs made changes together, and what their tools say of them.

use clap::{Args, Subcommand};
use trueline_drift::transaction::{TransactionId, TransactionKind};
use trueline_drift::{ItemKind, Time};

use super::Session;
use super::told::{self, Asked, Told};
use crate::age::{moment, moment_and_age, now, parse_moment};
use crate::failure::Failure;
use crate::screen::Tone;
use crate::table::{Cell, Column, Fit, Sheet, Table};

const SHOWN: usize = 100;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Runs of the last day, newest first; what one changed: `trueline changes list --transaction ID`
    List(Selection),
    /// One run: who asked for it, what its tool says of it, the packages
    Show {
        /// A name from `trueline transactions list`
        id: TransactionId,
        #[command(flatten)]
        asked: Asked,
    },
}

#[derive(Debug, Args)]
pub struct Selection {
    #[command(flatten)]
    asked: Asked,
    /// Of this tool: apt, dpkg, unattended_upgrades, rpm, dnf, ansible, puppet, cron, timer, …
    #[arg(long, value_parser = tool)]
    tool: Option<TransactionKind>,
    /// Only those that have not ended
    #[arg(long)]
    open: bool,
    /// Begun at or after: a time (RFC 3339), or 15m for fifteen minutes ago
    #[arg(long, value_parser = parse_moment)]
    since: Option<Time>,
    /// Begun before: a time (RFC 3339), or 15m for fifteen minutes ago
    #[arg(long, value_parser = parse_moment)]
    until: Option<Time>,
    /// At most this many [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

fn tool(name: &str) -> Result<TransactionKind, String> {
    let names = TransactionKind::ALL.map(TransactionKind::name);
    let found = TransactionKind::ALL.into_iter().find(|kind| kind.name() == name.replace('-', "_"));
    found.ok_or_else(|| format!("it is none of {}", names.join(", ")))
}

impl Selection {
    fn holds(&self, told: &Told) -> bool {
        let began_at = told.time("began_at");
        (!self.open || is_at_work(told))
            && self.tool.is_none_or(|tool| told.field("tool").as_deref() == Some(tool.name()))
            && self.since.is_none_or(|since| began_at.is_some_and(|began| began >= since))
            && self.until.is_none_or(|until| began_at.is_some_and(|began| began < until))
    }
}

pub async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List(selection) => list(session, &selection).await,
        Verb::Show { id, asked } => show(session, &id, &asked).await,
    }
}

async fn list(session: &Session, selection: &Selection) -> Result<(), Failure> {
    let mut told = told::all(session, &selection.asked, ItemKind::Run, None).await?;
    let are_any = !told.is_empty();
    told.retain(|told| selection.holds(told));
    let count = told.len();
    told.truncate(selection.limit.map_or(SHOWN, |limit| limit as usize));
    let screen = session.screen;
    if screen.is_json() {
        return Ok(screen.document(&told::document(told))?);
    }
    if told.is_empty() {
        screen.note(match are_any {
            true => "No such transactions. `trueline transactions list` without filters has those of the last day.",
            false => "No transactions: no run was seen to change a host within a day. `trueline changes list` has changes of any kind.",
        });
        return Ok(());
    }
    let now = now();
    let rows: Vec<Vec<Cell>> = told.iter().map(|told| row(told, now)).collect();
    screen.raw(&Table::new(columns()).page(&rows, screen.paint, screen.width))?;
    if count > told.len() {
        screen.note(&format!("There are {} more: --limit {count}", count - told.len()));
    }
    Ok(())
}

fn columns() -> Vec<Column> {
    vec![
        Column::new("BEGAN", Fit::Whole),
        Column::new("ENDED", Fit::Whole),
        Column::new("HOST", Fit::Middle),
        Column::new("TOOL", Fit::Whole),
        Column::new("FOR", Fit::Middle),
        Column::new("RESULT", Fit::Whole),
        Column::new("TRANSACTION", Fit::Key),
        Column::new("WHAT", Fit::End),
    ]
}

fn row(told: &Told, now: Time) -> Vec<Cell> {
    let result = told.field("result");
    let tone = if result.as_deref() == Some("failed") { Tone::Critical } else { Tone::Plain };
    let ended = if told.is_open() && !is_at_work(told) { Cell::new("–") } else { told.ended(now) };
    vec![
        Cell::new(&told.time("began_at").map_or_else(|| "–".to_owned(), moment)),
        ended,
        Cell::new(&told.host),
        Cell::new(&format!("{}{}", told.perhaps(), name_of_tool(told))),
        Cell::toned(Tone::Actor, told.field("requested_by").as_deref().unwrap_or("–")),
        Cell::toned(tone, result.as_deref().unwrap_or("–")),
        Cell::toned(Tone::Heading, told.key()),
        Cell::new(&what(told)),
    ]
}

/// A run of which nothing would tell the end is not known to be open.
fn is_at_work(told: &Told) -> bool {
    told.is_open() && told.field("pid").is_some()
}

fn name_of_tool(told: &Told) -> String {
    told.field("tool").unwrap_or_default().replace('_', " ")
}

fn what(told: &Told) -> String {
    let modules = told.list("modules");
    match told.field("command").or_else(|| told.field("name")) {
        Some(text) => text,
        None => modules.join(", "),
    }
}

async fn show(session: &Session, id: &TransactionId, asked: &Asked) -> Result<(), Failure> {
    let mut found = told::all(session, asked, ItemKind::Run, Some(id.as_str())).await?;
    found.retain(|told| told.key() == id.as_str());
    let Some(told) = found.into_iter().next() else {
        let why =
            format!("no transaction {id} of the last day: `trueline changes list --transaction {id}` finds what an older one changed");
        return Err(Failure::Refused(why));
    };
    let screen = session.screen;
    if screen.is_json() {
        return Ok(screen.document(&told.value)?);
    }
    Ok(screen.raw(&sheet(&told, now()).text(screen.paint, screen.width))?)
}

fn sheet(told: &Told, now: Time) -> Sheet {
    let mut sheet = Sheet::default();
    let maybe = |sheet: &mut Sheet, label, name: &str| sheet.maybe(label, told.field(name).as_deref());
    sheet.toned("transaction", Tone::Heading, &format!("{} · {}{}", told.key(), told.perhaps(), name_of_tool(told)));
    sheet.row("host", &told.host);
    maybe(&mut sheet, "certainty", "certainty");
    maybe(&mut sheet, "name", "name");
    maybe(&mut sheet, "command", "command");
    maybe(&mut sheet, "for", "requested_by");
    maybe(&mut sheet, "controller", "controller");
    sheet.maybe("began", told.time("began_at").map(|at| moment_and_age(at, now)).as_deref());
    sheet.maybe("ended", told.time("ended_at").map(|at| moment_and_age(at, now)).as_deref());
    maybe(&mut sheet, "process", "pid");
    maybe(&mut sheet, "within", "within");
    maybe(&mut sheet, "its record", "record");
    maybe(&mut sheet, "result", "result");
    maybe(&mut sheet, "error", "error");
    maybe(&mut sheet, "for, it says", "requested_by_record");
    maybe(&mut sheet, "catalogue", "catalogue_version");
    for module in told.list("modules") {
        sheet.row("module", &module);
    }
    for package in told.list("packages") {
        sheet.row("package", &package);
    }
    sheet.row("its changes", &format!("trueline changes list --transaction {}", told.key()));
    sheet
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json};

    use super::*;
    use crate::screen::Paint;
    use crate::shape;

    fn told(key: &str, fields: Value) -> Told {
        let value = json!({ "item": format!("run:{key}"), "fields": fields });
        Told { host: "web1".to_owned(), item: shape::read(&value).unwrap(), value }
    }

    fn runs() -> Vec<Told> {
        vec![
            told(
                "apt-9c41d0e2a7f35b18",
                json!({
                    "tool": "apt", "certainty": "exact", "name": "install", "command": "apt-get install nginx", "requested_by": "alice",
                    "began_at": "2026-02-12T10:30:01.000000Z", "ended_at": "2026-02-12T10:31:00.000000Z", "pid": 812,
                    "within": "ansible-5be0c2719d43fa86", "record": "/var/log/apt/history.log", "result": "failed",
                    "error": "x\u{1b}[31m", "requested_by_record": "alice (1000)", "packages": ["install nginx:amd64 1.22.1-9", "upgrade libc6:amd64 1 -> 2"]
                }),
            ),
            told(
                "ansible-5be0c2719d43fa86",
                json!({
                    "tool": "ansible", "certainty": "correlated", "requested_by": "deploy from 10.0.4.9", "controller": "10.0.4.9",
                    "began_at": "2026-02-12T10:30:00.000000Z", "pid": 700, "modules": ["apt", "copy"]
                }),
            ),
            told(
                "timer-5be0c2719d43fa86",
                json!({ "tool": "timer", "certainty": "correlated", "name": "x.service", "began_at": "2026-02-12T10:29:00.000000Z" }),
            ),
        ]
    }

    #[test]
    fn a_run_is_a_line_and_in_full_a_sheet() {
        let now = "2026-02-12T10:32:00Z".parse().unwrap();
        let runs = runs();
        let rows: Vec<Vec<Cell>> = runs.iter().map(|told| row(told, now)).collect();
        let mut text = Table::new(columns()).page(&rows, Paint::PLAIN, None);
        text.push('\n');
        text.push_str(&sheet(&runs[0], now).text(Paint::PLAIN, None));
        insta::assert_snapshot!(text, @r"
        BEGAN                 ENDED  HOST  TOOL             FOR                   RESULT  TRANSACTION               WHAT
        2026-02-12 10:30:01Z  1m     web1  apt              alice                 failed  apt-9c41d0e2a7f35b18      apt-get install nginx
        2026-02-12 10:30:00Z  open   web1  perhaps ansible  deploy from 10.0.4.9  –       ansible-5be0c2719d43fa86  apt, copy
        2026-02-12 10:29:00Z  –      web1  perhaps timer    –                     –       timer-5be0c2719d43fa86    x.service

        transaction   apt-9c41d0e2a7f35b18 · apt
        host          web1
        certainty     exact
        name          install
        command       apt-get install nginx
        for           alice
        began         2026-02-12 10:30:01Z (1m ago)
        ended         2026-02-12 10:31:00Z (1m ago)
        process       812
        within        ansible-5be0c2719d43fa86
        its record    /var/log/apt/history.log
        result        failed
        error         x�[31m
        for, it says  alice (1000)
        package       install nginx:amd64 1.22.1-9
        package       upgrade libc6:amd64 1 -> 2
        its changes   trueline changes list --transaction apt-9c41d0e2a7f35b18
        ");
    }

    #[test]
    fn filters_narrow_by_tool_time_and_end() {
        #[derive(Debug, Parser)]
        struct Line {
            #[command(flatten)]
            selection: Selection,
        }
        let runs = runs();
        let kept = |line: &str| {
            let Line { selection } = Line::try_parse_from(format!("list {line}").split_whitespace()).unwrap();
            runs.iter().filter(|told| selection.holds(told)).map(|told| told.key().split('-').next().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(kept("--tool apt"), ["apt"]);
        assert_eq!(kept("--tool unattended-upgrades"), Vec::<&str>::new());
        assert_eq!(kept("--open"), ["ansible"]);
        assert_eq!(kept("--since 2026-02-12T10:30:00Z --until 2026-02-12T10:30:01Z"), ["ansible"]);
        let wrong = Line::try_parse_from(["list", "--tool", "yast"]).unwrap_err().to_string();
        assert!(wrong.contains("unattended_upgrades"), "{wrong}");
    }
}
