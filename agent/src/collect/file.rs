//! Reads one file: what it is, who owns it, who may use it, and a digest of what it holds.
//!
//! Contents pass through a fixed buffer into the digest, and those of a configuration file, up to a limit, through the reader
//! of its format, from the same read: settings and digest are of the same bytes. Whatever cannot be read
//! becomes an unreadable field; only what the agent itself lacks (descriptors, memory) is an error.

use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use trueline_drift::format::Format;
use trueline_drift::redact::RedactionKey;
use trueline_drift::{FieldName, Fields, ItemId, Time, Value, permissions, text};

use super::names::Names;
use super::pace::{Meter, Pace};
use super::refusal::{is_own_want, is_unsupported, refused, unreadable};
use super::root::Root;
use super::{Lines, Reading, Stamp, attributes, settings};
use crate::kernel::file::{Contents, EntryType, Inode, Metadata, Pinned};

const BUFFER: usize = 128 * 1024;

/// The kernel's own bounds on one attribute and on the list of names (linux/limits.h).
const XATTR_LIMIT: usize = 64 * 1024;

const XATTRS: usize = 128;

/// How often a file that changes under the reader is tried.
const ATTEMPTS: usize = 3;

/// Bytes between two looks at whether a large file is still as it was.
const LOOK_AGAIN: u64 = 64 * 1024 * 1024;

/// Read from a file that claims to be empty, as those of procfs do, before giving up.
const UNSIZED_LIMIT: u64 = 16 * 1024 * 1024;

/// A change within one tick of the kernel's clock (10 ms at most) of the last may leave the times
/// as they are, so a stamp as young as this proves nothing.
const YOUNG_NS: i64 = 20_000_000;

fn changed_at(metadata: &Metadata) -> Option<Time> {
    Some(Time::from_micros(metadata.changed_ns.div_euclid(1000)))
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("`{path}` holds {size} bytes, more than are read at once: read it aside")]
    Large { path: String, size: u64 },
    #[error("`{path}` is not an absolute path without `.` and `..`: name the file by its full path")]
    Path { path: String },
    #[error("cannot look at `{path}` for want of the agent's own resources: {source}; raise its limits (LimitNOFILE, MemoryMax)")]
    Resources { path: String, source: io::Error },
}

impl ReadError {
    /// The thread that read the item is gone without an answer.
    pub fn broke_off(item: &ItemId) -> Self {
        let source = io::Error::other("its reading broke off");
        Self::Resources { path: item.key.as_str().to_owned(), source }
    }
}

/// What was read of a file before: where its stamp still holds, its fields do.
pub type Known<'a> = Option<(&'a Stamp, &'a Fields)>;

/// All of a file that can be seen without opening it and may change without its times.
#[derive(Debug, Clone, Copy)]
pub struct Glance<'a> {
    pub stamp: Stamp,
    pub owner: Option<&'a str>,
    pub group: Option<&'a str>,
    /// In which it would be read now.
    pub format: Option<Format>,
}

impl Stamp {
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.device,
            inode: metadata.inode,
            size: metadata.size,
            modified_ns: metadata.modified_ns,
            changed_ns: metadata.changed_ns,
        }
    }

    pub fn inode(&self) -> Inode {
        Inode { device: self.device, number: self.inode }
    }
}

/// One thread's reader, with its buffers.
pub struct FileReader {
    names: Names,
    key: RedactionKey,
    pace: Option<Arc<Pace>>,
    meter: Meter,
    /// Larger files are refused, unless they are known.
    at_most: u64,
    /// Set from elsewhere when nobody wants the reading any more.
    give_up: Option<Arc<AtomicBool>>,
    contents: Box<[u8]>,
    list: Box<[u8]>,
    value: Box<[u8]>,
    hashed: u64,
}

