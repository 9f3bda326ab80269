//! Priority of the calling thread. See sched(7).

use std::io;

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
