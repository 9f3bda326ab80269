//! What the kernel's refusals say: that there is nothing, that a file may not be read, or that the agent itself lacks
//! something, which says nothing about the file.

use std::io;

use nix::errno::Errno;
use trueline_drift::{Fields, Value};

use super::Reading;

/// What is known of a name that could not be pinned: that it is not there, or why it was refused.
pub fn refused(error: io::Error) -> io::Result<Option<Reading>> {
    match error {
        absent if is_absent(&absent) => Ok(None),
        own if is_own_want(&own) => Err(own),
        error => Ok(Some(Reading::of(Fields::new().with("type", unreadable(&error))))),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG))
}

/// Want of the agent's own resources, which says nothing about the file.
pub fn is_own_want(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

pub fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

/// `permission denied`, without the number.
pub fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    }
}

pub fn unreadable(error: &io::Error) -> Value {
    Value::unreadable(reason(error))
}
