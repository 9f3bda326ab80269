//! A host of which one file says what others chose: each source of the kinds that are read from files.
//!
//! What must stand beside a source, so that it is looked at at all, is there from the start.

use std::path::PathBuf;
use std::sync::Arc;

use trueline_agent::collect::{CollectError, Collectors, Listing, Root};
use trueline_drift::ItemKind::{self, *};
use trueline_drift::redact::RedactionKey;
use trueline_drift::watch::WatchPolicy;

/// A file that a kind is read from. A seed chooses it by its first byte, counted from `0`: new ones stand at the end.
pub const SOURCES: &[(ItemKind, &str)] = &[
    (AuthorizedKey, "/home/alice/.ssh/authorized_keys"),
    (CronJob, "/etc/crontab"),
    (CronJob, "/etc/anacrontab"),
    (CronJob, "/var/spool/cron/crontabs/alice"),
    (AtJob, "/var/spool/cron/atjobs/a0000b01c2f3e4"),
    (SudoRule, "/etc/sudoers"),
    (Fstab, "/etc/fstab"),
    (Limits, "/etc/security/limits.conf"),
    (PamRule, "/etc/pam.d/sshd"),
    (Environment, "/etc/environment"),
    (Environment, "/etc/security/pam_env.conf"),
    (HostsEntry, "/etc/hosts"),
    (Resolver, "/etc/resolv.conf"),
    (Repository, "/etc/apt/sources.list"),
    (Repository, "/etc/apt/sources.list.d/some.sources"),
    (Repository, "/etc/yum.repos.d/some.repo"),
    (Repository, "/etc/apk/repositories"),
    (Repository, "/etc/apt/trusted.gpg.d/some.gpg"),
    (Certificate, "/etc/ssl/certs/some.pem"),
    (Container, "/var/lib/docker/containers/00aa/config.v2.json"),
    (Container, "/var/lib/docker/containers/00bb/hostconfig.json"),
    (Container, "/var/lib/containers/storage/overlay-containers/containers.json"),
    (Container, "/run/containerd/io.containerd.runtime.v2.task/k8s.io/00cc/config.json"),
    (Swap, "/proc/swaps"),
    (Mount, "/proc/1/mountinfo"),
    (KernelModule, "/proc/modules"),
    (Sshd, "/etc/ssh/sshd_config"),
    (Timer, "/etc/systemd/system/some.timer"),
    (Unit, "/etc/systemd/system/some.service"),
    (TimeSync, "/etc/chrony/chrony.conf"),
    (TimeSync, "/etc/ntp.conf"),
    (TimeSync, "/etc/ntpd.conf"),
    (TimeSync, "/etc/systemd/timesyncd.conf"),
    (Locale, "/etc/locale.conf"),
    (Hostname, "/etc/hostname"),
    (Sysctl, "/etc/sysctl.d/some.conf"),
    (Package, "/lib/apk/db/installed"),
];

/// What stands beside them, whatever they say.
const BESIDE: &[(&str, &str)] = &[
    ("/etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"),
    ("/var/lib/docker/containers/00bb/config.v2.json", r#"{"ID":"00bb","Name":"/web","State":{"Running":true}}"#),
    ("/proc/sys/net/ipv4/ip_forward", "0\n"),
];

pub struct Host {
    folder: tempfile::TempDir,
    collectors: Collectors,
}

impl Host {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for a host");
        let root = Root::at(folder.path());
        let collectors = Collectors::with_root(root, Arc::new(WatchPolicy::default()), RedactionKey::new([7; 32]));
        let host = Self { folder, collectors };
        let beside = BESIDE.iter().map(|(path, text)| (*path, text.as_bytes()));
        for (path, bytes) in beside.chain(SOURCES.iter().map(|(_, path)| (*path, &[][..]))) {
            let place = host.place(path);
            std::fs::create_dir_all(place.parent().expect("a source is beneath the root")).expect("a folder of a host");
            std::fs::write(&place, bytes).expect("a file of a host");
        }
        SOURCES.iter().for_each(|(_, path)| std::fs::remove_file(host.place(path)).expect("a file of a host"));
        host
    }

    fn place(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    /// What `work` makes of a host whose source says this, and nothing else does.
    pub fn with<Made>(&self, (kind, path): &(ItemKind, &str), bytes: &[u8], work: impl FnOnce(&dyn Fn() -> Told) -> Made) -> Made {
        let place = self.place(path);
        std::fs::write(&place, bytes).expect("a file of a host");
        let made = work(&|| self.collectors.list(*kind));
        std::fs::remove_file(&place).expect("a file of a host");
        made
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

pub type Told = Result<Listing, CollectError>;
