//! The table itself: one shape for each kind.

use super::FieldType::{Boolean, Digest, List, Mode, Number, Set, Setting, Text, TextOrSet, Word};
use super::Shape;
use crate::ItemKind;
use crate::transaction::TransactionKind;

const FILE: Shape = Shape {
    fields: &[
        ("acl", Text),
        ("capabilities", Text),
        ("default_acl", Text),
        ("device", Text),
        ("flags", Text),
        ("gid", Number),
        ("group", Text),
        ("link_target", Text),
        ("mode", Mode),
        ("mtime", Text),
        ("nlink", Number),
        ("owner", Text),
        ("sha256", Digest),
        ("size", Number),
        ("type", Word(&["file", "folder", "symlink", "fifo", "socket", "block", "char"])),
        ("uid", Number),
    ],
    example: "{ mode: \"0644\", owner: root }",
};

const PACKAGE: Shape = Shape {
    fields: &[("architecture", TextOrSet), ("source", TextOrSet), ("status", TextOrSet), ("version", TextOrSet)],
    example: "{ version: \"1.2-3\" }",
};

const SYSCTL: Shape = Shape { fields: &[("value", Setting)], example: "{ value: \"0\" }" };

const USER: Shape = Shape {
    fields: &[("gecos", Text), ("gid", Number), ("home", Text), ("locked", Boolean), ("password", Text), ("shell", Text), ("uid", Number)],
    example: "{ shell: /bin/sh }",
};

const GROUP: Shape = Shape { fields: &[("gid", Number), ("members", Set)], example: "{ gid: 0 }" };

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
        ("dropins", List),
        ("dropins_sha256", Digest),
        ("enabled", Text),
        ("instances", Set),
        ("link_target", Text),
        ("path", Text),
        ("sha256", Digest),
    ],
    example: "{ enabled: enabled }",
};

const HOSTNAME: Shape = Shape { fields: &[("name", Text)], example: "{ name: web1 }" };

const TIMEZONE: Shape = Shape { fields: &[("zone", Text)], example: "{ zone: Etc/UTC }" };

const HOSTS_ENTRY: Shape = Shape { fields: &[("addresses", List)], example: "{ addresses: [\"127.0.0.1\"] }" };

const RESOLVER: Shape =
    Shape { fields: &[("nameservers", List), ("options", List), ("search", List)], example: "{ nameservers: [\"9.9.9.9\"] }" };

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
        ItemKind::Hostname => HOSTNAME,
        ItemKind::Timezone => TIMEZONE,
        ItemKind::HostsEntry => HOSTS_ENTRY,
        ItemKind::Resolver => RESOLVER,
        _ => Shape { fields: &[], example: "{ }" },
    }
}
