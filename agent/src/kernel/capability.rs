//! The ambient capabilities of the calling thread: those that a program keeps although its file gives it none. See
//! capabilities(7).

use std::io;

/// Empties the ambient set. What the thread may do itself stays; a program that it starts gets nothing of it. Threads that
/// it starts begin with the same empty set.
pub fn clear_ambient() -> io::Result<()> {
    ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)
}

fn ambient(operation: libc::c_int, capability: libc::c_ulong) -> io::Result<()> {
    const UNUSED: libc::c_ulong = 0;
    // SAFETY: PR_CAP_AMBIENT takes numbers alone, five of them, and touches no memory of this process.
    let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, operation as libc::c_ulong, capability, UNUSED, UNUSED) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// CAP_DAC_READ_SEARCH, one of the unit's.
    const READ_SEARCH: u32 = 2;

    /// The kernel's `__user_cap_header_struct` and `__user_cap_data_struct` of version 3.
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }

    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Sets {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }

    /// Gives this thread the capability as `AmbientCapabilities=` of a unit does.
    fn raise_ambient() -> io::Result<()> {
        let header = Header { version: 0x2008_0522, pid: 0 };
        let mut sets = [Sets::default(); 2];
        // SAFETY: the header is of version 3, for which the kernel writes two of these sets.
        if unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        sets[0].inheritable |= 1 << READ_SEARCH;
        // SAFETY: as above; it reads them.
        if unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        ambient(libc::PR_CAP_AMBIENT_RAISE, READ_SEARCH.into())
    }

    /// A set of a status file of proc(5).
    fn set(status: &str, name: &str) -> u64 {
        let text = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells its capabilities");
        u64::from_str_radix(text.trim_start_matches(':').trim(), 16).unwrap()
    }

    fn own() -> String {
        std::fs::read_to_string("/proc/thread-self/status").unwrap()
    }

    fn childs() -> String {
        let output = Command::new("cat").arg("/proc/self/status").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_program_that_is_started_gets_no_ambient_capability_and_the_thread_keeps_its_own() {
        // A thread of its own: what it does to itself ends with it.
        std::thread::spawn(|| {
            if let Err(error) = raise_ambient() {
                assert!(std::env::var_os("TRUELINE_TEST_REQUIRE").is_none(), "an ambient capability cannot be had: {error}");
                eprintln!("skipped: an ambient capability cannot be had: {error}");
                return;
            }
            let (bit, effective) = (1 << READ_SEARCH, set(&own(), "CapEff"));
            assert_eq!(set(&childs(), "CapAmb") & bit, bit, "a child inherits it before");
            clear_ambient().unwrap();
            assert_eq!((set(&own(), "CapAmb"), set(&own(), "CapEff")), (0, effective));
            assert_eq!(set(&childs(), "CapAmb"), 0);
            let started_later = std::thread::spawn(|| (set(&own(), "CapAmb"), set(&childs(), "CapAmb"))).join().unwrap();
            assert_eq!(started_later, (0, 0));
        })
        .join()
        .unwrap();
    }
}
