//! Manifests in a folder that stands for the host, with the files that they tell of.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use trueline_drift::redact::RedactionKey;
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Fields, Time, Value};

use super::{Package, Part, are_in_place, owners, shippers};
use crate::clock;
use crate::collect::{Collectors, Root};

const INFO: &str = "root/var/lib/dpkg/info";

struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join(INFO)).unwrap();
        std::fs::create_dir(folder.path().join("files")).unwrap();
        std::fs::write(folder.path().join("root/var/lib/dpkg/status"), "").unwrap();
        Self { folder }
    }

    fn root(&self) -> Root {
        Root::at(self.folder.path().join("root"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("files").join(name)
    }

    fn file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    /// A package that ships these, as dpkg writes it down: with the digests of these contents.
    fn package(&self, name: &str, files: &[(&Path, Option<&str>)]) {
        let info = self.folder.path().join(INFO);
        let list: String = files.iter().map(|(path, _)| format!("{}\n", path.display())).collect();
        let sums =
            files.iter().filter_map(|(path, contents)| Some(format!("{}  {}\n", md5(contents.as_ref()?), &path.to_str().unwrap()[1..])));
        std::fs::write(info.join(format!("{name}.list")), list).unwrap();
        std::fs::write(info.join(format!("{name}.md5sums")), sums.collect::<String>()).unwrap();
    }

    /// As the agent finds it, but plain: the test may not be run by root.
    fn found(&self, path: &Path) -> Fields {
        let policy = Arc::new(WatchPolicy::only_paths(vec![self.folder.path().display().to_string()]));
        let mut collectors = Collectors::with_root(self.root(), policy, RedactionKey::new([0; 32]));
        let mut fields = collectors.read_path(path.as_os_str().as_bytes(), None).unwrap().unwrap().fields;
        for (field, value) in [("mode", Value::text("0644")), ("uid", Value::Integer(0)), ("gid", Value::Integer(0))] {
            fields.set(trueline_drift::FieldName::known(field), value);
        }
        fields
    }

    fn shipper(&self, path: &Path, fields: Option<&Fields>, by_manager: bool) -> Option<String> {
        let part = Part { path: path.as_os_str().as_bytes(), fields, since: clock::now(), by_manager };
        shippers(&self.root(), &[part]).remove(0).map(shown)
    }
}

fn md5(contents: &str) -> String {
    use md5::Digest;
    hex::encode(md5::Md5::digest(contents))
}

fn shown(package: Package) -> String {
    let architecture = package.architecture.map(|arch| format!(":{}", String::from_utf8(arch).unwrap()));
    format!("{}{}", String::from_utf8(package.name).unwrap(), architecture.unwrap_or_default())
}

#[test]
fn a_file_is_its_packages_only_as_it_was_shipped() {
    let host = Host::new();
    let (same, other) = (host.file("same", "shipped"), host.file("other", "altered"));
    host.package("tool:amd64", &[(&same, Some("shipped")), (&other, Some("shipped"))]);
    assert_eq!(host.shipper(&same, Some(&host.found(&same)), false).as_deref(), Some("tool:amd64"));
    assert_eq!(host.shipper(&other, Some(&host.found(&other)), true), None);
}

#[test]
fn a_file_that_was_replaced_since_it_was_read_is_nobodys() {
    let host = Host::new();
    let path = host.file("file", "planted");
    let found = host.found(&path);
    host.file("file", "shipped");
    host.package("tool", &[(&path, Some("shipped"))]);
    assert_eq!(host.shipper(&path, Some(&found), true), None);
}

/// dpkg's manifest tells of contents alone.
#[test]
fn rights_that_the_manifest_does_not_tell_of_count_only_from_the_package_manager_itself() {
    let host = Host::new();
    let path = host.file("file", "shipped");
    host.package("tool", &[(&path, Some("shipped"))]);
    let rights =
        [("mode", Value::text("4755")), ("mode", Value::text("0666")), ("uid", Value::Integer(1000)), ("capabilities", Value::text("x"))];
    for (field, value) in rights {
        let mut found = host.found(&path);
        found.set(trueline_drift::FieldName::known(field), value);
        assert_eq!(host.shipper(&path, Some(&found), false), None, "{field}");
        assert_eq!(host.shipper(&path, Some(&found), true).as_deref(), Some("tool"), "{field}");
    }
}

#[test]
fn a_folder_or_a_link_is_taken_from_the_package_manager_alone() {
    let host = Host::new();
    let (folder, link) = (host.path("folder"), host.path("link"));
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", &link).unwrap();
    host.package("tool", &[(&folder, None), (&link, None)]);
    for path in [&folder, &link] {
        assert_eq!(host.shipper(path, Some(&host.found(path)), false), None);
        assert_eq!(host.shipper(path, Some(&host.found(path)), true).as_deref(), Some("tool"));
    }
}

#[test]
fn a_manifest_from_before_the_change_is_not_asked() {
    let host = Host::new();
    let path = host.file("file", "shipped");
    host.package("tool", &[(&path, Some("shipped"))]);
    let fields = host.found(&path);
    let later = Time::from_micros(clock::now().micros() + 3_600_000_000);
    let part = Part { path: path.as_os_str().as_bytes(), fields: Some(&fields), since: later, by_manager: true };
    assert_eq!(shippers(&host.root(), &[part]), [None]);
}

#[test]
fn a_conffile_is_known_by_the_status_file() {
    let host = Host::new();
    let path = host.file("a conf", "setting = 1");
    let obsolete = host.file("obsolete", "setting = 1");
    let digest = md5("setting = 1");
    let status = format!(
        "Package: tool\nStatus: install ok installed\nConffiles:\n {} {digest}\n {} {digest} obsolete\nDescription: x\n {} {digest}\n",
        path.display(),
        obsolete.display(),
        obsolete.display()
    );
    std::fs::write(host.folder.path().join("root/var/lib/dpkg/status"), status).unwrap();
    assert_eq!(host.shipper(&path, Some(&host.found(&path)), true).as_deref(), Some("tool"));
    assert_eq!(host.shipper(&obsolete, Some(&host.found(&obsolete)), true), None);
    assert_eq!(host.shipper(&path, Some(&host.found(&path)), false), None, "its package was not installed just now");
    host.package("tool:amd64", &[(&path, None)]);
    assert_eq!(host.shipper(&path, Some(&host.found(&path)), false).as_deref(), Some("tool"));
    host.file("a conf", "setting = 2");
    assert_eq!(host.shipper(&path, Some(&host.found(&path)), true), None);
}

/// Where /bin is a link into /usr, packages from before ship `/bin/x` and the kernel speaks of `/usr/bin/x`.
#[test]
fn a_name_from_before_the_merge_of_usr_is_the_same_file() {
    let host = Host::new();
    std::os::unix::fs::symlink("usr/bin", host.folder.path().join("root/bin")).unwrap();
    host.package("tool", &[(Path::new("/bin/x"), Some("shipped")), (Path::new("/sbin/y"), Some("shipped"))]);
    let owner = |path: &str| owners(&host.root(), &[path.as_bytes()]).unwrap().remove(0).map(shown);
    assert_eq!(owner("/usr/bin/x").as_deref(), Some("tool"));
    assert_eq!(owner("/usr/sbin/y"), None, "/sbin is no link on this host");
}

/// dpkg replaces the list before the digests, and writes down those of conffiles last of all.
#[test]
fn a_manifest_is_in_place_once_its_digests_are() {
    let host = Host::new();
    let path = host.file("file", "shipped");
    let asked = |path: &Path| are_in_place(&host.root(), &[(path.as_os_str().as_bytes(), clock::now())])[0];
    assert!(!asked(&path));
    host.package("tool", &[(&path, Some("shipped"))]);
    assert!(asked(&path));
    std::fs::remove_file(host.folder.path().join(INFO).join("tool.md5sums")).unwrap();
    assert!(!asked(&path));
    host.package("tool", &[(Path::new("/etc/tool.conf"), None)]);
    assert!(!asked(Path::new("/etc/tool.conf")));
}

proptest! {
    #[test]
    fn a_hostile_database_never_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        words in "(Conffiles:| |[0-9a-f]{32}|/|\n|obsolete|Package: x){0,20}",
    ) {
        let host = Host::new();
        let path = host.file("file", "shipped");
        for contents in [bytes.as_slice(), words.as_bytes()] {
            for name in ["info/tool.list", "info/tool.md5sums", "status"] {
                std::fs::write(host.folder.path().join("root/var/lib/dpkg").join(name), contents).unwrap();
            }
            let named = host.shipper(&path, Some(&host.found(&path)), true);
            prop_assert!(named.is_none());
        }
    }
}
