//! Docker: a folder for each container, with what it was made from (config.v2.json) and how it is let at the host
//! (hostconfig.json).

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;
use trueline_drift::redact::RedactionKey;
use trueline_drift::{FieldName, Fields, Value};

use super::{CONTAINERS_LIMIT, Found, document, set_all, set_command, set_text};
use crate::collect::{Root, folder};

pub const CONTAINERS: &str = "/var/lib/docker/containers";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(default)]
    name: String,
    /// The digest of the image.
    #[serde(default)]
    image: String,
    #[serde(default)]
    state: State,
    #[serde(default)]
    config: Config,
    #[serde(default)]
    path: String,
    #[serde(default)]
    args: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct State {
    #[serde(default)]
    running: bool,
    #[serde(default)]
    paused: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Config {
    /// As the image was asked for.
    #[serde(default)]
    image: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    privileged: bool,
    #[serde(default)]
    network_mode: String,
    #[serde(default)]
    pid_mode: String,
    #[serde(default)]
    binds: Option<Vec<String>>,
    #[serde(default)]
    cap_add: Option<Vec<String>>,
    #[serde(default)]
    security_opt: Option<Vec<String>>,
    #[serde(default)]
    port_bindings: Option<BTreeMap<String, Option<Vec<Binding>>>>,
    #[serde(default)]
    restart_policy: RestartPolicy,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    #[serde(default)]
    host_ip: String,
    #[serde(default)]
    host_port: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct RestartPolicy {
    #[serde(default)]
    name: String,
}

pub fn read(root: &Root, key: &RedactionKey) -> io::Result<Found> {
    let (mut items, mut skipped) = (Vec::new(), 0);
    for (name, _) in folder::names(root, CONTAINERS, CONTAINERS_LIMIT)? {
        let Some(place) = folder::beneath(CONTAINERS, &name) else {
            skipped += 1;
            continue;
        };
        // Gone since it was listed, or not there yet.
        let Some(container) = document::<Container>(root, &format!("{place}/config.v2.json"))? else { continue };
        let Ok(container) = container else {
            skipped += 1;
            continue;
        };
        let host = document::<HostConfig>(root, &format!("{place}/hostconfig.json"))?;
        let name = match container.name.trim_start_matches('/') {
            "" => &container.id,
            name => name,
        };
        if name.is_empty() {
            skipped += 1;
            continue;
        }
        let item = format!("docker/{name}").into_bytes();
        items.push((item, fields(container, host, key)));
    }
    Ok((items, skipped))
}

fn fields(container: Container, host: Option<Result<HostConfig, serde_json::Error>>, key: &RedactionKey) -> Fields {
    let mut fields = Fields::new().with("runtime", "docker").with("running", container.state.running);
    if container.state.paused {
        fields.set(FieldName::known("paused"), true.into());
    }
    set_text(&mut fields, "id", Some(&container.id));
    set_text(&mut fields, "image", Some(&container.config.image));
    set_text(&mut fields, "image_digest", Some(&container.image));
    set_text(&mut fields, "user", Some(&container.config.user));
    let words = std::iter::once(container.path).chain(container.args.unwrap_or_default()).filter(|word| !word.is_empty());
    set_command(&mut fields, words.collect(), key);
    let host = match host {
        Some(Ok(host)) => host,
        Some(Err(_)) => {
            fields.set(FieldName::known("privileged"), Value::unreadable("its hostconfig.json makes no sense"));
            return fields;
        }
        None => return fields,
    };
    fields.set(FieldName::known("privileged"), host.privileged.into());
    set_text(&mut fields, "network", Some(&host.network_mode));
    set_text(&mut fields, "pid_mode", Some(&host.pid_mode));
    set_text(&mut fields, "restart", Some(&host.restart_policy.name));
    set_all(&mut fields, "mounts", host.binds.unwrap_or_default());
    set_all(&mut fields, "capabilities", host.cap_add.unwrap_or_default());
    set_all(&mut fields, "security_options", host.security_opt.unwrap_or_default());
    let ports = host.port_bindings.unwrap_or_default().into_iter().flat_map(|(port, bindings)| {
        let told = move |Binding { host_ip, host_port }: Binding| match host_ip.as_str() {
            "" => format!("{host_port}:{port}"),
            address if address.contains(':') => format!("[{address}]:{host_port}:{port}"),
            address => format!("{address}:{host_port}:{port}"),
        };
        bindings.unwrap_or_default().into_iter().map(told)
    });
    set_all(&mut fields, "ports", ports);
    fields
}
