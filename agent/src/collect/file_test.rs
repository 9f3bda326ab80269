use std::ffi::{CString, OsStr};
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, makedev, mkdirat, mknod};
use nix::unistd::{Uid, mkfifo, setfsuid};

use super::super::skipped;
use super::*;

/// SHA-256 of no bytes.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const NOBODY: u32 = 65534;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().canonicalize().unwrap();
    (folder, path)
}

fn reader() -> FileReader {
    FileReader::new(&Root::host(), RedactionKey::new([0; 32]), None)
}

fn read(path: &Path) -> Option<Reading> {
    reader().read(path.as_os_str().as_bytes(), None).unwrap()
}

fn shown(reading: &Reading, name: &str) -> String {
    reading.fields.value(name).map_or_else(|| "-".to_owned(), ToString::to_string)
}

fn is_root(test: &str) -> bool {
    let is_root = Uid::effective().is_root();
    if !is_root {
        skipped(test, "it needs root");
    }
    is_root
}

/// Runs a program that prepares a file; `false`, said aloud, if it is not there or not supported.
fn prepare(test: &str, program: &str, arguments: &[&OsStr]) -> bool {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            skipped(test, &format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()));
            false
        }
        Err(error) => {
            skipped(test, &format!("{program}: {error}"));
            false
        }
    }
}

