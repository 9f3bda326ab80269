//! `trueline tokens`: what lets hosts join, programs ask and people log in.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use trueline_drift::Time;

use super::Session;
use crate::age::{age, moment, parse_duration};
use crate::api::Query;
use crate::counted::counted;
use crate::failure::Failure;
use crate::listing::{Listing, Paging, list};
use crate::screen::Tone;
use crate::shape::{self, Token};
use crate::table::{Cell, Column, Fit, visible};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a token; it is shown once and kept nowhere
    Create(Wish),
    /// Tokens, newest first, without their text
    List(Paging),
    /// Make a token useless at once
    Revoke {
        /// A number from `trueline tokens list`
        #[arg(value_parser = id)]
        id: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Lets hosts enrol
    Join,
    /// Speaks to the REST API
    Api,
    /// A link that opens the console once
    Login,
}

#[derive(Debug, Args)]
pub struct Wish {
    /// What it is good for
    #[arg(long, value_enum)]
    kind: Kind,
    /// Who or what it is for
    #[arg(long)]
    name: Option<String>,
    /// viewer reads, operator acknowledges and captures, admin makes tokens and revokes; of no account for join
    #[arg(long, default_value = "viewer", value_parser = ["viewer", "operator", "admin"])]
    role: String,
    /// How long it is good for: 15m, 24h, 7d [default: 1h for join, 15m for login, 90d for api]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    expires: Option<Duration>,
    /// How often a join token may be used [default: once]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    uses: Option<u32>,
}

pub async fn run(session: &Session, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(wish) => create(session, wish).await,
        Verb::List(paging) => list(session, &["tokens"], Query::default(), &paging, listing()).await.map(|_| ()),
        Verb::Revoke { id } => {
            session.api.delete(&["tokens", &id.to_string()]).await?;
            session.screen.note(&format!("Token {id} is revoked."));
            Ok(())
        }
    }
}

async fn create(session: &Session, wish: Wish) -> Result<(), Failure> {
    let kind = match wish.kind {
        Kind::Join => "join",
        Kind::Api => "api",
        Kind::Login => "login",
    };
    let body = json!({
        "kind": kind,
        "name": wish.name,
        "role": wish.role,
        "expires_in_seconds": wish.expires.map(|expires| expires.as_secs()),
        "uses": wish.uses,
    });
    let value = session.api.post(&["tokens"], &body).await?;
    let screen = session.screen;
    if screen.is_json() {
        return Ok(screen.document(&value)?);
    }
    let token: Token = shape::read(&value)?;
    let Some(text) = &token.token else {
        return Err(Failure::Refused("the collector made the token but did not show it: revoke it and try again".to_owned()));
    };
    let until = token.expires_at.map(|at| format!(", until {}", moment(at))).unwrap_or_default();
    // The token or link alone on standard output, so that a script can take it.
    if wish.kind == Kind::Login {
        screen.line(&visible(&format!("{}/login?token={text}", session.api.address())))?;
        screen.note(&visible(&format!("Opens the console once, with the role {}{until}. It is not shown again.", token.role)));
        return Ok(());
    }
    screen.line(&visible(text))?;
    let role = if wish.kind == Kind::Join { String::new() } else { format!(", role {}", token.role) };
    let uses = token.uses_left.map(|uses| format!(", for {}", counted(u64::from(uses), "use"))).unwrap_or_default();
    screen.note(&visible(&format!("Token {} ({kind}{role}{until}{uses}). It is not shown again.", token.id)));
    Ok(())
}

fn id(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a token's id is a number: the first column of `trueline tokens list`".to_owned())
}

fn listing() -> Listing<Token> {
    let columns = vec![
        Column::number("ID"),
        Column::new("KIND", Fit::Whole),
        Column::new("NAME", Fit::End),
        Column::new("ROLE", Fit::Whole),
        Column::new("STANDING", Fit::Whole),
        Column::number("USES LEFT"),
        Column::new("EXPIRES", Fit::Whole),
        Column::new("AGE", Fit::Whole),
    ];
    Listing { columns, row: Box::new(row), nothing: "No tokens." }
}

fn row(token: &Token, now: Time) -> Vec<Cell> {
    let tone = if token.standing == "good" { Tone::Good } else { Tone::Dim };
    vec![
        Cell::new(&token.id.to_string()),
        Cell::new(&token.kind),
        Cell::toned(Tone::Heading, &token.name),
        Cell::new(if token.kind == "join" { "–" } else { &token.role }),
        Cell::toned(tone, &token.standing.replace('_', " ")),
        Cell::new(&token.uses_left.map_or_else(|| "–".to_owned(), |uses| uses.to_string())),
        Cell::new(&token.expires_at.map_or_else(|| "never".to_owned(), moment)),
        Cell::new(&age(token.created_at, now)),
    ]
}
