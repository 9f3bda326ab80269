//! From which repositories an installed version can have come: those whose lists, as apt keeps them, have that very version.
//!
//! Invariants: the lists are read only for versions that were not looked for before, and what was found then stays: a repository that
//! has moved on has not changed the host. A list that cannot be read leaves out its own repository alone.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use trueline_drift::text;

use super::{LINE_LIMIT, Package};
use crate::collect::{Root, folder};
use crate::kernel::file::{EntryType, Pinned};

const FOLDER: &str = "/var/lib/apt/lists";
/// Compressed lists, which apt keeps in images for containers alone, are not read.
const LIST: &[u8] = b"_Packages";
const LISTS_LIMIT: usize = 4096;
/// Of all lists together: several times what a host with many repositories has.
const BYTES_LIMIT: u64 = 1024 * 1024 * 1024;

/// As `deb.debian.org/debian bookworm/main`; sorted.
pub type Repositories = Arc<[Arc<str>]>;

/// A digest of name, version and architecture: thousands of them are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Installed([u8; 16]);

impl Installed {
    fn of(package: &Package) -> Self {
        let mut hasher = Sha256::new();
        for part in [&package.name, &package.version, &package.architecture] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let digest: [u8; 32] = hasher.finalize().into();
        Self(std::array::from_fn(|at| digest[at]))
    }
}

/// What has been found so far, of the packages that there are.
#[derive(Debug, Default)]
pub struct Origins(Mutex<HashMap<Installed, Repositories>>);

impl Origins {
    /// For each package of dpkg's, in their order.
    pub(super) fn of(&self, root: &Root, packages: &[Package]) -> Vec<Repositories> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let installed: Vec<Installed> = packages.iter().map(Installed::of).collect();
        let sought: Vec<usize> = (0..packages.len()).filter(|at| !known.contains_key(&installed[*at])).collect();
        let mut found = if sought.is_empty() { HashMap::new() } else { look_up(root, packages, &sought) };
        // Packages of one repository share its name, and those of the same repositories their list.
        let mut shared: HashMap<Vec<Arc<str>>, Repositories> = HashMap::new();
        let mut kept = HashMap::with_capacity(installed.len());
        for (at, installed) in installed.iter().enumerate() {
            let repositories = known.remove(installed).unwrap_or_else(|| {
                let mut repositories = found.remove(&at).unwrap_or_default();
                repositories.sort_unstable();
                repositories.dedup();
                Arc::clone(shared.entry(repositories).or_insert_with_key(|repositories| repositories.as_slice().into()))
            });
            kept.insert(*installed, repositories);
        }
        let repositories = installed.iter().map(|installed| Arc::clone(&kept[installed])).collect();
        *known = kept;
        repositories
    }
}

/// The repositories of the packages at these places.
fn look_up(root: &Root, packages: &[Package], sought: &[usize]) -> HashMap<usize, Vec<Arc<str>>> {
    let mut by_name = HashMap::<&[u8], Vec<usize>>::new();
    for at in sought {
        by_name.entry(&packages[*at].name).or_default().push(*at);
    }
    let names = folder::names(root, FOLDER, LISTS_LIMIT).unwrap_or_else(|error| {
        tracing::warn!(folder = FOLDER, %error, "where packages come from cannot be told");
        Vec::new()
    });
    let (mut found, mut left) = (HashMap::<usize, Vec<Arc<str>>>::new(), BYTES_LIMIT);
    for (name, _) in names {
        let (Some(repository), Some(path)) = (repository(&name), folder::beneath(FOLDER, &name)) else { continue };
        let repository: Arc<str> = repository.into();
        let note = |at| found.entry(at).or_default().push(Arc::clone(&repository));
        match read_list(root, &path, left, packages, &by_name, note) {
            Ok(read) => left -= read,
            Err(error) => tracing::warn!(list = path, %error, "which packages this repository has cannot be told"),
        }
    }
    found
}

fn read_list(
    root: &Root,
    path: &str,
    limit: u64,
    packages: &[Package],
    by_name: &HashMap<&[u8], Vec<usize>>,
    note: impl FnMut(usize),
) -> io::Result<u64> {
    let pinned = Pinned::follow(&root.path(path))?;
    if pinned.metadata.entry_type != EntryType::File {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut file = pinned.contents()?.into_file().take(limit);
    scan(BufReader::with_capacity(64 * 1024, &mut file), packages, by_name, note)?;
    if file.limit() == 0 {
        return Err(io::Error::other(format!("apt's lists are larger than {BYTES_LIMIT} bytes")));
    }
    Ok(limit - file.limit())
}

/// Notes the packages whose very version a list (deb-control(5) stanzas) has.
fn scan(mut list: impl BufRead, packages: &[Package], by_name: &HashMap<&[u8], Vec<usize>>, mut note: impl FnMut(usize)) -> io::Result<()> {
    let mut line = Vec::new();
    let mut sought: &[usize] = &[];
    let (mut version, mut architecture) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        let read = list.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line)?;
        if line.len() as u64 == LINE_LIMIT && !line.ends_with(b"\n") {
            list.skip_until(b'\n')?;
        }
        let text = line.trim_ascii_end();
        if text.is_empty() {
            let is_it = |at: &&usize| packages[**at].version == version && packages[**at].architecture == architecture;
            sought.iter().filter(is_it).for_each(|at| note(*at));
            sought = &[];
            version.clear();
            architecture.clear();
            if read == 0 {
                return Ok(());
            }
        } else if let Some(name) = text.strip_prefix(b"Package: ") {
            sought = by_name.get(name.trim_ascii()).map_or(&[], Vec::as_slice);
        } else if let Some(text) = text.strip_prefix(b"Version: ") {
            text.trim_ascii().clone_into(&mut version);
        } else if let Some(text) = text.strip_prefix(b"Architecture: ") {
            text.trim_ascii().clone_into(&mut architecture);
        }
    }
}