impl FileReader {
    /// Secrets among settings are masked by the host's key.
    pub fn new(root: &Root, key: RedactionKey, pace: Option<Arc<Pace>>) -> Self {
        let buffer = |length| vec![0; length].into_boxed_slice();
        Self {
            names: Names::new(root),
            key,
            pace,
            meter: Meter::default(),
            at_most: u64::MAX,
            give_up: None,
            contents: buffer(BUFFER),
            list: buffer(XATTR_LIMIT),
            value: buffer(XATTR_LIMIT),
            hashed: 0,
        }
    }

    /// Refuses to read files with more bytes than this, by [`ReadError::Large`].
    pub fn at_most(self, bytes: u64) -> Self {
        Self { at_most: bytes, ..self }
    }

    /// Ends a reading soon after the flag is set; what it then answers is of no use.
    pub fn until(self, give_up: Arc<AtomicBool>) -> Self {
        Self { give_up: Some(give_up), ..self }
    }

    pub fn glance(&self, metadata: &Metadata, format: Option<Format>) -> Glance<'_> {
        let (owner, group) = (self.names.user(metadata.uid), self.names.group(metadata.gid));
        Glance { stamp: Stamp::of(metadata), owner, group, format }
    }

    /// Bytes of contents read so far.
    pub fn hashed(&self) -> u64 {
        self.hashed
    }

    /// The file at an absolute path in the host's own bytes. `None`: there is none, which is also
    /// the answer where a folder on the way is now a symbolic link.
    pub fn read(&mut self, path: &[u8], known: Known<'_>) -> Result<Option<Reading>, ReadError> {
        if !is_plain(path) {
            return Err(ReadError::Path { path: printable(path) });
        }
        self.names.refresh();
        let format = Format::of(&text::printable(path));
        let read = match Pinned::open(path) {
            Ok(pinned) => {
                let Metadata { entry_type, size, .. } = pinned.metadata;
                let is_known = of_stamp(known, &pinned.metadata, format).is_some();
                if entry_type == EntryType::File && size > self.at_most && !is_known {
                    return Err(ReadError::Large { path: printable(path), size });
                }
                self.read_pinned(&pinned, format, known).map(Some)
            }
            Err(error) => refused(error),
        };
        read.map_err(|source| ReadError::Resources { path: printable(path), source })
    }

    /// The entry of an open folder; if that is a file, one of this format.
    pub fn read_at(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &CStr,
        format: Option<Format>,
        known: Known<'_>,
    ) -> Result<Option<Reading>, ReadError> {
        let read = match Pinned::at(folder, name) {
            Ok(pinned) => self.read_pinned(&pinned, format, known).map(Some),
            Err(error) => refused(error),
        };
        read.map_err(|source| ReadError::Resources { path: printable(name.to_bytes()), source })
    }

    /// What lies behind a pinned name; if that is a file, one of this format. The error is one of the agent's own resources.
    pub fn read_pinned(&mut self, pinned: &Pinned, format: Option<Format>, known: Known<'_>) -> io::Result<Reading> {
        let now_ns = now_ns();
        if let Some((stamp, fields)) = of_stamp(known, &pinned.metadata, format) {
            let mut fields = fields.clone();
            // The names are not the file's own: its times say nothing of them.
            fields.remove("owner");
            fields.remove("group");
            self.set_names(&mut fields, &pinned.metadata);
            permissions::derive(&mut fields);
            let changed_at = changed_at(&pinned.metadata);
            return Ok(Reading { stamp: Some(*stamp), inode: Some(stamp.inode()), changed_at, ..Reading::of(fields) });
        }
        let (fields, metadata, lines) = match pinned.metadata.entry_type {
            EntryType::File => match pinned.contents() {
                Ok(contents) => self.read_file(&contents, pinned.metadata, format)?,
                Err(error) if is_own_want(&error) => return Err(error),
                Err(error) => (self.of_unopened(pinned, &error), pinned.metadata, None),
            },
            EntryType::Folder => (self.read_folder(pinned)?, pinned.metadata, None),
            _ => (self.read_other(pinned), pinned.metadata, None),
        };
        Ok(Reading { lines, ..reading(fields, &metadata, now_ns) })
    }

    /// A regular file that is open already, of this format. The error is one of the agent's own resources.
    pub fn read_opened(&mut self, contents: &Contents, metadata: Metadata, format: Option<Format>) -> io::Result<Reading> {
        let now_ns = now_ns();
        let (fields, metadata, lines) = self.read_file(contents, metadata, format)?;
        Ok(Reading { lines, ..reading(fields, &metadata, now_ns) })
    }

    /// All that may be asked of what lies on a file system that is not entered.
    pub fn outline(&self, metadata: &Metadata) -> Reading {
        let mut fields = Fields::new();
        self.set_metadata(&mut fields, metadata);
        Reading { inode: Some(Stamp::of(metadata).inode()), changed_at: changed_at(metadata), ..Reading::of(fields) }
    }

    /// A file whose contents nobody lets the agent open.
    fn of_unopened(&mut self, pinned: &Pinned, error: &io::Error) -> Fields {
        let mut fields = Fields::new();
        self.set_xattrs(&mut fields, pinned);
        fields.set(FieldName::known("sha256"), unreadable(error));
        self.set_metadata(&mut fields, &pinned.metadata);
        fields
    }

    fn read_file(
        &mut self,
        contents: &Contents,
        mut metadata: Metadata,
        format: Option<Format>,
    ) -> io::Result<(Fields, Metadata, Option<Lines>)> {
        let mut fields = Fields::new();
        let mut held = format.map(|_| Vec::new());
        let mut digest = Value::unreadable("it kept changing while it was read");
        for _ in 0..ATTEMPTS {
            fields = Fields::new();
            self.set_xattrs(&mut fields, contents);
            set_flags(&mut fields, contents);
            let read = self.digest(contents, &Stamp::of(&metadata), held.as_mut());
            let after = contents.metadata()?;
            let is_same = Stamp::of(&after) == Stamp::of(&metadata);
            metadata = after;
            if self.is_given_up() {
                break;
            }
            if is_same {
                digest = read.unwrap_or_else(|error| unreadable(&error));
                break;
            }
        }
        let held = format.zip(held).filter(|_| !digest.is_unreadable());
        let lines = held.and_then(|(format, held)| settings::set(&mut fields, format, &held, &self.key));
        fields.set(FieldName::known("sha256"), digest);
        self.set_metadata(&mut fields, &metadata);
        Ok((fields, metadata, lines))
    }

    fn read_folder(&mut self, pinned: &Pinned) -> io::Result<Fields> {
        let mut fields = Fields::new();
        match pinned.contents() {
            Ok(contents) => {
                self.set_xattrs(&mut fields, &contents);
                set_flags(&mut fields, &contents);
            }
            Err(error) if is_own_want(&error) => return Err(error),
            Err(error) => {
                self.set_xattrs(&mut fields, pinned);
                fields.set(FieldName::known("entries"), unreadable(&error));
            }
        }
        self.set_metadata(&mut fields, &pinned.metadata);
        Ok(fields)
    }

    fn read_other(&mut self, pinned: &Pinned) -> Fields {
        let mut fields = Fields::new();
        self.set_xattrs(&mut fields, pinned);
        if pinned.metadata.entry_type == EntryType::Symlink {
            let target = pinned.link_target().map_or_else(|error| unreadable(&error), |target| Value::bytes(&target));
            fields.set(FieldName::known("link_target"), target);
        }
        self.set_metadata(&mut fields, &pinned.metadata);
        fields
    }

    /// SHA-256 of the bytes that were there at the stamp: what is appended meanwhile shows in the times.
    /// `held` takes the bytes too, at most one buffer beyond what is read as settings.
    fn digest(&mut self, contents: &Contents, stamp: &Stamp, mut held: Option<&mut Vec<u8>>) -> io::Result<Value> {
        if let Some(held) = &mut held {
            held.clear();
        }
        let size = stamp.size;
        let mut hasher = Sha256::new();
        let mut offset = 0;
        let limit = if size == 0 { UNSIZED_LIMIT } else { size };
        while offset < limit {
            let read = match contents.read_at(&mut self.contents, offset) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(&self.contents[..read]);
            if let Some(held) = held.as_mut().filter(|held| held.len() <= settings::LIMIT) {
                held.extend_from_slice(&self.contents[..read]);
            }
            offset += read as u64;
            self.hashed += read as u64;
            self.keep_pace(read as u64);
            if self.is_given_up() {
                return Err(io::Error::other("its reading was given up"));
            }
            // Of a file that is being written, the rest need not be read to know that it must be read again.
            if offset / LOOK_AGAIN != (offset - read as u64) / LOOK_AGAIN && Stamp::of(&contents.metadata()?) != *stamp {
                break;
            }
        }
        if size == 0 && offset >= UNSIZED_LIMIT {
            return Err(io::Error::other(format!("it claims no size and yields more than {UNSIZED_LIMIT} bytes")));
        }
        Ok(Value::Text(hexadecimal(&hasher.finalize())))
    }

    /// Waits for what this thread has read and done since the last time.
    pub fn keep_pace(&mut self, bytes: u64) {
        if let Some(pace) = &self.pace {
            let give_up = self.give_up.as_ref();
            pace.wait(bytes, &mut self.meter, || give_up.is_some_and(|flag| flag.load(Ordering::Relaxed)));
        }
    }

    fn is_given_up(&self) -> bool {
        self.give_up.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    fn set_metadata(&self, fields: &mut Fields, metadata: &Metadata) {
        let mut set = |name, value| fields.set(FieldName::known(name), value);
        set("type", Value::Text(metadata.entry_type.name().to_owned()));
        set("mode", Value::Text(octal(metadata.mode)));
        set("uid", Value::Integer(i64::from(metadata.uid)));
        set("gid", Value::Integer(i64::from(metadata.gid)));
        // A folder's says only that an entry came or went, which the entry says itself.
        if metadata.entry_type != EntryType::Folder {
            set("mtime", Value::Text(Time::from_micros(metadata.modified_ns.div_euclid(1000)).to_string()));
        }
        if matches!(metadata.entry_type, EntryType::File | EntryType::Symlink) {
            set("size", Value::Integer(i64::try_from(metadata.size).unwrap_or(i64::MAX)));
        }
        if metadata.entry_type != EntryType::Folder {
            set("nlink", Value::Integer(i64::from(metadata.nlink)));
        }
        if matches!(metadata.entry_type, EntryType::Block | EntryType::Char) {
            set("device", Value::Text(format!("{}:{}", metadata.node.0, metadata.node.1)));
        }
        self.set_names(fields, metadata);
        permissions::derive(fields);
    }

    fn set_names(&self, fields: &mut Fields, metadata: &Metadata) {
        if let Some(owner) = self.names.user(metadata.uid) {
            fields.set(FieldName::known("owner"), Value::text(owner));
        }
        if let Some(group) = self.names.group(metadata.gid) {
            fields.set(FieldName::known("group"), Value::text(group));
        }
    }

    fn set_xattrs(&mut self, fields: &mut Fields, source: &impl Xattrs) {
        let names = match source.list(&mut self.list) {
            Ok(names) => names,
            Err(error) if is_unsupported(&error) => return,
            Err(error) => return fields.set(FieldName::known("xattr"), unreadable(&error)),
        };
        let mut count = 0;
        for name in names.split_inclusive(|byte| *byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
            count += 1;
            if count > XATTRS {
                return fields.set(FieldName::known("xattr"), Value::unreadable(format!("there are more than {XATTRS} attributes")));
            }
            let value = match source.value(name, &mut self.value) {
                Ok(bytes) => Ok(bytes),
                // Removed since it was listed.
                Err(error) if error.raw_os_error() == Some(libc::ENODATA) => continue,
                Err(error) => Err(unreadable(&error)),
            };
            let malformed = || Value::unreadable("it is malformed");
            let decoded_acl = |bytes: &[u8]| match attributes::acl(bytes) {
                Some(acl) => acl.map(|acl| Value::text(&acl)),
                None => Some(malformed()),
            };
            let (field, value) = match name.to_bytes() {
                b"system.posix_acl_access" => (FieldName::known("acl"), value.map_or_else(Some, decoded_acl)),
                b"system.posix_acl_default" => (FieldName::known("default_acl"), value.map_or_else(Some, decoded_acl)),
                b"security.capability" => {
                    let decode = |bytes: &[u8]| attributes::capabilities(bytes).map_or_else(malformed, |text| Value::text(&text));
                    (FieldName::known("capabilities"), Some(value.map_or_else(|unreadable| unreadable, decode)))
                }
                other => {
                    let name = FieldName::new(&format!("xattr.{}", text::printable(other)));
                    (name, Some(value.map_or_else(|unreadable| unreadable, attributes::xattr)))
                }
            };
            if let Some(value) = value {
                fields.set(field, value);
            }
        }
    }
}

