//! Query parameters and bodies, parsed at the border: an unknown or repeated name is refused with
//! the nearest known one.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde::de::value::{Error as ValueError, StrDeserializer};
use trueline_drift::document::nearest;
use trueline_drift::{HostId, text};
use trueline_store::{Host, Page};

use super::Api;
use super::access::Caller;
use super::endpoint::Parameter;
use super::problem::Problem;

pub const LIMIT: Parameter = Parameter::new("limit", "At most this many items: 1 to 500, 100 where not given.");
pub const AFTER: Parameter = Parameter::new("after", "The `next` of the page before.");
pub const HOST: Parameter = Parameter::new("host", "Of this host, by identity or name.");
pub const ITEM: Parameter = Parameter::new("item", "Of this item: `kind:key`.");
pub const KIND: Parameter = Parameter::of("kind", "Of this kind of item.", &trueline_drift::ItemKind::NAMES);
pub const VERDICT: Parameter = Parameter::of("verdict", "With this verdict.", &["expected", "out_of_scope", "notable", "critical"]);

const DEFAULT_LIMIT: u32 = 100;
const LARGEST_LIMIT: u32 = 500;
/// For a whole body.
const BODY_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// The parameters of a request; only names that its endpoint knows, each at most once.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    pub fn parse(raw: &str, known: &[Parameter]) -> Result<Self, Problem> {
        let uri = format!("/?{raw}").parse().map_err(|_| Problem::bad_request("the query is not valid"))?;
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri)
            .map_err(|_| Problem::bad_request("the query is not valid: write name=value&name=value"))?
            .0;
        let mut parameters: Vec<(&'static str, String)> = Vec::with_capacity(pairs.len());
        for (name, value) in pairs {
            let Some(parameter) = known.iter().find(|parameter| parameter.name == name) else {
                return Err(unknown(&name, known));
            };
            if parameters.iter().any(|(given, _)| *given == parameter.name) {
                return Err(Problem::bad_request(format!("the query has `{name}` more than once")));
            }
            if !value.is_empty() {
                parameters.push((parameter.name, value));
            }
        }
        Ok(Self(parameters))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// A parameter whose values are the words or the text of a type.
    pub fn value<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Problem> {
        self.text(name)
            .map(|value| {
                T::deserialize(StrDeserializer::<ValueError>::new(value))
                    .map_err(|error| Problem::bad_request(format!("{name}: {}", text::printable(error.to_string().as_bytes()))))
            })
            .transpose()
    }

    pub fn page(&self) -> Result<Page, Problem> {
        let limit = match self.text("limit") {
            None => DEFAULT_LIMIT,
            Some(limit) => limit
                .parse()
                .ok()
                .filter(|limit| (1..=LARGEST_LIMIT).contains(limit))
                .ok_or_else(|| Problem::bad_request(format!("limit: write a number from 1 to {LARGEST_LIMIT}")))?,
        };
        Ok(Page { limit, after: self.text("after").map(str::to_owned) })
    }

    /// The host that the `host` parameter names.
    pub async fn host(&self, api: &Api, caller: &Caller) -> Result<Option<HostId>, Problem> {
        match self.text("host") {
            None => Ok(None),
            Some(name) => Ok(Some(host(api, caller, name).await?.id)),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

fn unknown(name: &str, known: &[Parameter]) -> Problem {
    let name = text::printable(name.as_bytes());
    let name = text::bounded(&name, 80);
    let names: Vec<&str> = known.iter().map(|parameter| parameter.name).collect();
    Problem::bad_request(match (nearest(&name, &names), names.is_empty()) {
        (Some(near), _) => format!("unknown query parameter `{name}`: did you mean `{near}`? Known here: {}", names.join(", ")),
        (None, false) => format!("unknown query parameter `{name}`. Known here: {}", names.join(", ")),
        (None, true) => format!("unknown query parameter `{name}`: this endpoint takes none"),
    })
}

/// A host of the caller's tenant, by identity or name.
pub async fn host(api: &Api, caller: &Caller, id_or_name: &str) -> Result<Host, Problem> {
    let shown = text::printable(id_or_name.as_bytes());
    api.hub.store.host(&caller.tenant, id_or_name).await?.ok_or_else(|| {
        Problem::not_found(format!("there is no host `{}`, or several have that name; see /api/v1/hosts", text::bounded(&shown, 80)))
    })
}

/// A number in a path.
pub fn number(text: &str, what: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| Problem::not_found(format!("`{}` is not the id of a {what}: ids are numbers", text::bounded(text, 40))))
}

/// A JSON body. Unknown keys are errors; a body of nothing stands for `{}`.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let is_json = media_type(&request).is_some_and(|media| media == "application/json");
        let bytes = bytes(request, state).await?;
        if bytes.is_empty() {
            return json(b"{}").map(Self);
        }
        if !is_json {
            return Err(Problem::new(
                axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send the body as JSON, with Content-Type: application/json",
            ));
        }
        json(&bytes).map(Self)
    }
}

