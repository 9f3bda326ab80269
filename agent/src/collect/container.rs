//! Containers, from the folders in which Docker, Podman and containerd keep what they know of them. No runtime is asked.
//!
//! A container is called by its runtime and its name: `docker/web`, `containerd/k8s.io/shop/web-0/nginx`. What a user runs without
//! root lies in the user's home and is not looked at. Its environment, which holds secrets, is never kept.

mod containerd;
mod docker;
mod podman;

use std::collections::HashSet;
use std::time::Duration;

use serde::de::DeserializeOwned;
use trueline_drift::redact::{self, RedactionKey};
use trueline_drift::{FieldName, Fields, ItemKind, Value, text};

use super::{CollectError, Collector, Listing, Place, Root, listing};

/// Of each runtime.
const CONTAINERS_LIMIT: usize = 4096;
const FILE_LIMIT: u64 = 4 * 1024 * 1024;

/// The folders cannot be sources: containers write their logs beneath them. One or two small files a container.
const POLL: Duration = Duration::from_secs(60);

pub const COLLECTOR: Collector = Collector { kind: ItemKind::Container, sources: &[podman::CONTAINERS], poll: Some(POLL), read: read_all };

/// What a reader makes of a runtime's folder: items, and how many entries made no sense.
type Found = (Vec<(Vec<u8>, Fields)>, u64);

fn read_all(place: &Place<'_>) -> Result<Listing, CollectError> {
    let (mut items, mut skipped) = (Vec::new(), 0);
    for (folder, read) in [
        (docker::CONTAINERS, docker::read as fn(&Root, &RedactionKey) -> std::io::Result<Found>),
        (podman::CONTAINERS, podman::read),
        (containerd::TASKS, containerd::read),
    ] {
        let (more, malformed) = read(place.root, place.key).map_err(|error| CollectError::database(folder, &error))?;
        items.extend(more);
        skipped += malformed;
    }
    // Whoever starts a container of containerd chooses what it is called: none hides another.
    let mut names = HashSet::new();
    for (name, fields) in &mut items {
        if !names.insert(name.clone())
            && let Some(Value::Text(id)) = fields.value("id")
        {
            *name = [name.as_slice(), b" ", id.as_bytes()].concat();
        }
    }
    Ok(listing(ItemKind::Container, items, skipped))
}

/// A file of a runtime: absent, of no such shape, or what it says.
fn document<T: DeserializeOwned>(root: &Root, path: &str) -> std::io::Result<Option<Result<T, serde_json::Error>>> {
    Ok(root.read(path, FILE_LIMIT)?.map(|bytes| serde_json::from_slice(&bytes)))
}

fn set_text(fields: &mut Fields, name: &'static str, value: Option<&str>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        fields.set(FieldName::known(name), Value::text(&text::printable(value.as_bytes())));
    }
}

fn set_all(fields: &mut Fields, name: &'static str, values: impl IntoIterator<Item = String>) {
    let mut values: Vec<_> = values.into_iter().map(|value| text::printable(value.as_bytes()).into_owned()).collect();
    values.sort_unstable();
    values.dedup();
    if !values.is_empty() {
        fields.set(FieldName::known(name), Value::list(values));
    }
}

/// What a container runs, in its order.
fn set_command(fields: &mut Fields, words: Vec<String>, key: &RedactionKey) {
    let printable: Vec<_> = words.iter().map(|word| text::printable(word.as_bytes()).into_owned()).collect();
    let masked = redact::arguments(&printable).into_iter().map(|word| redact::line(&word, key).into_owned());
    let masked: Vec<_> = masked.collect();
    if !masked.is_empty() {
        fields.set(FieldName::known("command"), Value::list(masked));
    }
}

#[cfg(test)]
#[path = "container/tests.rs"]
mod tests;
