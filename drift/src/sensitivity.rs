//! How much a departure matters, from what departs: the severity and type of a drift where no
//! policy says otherwise.

use serde::{Deserialize, Serialize};

use crate::{ItemId, ItemKind, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriftType {
    Security,
    Functional,
    Cost,
}

impl DriftType {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Security => "security",
            Self::Functional => "functional",
            Self::Cost => "cost",
        }
    }
}

/// Files that decide who may enter or act as whom.
const ACCESS_FILES: &[&str] = &[
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/gshadow",
    "/etc/sudoers",
    "/etc/ld.so.preload",
    "/etc/ssh/sshd_config",
    "/etc/security/access.conf",
    "/etc/nsswitch.conf",
    "/etc/crontab",
    "/etc/anacrontab",
    "/etc/rc.local",
    "/etc/profile",
];

/// Folders of such files, and of code that runs by itself.
const ACCESS_FOLDERS: &[&str] = &[
    "/etc/sudoers.d/",
    "/etc/pam.d/",
    "/etc/ssh/",
    "/etc/cron.d/",
    "/etc/cron.hourly/",
    "/etc/cron.daily/",
    "/etc/cron.weekly/",
    "/etc/cron.monthly/",
    "/var/spool/cron/",
    "/etc/systemd/system/",
    "/etc/udev/rules.d/",
    "/etc/profile.d/",
    "/etc/ld.so.conf.d/",
    "/etc/polkit-1/",
    "/etc/ssl/private/",
    "/etc/audit/",
    "/lib/security/",
    "/usr/lib/security/",
    "/etc/trueline/",
];

const KERNEL_HARDENING: &[&str] = &[
    "kernel.randomize_va_space",
    "kernel.yama.ptrace_scope",
    "kernel.modules_disabled",
    "kernel.core_pattern",
    "kernel.modprobe",
    "kernel.unprivileged_bpf_disabled",
    "kernel.kptr_restrict",
    "fs.suid_dumpable",
    "fs.protected_symlinks",
    "fs.protected_hardlinks",
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
];

/// The severity and type of a departure of one field of one item.
pub fn classify(item: &ItemId, field: &str, actual: Option<&Value>) -> (Severity, DriftType) {
    use DriftType::{Functional, Security};
    use Severity::{Critical, Info, Warning};
    let key = item.key.as_str();
    match item.kind {
        ItemKind::File => {
            let access = decides_access(key);
            match field {
                "mtime" | "nlink" | "size" => (Info, Functional),
                "capabilities" => (Critical, Security),
                "mode" if gains_privilege(actual) => (Critical, Security),
                "setuid" | "setgid" | "world_writable" if actual == Some(&Value::Boolean(true)) => (Critical, Security),
                _ if access => (Critical, Security),
                "owner" | "group" | "uid" | "gid" | "mode" | "acl" | "setuid" | "setgid" | "world_writable" => (Warning, Security),
                _ if is_program(key) => (Critical, Security),
                _ => (Warning, Functional),
            }
        }
        // Who vouches for what it brings.
        ItemKind::Package if field == "signature_key" => (Warning, Security),
        ItemKind::Package => (Warning, Functional),
        ItemKind::Sysctl if KERNEL_HARDENING.contains(&key) => (Critical, Security),
        ItemKind::Sysctl => (Warning, Functional),
        ItemKind::User => match field {
            "gecos" | "home" => (Warning, Functional),
            "password_changed" | "password_min_days" | "password_warn_days" => (Info, Security),
            "password_inactive_days" | "password_max_days" => (Warning, Security),
            _ => (Critical, Security),
        },
        ItemKind::Firewall if field == "comment" => (Info, Functional),
        // Of every rule that one was put before.
        ItemKind::Firewall if field == "after" => (Warning, Security),
        ItemKind::Kernel => match field {
            "release" | "version" => (Warning, Functional),
            "lockdown" | "secure_boot" => (Critical, Security),
            _ => (Warning, Security),
        },
        ItemKind::Repository if field == "files" => (Warning, Functional),
        ItemKind::Container => match field {
            "capabilities" | "mounts" | "pid_mode" | "privileged" | "security_options" => (Critical, Security),
            "image" | "image_digest" | "network" | "ports" | "user" => (Warning, Security),
            _ => (Info, Functional),
        },
        ItemKind::BlockDevice if matches!(field, "encrypted" | "luks") => (Critical, Security),
        // Who may enter, act as whom or reach what, what the host trusts, and what runs on it by itself.
        // Where it is written, and what it is called, decide nothing.
        ItemKind::AuthorizedKey | ItemKind::SudoRule | ItemKind::CronJob if matches!(field, "comment" | "source") => (Info, Functional),
        // Anybody of another machine who comes by.
        ItemKind::Listener if field == "uid" => (Warning, Security),
        ItemKind::Interface if field == "dynamic" => (Info, Functional),
        ItemKind::Sshd if field == "files" => (Warning, Security),
        ItemKind::Timer if field == "source" => (Info, Functional),
        ItemKind::Locale => (Info, Functional),
        ItemKind::Group
        | ItemKind::Lsm
        | ItemKind::Firewall
        | ItemKind::Repository
        | ItemKind::Certificate
        | ItemKind::AuthorizedKey
        | ItemKind::SudoRule
        | ItemKind::PamRule
        | ItemKind::CronJob
        | ItemKind::AtJob
        | ItemKind::Listener
        | ItemKind::Sshd
        | ItemKind::Timer => (Critical, Security),
        // Logs and certificates are worth what the clock is; below the system lies the firmware.
        ItemKind::KernelModule
        | ItemKind::Mount
        | ItemKind::Fstab
        | ItemKind::TimeSync
        | ItemKind::Hardware
        // Where traffic goes, and who listens to it.
        | ItemKind::Interface
        | ItemKind::Route => (Warning, Security),
        ItemKind::Unit
        | ItemKind::HostsEntry
        | ItemKind::Resolver
        | ItemKind::Hostname
        | ItemKind::Timezone
        | ItemKind::Swap
        | ItemKind::BlockDevice
        | ItemKind::Environment
        | ItemKind::Limits => (Warning, Functional),
        ItemKind::Session => (Info, Security),
        ItemKind::Run => (Info, Functional),
    }
}

