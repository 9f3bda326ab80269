//! The collector's REST API as this program sees it: requests, pages, problems.
//!
//! Invariants: answers stay JSON values exactly as they came; every answer is bounded in size and
//! time; the token goes to the context's own address and nowhere else (no redirects, and no proxy
//! for an address on this machine).

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Certificate, Client, Method, RequestBuilder, Response, Url};
use serde::Deserialize;
use serde_json::Value;
use trueline_drift::text;

use crate::context::{Context, is_loopback};
use crate::failure::Failure;
use crate::table::{lines_visible, visible};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Until an answer begins, and between two pieces of it: longer than the collector's own longest request.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(330);
/// Largest answer taken, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("cannot reach {url}: {reason}")]
    Unreachable { url: String, reason: String },
    /// RFC 9457.
    #[error("{title} ({status}): {detail}")]
    Problem { status: u16, title: String, detail: String },
    #[error("{url} answered {what}: is it a Trueline collector?")]
    Strange { url: String, what: String },
    #[error("the answer of {url} ended early: {reason}")]
    Broken { url: String, reason: String },
    #[error("cannot prepare requests: {0}")]
    Client(String),
}

impl ApiError {
    pub fn is_unauthorised(&self) -> bool {
        matches!(self, Self::Problem { status: 401, .. })
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        match &error {
            ApiError::Unreachable { .. } | ApiError::Broken { .. } => Self::Unreachable(error.to_string()),
            // A gateway or the collector itself says that it cannot answer now.
            ApiError::Problem { status: 502..=504, .. } => Self::Unreachable(error.to_string()),
            ApiError::Problem { .. } | ApiError::Strange { .. } | ApiError::Client(_) => Self::Refused(error.to_string()),
        }
    }
}

/// One page of a list.
#[derive(Debug, Deserialize)]
pub struct Page {
    pub items: Vec<Value>,
    #[serde(default)]
    pub next: Option<String>,
}

/// Query parameters; those without a value are left out.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.0.push((name, value.to_string()));
        }
        self
    }
}

#[derive(Debug, Clone)]
pub struct Api {
    http: Client,
    base: Url,
    authorization: HeaderValue,
}

impl Api {
    pub fn new(context: &Context) -> Result<Self, ApiError> {
        let client = |error: reqwest::Error| ApiError::Client(reason(&error));
        let mut builder = Client::builder()
            .user_agent(concat!("trueline/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_TIMEOUT);
        if is_loopback(&context.url) {
            builder = builder.no_proxy();
        }
        match &context.authority {
            Some(pem) => builder = builder.tls_certs_only(Certificate::from_pem_bundle(pem).map_err(client)?),
            // Plain HTTP: a machine without a certificate store must not fail for the lack of one.
            None if context.url.scheme() == "http" => builder = builder.tls_certs_only([]),
            None => {}
        }
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", context.token.0))
            .map_err(|_| ApiError::Client("the token cannot be sent in a header".to_owned()))?;
        authorization.set_sensitive(true);
        Ok(Self { http: builder.build().map_err(client)?, base: context.url.clone(), authorization })
    }

    /// The collector's address, for messages and links; no slash at its end.
    pub fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    pub async fn get(&self, path: &[&str], query: &Query) -> Result<Value, ApiError> {
        self.answer(self.request(Method::GET, path).query(&query.0)).await
    }

    pub async fn page(&self, path: &[&str], query: &Query) -> Result<(Value, Page), ApiError> {
        let value = self.get(path, query).await?;
        let page = Page::deserialize(&value).map_err(|error| self.strange(format!("no list ({error})")))?;
        Ok((value, page))
    }

    pub async fn post(&self, path: &[&str], body: &Value) -> Result<Value, ApiError> {
        self.answer(self.request(Method::POST, path).json(body)).await
    }

    pub async fn post_yaml(&self, path: &[&str], document: String) -> Result<Value, ApiError> {
        self.answer(self.request(Method::POST, path).header(CONTENT_TYPE, "application/yaml").body(document)).await
    }

    pub async fn delete(&self, path: &[&str]) -> Result<Value, ApiError> {
        self.answer(self.request(Method::DELETE, path)).await
    }

    /// Opens the event stream, after the event with this id.
    pub async fn event_stream(&self, last: Option<&str>) -> Result<Response, ApiError> {
        let mut request = self.request(Method::GET, &["events"]).header(ACCEPT, "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = self.send(request).await?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        self.http.request(method, url).header(AUTHORIZATION, self.authorization.clone())
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Value, ApiError> {
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let bytes = self.body(response).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|_| self.strange("something that is not JSON".to_owned()))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ApiError> {
        request.send().await.map_err(|error| {
            if error.is_builder() {
                return ApiError::Client(reason(&error));
            }
            let reason = match reason(&error) {
                refused if refused.contains("onnection refused") => "is the collector running?".to_owned(),
                _ if error.is_timeout() => "no answer in time".to_owned(),
                other => other,
            };
            ApiError::Unreachable { url: self.address().to_owned(), reason }
        })
    }

    async fn body(&self, response: Response) -> Result<Vec<u8>, ApiError> {
        let mut bytes = Vec::new();
        let mut pieces = response.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| ApiError::Broken { url: self.address().to_owned(), reason: reason(&error) })?;
            if bytes.len() + piece.len() > ANSWER_LIMIT {
                return Err(self.strange(format!("more than {ANSWER_LIMIT} bytes")));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    async fn refusal(&self, response: Response) -> ApiError {
        #[derive(Deserialize)]
        struct Problem {
            title: String,
            detail: Option<String>,
        }
        let status = response.status();
        match self.body(response).await {
            Err(error) => error,
            Ok(body) => match serde_json::from_slice::<Problem>(&body) {
                Ok(problem) => ApiError::Problem {
                    status: status.as_u16(),
                    title: visible(&text::bounded(&problem.title, 200)),
                    detail: lines_visible(&text::bounded(&for_operators(&problem.detail.unwrap_or_default()), 16_000)),
                },
                Err(_) => self.strange(format!("{status} without a problem document")),
            },
        }
    }

    fn strange(&self, what: String) -> ApiError {
        ApiError::Strange { url: self.address().to_owned(), what }
    }
}

/// What the API tells programs to look at, as what a person types.
fn for_operators(detail: &str) -> String {
    ["hosts", "baselines", "tokens"].iter().fold(detail.to_owned(), |detail, list| {
        let noun = if *list == "baselines" { "baseline" } else { list };
        detail.replace(&format!("see /api/v1/{list}"), &format!("see `trueline {noun} list`"))
    })
}

/// The innermost cause: reqwest's own text repeats the address.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_pointed_to_commands_not_to_addresses() {
        assert_eq!(for_operators("there is no host `a`; see /api/v1/hosts"), "there is no host `a`; see `trueline hosts list`");
        assert_eq!(for_operators("there is no baseline 3; see /api/v1/baselines"), "there is no baseline 3; see `trueline baseline list`");
    }
}