#[test]
fn a_file_is_told_whole() {
    let (_folder, place) = folder();
    let path = place.join("file");
    fs::write(&path, "hello\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o4750)).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(UNIX_EPOCH + std::time::Duration::from_micros(1_500_000)).unwrap();
    let reading = read(&path).unwrap();
    let expected = [
        ("type", "file"),
        ("mode", "4750"),
        ("size", "6"),
        ("nlink", "1"),
        ("mtime", "1970-01-01T00:00:01.500000Z"),
        ("sha256", "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"),
        ("acl", "-"),
        ("flags", "-"),
    ];
    for (name, value) in expected {
        assert_eq!(shown(&reading, name), value, "{name}");
    }
    assert_eq!(shown(&reading, "uid"), Uid::effective().to_string());
}

#[test]
fn folders_and_links_have_what_is_theirs() {
    let (_folder, place) = folder();
    fs::create_dir(place.join("folder")).unwrap();
    symlink("../else\u{1b}where", place.join("link")).unwrap();
    let below = read(&place.join("folder")).unwrap();
    assert_eq!(["type", "mode", "size", "nlink", "sha256"].map(|name| shown(&below, name)), ["folder", "0755", "-", "-", "-"]);
    let link = read(&place.join("link")).unwrap();
    assert_eq!(["type", "link_target", "sha256"].map(|name| shown(&link, name)), ["symlink", "../else\\x1bwhere", "-"]);
}

#[test]
fn hostile_names_are_read_like_any_other() {
    let (_folder, place) = folder();
    for name in [b"a\xff\xfe".as_slice(), b"line\nbreak", b"\x1b[2J", b"back\\slash", &[b'x'; 255]] {
        let path = place.join(OsStr::from_bytes(name));
        fs::write(&path, "").unwrap();
        assert_eq!(shown(&read(&path).unwrap(), "sha256"), EMPTY, "{path:?}");
    }
}

#[test]
fn a_path_that_is_absent_or_not_plain_is_told_apart() {
    let (_folder, place) = folder();
    assert_eq!(read(&place.join("absent")), None);
    fs::write(place.join("file"), "").unwrap();
    assert_eq!(read(&place.join("file/below")), None);
    assert_eq!(read(&place.join("n".repeat(300))), None);
    for path in ["relative", "/etc/../etc/passwd", "/etc//passwd", "/etc/./passwd", "/etc/", "", "/a\0b"] {
        assert!(matches!(reader().read(path.as_bytes(), None), Err(ReadError::Path { .. })), "{path:?}");
    }
}

#[test]
fn a_path_beyond_path_max_is_opened() {
    let (_folder, place) = folder();
    let name = CString::new("n".repeat(200)).unwrap();
    let mut at = File::open(&place).unwrap().into();
    let mut path = place.as_os_str().as_bytes().to_vec();
    for _ in 0..60 {
        mkdirat(&at, name.as_c_str(), Mode::S_IRWXU).unwrap();
        at = openat(&at, name.as_c_str(), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        path.push(b'/');
        path.extend(name.to_bytes());
    }
    drop(openat(&at, c"file", OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRUSR).unwrap());
    path.extend(b"/file");
    assert!(path.len() > 12_000);
    assert_eq!(shown(&reader().read(&path, None).unwrap().unwrap(), "sha256"), EMPTY);
}

/// Without a writer, opening a FIFO to read would block for ever.
#[test]
fn a_fifo_and_a_socket_are_told_and_not_opened() {
    let (_folder, place) = folder();
    mkfifo(&place.join("fifo"), Mode::S_IRWXU).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(place.join("socket")).unwrap();
    for name in ["fifo", "socket"] {
        let reading = read(&place.join(name)).unwrap();
        assert_eq!(shown(&reading, "type"), name);
        assert!(!reading.fields.iter().any(|(_, value)| value.is_unreadable()), "{reading:?}");
    }
}

/// No driver stands behind these numbers: opening the node would fail, and the failure would show.
#[test]
fn a_device_is_told_and_not_opened() {
    if !is_root("a_device_is_told_and_not_opened") {
        return;
    }
    let (_folder, place) = folder();
    for (name, kind) in [("char", SFlag::S_IFCHR), ("block", SFlag::S_IFBLK)] {
        let path = place.join(name);
        mknod(&path, kind, Mode::S_IRWXU, makedev(239, 77)).unwrap();
        assert!(File::open(&path).is_err());
        let reading = read(&path).unwrap();
        assert_eq!(["type", "device"].map(|field| shown(&reading, field)), [name, "239:77"]);
        assert!(!reading.fields.iter().any(|(_, value)| value.is_unreadable()), "{reading:?}");
    }
}

#[test]
fn a_folder_that_became_a_link_leads_nowhere() {
    let (_folder, place) = folder();
    fs::create_dir(place.join("other")).unwrap();
    fs::write(place.join("other/file"), "").unwrap();
    symlink("other", place.join("swapped")).unwrap();
    assert_eq!(read(&place.join("swapped/file")), None);
}

/// Ends a thread that writes for as long as a test looks, also where the test fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_name_swapped_for_a_link_never_yields_what_the_link_points_to() {
    let (_folder, place) = folder();
    fs::write(place.join("secret"), "secret").unwrap();
    let secret = shown(&read(&place.join("secret")).unwrap(), "sha256");
    let name = place.join("name");
    fs::write(&name, "").unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ended = Done(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                symlink("secret", place.join("next")).unwrap();
                fs::rename(place.join("next"), &name).unwrap();
                fs::write(place.join("next"), "").unwrap();
                fs::rename(place.join("next"), &name).unwrap();
            }
        });
        let mut reader = reader();
        for _ in 0..5000 {
            let reading = reader.read(name.as_os_str().as_bytes(), None).unwrap().unwrap();
            let is_link = shown(&reading, "type") == "symlink";
            assert!(is_link || shown(&reading, "type") == "file");
            assert_ne!(shown(&reading, "sha256"), secret);
        }
    });
}

#[test]
fn a_file_that_keeps_changing_has_no_digest_and_no_stamp() {
    let (_folder, place) = folder();
    let path = place.join("file");
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    let done = AtomicBool::new(false);
    // Slowed down, so that the writer gets its turn in each attempt.
    let mut reader = FileReader::new(&Root::host(), RedactionKey::new([0; 32]), Pace::new(8 << 20, 0).map(Arc::new));
    let reading = std::thread::scope(|scope| {
        let _ended = Done(&done);
        scope.spawn(|| {
            let file = File::options().write(true).open(&path).unwrap();
            while !done.load(Ordering::Relaxed) {
                file.write_all_at(b"x", 4096).unwrap();
            }
        });
        reader.read(path.as_os_str().as_bytes(), None).unwrap().unwrap()
    });
    assert_eq!(shown(&reading, "sha256"), "unreadable: it kept changing while it was read");
    assert_eq!(reading.stamp, None);
    assert!(reader.hashed() >= 3 << 20);
}

