//! The C library's allocator.

/// Gives pages that are free inside the heap back to the kernel: after a scan the heap holds much
/// that was needed once. Returns whether any were. Takes milliseconds; not for hot paths.
#[cfg(target_env = "gnu")]
pub fn return_free_pages() -> bool {
    // SAFETY: the call takes an integer, is thread-safe, and touches only the allocator's own state.
    unsafe { libc::malloc_trim(0) == 1 }
}

#[cfg(not(target_env = "gnu"))]
pub fn return_free_pages() -> bool {
    false
}

/// Bounds how many heaps the allocator opens for threads; each may keep megabytes of free pages.
/// Only before the first thread is started. Returns whether the allocator took it.
#[cfg(target_env = "gnu")]
pub fn limit_heaps(count: u8) -> bool {
    // SAFETY: the call takes two integers and only sets an option of the allocator.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, i32::from(count)) == 1 }
}

#[cfg(not(target_env = "gnu"))]
pub fn limit_heaps(_count: u8) -> bool {
    false
}
