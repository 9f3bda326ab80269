//! The outermost layer: writes problems out, adds the security headers, counts.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::problem::{Problem, ProblemShape};
use crate::console;

/// Scripts and styles come from our own files only, nothing may frame us or be sent elsewhere.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                              form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

pub async fn finish(State(api): State<Api>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = write(&api, &problem, &path, response);
    } else if response.status().is_client_error() && is_bare(&response) {
        let problem = Problem::new(response.status(), "the request could not be understood");
        response = write(&api, &problem, &path, response);
    }
    let status = response.status().as_u16().to_string();
    metrics::counter!("trueline_http_requests_total", "route" => route, "status" => status).increment(1);
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Static files bring their own.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Refused by the framework itself: plain text, or no body at all.
fn is_bare(response: &Response) -> bool {
    let media = response.headers().get(header::CONTENT_TYPE).and_then(|media| media.to_str().ok());
    media.is_none_or(|media| media.starts_with("text/plain"))
}

fn is_for_programs(path: &str) -> bool {
    ["/api/", "/healthz", "/readyz", "/metrics", "/feed/"].iter().any(|prefix| path.starts_with(prefix))
}

fn write(api: &Api, problem: &Problem, path: &str, refused: Response) -> Response {
    let mut response = if is_for_programs(path) {
        let shape = ProblemShape {
            kind: "about:blank",
            title: problem.title,
            status: problem.status.as_u16(),
            detail: &problem.detail,
            instance: path,
        };
        let body = serde_json::to_string(&shape).unwrap_or_default();
        (problem.status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    } else {
        console::refusal(api, problem)
    };
    for name in [header::WWW_AUTHENTICATE, header::RETRY_AFTER, header::ALLOW] {
        if let Some(value) = refused.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

pub async fn nothing_here() -> Problem {
    Problem::not_found("there is nothing at this address; /api/v1/openapi.json describes what there is")
}

pub async fn not_that_way() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not answer to that method; see /api/v1/openapi.json")
}