fn decides_access(path: &str) -> bool {
    // Of any user, wherever the home lies; modules of PAM lie in a folder named for the architecture.
    let is_login_key = path.contains("/.ssh/");
    let is_login_module = path.starts_with("/usr/lib") && path.contains("/security/pam_");
    is_login_key || is_login_module || ACCESS_FILES.contains(&path) || ACCESS_FOLDERS.iter().any(|folder| path.starts_with(folder))
}

/// Set-uid, set-gid, or writable by everyone.
fn gains_privilege(mode: Option<&Value>) -> bool {
    let Some(Value::Text(text)) = mode else { return false };
    u32::from_str_radix(text, 8).is_ok_and(|mode| mode & 0o6000 != 0 || mode & 0o1002 == 0o0002)
}

fn is_program(path: &str) -> bool {
    ["/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/", "/boot/"]
        .iter()
        .any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privilege_gained_is_critical_wherever_the_file_lies() {
        let item: ItemId = "file:/opt/tool".parse().unwrap();
        let setuid = Value::text("4755");
        assert_eq!(classify(&item, "mode", Some(&setuid)), (Severity::Critical, DriftType::Security));
        assert_eq!(classify(&item, "mode", Some(&Value::text("0755"))), (Severity::Warning, DriftType::Security));
        // Sticky folders are writable by everyone on purpose.
        assert_eq!(classify(&item, "mode", Some(&Value::text("1777"))).0, Severity::Warning);
    }
    #[test]
    fn what_lets_people_in_is_critical_for_every_user() {
        for path in [
            "/root/.ssh/authorized_keys",
            "/home/bob/.ssh/authorized_keys",
            "/srv/homes/bob/.ssh/rc",
            "/etc/crontab",
            "/var/spool/cron/crontabs/bob",
            "/usr/lib/x86_64-linux-gnu/security/pam_unix.so",
        ] {
            let item: ItemId = format!("file:{path}").parse().unwrap();
            assert_eq!(classify(&item, "sha256", None), (Severity::Critical, DriftType::Security), "{path}");
        }
        let item: ItemId = "file:/home/bob/notes".parse().unwrap();
        assert_eq!(classify(&item, "sha256", None), (Severity::Warning, DriftType::Functional));
    }
}
