//! Who is calling: tokens, sessions, roles, and the check that a browser's write comes from our own
//! pages.
//!
//! Invariants: a token is looked up by digest and never logged; only an API token opens the API
//! directly and only a session opens it through a cookie; a write with a cookie must prove that it
//! comes from the same origin.

use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use trueline_drift::{TenantId, Time};
use trueline_store::{NewAction, Role, Standing, TokenDigest, TokenKind};

use super::Api;
use super::endpoint::{Audience, Endpoint, Needs};
use super::problem::Problem;
use super::query::Query;
use crate::hub;
use crate::token;

/// The cookie that carries a browser's session.
pub const SESSION_COOKIE: &str = "trueline_session";

/// Longest token looked at, in bytes.
const TOKEN_LIMIT: usize = 128;

/// Whoever proved a token.
#[derive(Debug, Clone)]
pub struct Caller {
    pub tenant: TenantId,
    pub name: String,
    pub role: Role,
    pub kind: TokenKind,
    /// Of the token.
    pub id: i64,
    pub(crate) digest: TokenDigest,
}

impl Caller {
    /// As the log of actions names it.
    pub fn actor(&self) -> String {
        match self.kind {
            TokenKind::Session => format!("session:{}", self.name),
            _ => format!("token:{}", self.name),
        }
    }

    /// Notes what the caller did. The deed is done by now: a failure to note it is logged, not shown.
    pub async fn note(&self, api: &Api, at: Time, action: &str, subject: String, detail: Option<String>) {
        let action = NewAction { tenant: self.tenant.clone(), at, actor: self.actor(), action: action.to_owned(), subject, detail };
        tracing::info!(actor = action.actor, action = action.action, subject = action.subject, "an operator acted");
        if let Err(error) = api.hub.store.note_action(action).await {
            tracing::error!(%error, "an action could not be noted");
        }
    }
}

/// Present on every endpoint that needs a role.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(no_token)
    }
}

/// For endpoints that say more to those who show a token.
impl<S: Sync> axum::extract::OptionalFromRequestParts<S> for Caller {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

#[derive(Clone)]
pub struct Guard {
    pub api: Api,
    pub endpoint: &'static Endpoint,
}

/// Stands before every handler: knows the caller, checks role, origin and parameters, bounds time.
pub async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let Guard { api, endpoint } = guard;
    match admit(&api, endpoint, &mut request).await {
        Ok(()) => {}
        Err(problem) => {
            let is_login = problem.status == axum::http::StatusCode::UNAUTHORIZED;
            if is_login && endpoint.audience == Audience::Browsers && !endpoint.method.writes() && wants_html(request.headers()) {
                return Redirect::to(&login_page(request.uri())).into_response();
            }
            return problem.into_response();
        }
    }
    match tokio::time::timeout(Duration::from_secs(endpoint.seconds), next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable(format!("this took longer than {} seconds and was given up", endpoint.seconds)).into_response(),
    }
}

