//! What the host's files set kernel settings to at the next start, and where: as systemd-sysctl(8) reads sysctl.d(5).
//!
//! Of files with one name the first folder's counts, and all are read in the order of their names: the last assignment of a name counts, and
//! one that names a setting counts over one with `*`. /etc/sysctl.conf counts where a link in one of the folders leads to it.
//! Of globs only `*` is known.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use trueline_drift::format::sysctl::{Assignment, assignments};
use trueline_drift::pattern::Pattern;
use trueline_drift::{FieldName, Fields, Value, text};

use crate::collect::{CollectError, Root, folder};

/// In the order of priority.
pub const FOLDERS: [&str; 5] = ["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"];

const FILE_LIMIT: u64 = 1024 * 1024;
const NAMES_LIMIT: usize = 1024;

/// The files as they were when all settings were last read, which happens whenever one of them changes: a setting that is written is read
/// again many times a second.
#[derive(Debug, Default)]
pub struct LastConfigured(Mutex<Option<Arc<Configured>>>);

impl LastConfigured {
    /// Reads the files.
    pub fn anew(&self, root: &Root) -> Result<Arc<Configured>, CollectError> {
        let configured = Arc::new(Configured::read(root)?);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&configured));
        Ok(configured)
    }

    /// What they last were; read if they never were.
    pub fn last(&self, root: &Root) -> Result<Arc<Configured>, CollectError> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        last.map_or_else(|| self.anew(root), Ok)
    }
}

/// Of all files.
#[derive(Debug, Default)]
pub struct Configured {
    /// By the whole name; without a value where the name is excluded from globs.
    named: BTreeMap<String, Setting>,
    /// As they were read.
    globs: Vec<(Pattern, Setting)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Setting {
    value: Option<String>,
    place: String,
}

impl Configured {
    fn read(root: &Root) -> Result<Self, CollectError> {
        let mut files: BTreeMap<Vec<u8>, String> = BTreeMap::new();
        for place in FOLDERS {
            let names = folder::names(root, place, NAMES_LIMIT).map_err(|error| CollectError::database(place, &error))?;
            for (name, _) in names.into_iter().filter(|(name, _)| name.ends_with(b".conf")) {
                if let Some(path) = folder::beneath(place, &name) {
                    files.entry(name).or_insert(path);
                }
            }
        }
        let mut configured = Self::default();
        for path in files.into_values() {
            // Gone since it was listed, or a link that leads nowhere.
            let Some(bytes) = root.read(&path, FILE_LIMIT).map_err(|error| CollectError::database(&path, &error))? else { continue };
            configured.take(&path, &String::from_utf8_lossy(&bytes));
        }
        Ok(configured)
    }

    fn take(&mut self, path: &str, contents: &str) {
        for Assignment { name, value, line } in assignments(contents) {
            let setting = Setting { value, place: format!("{}:{line}", text::printable(path.as_bytes())) };
            if name.contains('*') {
                self.globs.push((Pattern::new(&name), setting));
            } else if self.named.get(&name).is_none_or(|known| known.value != setting.value) {
                self.named.insert(name, setting);
            }
        }
    }

    /// Adds to a setting's fields what is configured for it.
    pub fn set(&self, name: &str, fields: &mut Fields) {
        let by_glob = || self.globs.iter().rev().find(|(glob, _)| glob.matches_dotted(name)).map(|(_, setting)| setting);
        let Some(Setting { value: Some(value), place }) = self.named.get(name).or_else(by_glob) else { return };
        fields.set(FieldName::known("configured"), Value::bytes(value.as_bytes()));
        fields.set(FieldName::known("configured_by"), Value::text(place));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn shown(configured: &Configured, name: &str) -> String {
        let mut fields = Fields::new();
        configured.set(name, &mut fields);
        let field = |name: &str| fields.value(name).map_or_else(|| "-".to_owned(), ToString::to_string);
        format!("{} {}", field("configured"), field("configured_by"))
    }

    #[test]
    fn the_last_file_counts_a_name_over_a_glob_and_etc_over_usr() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "/usr/lib/sysctl.d/50-default.conf",
            "# as shipped\nnet.ipv4.conf.*.rp_filter = 2\n-net.ipv4.conf.all.rp_filter\nkernel.sysrq = 16\n",
        );
        write("/usr/lib/sysctl.d/60-own.conf", "vm.swappiness = 10\n");
        write("/etc/sysctl.d/60-own.conf", "kernel/sysrq=0\nnet/ipv4/conf/eth0.100/rp_filter = 1\n");
        write("/etc/sysctl.d/readme", "vm.swappiness = 1\n");
        write("/etc/sysctl.conf", "kernel.sysrq = 1\nkernel.core_pattern =  a   b\n");
        symlink("../sysctl.conf", folder.path().join("etc/sysctl.d/99-sysctl.conf")).unwrap();
        let configured = Configured::read(&Root::at(folder.path())).unwrap();
        let names = ["kernel.sysrq", "net.ipv4.conf.lo.rp_filter", "net.ipv4.conf.all.rp_filter", "net.ipv4.conf.eth0/100.rp_filter"];
        let names = [&names[..], &["kernel.core_pattern", "vm.swappiness", "kernel.absent"]].concat();
        let shown: Vec<String> = names.iter().map(|name| format!("{name} {}", shown(&configured, name))).collect();
        assert_eq!(
            shown,
            [
                "kernel.sysrq 1 /etc/sysctl.d/99-sysctl.conf:1",
                "net.ipv4.conf.lo.rp_filter 2 /usr/lib/sysctl.d/50-default.conf:2",
                "net.ipv4.conf.all.rp_filter - -",
                "net.ipv4.conf.eth0/100.rp_filter 1 /etc/sysctl.d/60-own.conf:2",
                "kernel.core_pattern a b /etc/sysctl.d/99-sysctl.conf:2",
                "vm.swappiness - -",
                "kernel.absent - -",
            ]
        );
    }
}
