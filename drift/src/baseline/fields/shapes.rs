//! The table itself: one shape for each kind.

use super::FieldType::{AnyText, Boolean, Digest, List, Mode, Number, Set, Setting, Text, TextOrSet, Word};
use super::Shape;
use crate::ItemKind;
use crate::transaction::TransactionKind;

const FILE: Shape = Shape {
    fields: &[
        ("acl", Text),
        ("capabilities", Text),
        ("config_left_out", Number),
        ("default_acl", Text),
        ("device", Text),
        ("flags", Text),
        ("format", Text),
        ("format_error", Text),
        ("gid", Number),
        ("group", Text),
        ("link_target", Text),
        ("mode", Mode),
        ("mtime", Text),
        ("nlink", Number),
        ("owner", Text),
        ("setgid", Boolean),
        ("setuid", Boolean),
        ("sha256", Digest),
        ("size", Number),
        ("type", Word(&["file", "folder", "symlink", "fifo", "socket", "block", "char"])),
        ("uid", Number),
        ("world_writable", Boolean),
    ],
    example: "{ mode: \"0644\", owner: root }",
};

const PACKAGE: Shape = Shape {
    fields: &[
        ("architecture", TextOrSet),
        ("hold", Boolean),
        ("module", TextOrSet),
        ("obsolete_conffiles", Set),
        ("origin", Set),
        ("signature_key", TextOrSet),
        ("source", TextOrSet),
        ("status", TextOrSet),
        ("vendor", TextOrSet),
        ("version", TextOrSet),
    ],
    example: "{ version: \"1.2-3\" }",
};

const SYSCTL: Shape = Shape {
    fields: &[("configured", Setting), ("configured_by", Text), ("value", Setting)],
    example: "{ value: \"0\", configured: \"0\" }",
};

const USER: Shape = Shape {
    fields: &[
        ("expires_at", Text),
        ("gecos", Text),
        ("gid", Number),
        ("home", Text),
        ("locked", Boolean),
        ("password", Text),
        ("password_changed", Text),
        ("password_inactive_days", Number),
        ("password_max_days", Number),
        ("password_min_days", Number),
        ("password_warn_days", Number),
        ("shell", Text),
        ("uid", Number),
    ],
    example: "{ shell: /bin/sh }",
};

const GROUP: Shape =
    Shape { fields: &[("administrators", Set), ("gid", Number), ("members", Set), ("password", Text)], example: "{ gid: 0 }" };

const SESSION: Shape = Shape {
    fields: &[
        ("as_user", Text),
        ("began_at", Text),
        ("certainty", Word(&["exact", "strong", "correlated", "unknown"])),
        ("command", Text),
        ("ended_at", Text),
        ("key", Text),
        ("origin", Text),
        ("terminal", Text),
        ("type", Word(&["ssh", "console", "su", "sudo"])),
        ("user", Text),
        ("within", Text),
    ],
    example: "{ user: alice }",
};

const RUN: Shape = Shape {
    fields: &[
        ("began_at", Text),
        ("catalogue_version", Text),
        ("certainty", Word(&["exact", "strong", "correlated", "unknown"])),
        ("command", Text),
        ("controller", Text),
        ("ended_at", Text),
        ("error", Text),
        ("modules", Set),
        ("name", Text),
        ("packages", List),
        ("pid", Number),
        ("record", Text),
        ("requested_by", Text),
        ("requested_by_record", Text),
        ("result", Word(&["changed", "failed", "succeeded", "unchanged"])),
        ("tool", Word(&TOOLS)),
        ("within", Text),
    ],
    example: "{ tool: apt }",
};

const TOOLS: [&str; TransactionKind::ALL.len()] = {
    let mut names = [""; TransactionKind::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = TransactionKind::ALL[at].name();
        at += 1;
    }
    names
};