/// What was read before, where its stamp still holds. A file that is now read by a format, but was not then, must be read again.
fn of_stamp<'a>(known: Known<'a>, metadata: &Metadata, format: Option<Format>) -> Known<'a> {
    let format = format.filter(|_| metadata.entry_type == EntryType::File);
    known.filter(|(stamp, fields)| {
        let is_read = format.is_none_or(|format| matches!(fields.value("format"), Some(Value::Text(name)) if name == format.name()));
        is_read && **stamp == Stamp::of(metadata)
    })
}

/// Attributes are read through an open descriptor where there is one, which is cheaper.
trait Xattrs {
    fn list<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]>;
    fn value<'a>(&self, name: &CStr, buffer: &'a mut [u8]) -> io::Result<&'a [u8]>;
}

impl Xattrs for Contents {
    fn list<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        self.list_xattrs(buffer)
    }

    fn value<'a>(&self, name: &CStr, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        self.xattr(name, buffer)
    }
}

impl Xattrs for Pinned {
    fn list<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        self.list_xattrs(buffer)
    }

    fn value<'a>(&self, name: &CStr, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        self.xattr(name, buffer)
    }
}

/// Permission bits as four digits; once for each file, so without the machinery of formatting.
fn octal(mode: u32) -> String {
    [9, 6, 3, 0].into_iter().map(|shift| char::from(b'0' + (mode >> shift & 7) as u8)).collect()
}

