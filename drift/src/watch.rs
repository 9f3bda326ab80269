//! The watch policy: which items of a host are in view. The agent has one built in and takes
//! another from its collector.

use serde::{Deserialize, Serialize};

use crate::pattern::Pattern;
use crate::{ItemId, ItemKind};

/// YAML, in the collector's policy files and in the agent's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchPolicy {
    /// Grows with each edit, so that an agent can tell an old policy from a new one. 0 is built in.
    pub version: u64,
    /// Files and folders, watched with all that lies beneath them. Absolute paths without wildcards.
    pub paths: Vec<String>,
    /// Paths left out, as patterns; each also leaves out what lies beneath it.
    pub exclude: Vec<Pattern>,
    /// Kinds of item besides files.
    pub kinds: Vec<ItemKind>,
    /// Settings under /proc/sys left out because the kernel changes them by itself.
    pub exclude_sysctls: Vec<Pattern>,
    /// Every item is read again, contents and all, this often. Seconds; at least 300.
    pub full_scan_seconds: u64,
    /// Bound on reading for background scans and for files too large to be read at once, bytes a second; 0 means none.
    pub scan_bytes_per_second: u64,
    /// Bound on the processor time of background scans, percent of one core; 0 means none.
    pub scan_core_percent: u32,
}

impl Default for WatchPolicy {
    /// What decides who enters a server, what runs on it by itself, and as whom.
    fn default() -> Self {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let patterns = |list: &[&str]| list.iter().map(|text| Pattern::new(text)).collect();
        Self {
            version: 0,
            paths: texts(&[
                "/etc",
                "/boot",
                "/usr/bin",
                "/usr/sbin",
                "/usr/lib",
                "/usr/libexec",
                "/usr/local",
                "/bin",
                "/sbin",
                "/lib",
                "/lib64",
                "/opt",
                "/root/.ssh",
                "/root/.bashrc",
                "/root/.profile",
                "/root/.bash_profile",
                "/var/spool/cron",
            ]),
            exclude: patterns(&[
                "/etc/mtab",
                "/etc/.pwd.lock",
                "/etc/*.lock",
                // What the shadow tools keep of the version before; the files themselves are watched.
                "/etc/passwd-",
                "/etc/shadow-",
                "/etc/group-",
                "/etc/gshadow-",
                "/etc/subuid-",
                "/etc/subgid-",
                "/etc/ld.so.cache",
                "/etc/**/.*.swp",
                "/usr/**/__pycache__",
                "/usr/local/**/*.pyc",
                // What readers of rpm's database write beside it.
                "/usr/lib/sysimage/rpm/rpmdb.sqlite-*",
                "/usr/lib/sysimage/rpm/__db.*",
                "/usr/lib/sysimage/rpm/.rpm.lock",
                "/boot/grub/grubenv",
            ]),
            kinds: ItemKind::ALL.to_vec(),
            exclude_sysctls: patterns(&[
                "kernel.random.*",
                "kernel.ns_last_pid",
                "kernel.pty.nr",
                "kernel.hostname",
                "kernel.sched_domain.**",
                "kernel.perf_event_max_sample_rate",
                "kernel.perf_cpu_time_max_percent",
                "fs.dentry-state",
                "fs.file-nr",
                "fs.inode-nr",
                "fs.inode-state",
                "fs.aio-nr",
                "fs.quota.**",
                "fs.binfmt_misc.**",
                "fs.mqueue.**",
                "net.netfilter.nf_conntrack_count",
                "net.ipv4.conf.*.flush",
                "net.ipv4.route.flush",
                "net.ipv6.route.flush",
                "net.**.neigh.*.base_reachable_time",
                "net.**.neigh.*.retrans_time",
                "net.ipv6.conf.*.stable_secret",
                "net.ipv4.tcp_fastopen_key",
                "user.**",
                "sunrpc.**",
                "vm.stat_refresh",
                "vm.compact_memory",
                "vm.drop_caches",
                "debug.**",
            ]),
            full_scan_seconds: 12 * 3600,
            scan_bytes_per_second: 256 * 1024 * 1024,
            scan_core_percent: 50,
        }
    }
}

impl WatchPolicy {
    /// Only these paths, and no other kind of item.
    pub fn only_paths(paths: Vec<String>) -> Self {
        Self { paths, kinds: vec![ItemKind::File], ..Self::default() }
    }

    pub fn watches_kind(&self, kind: ItemKind) -> bool {
        match kind {
            ItemKind::File => !self.paths.is_empty(),
            other => self.kinds.contains(&other),
        }
    }

    /// Whether the printable path is in view: beneath a watched path and not beneath an excluded one.
    pub fn watches_path(&self, path: &str) -> bool {
        self.paths.iter().any(|root| is_beneath(path, root)) && !self.excludes_path(path)
    }

    /// Whether this path or a folder above it is excluded.
    pub fn excludes_path(&self, path: &str) -> bool {
        if self.exclude.is_empty() {
            return false;
        }
        let mut end = path.len();
        loop {
            let ancestor = &path[..end];
            if self.exclude.iter().any(|pattern| pattern.matches(ancestor)) {
                return true;
            }
            match ancestor.rfind('/') {
                Some(slash) if slash > 0 => end = slash,
                _ => return false,
            }
        }
    }

    pub fn watches_sysctl(&self, name: &str) -> bool {
        self.kinds.contains(&ItemKind::Sysctl) && !self.exclude_sysctls.iter().any(|pattern| pattern.matches_dotted(name))
    }

    pub fn watches(&self, item: &ItemId) -> bool {
        match item.kind {
            ItemKind::File => self.watches_path(item.key.as_str()),
            ItemKind::Sysctl => self.watches_sysctl(item.key.as_str()),
            kind => self.kinds.contains(&kind),
        }
    }

    /// What is wrong with this policy, in words for its author.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for path in &self.paths {
            if !path.starts_with('/') || path.contains('*') || path.split('/').any(|part| part == "..") {
                faults.push(format!("paths: `{path}` must be an absolute path without wildcards and `..`"));
            }
        }
        if self.full_scan_seconds < 300 {
            faults.push(format!("full_scan_seconds: {} is less than 300", self.full_scan_seconds));
        }
        faults
    }
}

/// Whether `path` is `root` or lies beneath it.
pub fn is_beneath(path: &str, root: &str) -> bool {
    let root = root.strip_suffix('/').unwrap_or(root);
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_in_view_beneath_its_root_unless_excluded() {
        let policy = WatchPolicy { exclude: vec![Pattern::new("/etc/ssl/private")], ..WatchPolicy::only_paths(vec!["/etc".into()]) };
        for (path, expected) in
            [("/etc", true), ("/etc/hosts", true), ("/etcetera", false), ("/etc/ssl/private/key", false), ("/etc/ssl/privates", true)]
        {
            assert_eq!(policy.watches_path(path), expected, "{path}");
        }
    }

    #[test]
    fn settings_that_the_kernel_moves_are_left_out() {
        let policy = WatchPolicy::default();
        assert!(policy.watches_sysctl("net.ipv4.ip_forward"));
        assert!(!policy.watches_sysctl("kernel.random.uuid"));
        assert!(!policy.watches_sysctl("fs.file-nr"));
        assert!(!policy.watches_sysctl("user.max_user_namespaces"));
        assert!(!policy.watches_sysctl("net.ipv6.conf.eth0.stable_secret"));
    }
}
