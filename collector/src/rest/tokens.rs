//! Tokens: made here, shown once, listed without their text, revoked.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use trueline_store::{NewToken, Role, TokenKind};
use utoipa::ToSchema;

use super::Api;
use super::access::Caller;
use super::endpoint::{Content, Endpoint, Method, Needs, Routes, one};
use super::problem::Problem;
use super::query::{AFTER, Body, LIMIT, Query, number};
use super::shape::{List, TokenShape};
use crate::hub;
use crate::token::TokenText;

static LISTED: Endpoint = Endpoint {
    path: "/api/v1/tokens",
    name: "tokens",
    summary: "Tokens, newest first, without their text.",
    needs: Needs::Role(Role::Admin),
    query: &[LIMIT, AFTER],
    gives: Content::List(one::<TokenShape>),
    ..Endpoint::DEFAULT
};

static MADE: Endpoint = Endpoint {
    method: Method::Post,
    path: "/api/v1/tokens",
    name: "create_token",
    summary: "Makes a token. Its text is in this answer and nowhere else.",
    needs: Needs::Role(Role::Admin),
    takes: Content::Json(one::<TokenRequest>),
    status: 201,
    gives: Content::Json(one::<TokenShape>),
    ..Endpoint::DEFAULT
};

static REVOKED: Endpoint = Endpoint {
    method: Method::Delete,
    path: "/api/v1/tokens/{id}",
    name: "revoke_token",
    summary: "Revokes a token; streams opened with it end within seconds.",
    needs: Needs::Role(Role::Admin),
    status: 204,
    ..Endpoint::DEFAULT
};

/// Longest life of a token: ten years.
const LONGEST_SECONDS: u64 = 10 * 366 * 24 * 3600;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    /// `join` lets hosts enrol, `api` speaks to this API, `login` opens the console once.
    #[schema(value_type = String, example = "join")]
    kind: RequestedKind,
    /// What it may do; `viewer` where not given. Of no account for `join`.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "viewer")]
    role: Option<Role>,
    /// For people: who or what it is for. At most 100 characters.
    #[serde(default)]
    name: Option<String>,
    /// Its life. Where not given: `join` an hour, `login` a quarter of an hour, `api` 90 days.
    #[serde(default)]
    expires_in_seconds: Option<u64>,
    /// How often it may be used. Where not given: `join` and `login` once, `api` without bound.
    #[serde(default)]
    uses: Option<u32>,
}

/// A session is only ever made by logging in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RequestedKind {
    Join,
    Api,
    Login,
}

impl RequestedKind {
    const fn kind(self) -> TokenKind {
        match self {
            Self::Join => TokenKind::Join,
            Self::Api => TokenKind::Api,
            Self::Login => TokenKind::Login,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Api => "api",
            Self::Login => "login",
        }
    }

    const fn default_seconds(self) -> u64 {
        match self {
            Self::Join => 3600,
            Self::Api => 90 * 24 * 3600,
            Self::Login => 900,
        }
    }
}

pub fn routes(routes: Routes) -> Routes {
    routes.add(&LISTED, list).add(&MADE, make).add(&REVOKED, revoke)
}

async fn list(State(api): State<Api>, caller: Caller, query: Query) -> Result<Json<List<TokenShape>>, Problem> {
    let now = hub::now();
    let listed = api.hub.store.tokens(&caller.tenant, query.page()?).await?;
    Ok(Json(List::of(listed, |token| TokenShape::of(token, now))))
}

async fn make(
    State(api): State<Api>,
    caller: Caller,
    Body(request): Body<TokenRequest>,
) -> Result<(StatusCode, Json<TokenShape>), Problem> {
    let name = match request.name {
        Some(name) => {
            let name = name.trim().to_owned();
            if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
                return Err(Problem::bad_request("name: 1 to 100 printable characters"));
            }
            name
        }
        None => request.kind.name().to_owned(),
    };
    let seconds = request.expires_in_seconds.unwrap_or_else(|| request.kind.default_seconds());
    if seconds == 0 || seconds > LONGEST_SECONDS {
        return Err(Problem::bad_request(format!("expires_in_seconds: 1 to {LONGEST_SECONDS}")));
    }
    let uses = match (request.kind, request.uses) {
        (_, Some(0)) => return Err(Problem::bad_request("uses: at least 1")),
        (RequestedKind::Api, Some(_)) => return Err(Problem::bad_request("uses: an API token's uses are not counted; leave it out")),
        (RequestedKind::Login, Some(uses)) if uses > 1 => return Err(Problem::bad_request("uses: a login token opens the console once")),
        (RequestedKind::Api, None) => None,
        (_, uses) => Some(uses.unwrap_or(1)),
    };
    let now = hub::now();
    let text = TokenText::random(request.kind.kind());
    let token = NewToken {
        tenant: caller.tenant.clone(),
        kind: request.kind.kind(),
        role: request.role.unwrap_or(Role::Viewer),
        name,
        digest: text.digest(),
        created_at: now,
        expires_at: Some(now.plus_seconds(i64::try_from(seconds).unwrap_or(i64::MAX))),
        uses,
    };
    let token = api.hub.store.add_token(token).await?;
    let detail = format!("{} `{}`, {}", request.kind.name(), token.name, super::shape::role(token.role));
    caller.note(&api, now, "token.create", format!("token:{}", token.id), Some(detail)).await;
    let mut shape = TokenShape::of(token, now);
    shape.token = Some(text.as_str().to_owned());
    Ok((StatusCode::CREATED, Json(shape)))
}

async fn revoke(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let id = number(&id, "token")?;
    let now = hub::now();
    if !api.hub.store.revoke_token(&caller.tenant, id, now).await? {
        return Err(Problem::not_found(format!("there is no live token {id}; see /api/v1/tokens")));
    }
    caller.note(&api, now, "token.revoke", format!("token:{id}"), None).await;
    Ok(StatusCode::NO_CONTENT)
}