const UNIT: Shape = Shape {
    fields: &[
        ("active", Boolean),
        ("config_left_out", Number),
        ("dropins", List),
        ("dropins_sha256", Digest),
        ("enabled", Text),
        ("error", Text),
        ("instances", Set),
        ("link_target", Text),
        ("path", Text),
        ("sha256", Digest),
    ],
    example: "{ enabled: enabled }",
};

const AUTHORIZED_KEY: Shape = Shape {
    fields: &[("comment", Text), ("fingerprint", Text), ("options", List), ("source", Text), ("type", Text), ("user", Text)],
    example: "{ user: alice }",
};

const AT_JOB: Shape =
    Shape { fields: &[("at", Text), ("contents", Text), ("queue", Text), ("source", Text), ("user", Text)], example: "{ user: alice }" };

const CRON_JOB: Shape = Shape {
    fields: &[
        ("command", Text),
        ("environment", Set),
        ("schedule", TextOrSet),
        ("secret", TextOrSet),
        ("source", TextOrSet),
        ("user", Text),
    ],
    example: "{ schedule: \"0 3 * * *\" }",
};

const SUDO_RULE: Shape = Shape {
    fields: &[
        ("command", Text),
        ("hosts", Set),
        ("members", Set),
        ("options", Set),
        ("run_as", Text),
        ("source", TextOrSet),
        ("tags", Set),
        ("type", Word(&["alias", "defaults", "file", "rule"])),
        ("users", Set),
        ("value", List),
    ],
    example: "{ run_as: root }",
};

const ENVIRONMENT: Shape = Shape {
    fields: &[("default", Text), ("override", Text), ("source", Text), ("value", AnyText)],
    example: "{ value: \"/usr/bin:/bin\" }",
};

const LIMITS: Shape = Shape { fields: &[("source", Text), ("value", Text)], example: "{ value: \"4096\" }" };

const PAM_RULE: Shape = Shape {
    fields: &[("account", List), ("auth", List), ("left_out", Number), ("password", List), ("session", List), ("source", Text)],
    example: "{ auth: [required pam_unix.so] }",
};

const MOUNT: Shape = Shape {
    fields: &[
        ("layers", Number),
        ("options", Set),
        ("propagation", Word(&["private", "shared"])),
        ("root", Text),
        ("source", Text),
        ("type", Text),
    ],
    example: "{ type: ext4, source: /dev/sda1 }",
};

const KERNEL_MODULE: Shape =
    Shape { fields: &[("source_version", Text), ("taint", Text), ("version", Text)], example: "{ version: \"1.2\" }" };

/// Of all that a firewall is made of: which of them an item has depends on what it is, see `firewall.rs`.
const FIREWALL: Shape = Shape {
    fields: &[
        ("after", Text),
        ("comment", Text),
        ("devices", Set),
        ("elements", Set),
        ("family", Text),
        ("flags", Text),
        ("hook", Text),
        ("policy", Text),
        ("priority", Text),
        ("rule", Text),
        ("size", Text),
        ("timeout", Text),
        ("type", Text),
        ("value", Text),
    ],
    example: "{ hook: input, policy: drop }",
};

const FSTAB: Shape = Shape {
    fields: &[("dump", Number), ("options", List), ("pass", Number), ("source", Text), ("type", Text)],
    example: "{ type: ext4, options: [nodev, nosuid] }",
};

const SWAP: Shape = Shape { fields: &[("priority", Number), ("size", Number), ("type", Text)], example: "{ type: partition }" };

const BLOCK_DEVICE: Shape = Shape {
    fields: &[
        ("backing_file", Text),
        ("encrypted", Boolean),
        ("lies_on", Set),
        ("luks", Boolean),
        ("made_by", Text),
        ("model", Text),
        ("partition_of", Text),
        ("read_only", Boolean),
        ("removable", Boolean),
        ("size", Number),
        ("type", Word(&["disk", "loop", "mapper", "partition"])),
    ],
    example: "{ read_only: false }",
};

