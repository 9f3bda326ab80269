//! A part of a host, as gaps and scan requests name it.

use trueline_drift::watch::{WatchPolicy, is_beneath};
use trueline_drift::{ItemId, ItemKind};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    All,
    Kind(ItemKind),
    /// A path, printable, with all beneath it.
    Path(String),
}

impl Scope {
    /// `*`, `file:*`, `sysctl:*`, `file:/etc`. What is not understood is read as everything: a scope
    /// is only ever a limit on work.
    pub fn parse(scope: &str) -> Self {
        match scope.split_once(':') {
            Some(("file", path)) if path.starts_with('/') => Self::Path(path.trim_end_matches(['*', '/']).to_owned()),
            Some((kind, _)) => kind.parse().map_or(Self::All, Self::Kind),
            None => Self::All,
        }
    }

    /// The smallest scope that can be read again for this item.
    pub fn of(item: &ItemId) -> Self {
        match item.kind {
            ItemKind::File => Self::Path(item.key.as_str().to_owned()),
            kind => Self::Kind(kind),
        }
    }

    /// Whether all of the other lies in this one.
    pub fn holds(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (Self::Path(path), Self::Path(other)) => is_beneath(other, path),
            (Self::Kind(ItemKind::File), Self::Path(_)) => true,
            (one, other) => one == other,
        }
    }

    pub fn has_kind(&self, kind: ItemKind) -> bool {
        match self {
            Self::All => true,
            Self::Kind(only) => *only == kind,
            Self::Path(_) => kind == ItemKind::File,
        }
    }

    /// The watch policy with its files limited to this scope; no other kinds.
    pub fn files_of(&self, policy: &WatchPolicy) -> WatchPolicy {
        let paths = match self {
            Self::Path(path) => {
                // What of the policy lies within the scope, or the scope itself where it lies within the policy.
                let within: Vec<String> = policy.paths.iter().filter(|root| is_beneath(root, path)).cloned().collect();
                if within.is_empty() && policy.watches_path(path) { vec![path.clone()] } else { within }
            }
            _ if self.has_kind(ItemKind::File) => policy.paths.clone(),
            _ => Vec::new(),
        };
        WatchPolicy { paths, kinds: vec![ItemKind::File], ..policy.clone() }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Kind(kind) => write!(f, "{kind}:*"),
            Self::Path(path) => write!(f, "file:{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_limits_the_files_of_a_policy() {
        let policy = WatchPolicy::only_paths(vec!["/etc".into(), "/usr/bin".into()]);
        let paths = |scope: &str| Scope::parse(scope).files_of(&policy).paths;
        assert_eq!(paths("*"), ["/etc", "/usr/bin"]);
        assert_eq!(paths("file:/etc/ssh"), ["/etc/ssh"]);
        assert_eq!(paths("file:/usr"), ["/usr/bin"]);
        assert!(paths("file:/home").is_empty());
        assert!(paths("sysctl:*").is_empty());
    }

    #[test]
    fn a_scope_reads_back_from_its_text() {
        for text in ["*", "sysctl:*", "file:/etc"] {
            assert_eq!(Scope::parse(text).to_string(), text);
        }
    }
}
