//! dpkg's manifests: `info/NAME.list` names what a package has on the disk, `info/NAME.md5sums` (deb-md5sums(5)) the digests
//! of what is not a conffile, and the status file those of conffiles. dpkg replaces the first two at each unpacking, the list
//! first; conffiles follow when the package is configured.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use trueline_drift::Time;

use super::{Package, Part, before_merge, changed_at};
use crate::collect::Root;
use crate::collect::package::STATUS;

const INFO: &str = "/var/lib/dpkg/info";
/// Many times the largest known.
const MANIFEST_LIMIT: u64 = 64 * 1024 * 1024;
const STATUS_LIMIT: u64 = 256 * 1024 * 1024;
/// A package's list. Its name may hold the architecture: `libc6:amd64`.
struct List {
    name: Vec<u8>,
    path: PathBuf,
    changed_at: i64,
}

impl List {
    fn package(&self) -> Package {
        match self.name.iter().position(|byte| *byte == b':') {
            Some(colon) => Package { name: self.name[..colon].to_vec(), architecture: Some(self.name[colon + 1..].to_vec()) },
            None => Package { name: self.name.clone(), architecture: None },
        }
    }

    fn beside(&self, extension: &str) -> PathBuf {
        let mut name = self.name.clone();
        name.extend_from_slice(extension.as_bytes());
        self.path.with_file_name(OsStr::from_bytes(&name))
    }
}

/// Where a list has a path: which list, and the name that the file has there, without the leading slash.
type Place = (usize, Vec<u8>);
/// Package and digest of each conffile, by its path.
type Conffiles = HashMap<Vec<u8>, (Vec<u8>, String)>;

pub fn shippers(root: &Root, parts: &[Part<'_>], found: &mut [Option<Package>]) -> io::Result<()> {
    let info = root.path(INFO);
    let Some(from) = parts.iter().map(Part::asked_from).min() else { return Ok(()) };
    if changed_at(&info)?.is_none_or(|at| at < from) && changed_at(&root.path(STATUS))?.is_none_or(|at| at < from) {
        return Ok(());
    }
    let lists = lists(&info, from)?;
    let paths: Vec<&[u8]> = parts.iter().map(|part| part.path).collect();
    let listed = whose(root, &lists, &paths)?;
    let mut sums: HashMap<usize, HashMap<Vec<u8>, String>> = HashMap::new();
    let mut conffiles: Option<Conffiles> = None;
    for (at, part) in parts.iter().enumerate() {
        if !(part.by_manager || part.is_plain()) {
            continue;
        }
        let is_new = |list: &&List| list.changed_at >= part.asked_from();
        let place = listed[at].as_ref().map(|(list, name)| (*list, &lists[*list], name)).filter(|(_, list, _)| is_new(list));
        if part.is_file() {
            let mut named: Option<(Package, String)> = None;
            if let Some((number, list, name)) = place {
                if let Entry::Vacant(unread) = sums.entry(number) {
                    unread.insert(md5sums(list)?);
                }
                named = sums[&number].get(name).map(|md5| (list.package(), md5.clone()));
            }
            if named.is_none() {
                if conffiles.is_none() {
                    conffiles = Some(self::conffiles(root)?);
                }
                let conffile = conffiles.as_ref().and_then(|known| known.get(part.path));
                // It follows its list when the package is configured, which may be much later: then it takes dpkg's own hand.
                let is_told = |package: &[u8]| part.by_manager || lists.iter().any(|list| list.package().name == package && is_new(&list));
                named = conffile
                    .filter(|(package, _)| is_told(package))
                    .map(|(package, md5)| (Package { name: package.clone(), architecture: None }, md5.clone()));
            }
            if let Some((package, md5)) = named
                && part.digests().ok().flatten().is_some_and(|digests| digests.md5 == md5)
            {
                found[at] = Some(package);
            }
        } else if let Some((_, list, _)) = place.filter(|_| part.fields.is_some() && part.by_manager) {
            // A folder or a link: the list says that it is to be there, and dpkg itself made it as it is.
            found[at] = Some(list.package());
        }
    }
    Ok(())
}

pub fn owners(root: &Root, paths: &[&[u8]]) -> io::Result<Vec<Option<Package>>> {
    let lists = lists(&root.path(INFO), i64::MIN)?;
    Ok(whose(root, &lists, paths)?.into_iter().map(|found| found.map(|(list, _)| lists[list].package())).collect())
}

pub fn listed_by(root: &Root, packages: &[Package], paths: &[&[u8]]) -> io::Result<Vec<Option<Package>>> {
    let info = root.path(INFO);
    let list = |name: Vec<u8>| {
        let path = info.join(OsStr::from_bytes(&[&name[..], b".list"].concat()));
        List { name, path, changed_at: 0 }
    };
    // Whether its name holds the architecture, the package alone does not tell.
    let names = packages.iter().flat_map(|Package { name, architecture }| {
        let with = architecture.iter().map(|architecture| [name, &b":"[..], architecture].concat());
        with.chain([name.clone()]).collect::<Vec<_>>()
    });
    let lists: Vec<List> = names.map(list).collect();
    Ok(whose(root, &lists, paths)?.into_iter().map(|found| found.map(|(list, _)| lists[list].package())).collect())
}

/// What is in no list that changed since is not in place; nor is a conffile, whose digest dpkg writes down last of all.
pub fn are_in_place(root: &Root, paths: &[(&[u8], Time)]) -> io::Result<Vec<bool>> {
    let from = paths.iter().map(|(_, written)| replaced_after(*written)).min().unwrap_or(i64::MAX);
    let lists = lists(&root.path(INFO), from)?;
    let names: Vec<&[u8]> = paths.iter().map(|(path, _)| *path).collect();
    let listed = whose(root, &lists, &names)?;
    let is_in_place = |(at, (path, written)): (usize, &(&[u8], Time))| {
        let Some((list, _)) = &listed[at] else { return Ok(false) };
        let sums = changed_at(&lists[*list].beside(".md5sums"))?;
        Ok(!path.starts_with(b"/etc/") && sums.is_some_and(|sums| sums >= replaced_after(*written)))
    };
    paths.iter().enumerate().map(is_in_place).collect()
}

/// A manifest from then on is the one that came with the file: a touch is noted some time after it happened.
fn replaced_after(written: Time) -> i64 {
    written.micros() - 2_000_000
}

/// The lists that changed at or after a time (microseconds).
fn lists(info: &Path, from: i64) -> io::Result<Vec<List>> {
    let mut lists = Vec::new();
    let entries = match fs::read_dir(info) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(lists),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let file = entry.file_name();
        let Some(name) = file.as_bytes().strip_suffix(b".list") else { continue };
        if let Some(changed_at) = changed_at(&entry.path())?.filter(|at| *at >= from) {
            lists.push(List { name: name.to_vec(), path: entry.path(), changed_at });
        }
    }
    // Of several that list a folder, always the same one is named.
    lists.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(lists)
}

