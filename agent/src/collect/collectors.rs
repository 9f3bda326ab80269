//! The front of the folder: one item, or all items of a kind, whatever they are read from.

use std::sync::Arc;
use std::time::Duration;

use trueline_drift::redact::RedactionKey;
use trueline_drift::watch::{WatchPolicy, is_beneath};
use trueline_drift::{ItemId, ItemKind, text};

use super::file::Known;
use super::{CollectError, Collector, FileReader, Holders, Kept, Listing, Place, Reading, Root, rpm, sysctl};

/// Every kind but files, which only a scan can list. A new kind is a file of this folder and a line here.
const KINDS: &[&Collector] = &[
    &super::package::COLLECTOR,
    &super::sysctl::COLLECTOR,
    &super::user::COLLECTOR,
    &super::group::COLLECTOR,
    &super::unit::COLLECTOR,
    &super::session::COLLECTOR,
    &super::authorized_key::COLLECTOR,
    &super::environment::COLLECTOR,
    &super::limits::COLLECTOR,
    &super::pam_rule::COLLECTOR,
    &super::cron_job::COLLECTOR,
    &super::sudo_rule::COLLECTOR,
    &super::at_job::COLLECTOR,
    &super::mount::COLLECTOR,
    &super::kernel_module::COLLECTOR,
    &super::firewall::COLLECTOR,
    &super::fstab::COLLECTOR,
    &super::swap::COLLECTOR,
    &super::block_device::COLLECTOR,
    &super::kernel::COLLECTOR,
    &super::lsm::COLLECTOR,
    &super::repository::COLLECTOR,
    &super::certificate::COLLECTOR,
    &super::container::COLLECTOR,
    &super::hostname::COLLECTOR,
    &super::timezone::COLLECTOR,
    &super::hosts_entry::COLLECTOR,
    &super::resolver::COLLECTOR,
    &super::listener::COLLECTOR,
    &super::sshd::COLLECTOR,
    &super::interface::COLLECTOR,
    &super::route::COLLECTOR,
    &super::timer::COLLECTOR,
    &super::locale::COLLECTOR,
    &super::time_sync::COLLECTOR,
    &super::hardware::COLLECTOR,
];

pub struct Collectors {
    root: Root,
    policy: Arc<WatchPolicy>,
    key: RedactionKey,
    files: FileReader,
    holders: Holders,
    kept: Kept,
}

impl Collectors {
    pub fn new(policy: Arc<WatchPolicy>, key: RedactionKey) -> Self {
        Self::with_root(Root::host(), policy, key)
    }

    /// As [`Self::new`], with the host's databases beneath `root`. Files are read where their path says.
    pub fn with_root(root: Root, policy: Arc<WatchPolicy>, key: RedactionKey) -> Self {
        let files = FileReader::new(&root, key.clone(), None);
        let holders = Holders::here(root.clone());
        Self { root, policy, key, files, holders, kept: Kept::default() }
    }

    /// For an observer that is to be confined: what it will not be able to see is seen by a thread that begins here.
    pub fn before_confinement(self) -> std::io::Result<Self> {
        Ok(Self { holders: Holders::outside(self.root.clone())?, ..self })
    }

    /// As [`FileReader::at_most`].
    pub fn files_at_most(self, bytes: u64) -> Self {
        Self { files: self.files.at_most(bytes), ..self }
    }

    pub fn set_policy(&mut self, policy: Arc<WatchPolicy>) {
        self.policy = policy;
    }

    /// What secrets are masked by.
    pub fn key(&self) -> &RedactionKey {
        &self.key
    }

    /// Where the host's databases are.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// One item as it is now; `None` if there is no such item. For a kind that comes from a
    /// database this reads all of it: take [`Self::read_kind`] where several have changed.
    pub fn read_item(&mut self, item: &ItemId, known: Known<'_>) -> Result<Option<Reading>, CollectError> {
        match item.kind {
            ItemKind::File => Ok(self.files.read(&item.key.bytes(), known)?),
            ItemKind::Sysctl => sysctl::read_one(&self.root, &item.key, &self.kept.configured),
            kind => Ok(self.list(kind)?.items.into_iter().find(|(id, _)| id == item).map(|(_, reading)| reading)),
        }
    }

