//! What lies on the disk, read by the standard library alone.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use trueline_drift::Time;

use super::operation::ATTRIBUTE;

/// Of each item what is compared, as `field=value`.
pub type Picture = BTreeMap<String, BTreeMap<String, String>>;

/// The fields that are read here. Owners' names, ACLs and flags are not.
pub const COMPARED: [&str; 10] = ["type", "mode", "uid", "gid", "size", "mtime", "nlink", "sha256", "link_target", "xattr.user.trueline"];

/// The folder and all beneath it.
pub fn read(path: &Path, picture: &mut Picture) {
    let metadata = path.symlink_metadata().unwrap();
    let file_type = metadata.file_type();
    let mut fields = BTreeMap::new();
    let mut set = |name: &str, value: String| drop(fields.insert(name.to_owned(), value));
    let is_folder = file_type.is_dir();
    set(
        "type",
        if is_folder {
            "folder"
        } else if file_type.is_symlink() {
            "symlink"
        } else {
            "file"
        }
        .to_owned(),
    );
    set("mode", format!("{:04o}", metadata.mode() & 0o7777));
    set("uid", metadata.uid().to_string());
    set("gid", metadata.gid().to_string());
    if !is_folder {
        set("size", metadata.size().to_string());
        set("nlink", metadata.nlink().to_string());
        let micros = metadata.mtime() * 1_000_000 + metadata.mtime_nsec().div_euclid(1000);
        set("mtime", Time::from_micros(micros).to_string());
    }
    if file_type.is_file() {
        set("sha256", hex::encode(Sha256::digest(std::fs::read(path).unwrap())));
    }
    if file_type.is_symlink() {
        set("link_target", std::fs::read_link(path).unwrap().display().to_string());
    }
    if let Some(value) = attribute(path) {
        // As the product shows a byte: as it is where it can be shown, else in hexadecimal.
        let shown = if value.is_ascii_graphic() || value == b' ' { char::from(value).to_string() } else { format!("0x{value:02x}") };
        set("xattr.user.trueline", shown);
    }
    picture.insert(format!("file:{}", path.display()), fields);
    if is_folder {
        for entry in std::fs::read_dir(path).unwrap() {
            read(&entry.unwrap().path(), picture);
        }
    }
}

fn attribute(path: &Path) -> Option<u8> {
    let mut value = [0_u8; 1];
    (rustix::fs::lgetxattr(path, ATTRIBUTE, &mut value) == Ok(1)).then_some(value[0])
}
