//! The OpenAPI document.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use trueline_store::Role;

use crate::operations;
use crate::site::Site;

#[tokio::test]
async fn the_openapi_document_is_whole_and_describes_what_is_served() {
    let site = Site::start(0).await;
    let viewer = site.bearer(Role::Viewer).await;
    let document = site.get("/api/v1/openapi.json", &viewer).await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let described: BTreeSet<String> = operations(&document).into_iter().map(|(path, method, _)| format!("{method} {path}")).collect();
    let expected = [
        "DELETE /api/v1/tokens/{id}",
        "GET /api/v1/actions",
        "GET /api/v1/baselines",
        "GET /api/v1/baselines/{id}",
        "GET /api/v1/baselines/{id}/items",
        "GET /api/v1/baselines/{id}/unwatched",
        "GET /api/v1/changes",
        "GET /api/v1/changes/{id}",
        "GET /api/v1/coverage",
        "GET /api/v1/drift",
        "GET /api/v1/drift/{id}",
        "GET /api/v1/events",
        "GET /api/v1/hosts",
        "GET /api/v1/hosts/{id}",
        "GET /api/v1/hosts/{id}/coverage",
        "GET /api/v1/hosts/{id}/items",
        "GET /api/v1/openapi.json",
        "GET /api/v1/summary",
        "GET /api/v1/tokens",
        "GET /healthz",
        "GET /metrics",
        "GET /readyz",
        "POST /api/v1/baselines",
        "POST /api/v1/baselines/capture",
        "POST /api/v1/drift/{id}/acknowledge",
        "POST /api/v1/hosts/{id}/baseline",
        "POST /api/v1/hosts/{id}/revoke",
        "POST /api/v1/hosts/{id}/scan",
        "POST /api/v1/tokens",
    ];
    assert_eq!(described, expected.into_iter().map(str::to_owned).collect());

    let mut names = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        assert!(names.insert(operation["operationId"].to_string()), "{method} {path}: the operation's name is taken");
        assert!(operation["summary"].as_str().is_some_and(|summary| summary.ends_with('.')), "{method} {path}");
        assert!(operation["security"].is_array() && operation["responses"]["default"].is_object(), "{method} {path}");
        let declared: BTreeSet<&str> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let needed: BTreeSet<&str> = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(declared, needed, "{method} {path}");
    }
    each_reference_resolves(&document, &document);
    site.stop().await;
}

fn each_reference_resolves(part: &Json, document: &Json) {
    match part {
        Json::Object(object) => {
            if let Some(reference) = object.get("$ref").and_then(Json::as_str) {
                let pointer = reference.strip_prefix('#').expect("a reference within the document");
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            object.values().for_each(|part| each_reference_resolves(part, document));
        }
        Json::Array(array) => array.iter().for_each(|part| each_reference_resolves(part, document)),
        _ => {}
    }
}