/// A YAML body, as text.
pub struct Yaml(pub String);

impl<S: Send + Sync> FromRequest<S> for Yaml {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !media_type(&request).is_some_and(|media| matches!(media.as_str(), "application/yaml" | "application/x-yaml" | "text/yaml")) {
            return Err(Problem::new(
                axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send the document as YAML, with Content-Type: application/yaml",
            ));
        }
        let bytes = bytes(request, state).await?;
        let text = String::from_utf8(bytes.into()).map_err(|_| Problem::bad_request("the document is not UTF-8"))?;
        Ok(Self(text))
    }
}

fn media_type(request: &Request) -> Option<String> {
    let value = request.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(BODY_PATIENCE, Bytes::from_request(request, state)).await;
    let slow = |_| Problem::new(axum::http::StatusCode::REQUEST_TIMEOUT, "the body did not come to its end in time");
    read.map_err(slow)?.map_err(|rejection| match rejection.status() {
        axum::http::StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(axum::http::StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than this endpoint takes")
        }
        _ => Problem::bad_request("the body could not be read to its end"),
    })
}

fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let message = error.to_string();
        let message = text::printable(message.as_bytes());
        let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        let hint = match quoted.split_first() {
            Some((given, known)) if message.starts_with("unknown field") => nearest(given, known),
            _ => None,
        };
        let hint = hint.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        Problem::bad_request(format!("the body, line {line}, column {column}: {}{hint}", text::bounded(&message, 300)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use trueline_drift::Verdict;

    const KNOWN: &[Parameter] = &[HOST, VERDICT, LIMIT, AFTER];

    #[test]
    fn an_unknown_parameter_is_refused_with_the_nearest_known_one() {
        let problem = Query::parse("verdikt=critical", KNOWN).unwrap_err();
        assert!(problem.detail.starts_with("unknown query parameter `verdikt`: did you mean `verdict`?"), "{}", problem.detail);
        assert!(Query::parse("host=a&host=b", KNOWN).unwrap_err().detail.contains("more than once"));
    }

    #[test]
    fn values_are_parsed_and_limits_kept() {
        let query = Query::parse("verdict=out_of_scope&limit=500&host=a%20b", KNOWN).unwrap();
        assert_eq!(query.value::<Verdict>("verdict").unwrap(), Some(Verdict::OutOfScope));
        assert_eq!(query.page().unwrap().limit, 500);
        assert_eq!(query.text("host"), Some("a b"));
        for bad in ["limit=501", "limit=0", "limit=-1", "limit=x"] {
            assert!(Query::parse(bad, KNOWN).unwrap().page().is_err(), "{bad}");
        }
        assert!(Query::parse("verdict=bad", KNOWN).unwrap().value::<Verdict>("verdict").is_err());
    }

    #[test]
    fn a_mistyped_key_in_a_body_names_its_place_and_the_nearest_key() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Note {
            #[expect(dead_code, reason = "only its name matters")]
            note: Option<String>,
        }
        let problem = json::<Note>(b"{\n \"nots\": \"x\"}").unwrap_err();
        assert!(problem.detail.starts_with("the body, line 2, column"), "{}", problem.detail);
        assert!(problem.detail.ends_with("did you mean `note`?"), "{}", problem.detail);
    }
}
