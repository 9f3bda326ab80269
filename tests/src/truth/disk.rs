//! An independent reading of a folder: plain system calls, and the form in which an agent tells the values.
//!
//! Decodes ACLs, capabilities and flags only as far as [`super::operation`] sets them; anything else of the kind is an error.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::IFlags;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use trueline_drift::{Time, text};

use super::operation::CAPABILITIES;
use crate::state::item;

pub type Fields = BTreeMap<String, Value>;
/// By item: `file:` and the path.
pub type Picture = BTreeMap<String, Fields>;

/// The folder itself and all beneath it.
pub fn read(folder: &Path) -> anyhow::Result<Picture> {
    let mut picture = Picture::new();
    walk(folder, &mut picture)?;
    Ok(picture)
}

fn walk(path: &Path, picture: &mut Picture) -> anyhow::Result<()> {
    let fields = fields(path).with_context(|| format!("reading {}", path.display()))?;
    let is_folder = fields["type"] == "folder";
    picture.insert(item(path), fields);
    if is_folder {
        for entry in std::fs::read_dir(path)? {
            walk(&entry?.path(), picture)?;
        }
    }
    Ok(())
}

fn fields(path: &Path) -> anyhow::Result<Fields> {
    let metadata = path.symlink_metadata()?;
    let kind = metadata.file_type();
    let mut fields = Fields::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    set("mode", json!(format!("{:04o}", metadata.mode() & 0o7777)));
    set("uid", json!(metadata.uid()));
    set("gid", json!(metadata.gid()));
    if let Some(user) = nix::unistd::User::from_uid(metadata.uid().into())? {
        set("owner", json!(user.name));
    }
    if let Some(group) = nix::unistd::Group::from_gid(metadata.gid().into())? {
        set("group", json!(group.name));
    }
    if !kind.is_dir() {
        let micros = metadata.mtime() * 1_000_000 + metadata.mtime_nsec() / 1000;
        set("mtime", json!(Time::from_micros(micros).to_string()));
        set("nlink", json!(metadata.nlink()));
    }
    if kind.is_file() || kind.is_symlink() {
        set("size", json!(metadata.size()));
    }
    if kind.is_symlink() {
        set("type", json!("symlink"));
        set("link_target", json!(text::printable(std::fs::read_link(path)?.as_os_str().as_bytes())));
    } else if kind.is_file() {
        set("type", json!("file"));
        set("sha256", json!(hex::encode(digest(path)?)));
    } else if kind.is_dir() {
        set("type", json!("folder"));
    } else if kind.is_fifo() {
        set("type", json!("fifo"));
    } else {
        bail!("a kind that no operation makes");
    }
    let bits = metadata.mode();
    let is_open = bits & 0o002 != 0 && (kind.is_file() || (kind.is_dir() && bits & 0o1000 == 0));
    for (name, holds) in
        [("setuid", kind.is_file() && bits & 0o4000 != 0), ("setgid", kind.is_file() && bits & 0o2000 != 0), ("world_writable", is_open)]
    {
        fields.extend(holds.then(|| (name.to_owned(), json!(true))));
    }
    if kind.is_file() || kind.is_dir() {
        fields.extend(flags(path)?.map(|flags| ("flags".to_owned(), json!(flags))));
    }
    attributes(path, &mut fields)?;
    Ok(fields)
}

fn digest(path: &Path) -> anyhow::Result<[u8; 32]> {
    let mut contents = Vec::new();
    File::open(path)?.read_to_end(&mut contents)?;
    Ok(Sha256::digest(contents).into())
}

fn flags(path: &Path) -> anyhow::Result<Option<String>> {
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW).open(path)?;
    let set = rustix::fs::ioctl_getflags(&file)?;
    let letters: String =
        [(IFlags::IMMUTABLE, 'i'), (IFlags::NODUMP, 'd')].iter().filter(|(flag, _)| set.contains(*flag)).map(|it| it.1).collect();
    Ok((!letters.is_empty()).then_some(letters))
}

fn attributes(path: &Path, fields: &mut Fields) -> anyhow::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let length = match rustix::fs::llistxattr(path, &mut buffer[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    for name in buffer[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = std::str::from_utf8(name)?;
        let mut value = vec![0; 64 * 1024];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        let value = &value[..length];
        match name {
            "system.posix_acl_access" => fields.extend(acl(value)?.map(|acl| ("acl".to_owned(), json!(acl)))),
            "security.capability" if value == CAPABILITIES => {
                fields.insert("capabilities".to_owned(), json!("cap_net_raw=ep"));
            }
            // Where xfs keeps the ACL, which it shows to root once more: bytes, never text.
            "trusted.SGI_ACL_FILE" => {
                fields.insert(format!("xattr.{name}"), json!(format!("0x{}", hex::encode(value))));
            }
            name if name.starts_with("user.") => {
                fields.insert(format!("xattr.{name}"), json!(std::str::from_utf8(value)?));
            }
            name => bail!("the attribute {name} is one that no operation sets so: {value:?}"),
        }
    }
    Ok(())
}

/// `None` where it says what the mode says.
fn acl(bytes: &[u8]) -> anyhow::Result<Option<String>> {
    let mut texts = Vec::new();
    let mut is_extended = false;
    for entry in bytes[4..].chunks(8) {
        let [tag, _, permissions, _, id @ ..] = entry else { bail!("an ACL's entry of {} bytes", entry.len()) };
        let who = match tag {
            1 => "user::".to_owned(),
            2 => format!("user:{}:", u32::from_le_bytes(id.try_into()?)),
            4 => "group::".to_owned(),
            0x10 => "mask::".to_owned(),
            0x20 => "other::".to_owned(),
            tag => bail!("an ACL's entry with the tag {tag}"),
        };
        is_extended |= matches!(tag, 2 | 0x10);
        let letter = |bit: u8, letter: char| if permissions & bit == bit { letter } else { '-' };
        texts.push(format!("{who}{}{}{}", letter(4, 'r'), letter(2, 'w'), letter(1, 'x')));
    }
    Ok(is_extended.then(|| texts.join(",")))
}

/// What of two pictures differs, for people: at most so many lines.
pub fn differences(held: &Picture, disk: &Picture, at_most: usize) -> Vec<String> {
    let items: std::collections::BTreeSet<&String> = held.keys().chain(disk.keys()).collect();
    let differing = items.into_iter().filter(|item| held.get(*item) != disk.get(*item));
    let told = differing.map(|item| match (held.get(item), disk.get(item)) {
        (Some(held), Some(disk)) => {
            let names: std::collections::BTreeSet<&String> = held.keys().chain(disk.keys()).collect();
            let fields = names.into_iter().filter(|name| held.get(*name) != disk.get(*name));
            let fields: Vec<String> = fields.map(|name| format!("{name}: agent {:?}, disk {:?}", held.get(name), disk.get(name))).collect();
            format!("{item}: {}", fields.join("; "))
        }
        (Some(_), None) => format!("{item}: the agent still has it"),
        _ => format!("{item}: the agent does not have it"),
    });
    told.take(at_most).collect()
}