const KERNEL: Shape = Shape {
    fields: &[
        ("lockdown", Word(&["none", "integrity", "confidentiality"])),
        ("parameters", List),
        ("release", Text),
        ("secure_boot", Boolean),
        ("taint", Set),
        ("version", Text),
    ],
    example: "{ lockdown: integrity }",
};

const LSM: Shape = Shape {
    fields: &[
        ("complain", Set),
        ("configured", Text),
        ("enabled", Boolean),
        ("enforce", Set),
        ("kill", Set),
        ("mode", Word(&["enforcing", "permissive", "disabled"])),
        ("modules", List),
        ("policy", Text),
        ("prompt", Set),
        ("unconfined", Set),
    ],
    example: "{ mode: enforcing }",
};

const REPOSITORY: Shape = Shape {
    fields: &[
        ("addresses", Set),
        ("components", Set),
        ("credentials", Set),
        ("enabled", Boolean),
        ("expires", Set),
        ("files", Set),
        ("fingerprints", Set),
        ("gpgcheck", Boolean),
        ("options", Set),
        ("repo_gpgcheck", Boolean),
        ("revoked", Set),
        ("sha256", Digest),
        ("signed_by", Set),
        ("type", Word(&["apk", "apt", "dnf", "keyring"])),
        ("types", Set),
        ("users", Set),
    ],
    example: "{ components: [main], enabled: true }",
};

const CERTIFICATE: Shape = Shape {
    fields: &[
        ("begins_at", Text),
        ("ca", Boolean),
        ("expires_at", Text),
        ("files", Set),
        ("issuer", Text),
        ("names", Set),
        ("sha256", Digest),
        ("subject", Text),
    ],
    example: "{ files: [/etc/ssl/certs/ca-certificates.crt] }",
};

const CONTAINER: Shape = Shape {
    fields: &[
        ("capabilities", Set),
        ("command", List),
        ("id", Text),
        ("image", Text),
        ("image_digest", Text),
        ("mounts", Set),
        ("network", Text),
        ("paused", Boolean),
        ("pid_mode", Text),
        ("ports", Set),
        ("privileged", Boolean),
        ("restart", Text),
        ("running", Boolean),
        ("runtime", Word(&["containerd", "docker", "podman"])),
        ("security_options", Set),
        ("user", Text),
    ],
    example: "{ running: true, privileged: false }",
};
const HOSTNAME: Shape = Shape { fields: &[("name", Text)], example: "{ name: web1 }" };

const TIMEZONE: Shape = Shape { fields: &[("zone", Text)], example: "{ zone: Etc/UTC }" };

const HOSTS_ENTRY: Shape = Shape { fields: &[("addresses", List)], example: "{ addresses: [\"127.0.0.1\"] }" };

const RESOLVER: Shape =
    Shape { fields: &[("nameservers", List), ("options", List), ("search", List)], example: "{ nameservers: [\"9.9.9.9\"] }" };

const TIMER: Shape = Shape {
    fields: &[
        ("enabled", Text),
        ("instances", Set),
        ("persistent", Boolean),
        ("randomized_delay", Text),
        ("schedule", List),
        ("source", Text),
        ("unit", Text),
    ],
    example: "{ enabled: enabled, schedule: [OnCalendar=daily] }",
};

const LOCALE: Shape = Shape {
    fields: &[
        ("font", Text),
        ("font_map", Text),
        ("font_unimap", Text),
        ("keymap", Text),
        ("keymap_toggle", Text),
        ("lang", Text),
        ("language", Text),
        ("lc_address", Text),
        ("lc_all", Text),
        ("lc_collate", Text),
        ("lc_ctype", Text),
        ("lc_identification", Text),
        ("lc_measurement", Text),
        ("lc_messages", Text),
        ("lc_monetary", Text),
        ("lc_name", Text),
        ("lc_numeric", Text),
        ("lc_paper", Text),
        ("lc_telephone", Text),
        ("lc_time", Text),
        ("xkb_layout", Text),
        ("xkb_model", Text),
        ("xkb_options", Text),
        ("xkb_variant", Text),
    ],
    example: "{ lang: C.UTF-8 }",
};

