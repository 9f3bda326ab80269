//! The style, the script and the mark: the only files, built in, the same for everybody.

use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::rest::endpoint::{Audience, Endpoint, Needs, Routes};

static STYLE: Endpoint = Endpoint { path: "/assets/console.css", name: "style", ..ASSET };
static SCRIPT: Endpoint = Endpoint { path: "/assets/console.js", name: "script", ..ASSET };
static MARK: Endpoint = Endpoint { path: "/assets/mark.svg", name: "mark", ..ASSET };

const ASSET: Endpoint = Endpoint { audience: Audience::Browsers, needs: Needs::Nothing, ..Endpoint::DEFAULT };

pub fn routes(routes: Routes) -> Routes {
    routes.add(&STYLE, style).add(&SCRIPT, script).add(&MARK, mark)
}

fn file(media: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, media), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}

async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("../../assets/console.css"))
}

async fn script() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../../assets/console.js"))
}

async fn mark() -> Response {
    file("image/svg+xml", include_str!("../../assets/mark.svg"))
}