    /// A file by its path in the host's own bytes.
    pub fn read_path(&mut self, path: &[u8], known: Known<'_>) -> Result<Option<Reading>, CollectError> {
        Ok(self.files.read(path, known)?)
    }

    /// All items of a kind but files, which only a scan can list. Malformed entries are logged.
    pub fn read_kind(&self, kind: ItemKind) -> Result<Listing, CollectError> {
        let listing = self.list(kind)?;
        if listing.skipped > 0 {
            tracing::warn!(kind = kind.name(), skipped = listing.skipped, "malformed or repeated entries were left out");
        }
        Ok(listing)
    }

    /// As [`Self::read_kind`], with the count of entries left out.
    pub fn list(&self, kind: ItemKind) -> Result<Listing, CollectError> {
        let place = Place { root: &self.root, policy: &self.policy, key: &self.key, holders: &self.holders, kept: &self.kept };
        // Of runs there is nothing to read but what was told of them.
        KINDS.iter().find(|collector| collector.kind == kind).map_or_else(|| Ok(Listing::default()), |collector| (collector.read)(&place))
    }

    /// The watched kinds that are read again every so often whatever the sensors tell.
    pub fn polled(&self) -> impl Iterator<Item = (ItemKind, Duration)> {
        let watched = KINDS.iter().filter(|collector| self.policy.watches_kind(collector.kind));
        watched.filter_map(|collector| Some((collector.kind, collector.poll?)))
    }

    /// The kinds that must be read again when this path was touched.
    pub fn kinds_behind(&self, path: &[u8]) -> Vec<ItemKind> {
        let path = text::printable(path);
        let is_source = |source| is_beneath(&path, source) && (!rpm::DATABASES.contains(&source) || rpm::is_database(&path));
        let sources = sources().filter(|(source, kind)| self.policy.watches_kind(*kind) && is_source(source));
        let mut kinds: Vec<_> = sources.map(|(_, kind)| kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// Paths outside the policy's own that sensors must watch for the derived kinds.
    pub fn extra_paths(&self) -> Vec<String> {
        sources()
            .filter(|(source, kind)| self.policy.watches_kind(*kind) && !self.policy.watches_path(source))
            .map(|(source, _)| source.to_owned())
            .collect()
    }
}

fn sources() -> impl Iterator<Item = (&'static str, ItemKind)> {
    KINDS.iter().flat_map(|collector| collector.sources.iter().map(|source| (*source, collector.kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_touched_source_names_the_kinds_behind_it() {
        let collectors = Collectors::new(Arc::new(WatchPolicy::default()), RedactionKey::new([1; 32]));
        for (path, kinds) in [
            ("/etc/shadow", vec![ItemKind::User]),
            ("/etc/shadow-", vec![]),
            ("/var/lib/dpkg/status", vec![ItemKind::Package]),
            ("/etc/systemd/system/multi-user.target.wants/ssh.service", vec![ItemKind::Unit, ItemKind::Timer]),
            ("/var/lib/rpm/rpmdb.sqlite", vec![ItemKind::Package]),
            ("/var/lib/rpm/rpmdb.sqlite-shm", vec![]),
            ("/etc/hosts", vec![ItemKind::HostsEntry]),
            ("/etc/issue", vec![]),
        ] {
            assert_eq!(collectors.kinds_behind(path.as_bytes()), kinds, "{path}");
        }
        let extra = collectors.extra_paths();
        assert!(extra.iter().any(|path| path == "/var/lib/dpkg/status") && !extra.iter().any(|path| path == "/etc/passwd"), "{extra:?}");
    }

    #[test]
    fn kinds_that_are_not_watched_cost_nothing() {
        let collectors = Collectors::new(Arc::new(WatchPolicy::only_paths(vec!["/srv".into()])), RedactionKey::new([1; 32]));
        assert!(collectors.extra_paths().is_empty());
        assert!(collectors.kinds_behind(b"/etc/passwd").is_empty());
    }
}
