//! From a cgroup's path to the unit and the container that a process runs in. Pure.

use trueline_drift::text::{bounded, printable};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    pub unit: Option<String>,
    pub container: Option<String>,
}

const NAME_LIMIT: usize = 256;

/// /proc/PID/cgroup, of the unified hierarchy or of the older ones.
pub fn parse_placement(cgroups: &[u8]) -> Placement {
    let mut placement = Placement::default();
    for line in cgroups.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(3, |byte| *byte == b':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let path = printable(path);
        // systemd keeps its units in the unified hierarchy, or in its own named one.
        if (controllers.is_empty() || controllers == b"name=systemd") && placement.unit.is_none() {
            placement.unit = unit_of(&path);
        }
        if placement.container.is_none() {
            placement.container = container_of(&path);
        }
    }
    placement
}

/// The innermost unit that is not a mere slice: `/user.slice/user-1000.slice/user@1000.service/app.slice/x.service`
/// is `x.service`.
pub fn unit_of(path: &str) -> Option<String> {
    const KINDS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];
    path.rsplit('/').find(|part| KINDS.iter().any(|kind| part.len() > kind.len() && part.ends_with(kind))).map(named)
}

/// The outermost container: the one that the host itself started.
pub fn container_of(path: &str) -> Option<String> {
    let mut above = "";
    for part in path.split('/').filter(|part| !part.is_empty()) {
        if let Some(container) = engine_container(part).or_else(|| machine(part)).or_else(|| plain_container(above, part)) {
            return Some(named(container));
        }
        above = part;
    }
    None
}

/// `docker-<id>.scope`, `libpod-<id>.scope`, `cri-containerd-<id>.scope`, `crio-<id>.scope`.
fn engine_container(part: &str) -> Option<&str> {
    let (engine, id) = part.strip_suffix(".scope").unwrap_or(part).rsplit_once('-')?;
    (matches!(engine, "docker" | "libpod" | "cri-containerd" | "crio" | "containerd") && is_id(id)).then_some(id)
}

/// `machine-<name>.scope`, `systemd-nspawn@<name>.service`, `lxc.payload.<name>`.
fn machine(part: &str) -> Option<&str> {
    let between = |start: &str, end: &str| part.strip_prefix(start)?.strip_suffix(end).filter(|name| !name.is_empty());
    between("machine-", ".scope").or_else(|| between("systemd-nspawn@", ".service")).or_else(|| between("lxc.payload.", ""))
}

/// `/docker/<id>`, `/kubepods/.../pod<uid>/<id>`, `/lxc/<name>`.
fn plain_container<'a>(above: &str, part: &'a str) -> Option<&'a str> {
    match above {
        "lxc" => Some(part),
        "docker" => is_id(part).then_some(part),
        _ if above.contains("pod") => is_id(part).then_some(part),
        _ => None,
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Undoes systemd's escape of a dash, which is the one that machines' names meet.
fn named(part: &str) -> String {
    let plain = part.replace("\\\\x2d", "-");
    bounded(&plain, NAME_LIMIT).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(line: &str) -> (Option<String>, Option<String>) {
        let placement = parse_placement(line.as_bytes());
        (placement.unit, placement.container)
    }

    #[test]
    fn units_and_containers_are_found_in_every_layout() {
        let id = "0123456789abcdef".repeat(4);
        for (line, unit, container) in [
            ("0::/system.slice/ssh.service\n".to_owned(), Some("ssh.service"), None),
            ("0::/user.slice/user-1000.slice/session-3.scope\n".to_owned(), Some("session-3.scope"), None),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service".to_owned(), Some("x.service"), None),
            ("0::/system.slice/x.service/delegated/deeper".to_owned(), Some("x.service"), None),
            ("12:cpu:/x.service\n1:name=systemd:/system.slice/cron.service\n0::/\n".to_owned(), Some("cron.service"), None),
            (format!("0::/system.slice/docker-{id}.scope"), Some(""), Some(id.as_str())),
            (format!("4:memory:/docker/{id}\n0::/\n"), None, Some(id.as_str())),
            (format!("0::/kubepods/besteffort/pod12/{id}"), None, Some(id.as_str())),
            ("0::/machine.slice/machine-h\\x2d1.scope/payload/system.slice/ssh.service".to_owned(), Some("ssh.service"), Some("h-1")),
            ("0::/lxc.payload.web/init.scope".to_owned(), Some("init.scope"), Some("web")),
            ("0::/".to_owned(), None, None),
            ("garbage".to_owned(), None, None),
        ] {
            let (found_unit, found_container) = placed(&line);
            // An engine's scope is a unit too, named after the container.
            let unit = if unit == Some("") { Some(format!("docker-{id}.scope")) } else { unit.map(str::to_owned) };
            assert_eq!((found_unit, found_container), (unit, container.map(str::to_owned)), "{line}");
        }
    }
}
