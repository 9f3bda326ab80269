//! From a cgroup's path to the unit and the container that a process runs in. Pure.
//!
//! Whoever has a user manager, or runs as a service to which its groups were given, names the groups beneath as he likes: also
//! `cron.service` or `docker-<id>.scope`. Invariants: the slice is the one in which the host's own manager has the process's
//! unit; the unit is that unit of the host's, and only where the slice is a user's may it be one of the user's own: so a unit proves
//! something together with its slice alone.

use trueline_drift::text::{bounded, printable};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    pub unit: Option<String>,
    pub slice: Option<String>,
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
            placement.slice = slice_of(&path);
        }
        if placement.container.is_none() {
            placement.container = container_of(&path);
        }
    }
    placement
}

/// The outermost unit that is not a mere slice; beneath the slice of all users the innermost:
/// `/user.slice/user-1000.slice/user@1000.service/app.slice/x.service` is `x.service`, in the user's word for it.
pub fn unit_of(path: &str) -> Option<String> {
    let mut units = parts_of(path).filter(|part| is_unit(part));
    let unit = if parts_of(path).next() == Some("user.slice") { units.last() } else { units.next() };
    unit.map(named)
}

/// The slice of the host's own manager that holds the outermost unit; its root slice is called `-.slice`.
pub fn slice_of(path: &str) -> Option<String> {
    const ROOT: &str = "-.slice";
    let slices = parts_of(path).take_while(|part| part.len() > ".slice".len() && part.ends_with(".slice"));
    slices.last().or_else(|| parts_of(path).next().filter(|first| is_unit(first)).map(|_| ROOT)).map(named)
}

/// `system.slice`, and what lies in it, as `system-getty.slice`: only root puts a process into a unit of theirs.
pub fn is_of_system(slice: &str) -> bool {
    slice == "system.slice" || (slice.starts_with("system-") && slice.ends_with(".slice"))
}

/// `user.slice`, `user-1000.slice`
pub fn is_of_users(slice: &str) -> bool {
    slice == "user.slice" || (slice.starts_with("user-") && slice.ends_with(".slice"))
}

/// Whether only the host's own engines can have named this container: it is the unit itself, or lies above all units. Beneath a
/// user's manager or a service, its owner may have.
pub fn is_the_hosts(container: &str, unit: Option<&str>, slice: Option<&str>) -> bool {
    let is_above = unit.is_none() || slice.is_none();
    !slice.is_some_and(is_of_users) && (is_above || unit.and_then(container_of).as_deref() == Some(container))
}

fn parts_of(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

fn is_unit(part: &str) -> bool {
    const KINDS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];
    KINDS.iter().any(|kind| part.len() > kind.len() && part.ends_with(kind))
}

/// The outermost container: the one that the host itself started.
pub fn container_of(path: &str) -> Option<String> {
    let mut above = "";
    for part in parts_of(path) {
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

    #[test]
    fn the_slice_of_the_hosts_own_unit_is_told() {
        let slice = |path: &str| parse_placement(format!("0::{path}").as_bytes()).slice;
        assert_eq!(slice("/user.slice/user-1000.slice/session-3.scope").as_deref(), Some("user-1000.slice"));
        assert_eq!(slice("/system.slice/ssh.service").as_deref(), Some("system.slice"));
        assert_eq!(slice("/system.slice/system-getty.slice/getty@tty1.service").as_deref(), Some("system-getty.slice"));
        assert_eq!((slice("/init.scope").as_deref(), slice("/lxc.payload.web/system.slice/x.service")), (Some("-.slice"), None));
        assert_eq!((slice("/"), slice("/.slice/init.scope")), (None, None));
    }

    #[test]
    fn names_that_users_and_services_give_prove_nothing() {
        let id = "0123456789abcdef".repeat(4);
        let told = |path: &str| {
            let Placement { unit, slice, container } = parse_placement(format!("0::{path}").as_bytes());
            let slice = slice.unwrap_or_default();
            let proves = container.map(|container| is_the_hosts(&container, unit.as_deref(), Some(&slice)));
            (unit.unwrap_or_default(), is_of_system(&slice), is_of_users(&slice), proves)
        };
        let users = "/user.slice/user-1000.slice/user@1000.service";
        let docker = format!("docker-{id}.scope");
        for (path, expected) in [
            (format!("{users}/app.slice/cron.service"), ("cron.service", false, true, None)),
            (format!("{users}/system.slice/cron.service"), ("cron.service", false, true, None)),
            (format!("{users}/app.slice/{docker}"), (&*docker, false, true, Some(false))),
            (format!("{users}/machine.slice/machine-x.scope"), ("machine-x.scope", false, true, Some(false))),
            ("/system.slice/svc.service/cron.service".to_owned(), ("svc.service", true, false, None)),
            ("/system.slice/svc.service/system.slice/cron.service".to_owned(), ("svc.service", true, false, None)),
            (format!("/system.slice/svc.service/{docker}"), ("svc.service", true, false, Some(false))),
            (format!("/svc.service/lxc.payload.x/{docker}"), ("svc.service", false, false, Some(false))),
            ("/system.slice/system-backup.slice/backup@home.service".to_owned(), ("backup@home.service", true, false, None)),
            (format!("/system.slice/{docker}/system.slice/cron.service"), (&*docker, true, false, Some(true))),
            (
                format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
                (&*format!("cri-containerd-{id}.scope"), false, false, Some(true)),
            ),
            (format!("/kubepods/besteffort/pod12/{id}"), ("", false, false, Some(true))),
        ] {
            let (unit, is_system, is_users, proves) = expected;
            assert_eq!(told(&path), (unit.to_owned(), is_system, is_users, proves), "{path}");
        }
        assert!(is_the_hosts("web", Some("init.scope"), None), "a unit of a container's own manager");
    }

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
            ("0::/machine.slice/machine-h\\x2d1.scope/payload/system.slice/ssh.service".to_owned(), Some("machine-h-1.scope"), Some("h-1")),
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