/// The login, which leads on to the page that was asked for.
fn login_page(asked: &axum::http::Uri) -> String {
    match asked.path_and_query().map_or("/", |asked| asked.as_str()) {
        "/" => "/login".to_owned(),
        asked => format!("/login?from={}", percent_encoded(asked)),
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

/// A page load, as opposed to a script's request.
fn wants_html(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).is_none_or(|accept| !accept.contains("text/event-stream"))
}

async fn admit(api: &Api, endpoint: &Endpoint, request: &mut Request) -> Result<(), Problem> {
    let caller = match (identify(api, request.headers()).await, endpoint.needs) {
        (Ok(caller), _) => Some(caller),
        (Err(_), Needs::Nothing) => None,
        (Err(problem), Needs::Role(_)) => {
            metrics::counter!("trueline_http_refused_total").increment(1);
            return Err(problem);
        }
    };
    if let Some(caller) = caller {
        if let Needs::Role(least) = endpoint.needs
            && caller.role < least
        {
            let (has, least) = (super::shape::role(caller.role), super::shape::role(least));
            return Err(Problem::forbidden(format!("this needs the role {least}; the token has {has}")));
        }
        if endpoint.method.writes() && caller.kind == TokenKind::Session {
            check_same_origin(request.headers())?;
        }
        request.extensions_mut().insert(caller);
    }
    let query = Query::parse(request.uri().query().unwrap_or_default(), endpoint.query)?;
    request.extensions_mut().insert(query);
    Ok(())
}

/// The caller behind an API token or a session cookie.
pub async fn identify(api: &Api, headers: &HeaderMap) -> Result<Caller, Problem> {
    let (text, kind) = match headers.get(header::AUTHORIZATION) {
        Some(value) => (bearer(value.to_str().ok()).ok_or_else(no_token)?, TokenKind::Api),
        None => (cookie(headers, SESSION_COOKIE).ok_or_else(no_token)?, TokenKind::Session),
    };
    if text.len() > TOKEN_LIMIT {
        return Err(no_token());
    }
    let digest = token::digest(text);
    standing(api, &digest, kind).await
}

/// Whether the token with this digest may be used now; also asked again during long streams.
pub async fn standing(api: &Api, digest: &TokenDigest, kind: TokenKind) -> Result<Caller, Problem> {
    let token = api.hub.store.token_by_digest(digest).await?;
    let Some(token) = token.filter(|token| token.kind == kind) else {
        return Err(Problem::unauthorised("the token is not known here: it may be of another collector or another kind"));
    };
    let renewal = match kind {
        TokenKind::Session => "log in again: trueline tokens create --kind login",
        _ => "make another: trueline tokens create --kind api",
    };
    match token.standing(hub::now()) {
        Standing::Good => {
            Ok(Caller { tenant: token.tenant, name: token.name, role: token.role, kind: token.kind, id: token.id, digest: *digest })
        }
        Standing::Expired => Err(Problem::unauthorised(format!("the token has expired; {renewal}"))),
        Standing::UsedUp => Err(Problem::unauthorised(format!("the token has been used up; {renewal}"))),
        Standing::Revoked => Err(Problem::unauthorised(format!("the token was revoked; {renewal}"))),
    }
}

fn no_token() -> Problem {
    Problem::unauthorised("send an API token: Authorization: Bearer tl_api_…, or log in to the console")
}

fn bearer(value: Option<&str>) -> Option<&str> {
    let (scheme, text) = value?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(text.trim())
}

/// A cookie's value. Where one is sent twice the first counts, as in browsers.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(given, _)| *given == name)
        .map(|(_, value)| value)
}

/// Refuses a write that a page of another origin made with our cookie (cross-site request forgery).
/// Browsers send `Sec-Fetch-Site`, or at least `Origin`, with every write; a request with neither
/// is refused too.
pub fn check_same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let same = match (text("sec-fetch-site"), text("origin"), text("host")) {
        (Some(site), _, _) => site == "same-origin",
        (None, Some(origin), Some(host)) => {
            origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")).is_some_and(|origin| origin == host)
        }
        _ => false,
    };
    if same { Ok(()) } else { Err(Problem::forbidden("this write does not come from the console's own pages")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_write_from_another_origin_is_refused() {
        for (given, allowed) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://c:8089"), ("host", "c:8089")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("origin", "http://c:8089"), ("host", "c:8089")], true),
            (&[("origin", "http://c:8080"), ("host", "c:8089")], false),
            (&[("origin", "null"), ("host", "c:8089")], false),
            (&[("host", "c:8089")], false),
        ] {
            assert_eq!(check_same_origin(&headers(given)).is_ok(), allowed, "{given:?}");
        }
    }

    #[test]
    fn the_session_is_found_among_other_cookies() {
        let headers = headers(&[("cookie", "a=b; trueline_session=tl_session_1; trueline_session_x=2")]);
        assert_eq!(cookie(&headers, SESSION_COOKIE), Some("tl_session_1"));
        assert_eq!(bearer(Some("bearer  tl_api_1")), Some("tl_api_1"));
        assert_eq!(bearer(Some("Basic dGw=")), None);
    }
}
