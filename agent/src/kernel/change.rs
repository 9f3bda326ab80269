//! The few changes that the self-test makes and that no crate wraps: an extended attribute (setxattr(2)),
//! a file's flags (ioctl_iflags(2)), and a write through memory (mmap(2)).

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

/// Flags that a file of any file system with flags may have, and that bind nobody: `chattr +d`, no dump.
const NO_DUMP: libc::c_int = 0x40;

pub fn set_xattr(file: &File, name: &CStr, value: &[u8]) -> io::Result<()> {
    // SAFETY: name and value outlive the call, and the kernel reads no more than the given length of the value.
    let result = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(drop).map_err(Into::into)
}

/// Turns the flag "no dump" over.
pub fn toggle_flag(file: &File) -> io::Result<()> {
    let mut flags: libc::c_long = 0;
    // SAFETY: the request writes no more than a long, and `flags` is one.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS as _, &mut flags) };
    Errno::result(result)?;
    // The kernel reads an int whatever the macro's type says.
    let flags = flags as libc::c_int ^ NO_DUMP;
    // SAFETY: the request reads an int, and `flags` is one that outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS as _, &flags) };
    Errno::result(result).map(drop).map_err(Into::into)
}

/// Writes the first byte of a file, opened for reading and writing, through memory that it is mapped to, and lets go of both.
pub fn write_through_memory(file: File) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty file has no memory to write to"));
    }
    // SAFETY: the kernel chooses an address where nothing is, so no memory of this process is replaced.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), 1, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // From here on the memory alone holds the file.
    drop(file);
    // SAFETY: the page is mapped for reading and writing, and nothing in this process refers to it. Should another cut the file to nothing
    // meanwhile, the kernel ends this process.
    unsafe { memory.cast::<u8>().write_volatile(memory.cast::<u8>().read_volatile() ^ 1) };
    // SAFETY: it is the mapping made above, to which no reference is left.
    let result = unsafe { libc::munmap(memory, 1) };
    Errno::result(result).map(drop).map_err(Into::into)
}
