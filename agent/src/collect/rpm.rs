//! Packages of rpm, asked of `rpm` itself: its database has had three formats.
//!
//! It gets a deadline and a bounded output: see [`super::program`].

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::package::Package;
use super::program::{run, succeeded};
use super::{CollectError, Root};

/// Folders of the database, older releases first.
pub const DATABASES: &[&str] = &["/var/lib/rpm", "/usr/lib/sysimage/rpm"];

/// The file of each database format, which only a transaction opens for writing.
const FORMATS: &[&str] = &["rpmdb.sqlite", "Packages.db", "Packages"];

const DEADLINE: Duration = Duration::from_secs(60);
const OUTPUT_LIMIT: usize = 64 * 1024 * 1024;
/// Up to the stream of modules, which rpm knows since 4.14.
const QUERY: &str = concat!(
    "%{NAME}\\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\\t%{ARCH}\\t%{SOURCERPM}\\t%{VENDOR}\\t",
    "%|RSAHEADER?{%{RSAHEADER:pgpsig}}:{%|DSAHEADER?{%{DSAHEADER:pgpsig}}:{(none)}|}|\\t"
);
const MODULE: &str = "%{MODULARITYLABEL}\\n";
const NO_MODULE: &str = "(none)\\n";

/// The folder that holds the host's database.
pub fn database(root: &Root) -> Option<PathBuf> {
    let folders = DATABASES.iter().rev().map(|folder| root.path(folder));
    folders.into_iter().find(|folder| FORMATS.iter().any(|file| folder.join(file).is_file()))
}

/// Whether the packages may be others when this path has changed: the database, or its folder as a whole.
///
/// Not what lies beside it. Whoever reads the database writes its locks and shared memory, so heeding
/// these would make of each reading the cause of the next.
pub fn is_database(path: &str) -> bool {
    let beside = DATABASES.iter().filter_map(|folder| path.strip_prefix(folder));
    beside.into_iter().any(|rest| rest.is_empty() || rest.strip_prefix('/').is_some_and(|name| FORMATS.contains(&name)))
}

/// The folder is named to `rpm`, whose own idea of it may be another: Debian's looks in the user's home.
pub fn read_all(database: &Path) -> Result<(Vec<Package>, u64), CollectError> {
    let query = |module: &str| {
        let mut command = Command::new("rpm");
        command.arg("--dbpath").arg(database).args(["-qa", "--qf", &[QUERY, module].concat()]);
        run(&mut command, DEADLINE, OUTPUT_LIMIT)
    };
    let first = query(MODULE);
    // One that does not know the tag tells of no package, and some of them call that a success.
    let output = if first.as_ref().is_ok_and(|(_, output)| output.is_empty()) { query(NO_MODULE) } else { first };
    let output = output.and_then(succeeded).map_err(|error| CollectError::database("the packages of rpm", &error))?;
    Ok(parse(&output))
}

/// Another question to the same database. That rpm cannot answer a part of it, as where nobody owns a file, is no failure.
pub fn ask<A: AsRef<OsStr>>(database: &Path, question: impl IntoIterator<Item = A>, end: Instant) -> io::Result<Vec<u8>> {
    let left = end.saturating_duration_since(Instant::now());
    run(Command::new("rpm").arg("--dbpath").arg(database).args(question), left, OUTPUT_LIMIT).map(|(_, output)| output)
}

/// When anything of the database last changed (ctime, microseconds).
pub fn changed_at(database: &Path) -> Option<i64> {
    let files = FORMATS.iter().map(|file| database.join(file));
    files.chain([database.to_owned()]).filter_map(|path| super::manifest::changed_at(&path).ok().flatten()).max()
}

/// Lines of name, version, architecture, source package, vendor, signature and module between tabs; and how many had no name. A line
/// that has one and not all the others is a package that cannot be read.
pub fn parse(output: &[u8]) -> (Vec<Package>, u64) {
    let mut skipped = 0;
    let mut packages = Vec::new();
    for line in output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let parts: Vec<&[u8]> = line.splitn(8, |byte| *byte == b'\t').collect();
        let [name, version, architecture, source, vendor, signature, module] = parts[..] else {
            match parts[..] {
                [name, _, ..] if !name.is_empty() => packages.push(unreadable(name)),
                _ => skipped += 1,
            }
            continue;
        };
        let known = |value: &[u8]| if value == b"(none)" { Vec::new() } else { value.to_vec() };
        packages.push(Package {
            name: name.to_vec(),
            version: version.to_vec(),
            architecture: known(architecture),
            status: Vec::new(),
            source: known(source),
            vendor: known(vendor),
            module: known(module),
            signature_key: key(signature).to_vec(),
            ..Package::default()
        });
    }
    (packages, skipped)
}

/// Of `RSA/SHA256, Mon 03 May 2021, Key ID 199e2f91fd431d51`: whose signature it is, by its key. Its time says nothing of the package.
fn key(signature: &[u8]) -> &[u8] {
    let last = signature.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    if last.len() >= 8 && last.iter().all(u8::is_ascii_hexdigit) { last } else { &[] }
}

fn unreadable(name: &[u8]) -> Package {
    let reason = "rpm tells of it in another shape than it was asked for";
    let fields = ["version", "architecture", "source"].map(|field| (field, reason));
    Package { name: name.to_vec(), unreadable: fields.into(), ..Package::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_reads_as_packages() {
        let bash = b"bash\t5.1.8-6.el9\tx86_64\tbash-5.1.8-6.el9.src.rpm\tRed Hat, Inc.\tRSA/SHA256, Mon 03 May 2021, Key ID 199e2f91fd431d51\t(none)\n";
        let others = b"gpg-pubkey\t1-2\t(none)\t(none)\t(none)\t(none)\t(none)\nnoise\n";
        let (packages, skipped) = parse(&[&bash[..], others].concat());
        assert_eq!((packages.len(), skipped), (2, 1));
        let (torn, skipped) = parse(b"bash\t5.1.8-6.el9\tx86_64\nzsh\t1\tx86_64\ta\tb\tc\td\te\n\t1\tx\n");
        assert_eq!((torn.len(), skipped), (2, 1));
        assert!(torn.iter().all(|package| package.version.is_empty() && package.unreadable.contains_key("version")));
        assert_eq!(packages[0].source, b"bash-5.1.8-6.el9.src.rpm");
        assert_eq!((&packages[0].vendor[..], &packages[0].signature_key[..]), (&b"Red Hat, Inc."[..], &b"199e2f91fd431d51"[..]));
        assert!(packages[0].module.is_empty() && packages[1].signature_key.is_empty());
        assert!(packages[1].architecture.is_empty());
    }

    #[test]
    fn what_readers_of_a_database_write_is_not_the_database() {
        for (path, expected) in [
            ("/var/lib/rpm", true),
            ("/var/lib/rpm/rpmdb.sqlite", true),
            ("/usr/lib/sysimage/rpm/Packages.db", true),
            ("/var/lib/rpm/Packages", true),
            ("/var/lib/rpm/rpmdb.sqlite-shm", false),
            ("/var/lib/rpm/rpmdb.sqlite-wal", false),
            ("/var/lib/rpm/.rpm.lock", false),
            ("/var/lib/rpm/__db.001", false),
            ("/var/lib/rpm2/Packages", false),
            ("/var/lib", false),
        ] {
            assert_eq!(is_database(path), expected, "{path}");
        }
    }
}
