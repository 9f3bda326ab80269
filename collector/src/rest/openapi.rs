//! The OpenAPI 3.1 document, made from the table of endpoints: what is routed is described.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathsBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ArrayBuilder, ComponentsBuilder, ObjectBuilder, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, InfoBuilder, OpenApiBuilder, RefOr, Required, Response as ResponseShape, Schema, Server};

use super::access::SESSION_COOKIE;
use super::endpoint::{Audience, Content, Endpoint, Method, Needs, Parameter, Schemas, one};
use super::problem::ProblemShape;
use super::{Api, RestContext, shape};

pub static OPENAPI: Endpoint = Endpoint {
    path: "/api/v1/openapi.json",
    name: "openapi",
    summary: "This document.",
    gives: Content::Json(anything),
    ..Endpoint::DEFAULT
};

fn anything(_: &mut Schemas) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::Object).into()
}

pub async fn show(State(api): State<Api>) -> Response {
    let document = api.openapi.get().cloned().unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

pub fn document(context: &RestContext, endpoints: &[&'static Endpoint]) -> String {
    let mut schemas = Schemas::new();
    let problem = one::<ProblemShape<'static>>(&mut schemas);
    let mut paths = PathsBuilder::new();
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.audience == Audience::Programs) {
        let method = match endpoint.method {
            Method::Get => HttpMethod::Get,
            Method::Post => HttpMethod::Post,
            Method::Delete => HttpMethod::Delete,
        };
        // Paths added twice are merged, method by method.
        paths = paths.path(endpoint.path, PathItem::new(method, operation(endpoint, &problem, &mut schemas)));
    }
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API token: `tl_api_…`.")).build();
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme("token", SecurityScheme::Http(bearer))
        .security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(SESSION_COOKIE))))
        .build();
    let info = InfoBuilder::new()
        .title("Trueline")
        .version(context.version)
        .description(Some(
            "Host drift: what changed, who caused it, and whether anybody decided it. Lists are pages, `{items, next}`: give \
             `next` as `after` for the following page. Times are RFC 3339, UTC. Errors are problem documents (RFC 9457).",
        ))
        .build();
    let document = OpenApiBuilder::new()
        .info(info)
        .servers(Some([Server::new(context.public_url.clone())]))
        .paths(paths)
        .components(Some(components))
        .build();
    document.to_json().unwrap_or_else(|error| {
        tracing::error!(%error, "the OpenAPI document could not be written");
        "{}".to_owned()
    })
}

fn operation(endpoint: &Endpoint, problem: &RefOr<Schema>, schemas: &mut Schemas) -> OperationBuilder {
    let mut operation = OperationBuilder::new().operation_id(Some(endpoint.name)).summary(Some(endpoint.summary));
    match endpoint.needs {
        Needs::Nothing => operation = operation.security(SecurityRequirement::default()),
        Needs::Role(role) => {
            operation = operation
                .description(Some(format!("Needs the role {}.", shape::role(role))))
                .security(SecurityRequirement::new("token", Vec::<String>::new()))
                .security(SecurityRequirement::new("session", Vec::<String>::new()));
        }
    }
    for name in endpoint.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let text = ObjectBuilder::new().schema_type(Type::String);
        operation = operation
            .parameter(ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True).schema(Some(text)));
    }
    for parameter in endpoint.query {
        operation = operation.parameter(
            ParameterBuilder::new()
                .name(parameter.name)
                .parameter_in(ParameterIn::Query)
                .required(Required::False)
                .description(Some(parameter.description))
                .schema(Some(parameter_schema(parameter))),
        );
    }
    if let Some((media, schema)) = content(endpoint.takes, schemas) {
        let body = ContentBuilder::new().schema(Some(schema)).build();
        operation = operation.request_body(Some(RequestBodyBuilder::new().content(media, body).required(Some(Required::True)).build()));
    }
    let mut answer = ResponseShape::builder().description("Done.");
    if let Some((media, schema)) = content(endpoint.gives, schemas) {
        answer = answer.content(media, ContentBuilder::new().schema(Some(schema)).build());
    }
    let refused = ContentBuilder::new().schema(Some(problem.clone())).build();
    let refused = ResponseShape::builder().description("Refused or failed.").content("application/problem+json", refused);
    operation.response(endpoint.status.to_string(), answer).response("default", refused)
}

fn parameter_schema(parameter: &Parameter) -> RefOr<Schema> {
    let object = ObjectBuilder::new();
    match (parameter.name, parameter.words) {
        ("limit", _) => object.schema_type(Type::Integer).minimum(Some(1)).maximum(Some(500)).into(),
        (_, []) => object.schema_type(Type::String).into(),
        (_, words) => object.schema_type(Type::String).enum_values(Some(words.iter().copied())).into(),
    }
}

fn content(content: Content, schemas: &mut Schemas) -> Option<(&'static str, RefOr<Schema>)> {
    let text = || ObjectBuilder::new().schema_type(Type::String).into();
    Some(match content {
        Content::Nothing => return None,
        Content::Json(schema) => ("application/json", schema(schemas)),
        Content::List(schema) => {
            let items = ArrayBuilder::new().items(schema(schemas));
            let next = ObjectBuilder::new().schema_type(Type::String).description(Some("`after` of the next page; absent on the last."));
            let list = ObjectBuilder::new().schema_type(Type::Object).property("items", items).required("items").property("next", next);
            ("application/json", list.into())
        }
        Content::Yaml => ("application/yaml", text()),
        Content::Text => ("text/plain", text()),
        Content::Events => ("text/event-stream", text()),
        Content::Html => ("text/html", text()),
    })
}
