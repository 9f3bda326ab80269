//! File handles: names of files that survive renames. See open_by_handle_at(2).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `MAX_HANDLE_SZ` of linux/exportfs.h.
pub const HANDLE_LIMIT: usize = 128;
/// Length and type in front of a handle's bytes.
const PREFIX: usize = 8;

/// `struct file_handle`, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Buffer([u8; PREFIX + HANDLE_LIMIT]);

/// The handle of a path (a symbolic link is not followed): length, type and bytes, as fanotify
/// reports it. EOPNOTSUPP where the file system has none.
pub fn handle_of(path: &Path) -> io::Result<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut buffer = Buffer([0; PREFIX + HANDLE_LIMIT]);
    buffer.0[..4].copy_from_slice(&(HANDLE_LIMIT as u32).to_ne_bytes());
    let mut mount = 0i32;
    // SAFETY: `path` is NUL-terminated; `buffer` is aligned, and its first field says how many bytes
    // follow the prefix; `mount` is an int. All outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, path.as_ptr(), buffer.0.as_mut_ptr(), std::ptr::from_mut(&mut mount), 0)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let length = u32::from_ne_bytes([buffer.0[0], buffer.0[1], buffer.0[2], buffer.0[3]]) as usize;
    Ok(buffer.0[..PREFIX + length.min(HANDLE_LIMIT)].to_vec())
}

/// Opens what a handle names, as a place only (O_PATH), within the mount that `mount` lies on.
///
/// ESTALE when it is gone; EPERM without CAP_DAC_READ_SEARCH. `mount` must not be O_PATH itself.
pub fn open_handle(mount: impl AsFd, handle: &[u8]) -> io::Result<OwnedFd> {
    let stated = handle.first_chunk::<4>().map(|length| u32::from_ne_bytes(*length) as usize);
    if handle.len() > PREFIX + HANDLE_LIMIT || stated.and_then(|stated| stated.checked_add(PREFIX)) != Some(handle.len()) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut buffer = Buffer([0; PREFIX + HANDLE_LIMIT]);
    buffer.0[..handle.len()].copy_from_slice(handle);
    // SAFETY: `buffer` is aligned and holds the number of bytes that its first field states, as was
    // checked above; it outlives the call, and `mount` is borrowed for it.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_fd().as_raw_fd(),
            buffer.0.as_mut_ptr(),
            libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW,
        )
    };
    let Ok(fd @ 0..) = i32::try_from(fd) else { return Err(io::Error::last_os_error()) };
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `statfs` f_fsid, as fanotify reports it with each event.
pub fn filesystem_of(path: &Path) -> io::Result<[u8; 8]> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut state = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: `path` is NUL-terminated and `state` is large enough for one statfs; both outlive the call.
    if unsafe { libc::statfs(path.as_ptr(), state.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed bytes are a valid statfs, and the call has filled it in.
    let state = unsafe { state.assume_init() };
    // SAFETY: fsid_t is two plain ints without padding, whose fields libc keeps private.
    Ok(unsafe { std::mem::transmute::<libc::fsid_t, [u8; 8]>(state.f_fsid) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_that_lies_about_its_length_is_refused_before_the_kernel_sees_it() {
        let here = std::fs::File::open("/").unwrap();
        for handle in [&[][..], &[1, 2, 3], &[255, 255, 255, 255, 0, 0, 0, 0], &[4, 0, 0, 0, 1, 0, 0, 0, 9]] {
            assert_eq!(open_handle(&here, handle).unwrap_err().raw_os_error(), Some(libc::EINVAL), "{handle:?}");
        }
        assert_eq!(open_handle(&here, &[0; 500]).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn a_handle_finds_its_folder_after_a_rename() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        std::fs::create_dir(&old).unwrap();
        let handle = match handle_of(&old) {
            Ok(handle) => handle,
            Err(error) => return assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP)),
        };
        std::fs::rename(&old, &new).unwrap();
        let mount = std::fs::File::open(folder.path()).unwrap();
        match open_handle(&mount, &handle) {
            Ok(fd) => {
                let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
                assert_eq!(path, new.canonicalize().unwrap());
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }
}