const TIME_SYNC: Shape = Shape {
    fields: &[("fallback", List), ("files", List), ("options", Set), ("peers", List), ("pools", List), ("servers", List)],
    example: "{ servers: [time.example.org iburst] }",
};

const HARDWARE: Shape = Shape {
    fields: &[
        ("board", Text),
        ("cores", Number),
        ("count", Number),
        ("date", Text),
        ("model", Text),
        ("product", Text),
        ("serial", Text),
        ("size", Number),
        ("sockets", Number),
        ("type", Word(&["bios", "uefi"])),
        ("vendor", Text),
        ("version", Text),
        ("virtualisation", Text),
    ],
    example: "{ count: 8 }",
};

const LISTENER: Shape = Shape {
    fields: &[("address", Text), ("port", Number), ("process", Text), ("protocol", Word(&["tcp", "udp"])), ("uid", Number), ("unit", Text)],
    example: "{ process: /usr/sbin/sshd }",
};

const INTERFACE: Shape = Shape {
    fields: &[
        ("addresses", Set),
        ("dynamic", Boolean),
        ("mac", Text),
        ("master", Text),
        ("mtu", Number),
        ("parent", Text),
        ("promiscuous", Boolean),
        ("type", Text),
        ("up", Boolean),
        ("vlan", Number),
    ],
    example: "{ mtu: 1500 }",
};

const ROUTE: Shape = Shape {
    fields: &[
        ("action", Text),
        ("destination", Text),
        ("device", Text),
        ("from", Text),
        ("gateway", Text),
        ("metric", Number),
        ("next_hops", Set),
        ("protocol", Text),
        ("scope", Text),
        ("selector", Text),
        ("source", Text),
        ("table", Text),
        ("tos", Text),
        ("type", Text),
    ],
    example: "{ gateway: 192.0.2.1 }",
};

const SSHD: Shape = Shape { fields: &[("error", Text), ("files", List)], example: "{ config.PermitRootLogin: \"no\" }" };

pub(super) const fn of(kind: ItemKind) -> Shape {
    match kind {
        ItemKind::File => FILE,
        ItemKind::Package => PACKAGE,
        ItemKind::Sysctl => SYSCTL,
        ItemKind::User => USER,
        ItemKind::Group => GROUP,
        ItemKind::Unit => UNIT,
        ItemKind::Session => SESSION,
        ItemKind::Run => RUN,
        ItemKind::AuthorizedKey => AUTHORIZED_KEY,
        ItemKind::AtJob => AT_JOB,
        ItemKind::CronJob => CRON_JOB,
        ItemKind::SudoRule => SUDO_RULE,
        ItemKind::Environment => ENVIRONMENT,
        ItemKind::Limits => LIMITS,
        ItemKind::PamRule => PAM_RULE,
        ItemKind::Mount => MOUNT,
        ItemKind::KernelModule => KERNEL_MODULE,
        ItemKind::Firewall => FIREWALL,
        ItemKind::Fstab => FSTAB,
        ItemKind::Swap => SWAP,
        ItemKind::BlockDevice => BLOCK_DEVICE,
        ItemKind::Kernel => KERNEL,
        ItemKind::Lsm => LSM,
        ItemKind::Repository => REPOSITORY,
        ItemKind::Certificate => CERTIFICATE,
        ItemKind::Container => CONTAINER,
        ItemKind::Hostname => HOSTNAME,
        ItemKind::Timezone => TIMEZONE,
        ItemKind::HostsEntry => HOSTS_ENTRY,
        ItemKind::Resolver => RESOLVER,
        ItemKind::Listener => LISTENER,
        ItemKind::Interface => INTERFACE,
        ItemKind::Route => ROUTE,
        ItemKind::Sshd => SSHD,
        ItemKind::Timer => TIMER,
        ItemKind::Locale => LOCALE,
        ItemKind::TimeSync => TIME_SYNC,
        ItemKind::Hardware => HARDWARE,
    }
}