/// 1 GiB of holes: as much as is quick to hash in a test.
#[test]
fn a_huge_file_streams_through_a_fixed_buffer() {
    let (_folder, place) = folder();
    let path = place.join("sparse");
    File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let reading = read(&path).unwrap();
    assert_eq!(shown(&reading, "sha256"), "49bc20df15e412a64472421e13fe86ff1c5165e18b2afccf160d4dc19fe68a14");
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 512 * 1024, "{peak_kib} KiB at the peak");
}

#[test]
fn what_an_ordinary_user_may_not_read_is_unreadable_and_not_absent() {
    if !is_root("what_an_ordinary_user_may_not_read_is_unreadable_and_not_absent") {
        return;
    }
    let (_folder, place) = folder();
    fs::create_dir(place.join("closed")).unwrap();
    fs::write(place.join("closed/file"), "").unwrap();
    fs::set_permissions(place.join("closed"), Permissions::from_mode(0o700)).unwrap();
    fs::write(place.join("file"), "").unwrap();
    fs::set_permissions(place.join("file"), Permissions::from_mode(0o600)).unwrap();
    std::thread::scope(|scope| {
        // The file system user belongs to the thread alone, and the capabilities go with it.
        scope.spawn(|| {
            setfsuid(Uid::from_raw(NOBODY));
            let file = read(&place.join("file")).unwrap();
            assert_eq!(["sha256", "mode"].map(|name| shown(&file, name)), ["unreadable: permission denied", "0600"]);
            assert_eq!(file.stamp, None);
            let closed = read(&place.join("closed")).unwrap();
            assert_eq!(shown(&closed, "entries"), "unreadable: permission denied");
            assert_eq!(shown(&read(&place.join("closed/file")).unwrap(), "type"), "unreadable: permission denied");
        });
    });
}

#[test]
fn a_known_stamp_spares_the_hashing_and_an_edit_in_place_does_not_hide_behind_it() {
    let (_folder, place) = folder();
    let path = place.join("file");
    fs::write(&path, "one").unwrap();
    let bytes = path.as_os_str().as_bytes();
    let metadata = || Pinned::open(bytes).unwrap().metadata;
    let stamp = Stamp::of(&metadata());
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let known = Fields::new().with("sha256", "as it was known");
    let mut reader = reader();
    let reading = reader.read(bytes, Some((&stamp, &known))).unwrap().unwrap();
    assert_eq!((shown(&reading, "sha256").as_str(), reader.hashed()), ("as it was known", 0));

    // The same size, and the time of modification put back: only the kernel's own time tells.
    while metadata().changed_ns == stamp.changed_ns {
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(b"two", 0).unwrap();
        file.set_modified(modified).unwrap();
    }
    let reading = reader.read(bytes, Some((&stamp, &known))).unwrap().unwrap();
    assert_eq!(shown(&reading, "sha256"), hex::encode(Sha256::digest("two")));
    assert_eq!((metadata().size, metadata().modified_ns), (stamp.size, stamp.modified_ns));
}

#[test]
fn access_lists_are_told_as_text() {
    let (_folder, place) = folder();
    let path = place.join("file");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let test = "access_lists_are_told_as_text";
    if !prepare(test, "setfacl", &["-m".as_ref(), "u:1234:r".as_ref(), path.as_ref()])
        || !prepare(test, "setfacl", &["-d".as_ref(), "-m".as_ref(), "g:77:rwx".as_ref(), place.as_ref()])
    {
        return;
    }
    assert_eq!(shown(&read(&path).unwrap(), "acl"), "user::rw-,user:1234:r--,group::r--,mask::r--,other::---");
    let default = shown(&read(&place).unwrap(), "default_acl");
    assert!(default.contains("group:77:rwx"), "{default}");
}

#[test]
fn capabilities_are_told_as_text() {
    let (_folder, place) = folder();
    let path = place.join("file");
    fs::write(&path, "").unwrap();
    if prepare("capabilities_are_told_as_text", "setcap", &["cap_net_raw=ep".as_ref(), path.as_ref()]) {
        assert_eq!(shown(&read(&path).unwrap(), "capabilities"), "cap_net_raw=ep");
    }
}

