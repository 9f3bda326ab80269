//! The table of endpoints: each says once its path, who may call it, its parameters and its shapes.
//! The router, the guard and the OpenAPI document are all made from it.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::middleware;
use axum::routing::{MethodFilter, on};
use trueline_store::Role;
use utoipa::ToSchema;
use utoipa::openapi::{Ref, RefOr, Schema};

use super::{Api, access};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Delete,
}

impl Method {
    const fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Delete => MethodFilter::DELETE,
        }
    }

    pub const fn writes(self) -> bool {
        !matches!(self, Self::Get)
    }
}

/// Who may call an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Anybody. What it says more to those who show a token, it decides itself.
    Nothing,
    /// At least this role.
    Role(Role),
}

/// Where an endpoint shows up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Programs: described in the OpenAPI document.
    Programs,
    /// Browsers: a caller without a session is led to the login page.
    Browsers,
}

/// A query parameter.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    pub name: &'static str,
    pub description: &'static str,
    /// Every value it may have, where they are few.
    pub words: &'static [&'static str],
}

impl Parameter {
    pub const fn new(name: &'static str, description: &'static str) -> Self {
        Self { name, description, words: &[] }
    }

    pub const fn of(name: &'static str, description: &'static str, words: &'static [&'static str]) -> Self {
        Self { name, description, words }
    }
}

/// Schemas of the document so far, by name.
pub type Schemas = Vec<(String, RefOr<Schema>)>;

/// Adds a shape's schema with all it refers to, and refers to it.
pub type SchemaOf = fn(&mut Schemas) -> RefOr<Schema>;

pub fn one<T: ToSchema>(schemas: &mut Schemas) -> RefOr<Schema> {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
    RefOr::Ref(Ref::from_schema_name(T::name()))
}

/// What an endpoint takes or gives.
#[derive(Debug, Clone, Copy)]
pub enum Content {
    Nothing,
    Json(SchemaOf),
    /// A page of a list: `{items, next}`.
    List(SchemaOf),
    Yaml,
    Text,
    /// Server-sent events.
    Events,
    Html,
}

#[derive(Debug)]
pub struct Endpoint {
    pub audience: Audience,
    pub method: Method,
    /// In the notation that axum and OpenAPI share: `/api/v1/hosts/{id}`.
    pub path: &'static str,
    /// The operation's identifier, for generated clients.
    pub name: &'static str,
    pub summary: &'static str,
    pub needs: Needs,
    pub query: &'static [Parameter],
    pub takes: Content,
    pub status: u16,
    pub gives: Content,
    /// Largest body taken, in bytes.
    pub body_limit: usize,
    /// The longest it may take to answer.
    pub seconds: u64,
}

impl Endpoint {
    /// What most endpoints are; each changes what differs.
    pub const DEFAULT: Self = Self {
        audience: Audience::Programs,
        method: Method::Get,
        path: "",
        name: "",
        summary: "",
        needs: Needs::Role(Role::Viewer),
        query: &[],
        takes: Content::Nothing,
        status: 200,
        gives: Content::Nothing,
        body_limit: 1024 * 1024,
        seconds: 30,
    };

    /// A page of the console.
    pub const PAGE: Self = Self { audience: Audience::Browsers, gives: Content::Html, body_limit: 64 * 1024, ..Self::DEFAULT };
}

/// Collects endpoints with their handlers.
pub struct Routes {
    api: Api,
    router: Router<Api>,
    endpoints: Vec<&'static Endpoint>,
}

impl Routes {
    pub fn new(api: Api) -> Self {
        Self { api, router: Router::new(), endpoints: Vec::new() }
    }

    pub fn add<H, T>(mut self, endpoint: &'static Endpoint, handler: H) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        let guard = access::Guard { api: self.api.clone(), endpoint };
        let method = on(endpoint.method.filter(), handler)
            .route_layer(DefaultBodyLimit::max(endpoint.body_limit))
            .route_layer(middleware::from_fn_with_state(guard, access::guard));
        self.router = self.router.route(endpoint.path, method);
        self.endpoints.push(endpoint);
        self
    }

    pub fn finish(self) -> (Router<Api>, Vec<&'static Endpoint>) {
        (self.router, self.endpoints)
    }
}
