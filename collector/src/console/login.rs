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
    query: &[Parameter::new("token", "A one-time login token."), FROM],
    ..Endpoint::PAGE
};
static FORM: Endpoint = Endpoint { method: Method::Post, path: "/login", name: "login", needs: Needs::Nothing, ..Endpoint::PAGE };
static LOGOUT: Endpoint = Endpoint { method: Method::Post, path: "/logout", name: "logout", ..Endpoint::PAGE };

/// The page that was asked for before the login.
const FROM: Parameter = Parameter::new("from", "A path of the console to go on to.");

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
    from: String,
}

/// A try to log in: with what token, and where to go then.
struct Attempt<'a> {
    token: &'a str,
    from: &'a str,
}

impl Attempt<'_> {
    fn refuse(&self, api: &Api, error: impl Into<String>) -> Response {
        let page = Login { version: api.context.version, error: Some(error.into()), from: local(self.from).to_owned() };
        (StatusCode::UNAUTHORIZED, html(&page)).into_response()
    }
}

/// Longest path gone on to, in bytes.
const FROM_LIMIT: usize = 2048;

/// A path of this console, or the feed: whoever sends a link to the login must not choose another site to end on.
fn local(from: &str) -> &str {
    let is_path = from.starts_with('/') && !from.starts_with("//") && from.len() <= FROM_LIMIT;
    // A browser takes a backslash for a slash and passes over tabs and ends of lines.
    let is_plain = from.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let page = from.split(['?', '#']).next().unwrap_or_default();
    if is_path && is_plain && !matches!(page, "/login" | "/logout") { from } else { "/" }
}

async fn page(State(api): State<Api>, caller: Option<Caller>, query: Query) -> Result<Response, Problem> {
    let from = query.text("from").unwrap_or("/");
    match query.text("token") {
        Some(token) => attempt(&api, Attempt { token, from }, TokenKind::Login).await,
        None if caller.is_some_and(|caller| caller.kind == TokenKind::Session) => Ok(Redirect::to(local(from)).into_response()),
        None => Ok(html(&Login { version: api.context.version, error: None, from: local(from).to_owned() })),
    }
}

#[derive(Deserialize)]
struct LoginForm {
    token: String,
    #[serde(default)]
    from: String,
}

async fn form(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    check_same_origin(request.headers())?;
    let Ok(Form(form)) = Form::<LoginForm>::from_request(request, &()).await else {
        return Err(Problem::bad_request("the login form has one field, the token"));
    };
    // Of a whole link that was pasted, its token counts.
    let text = form.token.trim();
    let token = text.rsplit_once("token=").map_or(text, |(_, token)| token.split('&').next().unwrap_or(token));
    attempt(&api, Attempt { token, from: &form.from }, TokenKind::Api).await
}

/// `shown` is what the token was shown as: a link only opens with a login token, the form with either kind.
async fn attempt(api: &Api, attempt: Attempt<'_>, shown: TokenKind) -> Result<Response, Problem> {
    let what = if shown == TokenKind::Login { "login link" } else { "token" };
    let unknown = || attempt.refuse(api, format!("This {what} is not known here: it may be of another collector."));
    if attempt.token.len() > TOKEN_LIMIT {
        return Ok(unknown());
    }
    let (now, digest) = (hub::now(), digest(attempt.token));
    let kind = api.hub.store.token_by_digest(&digest).await?.map(|token| token.kind);
    let standing = match kind {
        Some(TokenKind::Login) => match api.hub.store.spend_token(&digest, TokenKind::Login, now).await? {
            Spent::Token(token) => return open(api, token, attempt.from).await,
            Spent::Unknown => return Ok(unknown()),
            Spent::Refused(standing) => standing,
        },
        Some(TokenKind::Api) if shown == TokenKind::Api => match api.hub.store.token_by_digest(&digest).await? {
            Some(token) if token.standing(now) == Standing::Good => return open(api, token, attempt.from).await,
            Some(token) => token.standing(now),
            None => return Ok(unknown()),
        },
        _ => return Ok(unknown()),
    };
    let fault = match standing {
        Standing::Expired => format!("This {what} has expired."),
        Standing::Revoked => format!("This {what} was revoked."),
        Standing::UsedUp | Standing::Good => format!("This {what} has been used: each opens the console once."),
    };
    Ok(attempt.refuse(api, fault))
}

/// Opens a session with the role of the token, and goes to the page that was asked for.
async fn open(api: &Api, token: Token, from: &str) -> Result<Response, Problem> {
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
    Ok(with_cookie(api, Redirect::to(local(from)).into_response(), text.as_str(), seconds_until(expires_at, now)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_ends_on_our_own_pages_only() {
        for path in ["/hosts", "/drift/4", "/?host=web1&verdict=critical", "/loginx"] {
            assert_eq!(local(path), path);
        }
        let long = format!("/{}", "a".repeat(FROM_LIMIT));
        for other in [
            "",
            "hosts",
            "//evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "https://evil.example",
            "/a\r\nb: c",
            "/login",
            "/login?from=/",
            "/logout",
            "/é",
            &long,
        ] {
            assert_eq!(local(other), "/", "{other:?}");
        }
    }
}