#[test]
fn flags_are_told_as_letters() {
    let (_folder, place) = folder();
    let path = place.join("file");
    fs::write(&path, "").unwrap();
    if prepare("flags_are_told_as_letters", "chattr", &["+ia".as_ref(), path.as_ref()]) {
        let reading = read(&path);
        assert!(prepare("flags_are_told_as_letters", "chattr", &["-ia".as_ref(), path.as_ref()]));
        assert_eq!(shown(&reading.unwrap(), "flags"), "ia");
    }
}

#[test]
fn attributes_of_files_and_links_are_told() {
    let (_folder, place) = folder();
    let (path, link) = (place.join("file"), place.join("link"));
    fs::write(&path, "").unwrap();
    symlink("file", &link).unwrap();
    let set = "import os,sys; os.setxattr(sys.argv[1], sys.argv[2], sys.argv[3].encode(), follow_symlinks=False)";
    let test = "attributes_of_files_and_links_are_told";
    let set = |path: &Path, name: &str, value: &str| {
        prepare(test, "python3", &["-c".as_ref(), set.as_ref(), path.as_ref(), name.as_ref(), value.as_ref()])
    };
    if set(&path, "user.note", "a\nb") && is_root(test) && set(&link, "trusted.mark", "of the link") {
        assert_eq!(shown(&read(&path).unwrap(), "xattr.user.note"), "0x610a62");
        assert_eq!(shown(&read(&link).unwrap(), "xattr.trusted.mark"), "of the link");
        assert_eq!(shown(&read(&path).unwrap(), "xattr.trusted.mark"), "-");
    }
}

/// One configuration file as it is read with a format, whatever its path.
fn read_as(format: Option<Format>, path: &Path, known: Known<'_>) -> (Reading, u64) {
    let mut reader = reader();
    let pinned = Pinned::open(path.as_os_str().as_bytes()).unwrap();
    let reading = reader.read_pinned(&pinned, format, known).unwrap();
    (reading, reader.hashed())
}

#[test]
fn a_file_of_a_known_format_has_its_settings_beside_the_digest_and_any_other_has_none() {
    let (_folder, place) = folder();
    let path = place.join("sshd_config");
    fs::write(&path, "PermitRootLogin no\n").unwrap();
    let (reading, hashed) = read_as(Some(Format::SshdConfig), &path, None);
    assert_eq!(shown(&reading, "config.PermitRootLogin"), "no");
    assert_eq!((shown(&reading, "format").as_str(), hashed), ("sshd_config", 19));
    assert_eq!(shown(&reading, "sha256"), hex::encode(Sha256::digest("PermitRootLogin no\n")));
    let (other, _) = read_as(None, &path, None);
    assert!(!other.fields.iter().any(|(name, _)| trueline_drift::format::is_of_settings(name.as_str())), "{other:?}");
}

#[test]
fn a_file_too_long_for_settings_keeps_its_digest() {
    let (_folder, place) = folder();
    let path = place.join("long");
    let text = "# \n".repeat(settings::LIMIT / 2);
    fs::write(&path, &text).unwrap();
    let (reading, _) = read_as(Some(Format::Sysctl), &path, None);
    assert_eq!(shown(&reading, "sha256"), hex::encode(Sha256::digest(&text)));
    assert_eq!(shown(&reading, "format_error"), "it is longer than 256 KiB");
}

#[test]
fn what_is_known_from_before_the_format_was_is_read_again_and_then_spared() {
    let (_folder, place) = folder();
    let path = place.join("sysctl.conf");
    fs::write(&path, "vm.swappiness = 1\n").unwrap();
    let stamp = Stamp::of(&Pinned::open(path.as_os_str().as_bytes()).unwrap().metadata);
    let known = Fields::new().with("sha256", "of an older agent");
    let (reading, hashed) = read_as(Some(Format::Sysctl), &path, Some((&stamp, &known)));
    assert_eq!((shown(&reading, "config.vm.swappiness").as_str(), hashed), ("1", 18));
    let (again, hashed) = read_as(Some(Format::Sysctl), &path, Some((&stamp, &reading.fields)));
    assert_eq!((&again.fields, hashed), (&reading.fields, 0));
}