fn hexadecimal(digest: &[u8]) -> String {
    let mut text = vec![0; digest.len() * 2];
    hex::encode_to_slice(digest, &mut text).expect("two digits a byte");
    String::from_utf8(text).expect("digits are ASCII")
}

fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64)
}

/// With a stamp where that can be relied on: what changes within the clock's last moment shows in no time.
fn reading(fields: Fields, metadata: &Metadata, now_ns: i64) -> Reading {
    let proven = metadata.changed_ns < now_ns - YOUNG_NS && !fields.iter().any(|(_, value)| value.is_unreadable());
    let stamp = Stamp::of(metadata);
    Reading { stamp: proven.then_some(stamp), inode: Some(stamp.inode()), changed_at: changed_at(metadata), ..Reading::of(fields) }
}

fn set_flags(fields: &mut Fields, contents: &Contents) {
    match contents.flags() {
        Ok(bits) => {
            if let Some(flags) = attributes::flags(bits) {
                fields.set(FieldName::known("flags"), Value::Text(flags));
            }
        }
        Err(error) => fields.set(FieldName::known("flags"), unreadable(&error)),
    }
}

/// Absolute, and equal to the path of exactly one place: no `.`, `..`, empty component or NUL.
pub fn is_plain(path: &[u8]) -> bool {
    path == b"/"
        || path.strip_prefix(b"/").is_some_and(|rest| {
            !rest.contains(&0) && rest.split(|byte| *byte == b'/').all(|part| !part.is_empty() && part != b"." && part != b"..")
        })
}

fn printable(path: &[u8]) -> String {
    text::bounded(&text::printable(path), 400).into_owned()
}

#[cfg(test)]
#[path = "file_test.rs"]
mod tests;
