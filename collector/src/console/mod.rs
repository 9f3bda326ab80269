//! The console: pages for people, rendered here, kept live by a small script of our own.
//!
//! Invariants: whatever a host or a person wrote reaches a page only through the templates, which
//! escape it, or through the script as text, never as markup; no page needs a script to be read;
//! every page but the login needs a session.

pub(crate) mod age;
mod asset;
mod detail;
mod feed;
mod hosts;
mod login;
mod page;
mod row;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::rest::Api;
use crate::rest::endpoint::Routes;
use crate::rest::problem::Problem;

pub fn routes(routes: Routes) -> Routes {
    hosts::routes(detail::routes(feed::routes(login::routes(asset::routes(routes)))))
}

/// A problem as a page.
pub fn refusal(api: &Api, problem: &Problem) -> Response {
    // What is said to programs of an address without a page means nothing to a person.
    let detail = match problem.status {
        StatusCode::NOT_FOUND if problem.detail.contains("openapi.json") => "There is no page at this address.",
        _ => &problem.detail,
    };
    let page = page::Refusal { version: api.context.version, title: problem.title, detail };
    (problem.status, page::html(&page)).into_response()
}
