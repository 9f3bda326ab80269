//! rpm's manifests: digest, mode, owner and link target of each file of a package, out of its header, asked of `rpm` itself.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use trueline_drift::text;

use super::{Package, Part, before_merge};
use crate::collect::Root;
use crate::collect::rpm::{ask, changed_at, database};
use crate::kernel::file::EntryType;

/// Paths asked for at once.
const TOGETHER: usize = 100;
/// What `rpm -q` takes back as the name of one package.
const LABEL: &str = "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}\\n";
const FILES: &str = "[%{=NAME}\\t%{=ARCH}\\t%{=INSTALLTIME}\\t%{FILEDIGESTS}\\t%{FILEMODES:octal}\\t%{FILEUSERNAME}\\t%{FILEGROUPNAME}\\t\
    %{FILELINKTOS}\\t%{FILENAMES}\\n]";
const NAMES: &str = "[%{=NAME}\\t%{=ARCH}\\t%{FILENAMES}\\n]";
/// For all that is asked of rpm at one time: nothing is told meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);

/// One file of a package, in the words of rpm.
struct Entry<'a> {
    name: &'a [u8],
    architecture: &'a [u8],
    /// Seconds since the epoch.
    installed: i64,
    /// SHA-256; MD5 in packages from long ago; empty for what has no contents.
    digest: &'a [u8],
    mode: u32,
    owner: &'a [u8],
    group: &'a [u8],
    target: &'a [u8],
    path: &'a [u8],
}

pub fn shippers(root: &Root, parts: &[Part<'_>], found: &mut [Option<Package>]) -> io::Result<()> {
    let Some(database) = database(root) else { return Ok(()) };
    let open: Vec<usize> = (0..parts.len()).filter(|at| found[*at].is_none() && parts[*at].fields.is_some()).collect();
    let Some(from) = open.iter().map(|at| parts[*at].asked_from()).min() else { return Ok(()) };
    if changed_at(&database).is_none_or(|at| at < from) {
        return Ok(());
    }
    let end = Instant::now() + PATIENCE;
    let wanted = wanted(root, open.iter().map(|at| (*at, parts[*at].path)));
    let paths: Vec<&[u8]> = open.iter().map(|at| parts[*at].path).collect();
    for label in labels(&database, &paths, end)? {
        let output = ask(&database, ["-q", "--qf", FILES, "--"].map(OsStr::new).into_iter().chain([OsStr::from_bytes(&label)]), end)?;
        for entry in lines(&output).filter_map(entry) {
            if let Some(at) = wanted.get(entry.path)
                && entry.tells_of(&parts[*at])
            {
                found[*at] = Some(package(entry.name, entry.architecture));
            }
        }
    }
    Ok(())
}

/// For each path the package that has it.
pub fn owners(root: &Root, paths: &[&[u8]]) -> io::Result<Vec<Option<Package>>> {
    let mut owners = vec![None; paths.len()];
    let Some(database) = database(root) else { return Ok(owners) };
    if paths.is_empty() {
        return Ok(owners);
    }
    let end = Instant::now() + PATIENCE;
    let wanted = wanted(root, paths.iter().copied().enumerate());
    for label in labels(&database, paths, end)? {
        let output = ask(&database, ["-q", "--qf", NAMES, "--"].map(OsStr::new).into_iter().chain([OsStr::from_bytes(&label)]), end)?;
        for line in lines(&output) {
            let mut words = line.splitn(3, |byte| *byte == b'\t');
            if let (Some(name), Some(architecture), Some(path)) = (words.next(), words.next(), words.next())
                && let Some(at) = wanted.get(path)
            {
                owners[*at] = Some(package(name, architecture));
            }
        }
    }
    Ok(owners)
}

/// The places of paths by the names that packages may have them under.
fn wanted<'a>(root: &Root, paths: impl IntoIterator<Item = (usize, &'a [u8])>) -> HashMap<Vec<u8>, usize> {
    let mut wanted = HashMap::new();
    for (at, path) in paths {
        wanted.insert(path.to_vec(), at);
        if let Some(alias) = before_merge(root, path) {
            wanted.insert(alias, at);
        }
    }
    wanted
}

/// The packages that have any of these files.
fn labels(database: &Path, paths: &[&[u8]], end: Instant) -> io::Result<BTreeSet<Vec<u8>>> {
    let mut labels = BTreeSet::new();
    for together in paths.chunks(TOGETHER) {
        let paths = together.iter().map(|path| OsStr::from_bytes(path));
        let output = ask(database, ["-qf", "--qf", LABEL, "--"].map(OsStr::new).into_iter().chain(paths), end)?;
        labels.extend(lines(&output).filter(|line| is_label(line)).map(<[u8]>::to_vec));
    }
    Ok(labels)
}

