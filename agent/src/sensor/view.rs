//! Which paths are in view, asked for each event.
//!
//! The key of an item is its real path: events arrive with it, whichever symbolic link was used. A
//! watched path that is, or lies behind, a symbolic link (`/bin` -> `/usr/bin`) is resolved once here,
//! and what lies beneath is reported under the real path only; the link itself stays an item of its own.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use trueline_drift::text::{original, printable};
use trueline_drift::watch::{WatchPolicy, is_beneath};

#[derive(Debug, Clone)]
pub struct View {
    /// As declared, plus the real paths.
    policy: WatchPolicy,
    /// Real paths, none beneath another.
    roots: Vec<PathBuf>,
}

impl View {
    /// Asks the file system where the watched paths really are.
    pub fn new(policy: &WatchPolicy) -> Self {
        let mut real: Vec<PathBuf> = policy.paths.iter().map(|path| real_path(Path::new(OsStr::from_bytes(&original(path))))).collect();
        real.sort();
        let mut roots: Vec<PathBuf> = Vec::new();
        for path in real {
            if !roots.iter().any(|root| path.starts_with(root)) {
                roots.push(path);
            }
        }
        let mut policy = policy.clone();
        for root in &roots {
            let text = printable(root.as_os_str().as_bytes()).into_owned();
            if !policy.paths.contains(&text) {
                policy.paths.push(text);
            }
        }
        Self { policy, roots }
    }

    /// The policy, with the real paths of its links among its paths.
    pub fn policy(&self) -> &WatchPolicy {
        &self.policy
    }

    pub fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    pub fn contains(&self, path: &[u8]) -> bool {
        self.policy.watches_path(&printable(path))
    }

    pub fn contains_sysctl(&self, name: &str) -> bool {
        self.policy.watches_sysctl(name)
    }

    /// Whether an entry of this folder can be in view, or lead to what is.
    pub fn reaches(&self, folder: &[u8]) -> bool {
        let folder = printable(folder);
        let near = self.policy.paths.iter().any(|path| is_beneath(&folder, path) || is_beneath(path, &folder));
        near && !self.policy.excludes_path(&folder)
    }

    /// Whether the path is a watched one itself, or on the way to one: when such an entry comes or goes,
    /// the view must be resolved anew.
    pub fn leads_to_root(&self, path: &[u8]) -> bool {
        let path = printable(path);
        self.policy.paths.iter().any(|root| is_beneath(root, &path))
    }

    /// The real roots strictly beneath a path.
    pub fn roots_beneath<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a PathBuf> {
        self.roots.iter().filter(move |root| root.as_path() != path && root.starts_with(path))
    }
}

/// The path with its links resolved; of a path that is not there, as much as there is.
fn real_path(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    path.to_owned()
}

/// The path itself, or the nearest folder above it that is there.
pub fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok()).unwrap_or(Path::new("/"))
}

/// A folder's path and a name in it.
pub fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(folder.len() + 1 + name.len());
    path.extend_from_slice(folder);
    if !folder.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

pub fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

pub fn into_bytes(path: PathBuf) -> Vec<u8> {
    path.into_os_string().into_vec()
}

/// `file:/etc`, for gaps and coverage.
pub fn file_scope(path: &Path) -> String {
    format!("file:{}", printable(path.as_os_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_behind_a_link_is_in_view_under_its_real_path() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("real")).unwrap();
        std::os::unix::fs::symlink("real", base.join("link")).unwrap();
        let text = |name: &str| base.join(name).to_str().unwrap().to_owned();
        let view = View::new(&WatchPolicy::only_paths(vec![text("link"), text("real"), text("link/not/there")]));
        assert_eq!(view.roots(), [base.join("real")]);
        assert!(view.contains(text("real/x").as_bytes()));
        assert!(view.contains(text("link").as_bytes()), "the link itself");
        assert!(!view.contains(text("other").as_bytes()));
        assert!(view.reaches(base.as_os_str().as_bytes()) && view.leads_to_root(base.as_os_str().as_bytes()));
        assert!(!view.reaches(text("other").as_bytes()));
        assert_eq!(view.roots_beneath(&base).count(), 1);
    }
}
