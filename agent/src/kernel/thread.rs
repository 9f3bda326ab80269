//! Priority and clock of the calling thread. See sched(7), ioprio_set(2) and pthread_getcpuclockid(3).

use std::io;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Runs the calling thread ahead of all ordinary ones (SCHED_FIFO at a low priority of that class),
/// so that it can look at a process before that process ends. EPERM without CAP_SYS_NICE.
///
/// Threads and processes started by it do not inherit this.
pub fn run_real_time() -> io::Result<()> {
    const PRIORITY: i32 = 2;
    // SAFETY: all fields are integers, for which zero bytes are valid.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = PRIORITY;
    // SAFETY: thread 0 means the caller; `parameters` outlives the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const IOPRIO_WHO_PROCESS: libc::c_int = 1;
/// The idle class, which has no levels; the class stands above 13 bits of level.
const IOPRIO_IDLE: libc::c_int = 3 << 13;

/// Has the calling thread read and write when no other thread of this machine wants to, where the disk's scheduler goes by
/// that. Threads and processes that it starts from then on inherit this.
pub fn read_behind_others() -> io::Result<()> {
    // SAFETY: three numbers; process 0 means the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The processor time that a thread has used. Others may read it.
#[derive(Debug, Clone, Copy)]
pub struct CpuClock(ClockId);

impl CpuClock {
    pub fn of_this_thread() -> io::Result<Self> {
        let mut clock = 0;
        // SAFETY: a thread's own handle is valid while it runs, and `clock` outlives the call.
        match unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) } {
            0 => Ok(Self(ClockId::from_raw(clock))),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// `None` once the thread has ended.
    pub fn read(&self) -> Option<Duration> {
        clock_gettime(self.0).ok().map(Duration::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority() -> libc::c_long {
        // SAFETY: two numbers; process 0 means the calling thread.
        unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) }
    }

    #[test]
    fn a_thread_that_reads_behind_others_takes_those_that_it_starts_with_it_and_no_others() {
        let before = priority();
        let inside = || {
            read_behind_others().unwrap();
            (priority(), std::thread::spawn(priority).join().unwrap())
        };
        let idle = libc::c_long::from(IOPRIO_IDLE);
        assert_eq!(std::thread::spawn(inside).join().unwrap(), (idle, idle));
        assert_eq!(priority(), before);
    }
}