/// For each path the first list that has it.
fn whose(root: &Root, lists: &[List], paths: &[&[u8]]) -> io::Result<Vec<Option<Place>>> {
    let mut wanted: HashMap<Vec<u8>, usize> = HashMap::new();
    for (at, path) in paths.iter().enumerate() {
        wanted.insert(path.to_vec(), at);
        if let Some(alias) = before_merge(root, path) {
            wanted.insert(alias, at);
        }
    }
    let mut found = vec![None; paths.len()];
    for (number, list) in lists.iter().enumerate() {
        each_line(&list.path, |line| {
            if let Some(at) = wanted.get(line)
                && found[*at].is_none()
            {
                found[*at] = Some((number, line.strip_prefix(b"/").unwrap_or(line).to_vec()));
            }
        })?;
    }
    Ok(found)
}

/// Digests by name without the leading slash.
fn md5sums(list: &List) -> io::Result<HashMap<Vec<u8>, String>> {
    let mut sums = HashMap::new();
    each_line(&list.beside(".md5sums"), |line| {
        if let Some((digest, name)) = line.split_at_checked(32)
            && let (Some(name), Ok(digest)) = (name.strip_prefix(b"  "), std::str::from_utf8(digest))
        {
            sums.insert(name.strip_prefix(b"./").unwrap_or(name).to_vec(), digest.to_ascii_lowercase());
        }
    })?;
    Ok(sums)
}

/// Those that a package still has.
fn conffiles(root: &Root) -> io::Result<Conffiles> {
    let mut conffiles = HashMap::new();
    let mut package = Vec::new();
    let mut is_within = false;
    each_line_of(File::open(root.path(STATUS))?.take(STATUS_LIMIT), |line| {
        if let Some(name) = line.strip_prefix(b"Package:") {
            package = name.trim_ascii().to_vec();
        }
        if line.first() != Some(&b' ') {
            is_within = line.starts_with(b"Conffiles:");
        } else if is_within {
            let mut words = line.trim_ascii().split(|byte| *byte == b' ').rev();
            let (Some(digest), Some(_)) = (words.next(), words.next()) else { return };
            // `obsolete` and `remove-on-upgrade` stand where a digest would.
            if let Ok(digest) = std::str::from_utf8(digest)
                && digest.len() == 32
            {
                let path = line.trim_ascii();
                conffiles.insert(path[..path.len() - 33].to_vec(), (package.clone(), digest.to_owned()));
            }
        }
    })?;
    Ok(conffiles)
}

fn each_line(path: &Path, see: impl FnMut(&[u8])) -> io::Result<()> {
    match File::open(path) {
        Ok(file) => each_line_of(file.take(MANIFEST_LIMIT), see),
        // Between two looks it may be replaced.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn each_line_of(file: impl Read, mut see: impl FnMut(&[u8])) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(64 * 1024, file);
    let mut line = Vec::new();
    while {
        line.clear();
        reader.read_until(b'\n', &mut line)? > 0
    } {
        see(line.strip_suffix(b"\n").unwrap_or(&line));
    }
    Ok(())
}
