//! Logging in and out: a one-time link or an API token becomes a session in a cookie.
//!
//! Invariants: the session's token is in the cookie and nowhere else; a login link works once; a
//! session can do no more, and lives no longer, than what opened it.

use askama::Template;
use axum::extract::{FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Form, http};
use serde::Deserialize;
use trueline_drift::Time;
use trueline_store::{NewToken, Spent, Standing, Token, TokenKind};

use super::page::html;
use crate::hub;
use crate::rest::Api;
use crate::rest::access::{Caller, SESSION_COOKIE, check_same_origin};
use crate::rest::endpoint::{Endpoint, Method, Needs, Parameter, Routes};
use crate::rest::problem::Problem;
use crate::rest::query::Query;
use crate::token::{TokenText, digest};

static PAGE: Endpoint = Endpoint {
    path: "/login",
    name: "login_page",
    needs: Needs::Nothing,
    query: &[Parameter::new("token", "A one-time login token.")],
    ..Endpoint::PAGE
};
static FORM: Endpoint = Endpoint { method: Method::Post, path: "/login", name: "login", needs: Needs::Nothing, ..Endpoint::PAGE };
static LOGOUT: Endpoint = Endpoint { method: Method::Post, path: "/logout", name: "logout", ..Endpoint::PAGE };

const SESSION_SECONDS: i64 = 12 * 3600;
const TOKEN_LIMIT: usize = 128;

pub fn routes(routes: Routes) -> Routes {
    routes.add(&PAGE, page).add(&FORM, form).add(&LOGOUT, logout)
}

#[derive(Template)]
#[template(path = "login.html")]
struct Login {
    version: &'static str,
    error: Option<String>,
}

fn refuse(api: &Api, error: impl Into<String>) -> Response {
    let page = Login { version: api.context.version, error: Some(error.into()) };
    (StatusCode::UNAUTHORIZED, html(&page)).into_response()
}

async fn page(State(api): State<Api>, caller: Option<Caller>, query: Query) -> Result<Response, Problem> {
    let Some(text) = query.text("token") else {
        if caller.is_some_and(|caller| caller.kind == TokenKind::Session) {
            return Ok(Redirect::to("/").into_response());
        }
        return Ok(html(&Login { version: api.context.version, error: None }));
    };
    if text.len() > TOKEN_LIMIT {
        return Ok(refuse(&api, "This is not a login link of this collector."));
    }
    match api.hub.store.spend_token(&digest(text), TokenKind::Login, hub::now()).await? {
        Spent::Token(token) => open(&api, token).await,
        Spent::Unknown => Ok(refuse(&api, "This login link is not known here.")),
        Spent::Refused(standing) => Ok(refuse(
            &api,
            match standing {
                Standing::Expired => "This login link has expired.",
                Standing::Revoked => "This login link was revoked.",
                Standing::UsedUp | Standing::Good => "This login link has been used: each opens the console once.",
            },
        )),
    }
}

#[derive(Deserialize)]
struct LoginForm {
    token: String,
}

async fn form(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    check_same_origin(request.headers())?;
    let Ok(Form(form)) = Form::<LoginForm>::from_request(request, &()).await else {
        return Err(Problem::bad_request("the login form has one field, the token"));
    };
    let text = form.token.trim();
    if text.len() > TOKEN_LIMIT {
        return Ok(refuse(&api, "This is not a token: it is too long."));
    }
    let token = api.hub.store.token_by_digest(&digest(text)).await?;
    let Some(token) = token.filter(|token| token.kind == TokenKind::Api) else {
        return Ok(refuse(&api, "This is not an API token of this collector."));
    };
    match token.standing(hub::now()) {
        Standing::Good => open(&api, token).await,
        Standing::Expired => Ok(refuse(&api, "This token has expired.")),
        Standing::Revoked => Ok(refuse(&api, "This token was revoked.")),
        Standing::UsedUp => Ok(refuse(&api, "This token has been used up.")),
    }
}

/// Opens a session with the role of the token, and goes to the feed.
async fn open(api: &Api, token: Token) -> Result<Response, Problem> {
    let now = hub::now();
    let full = now.plus_seconds(SESSION_SECONDS);
    let expires_at = match (token.kind, token.expires_at) {
        // The life of a link is how long it may wait, not how long the session may last.
        (TokenKind::Login, _) | (_, None) => full,
        (_, Some(expiry)) => expiry.min(full),
    };
    let text = TokenText::random(TokenKind::Session);
    let session = NewToken {
        tenant: token.tenant.clone(),
        kind: TokenKind::Session,
        role: token.role,
        name: token.name.clone(),
        digest: text.digest(),
        created_at: now,
        expires_at: Some(expires_at),
        uses: None,
    };
    api.hub.store.add_token(session).await?;
    let caller =
        Caller { tenant: token.tenant, name: token.name, role: token.role, kind: TokenKind::Session, id: token.id, digest: text.digest() };
    caller.note(api, now, "console.login", format!("token:{}", token.id), None).await;
    Ok(with_cookie(api, Redirect::to("/").into_response(), text.as_str(), seconds_until(expires_at, now)))
}

fn seconds_until(expiry: Time, now: Time) -> i64 {
    (expiry.micros_since(now) / 1_000_000).max(0)
}

/// Out of reach of scripts, sent only by our own pages, and over HTTPS where that is how we are reached.
fn with_cookie(api: &Api, mut response: Response, value: &str, seconds: i64) -> Response {
    let secure = if api.is_https() { "; Secure" } else { "" };
    let cookie = format!("{SESSION_COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    if let Ok(mut cookie) = http::HeaderValue::try_from(cookie) {
        cookie.set_sensitive(true);
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

async fn logout(State(api): State<Api>, caller: Caller) -> Result<Response, Problem> {
    if caller.kind == TokenKind::Session {
        api.hub.store.revoke_token(&caller.tenant, caller.id, hub::now()).await?;
    }
    Ok(with_cookie(&api, Redirect::to("/login").into_response(), "", 0))
}
