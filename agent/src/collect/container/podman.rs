//! Podman, CRI-O and others that keep their containers in containers/storage: one file names them all. Whether one runs is in
//! a database of Podman's own, and is not told.

use std::io;

use serde::Deserialize;
use trueline_drift::Fields;
use trueline_drift::redact::RedactionKey;

use super::{CONTAINERS_LIMIT, Found, document, set_text};
use crate::collect::Root;

pub const CONTAINERS: &str = "/var/lib/containers/storage/overlay-containers/containers.json";

#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    /// The id of the image, which is its digest without the algorithm.
    #[serde(default)]
    image: String,
    /// JSON within JSON.
    #[serde(default)]
    metadata: String,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(rename = "image-name", default)]
    image_name: String,
    #[serde(default)]
    name: String,
}

pub fn read(root: &Root, _: &RedactionKey) -> io::Result<Found> {
    let containers: Vec<serde_json::Value> = match document(root, CONTAINERS)? {
        None => return Ok((Vec::new(), 0)),
        Some(Ok(containers)) => containers,
        Some(Err(error)) => return Err(io::Error::other(error)),
    };
    if containers.len() > CONTAINERS_LIMIT {
        return Err(io::Error::other(format!("it names more than {CONTAINERS_LIMIT} containers")));
    }
    let (mut items, mut skipped) = (Vec::new(), 0);
    for container in containers {
        match serde_json::from_value::<Container>(container) {
            Ok(container) if !container.id.is_empty() => items.push(item(&container)),
            _ => skipped += 1,
        }
    }
    Ok((items, skipped))
}

fn item(container: &Container) -> (Vec<u8>, Fields) {
    let metadata: Metadata = serde_json::from_str(&container.metadata).unwrap_or_default();
    let names = container.names.iter().flatten().chain([&metadata.name]);
    let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or(&container.id);
    let mut fields = Fields::new().with("runtime", "podman");
    set_text(&mut fields, "id", Some(&container.id));
    set_text(&mut fields, "image", Some(&metadata.image_name));
    let digest = if container.image.is_empty() { String::new() } else { format!("sha256:{}", container.image) };
    set_text(&mut fields, "image_digest", Some(&digest));
    (format!("podman/{name}").into_bytes(), fields)
}
