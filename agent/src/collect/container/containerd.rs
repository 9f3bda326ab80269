//! containerd, and Kubernetes by it: a folder for each task that runs, with the bundle it was started from. What Docker has
//! started through containerd (the namespace `moby`) is told as Docker's.

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;
use trueline_drift::redact::RedactionKey;
use trueline_drift::{FieldName, Fields, Value};

use super::{CONTAINERS_LIMIT, Found, document, set_all, set_command, set_text};
use crate::collect::{Root, folder};

pub const TASKS: &str = "/run/containerd/io.containerd.runtime.v2.task";

const NAMESPACES_LIMIT: usize = 64;
const DOCKER: &[u8] = b"moby";

/// The part of a runtime bundle's config.json (OCI) that matters here.
#[derive(Deserialize, Default)]
struct Bundle {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    process: Option<Process>,
}

#[derive(Deserialize)]
struct Process {
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    capabilities: Option<Capabilities>,
}

#[derive(Deserialize)]
struct Capabilities {
    #[serde(default)]
    bounding: Option<Vec<String>>,
}

pub fn read(root: &Root, key: &RedactionKey) -> io::Result<Found> {
    let (mut items, mut skipped) = (Vec::new(), 0);
    for (namespace, _) in folder::names(root, TASKS, NAMESPACES_LIMIT)? {
        let Some(place) = folder::beneath(TASKS, &namespace).filter(|_| namespace != DOCKER) else {
            skipped += u64::from(namespace != DOCKER);
            continue;
        };
        for (id, _) in folder::names(root, &place, CONTAINERS_LIMIT)? {
            let bundle = match folder::beneath(&place, &id) {
                Some(place) => document::<Bundle>(root, &format!("{place}/config.json"))?,
                None => None,
            };
            let (name, mut fields) = told(&id, bundle, key);
            set_text(&mut fields, "id", std::str::from_utf8(&id).ok());
            items.push(([b"containerd/", namespace.as_slice(), b"/", &name].concat(), fields));
        }
    }
    Ok((items, skipped))
}

/// A task's name within its namespace: what Kubernetes calls it, and else its id.
fn told(id: &[u8], bundle: Option<Result<Bundle, serde_json::Error>>, key: &RedactionKey) -> (Vec<u8>, Fields) {
    let mut fields = Fields::new().with("runtime", "containerd").with("running", true);
    let bundle = match bundle {
        Some(Ok(bundle)) => bundle,
        Some(Err(_)) => {
            fields.set(FieldName::known("image"), Value::unreadable("its config.json makes no sense"));
            return (id.to_vec(), fields);
        }
        None => return (id.to_vec(), fields),
    };
    let annotations = bundle.annotations.unwrap_or_default();
    let annotation =
        |name: &str| annotations.get(&format!("io.kubernetes.cri.{name}")).map(String::as_str).filter(|value| !value.is_empty());
    set_text(&mut fields, "image", annotation("image-name"));
    if let Some(process) = bundle.process {
        set_command(&mut fields, process.args.unwrap_or_default(), key);
        set_all(&mut fields, "capabilities", process.capabilities.and_then(|sets| sets.bounding).unwrap_or_default());
    }
    let pod = annotation("sandbox-namespace").zip(annotation("sandbox-name")).map(|(space, pod)| format!("{space}/{pod}"));
    let name = pod.map(|pod| match annotation("container-name") {
        Some(container) => format!("{pod}/{container}"),
        // The sandbox of the pod itself.
        None => pod,
    });
    (name.map_or_else(|| id.to_vec(), String::into_bytes), fields)
}
