//! The kinds of item, and what each is called. Numbers on the wire and in the database are fixed by `proto/`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::item::ItemError;
use crate::text;

macro_rules! kinds {
    ($($(#[$meta:meta])* $kind:ident => $name:literal,)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ItemKind {
            $($(#[$meta])* $kind,)+
        }

        impl ItemKind {
            pub const NAMES: [&'static str; [$($name),+].len()] = [$($name),+];

            pub const ALL: [Self; Self::NAMES.len()] = [$(Self::$kind),+];

            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }
        }
    };
}

kinds! {
    File => "file",
    Package => "package",
    Sysctl => "sysctl",
    User => "user",
    Group => "group",
    Unit => "unit",
    /// A login, or what was begun within one through su or sudo: a fact of the host, no setting.
    Session => "session",
    /// One run of a tool that makes changes together, as a package or configuration manager: a fact of the host, no setting.
    Run => "run",
    /// A file system as it is mounted now.
    Mount => "mount",
    KernelModule => "kernel_module",
    /// A table, chain, rule, set or other object of the kernel's packet filter.
    Firewall => "firewall",
    /// A source of packages.
    Repository => "repository",
    Kernel => "kernel",
    /// A Linux security module.
    Lsm => "lsm",
    Fstab => "fstab",
    Swap => "swap",
    BlockDevice => "block_device",
    Certificate => "certificate",
    Container => "container",
    /// A key that lets somebody in over ssh.
    AuthorizedKey => "authorized_key",
    SudoRule => "sudo_rule",
    CronJob => "cron_job",
    AtJob => "at_job",
    Environment => "environment",
    Limits => "limits",
    PamRule => "pam_rule",
    /// A name that /etc/hosts gives addresses to.
    HostsEntry => "hosts_entry",
    Resolver => "resolver",
    Hostname => "hostname",
    Timezone => "timezone",
    /// A socket that waits for others.
    Listener => "listener",
    /// A network interface with its addresses.
    Interface => "interface",
    /// A route, or a rule that chooses among tables of routes.
    Route => "route",
    /// What sshd is told by all of its files together.
    Sshd => "sshd",
    /// A timer of systemd: when it starts which unit.
    Timer => "timer",
    Locale => "locale",
    /// A service that keeps the clock, by its configuration.
    TimeSync => "time_sync",
    /// What the machine is made of.
    Hardware => "hardware",
}

impl ItemKind {
    /// Whether items of it are settings that somebody decides. Others come and go by themselves: a baseline holds of them
    /// what it names, and one that is captured or closed as a whole leaves them out.
    pub const fn is_setting(self) -> bool {
        !matches!(self, Self::Session | Self::Run)
    }

    /// All names, for a message.
    pub fn names() -> String {
        let [names @ .., last] = Self::NAMES;
        format!("{} or {last}", names.join(", "))
    }
}

impl fmt::Display for ItemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ItemKind {
    type Err = ItemError;

    fn from_str(name: &str) -> Result<Self, ItemError> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| ItemError::Kind { name: text::bounded(name, 40).into_owned() })
    }
}

impl Serialize for ItemKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for ItemKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<str>::deserialize(deserializer)?;
        name.parse().map_err(de::Error::custom)
    }
}