fn package(name: &[u8], architecture: &[u8]) -> Package {
    let architecture = (!matches!(architecture, b"noarch" | b"(none)")).then(|| architecture.to_vec());
    Package { name: name.to_vec(), architecture }
}

/// rpm says among the answers, in a sentence, that nobody owns a file.
fn is_label(line: &[u8]) -> bool {
    !line.contains(&b' ') && !line.is_empty()
}

fn lines(output: &[u8]) -> impl Iterator<Item = &[u8]> {
    output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

fn entry(line: &[u8]) -> Option<Entry<'_>> {
    let mut words = line.splitn(9, |byte| *byte == b'\t');
    let mut word = || words.next();
    let number = |text: &[u8], radix| std::str::from_utf8(text).ok().and_then(|text| u64::from_str_radix(text, radix).ok());
    Some(Entry {
        name: word()?,
        architecture: word()?,
        installed: i64::try_from(number(word()?, 10)?).ok()?,
        digest: word()?,
        mode: u32::try_from(number(word()?, 8)?).ok()?,
        owner: word()?,
        group: word()?,
        target: word()?,
        path: word()?,
    })
}

impl Entry<'_> {
    fn tells_of(&self, part: &Part<'_>) -> bool {
        let is = |field: &str, value: &[u8]| part.text(field) == Some(&*text::printable(value));
        let is_new = self.installed.saturating_mul(1_000_000) >= part.asked_from();
        let mode = format!("{:04o}", self.mode & 0o7777);
        let is_as_made = is("owner", self.owner) && is("group", self.group) && (part.by_manager || !part.has_rights());
        is_new
            && is_as_made
            && match self.mode & 0o170_000 {
                0o100_000 => part.is_file() && part.text("mode") == Some(&mode) && self.has_contents_of(part),
                0o040_000 => part.text("type") == Some(EntryType::Folder.name()) && part.text("mode") == Some(&mode),
                0o120_000 => part.text("type") == Some(EntryType::Symlink.name()) && is("link_target", self.target),
                _ => false,
            }
    }

    fn has_contents_of(&self, part: &Part<'_>) -> bool {
        match self.digest.len() {
            64 => part.text("sha256").is_some_and(|sha256| sha256.as_bytes() == self.digest),
            32 => part.digests().ok().flatten().is_some_and(|digests| digests.md5.as_bytes() == self.digest),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use trueline_drift::{Fields, Time, Value};

    use super::*;

    const LINE: &str = "tool\tx86_64\t1000\tDIGEST\t0100755\troot\troot\t\t/usr/bin/a tool";

    fn found() -> Fields {
        let text = [("type", "file"), ("mode", "0755"), ("owner", "root"), ("group", "root"), ("sha256", DIGEST)];
        text.into_iter().fold(Fields::new(), |fields, (name, value)| fields.with(name, value))
    }

    const DIGEST: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

    fn tells(line: &str, fields: &Fields, by_manager: bool) -> bool {
        let line = line.replace("DIGEST", DIGEST);
        let part = Part { path: b"/usr/bin/a tool", fields: Some(fields), since: Time::from_seconds(1010), by_manager };
        entry(line.as_bytes()).is_some_and(|entry| entry.tells_of(&part))
    }

    #[test]
    fn contents_mode_and_owner_must_all_be_as_shipped() {
        assert!(tells(LINE, &found(), false));
        for (field, value) in [("mode", "4755"), ("owner", "alice"), ("group", "alice"), ("type", "symlink"), ("sha256", "0")] {
            assert!(!tells(LINE, &found().with(field, value), true), "{field}");
        }
        let with_rights = found().with("capabilities", "cap_net_admin=ep");
        assert!(!tells(LINE, &with_rights, false));
        assert!(tells(LINE, &with_rights, true));
    }

    #[test]
    fn a_package_from_long_before_is_not_the_cause() {
        assert!(!tells(&LINE.replace("1000", "100"), &found(), true));
    }

    #[test]
    fn a_link_must_lead_where_it_was_shipped_to_lead() {
        let link = Fields::new().with("type", "symlink").with("mode", "0777").with("owner", "root").with("group", "root");
        let line = "tool\tx86_64\t1000\t\t0120777\troot\troot\ta\t/usr/bin/a tool";
        assert!(tells(line, &link.clone().with("link_target", "a"), false));
        assert!(!tells(line, &link.with("link_target", Value::text("/etc/shadow")), true));
    }

    #[test]
    fn what_is_no_answer_is_left_out() {
        assert!(entry(b"file /x is not owned by any package").is_none());
        assert!(entry(b"tool\tx86_64\tsoon\t\t0100644\troot\troot\t\t/x").is_none());
        assert!(!is_label(b"file /x is not owned by any package"));
    }
}