/// What apt made a list's name from: `URItoFileName` writes an address without its scheme, user and password, with `/` as `_` and what else
/// is not plain as `%xx`.
fn repository(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name.strip_suffix(LIST)?).ok()?;
    let plain = |part: &str| text::printable(&unescaped(&part.replace('_', "/"))).into_owned();
    Some(match name.split_once("_dists_") {
        Some((address, rest)) => {
            let suite = rest.rsplit_once("_binary-").map_or(rest, |(suite, _architecture)| suite);
            format!("{} {}", plain(address), plain(suite))
        }
        None => plain(name),
    })
}

fn unescaped(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        let mut byte = [bytes[at]];
        let is_escaped = escaped.is_some_and(|digits| hex::decode_to_slice(digits, &mut byte).is_ok());
        plain.push(byte[0]);
        at += if is_escaped { 3 } else { 1 };
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn package(name: &str, version: &str, architecture: &str) -> Package {
        let [name, version, architecture] = [name, version, architecture].map(|text| text.as_bytes().to_vec());
        Package { name, version, architecture, ..Package::default() }
    }

    fn told(origins: &Origins, root: &Root, packages: &[Package]) -> Vec<String> {
        origins.of(root, packages).iter().map(|repositories| repositories.join(", ")).collect()
    }

    #[test]
    fn a_package_is_of_the_repositories_that_had_its_version_when_it_was_first_seen() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        std::fs::create_dir_all(root.path(FOLDER)).unwrap();
        let list = |name: &str, text: &str| std::fs::write(root.path(FOLDER).join(name), text).unwrap();
        let main = "deb.debian.org_debian_dists_bookworm_main_binary-amd64_Packages";
        let security = "security.debian.org_debian-security_dists_bookworm-security_main_binary-amd64_Packages";
        list(main, "Package: bash\nVersion: 5.2-1\nArchitecture: amd64\n\nPackage: tzdata\nArchitecture: all\nVersion: 2025b\n");
        list(security, "Package: bash\nArchitecture: amd64\nVersion: 5.2-1\n\nPackage: bash\nVersion: 5.2-2\nArchitecture: amd64\n\n");
        list("_srv_my%5frepo_._Packages", "Package: own\nVersion: 1\nArchitecture: amd64\n");
        list("deb.debian.org_debian_dists_bookworm_InRelease", "Package: own\nVersion: 1\nArchitecture: amd64\n");
        let packages = [
            package("bash", "5.2-1", "amd64"),
            package("bash", "5.2-1", "i386"),
            package("tzdata", "2025b", "all"),
            package("own", "1", "amd64"),
            package("by-hand", "1", "amd64"),
        ];
        let origins = Origins::default();
        let both = "deb.debian.org/debian bookworm/main, security.debian.org/debian-security bookworm-security/main";
        let first = [both, "", "deb.debian.org/debian bookworm/main", "/srv/my_repo/.", ""];
        assert_eq!(told(&origins, &root, &packages), first);

        list(main, "Package: by-hand\nVersion: 1\nArchitecture: amd64\n\n");
        assert_eq!(told(&origins, &root, &packages), first, "the repository changed, and not the host");
        assert_eq!(
            told(&origins, &root, &[package("bash", "5.2-2", "amd64")]),
            ["security.debian.org/debian-security bookworm-security/main"]
        );
        assert_eq!(told(&origins, &root, &packages)[4], "deb.debian.org/debian bookworm/main", "what was removed is looked for anew");
    }

    #[test]
    fn a_list_that_cannot_be_read_is_left_out_alone() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path());
        std::fs::create_dir_all(root.path(FOLDER).join("a_dists_b_main_binary-amd64_Packages")).unwrap();
        std::fs::write(root.path(FOLDER).join("c_dists_d_Packages"), "Package: a\nVersion: 1\nArchitecture: all\n").unwrap();
        let line = "x".repeat(1 << 20);
        std::fs::write(root.path(FOLDER).join("e_dists_f_Packages"), format!("Package: a\nDepends: {line}\nVersion: 1\nArchitecture: all"))
            .unwrap();
        assert_eq!(told(&Origins::default(), &root, &[package("a", "1", "all")]), ["c d, e f"]);
        assert_eq!(told(&Origins::default(), &Root::at(folder.path().join("none")), &[package("a", "1", "all")]), [""]);
    }

    proptest! {
        #[test]
        fn hostile_lists_never_panic(text in "(Package: |Version: |Architecture: |a|1|\n){0,30}", name in "(_|%|5f|dists|é|a|_binary-){0,12}_Packages") {
            let packages = [package("a", "1", "a")];
            let by_name = HashMap::from([(packages[0].name.as_slice(), vec![0])]);
            scan(text.as_bytes(), &packages, &by_name, |_| {}).unwrap();
            repository(name.as_bytes());
        }
    }
}
