//! The process's environment. See unsetenv(3).

use std::ffi::OsString;

/// Takes a variable out, so that no child inherits it. `None` where it is not set, and nothing is done where other
/// threads might read the environment meanwhile.
pub fn take(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    if threads() == Some(1) {
        // SAFETY: this is the process's only thread, so nobody reads the environment meanwhile.
        unsafe { std::env::remove_var(name) };
    }
    Some(value)
}

fn threads() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}
