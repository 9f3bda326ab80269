//! What is answered when a request is refused or fails: problem documents (RFC 9457), or a page of
//! the console that says the same.
//!
//! A problem travels as an extension of an empty response; [`super::finish`] writes the body, since
//! only it knows the request.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use trueline_store::StoreError;
use utoipa::ToSchema;

/// Why a request was not answered, in words for the one who sent it.
#[derive(Debug, Clone)]
pub struct Problem {
    pub status: StatusCode,
    pub title: &'static str,
    pub detail: String,
    header: Option<(HeaderName, &'static str)>,
}

/// The wire form of a problem.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemShape<'a> {
    /// Always `about:blank`: the title is the status in words.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub title: &'a str,
    pub status: u16,
    /// What happened, to what, and what to do.
    pub detail: &'a str,
    /// The path that was asked for.
    pub instance: &'a str,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, title: status.canonical_reason().unwrap_or("Problem"), detail: detail.into(), header: None }
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    pub fn unauthorised(detail: impl Into<String>) -> Self {
        Self { header: Some((header::WWW_AUTHENTICATE, "Bearer realm=\"trueline\"")), ..Self::new(StatusCode::UNAUTHORIZED, detail) }
    }

    /// Passing: the same request may succeed soon.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self { header: Some((header::RETRY_AFTER, "1")), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    pub fn titled(mut self, title: &'static str) -> Self {
        self.title = title;
        self
    }

    /// Something of ours failed; the log has the rest.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the collector could not answer this; its log says why")
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace { .. } => Self::unavailable(error.to_string()),
            StoreError::Unavailable { .. } => {
                tracing::warn!(%error, "a request found the database out of reach");
                Self::unavailable("the collector cannot reach its database now; try again in a moment")
            }
            StoreError::Invalid { .. } => Self::bad_request(error.to_string()),
            StoreError::Corrupt { .. } | StoreError::Database { .. } | StoreError::Migration(_) => {
                tracing::error!(%error, "a request failed in the store");
                Self::internal()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some((name, value)) = &self.header {
            response.headers_mut().insert(name.clone(), HeaderValue::from_static(value));
        }
        response.extensions_mut().insert(self);
        response
    }
}
