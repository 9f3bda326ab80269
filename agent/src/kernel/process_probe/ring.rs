//! The reading end of a BPF ring buffer. See the kernel's Documentation/bpf/ringbuf.rst.
//!
//! Our own, because a reader must know whether all that was told before a certain moment has been read, which
//! aya's does not say; and because that one maps the data twice over, which counts twice as resident.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::Drained;

/// A record's length and two marks, then four bytes that are the kernel's own.
const HEADER: usize = 8;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
/// Records begin at multiples of this.
const ALIGNMENT: u64 = 8;
/// A record is written within microseconds, unless an interrupt or a hypervisor takes the processor away.
const SPINS: u32 = 2_000;
const PAUSE: Duration = Duration::from_micros(50);
const PAUSES: u32 = 200;

#[derive(Debug)]
pub struct Ring {
    /// How far this side has read. The kernel writes no record over what lies behind it.
    consumed: Mapping,
    /// How far the kernel has written, then after a page the data.
    told: Mapping,
    page: usize,
    size: usize,
    position: u64,
    /// A record whose end lies at the ring's beginning.
    joined: Vec<u8>,
}

#[derive(Debug)]
enum Next<'a> {
    Record(&'a [u8]),
    /// The next one is still being written.
    Busy,
    Nothing,
}

impl Ring {
    /// `size` is what the map was made with. There must be no other reader of the same map.
    pub fn map(fd: BorrowedFd<'_>, size: usize) -> io::Result<Self> {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.and_then(|page| usize::try_from(page).ok());
        let page = page.ok_or_else(|| io::Error::other("the page size is not known"))?;
        if !size.is_power_of_two() || size < page {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let consumed = Mapping::new(fd, 0, page, libc::PROT_READ | libc::PROT_WRITE)?;
        let told = Mapping::new(fd, page, page + size, libc::PROT_READ)?;
        let mut ring = Self { consumed, told, page, size, position: 0, joined: Vec::new() };
        ring.position = ring.consumed.position().load(Ordering::Acquire);
        Ok(ring)
    }

    /// Where the next record to be told will begin: all before it has at least been begun.
    fn end(&self) -> u64 {
        self.told.position().load(Ordering::Acquire)
    }

    /// Where the next record to be read begins.
    fn position(&self) -> u64 {
        self.position
    }

    /// Gives what was read back to the kernel. Until then the map's descriptor is ready for reading.
    fn release(&mut self) {
        self.consumed.position().store(self.position, Ordering::Release);
    }

    /// The next record; it stays as it is until the next call.
    fn next(&mut self) -> Next<'_> {
        loop {
            self.release();
            if self.position >= self.end() {
                return Next::Nothing;
            }
            let at = (self.position % self.size as u64) as usize;
            // The kernel ends the writing of a record by taking the mark away: what it holds is seen after that.
            let header = self.told.word(self.page + at).load(Ordering::Acquire);
            if header & BUSY != 0 {
                return Next::Busy;
            }
            let length = (header & !(BUSY | DISCARDED)) as usize;
            self.position += ((HEADER + length) as u64).next_multiple_of(ALIGNMENT);
            if header & DISCARDED == 0 {
                return Next::Record(self.bytes(at + HEADER, length.min(self.size)));
            }
        }
    }

    /// Passes on, in order, all that was told before the call; more may come with it. Waits at most a few milliseconds, for a record
    /// that is being written.
    pub fn drain(&mut self, take: &mut dyn FnMut(&[u8])) -> Drained {
        let end = self.end();
        let (mut spins, mut pauses) = (0, 0);
        let mut drained = Drained::All;
        while self.position() < end {
            match self.next() {
                Next::Record(bytes) => {
                    take(bytes);
                    (spins, pauses) = (0, 0);
                }
                Next::Nothing => break,
                Next::Busy if spins < SPINS => {
                    spins += 1;
                    std::hint::spin_loop();
                }
                // This thread may be what keeps the writer from the processor: one that only spun would wait for ever.
                Next::Busy if pauses < PAUSES => {
                    pauses += 1;
                    std::thread::sleep(PAUSE);
                }
                Next::Busy => {
                    drained = Drained::Partly;
                    break;
                }
            }
        }
        self.release();
        drained
    }

    fn bytes(&mut self, at: usize, length: usize) -> &[u8] {
        let at = at % self.size;
        let first = length.min(self.size - at);
        if first == length {
            return self.told.bytes(self.page + at, length);
        }
        self.joined.clear();
        self.joined.extend_from_slice(self.told.bytes(self.page + at, first));
        self.joined.extend_from_slice(self.told.bytes(self.page, length - first));
        &self.joined
    }
}

/// Memory shared with the kernel, unmapped with it.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and this value alone unmaps it.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, offset: usize, length: usize, protection: libc::c_int) -> io::Result<Self> {
        // SAFETY: the kernel chooses the place, so that no memory of ours is replaced.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, fd.as_raw_fd(), offset as libc::off_t) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { start, length })
    }

    /// The number at the beginning: a position.
    fn position(&self) -> &AtomicU64 {
        // SAFETY: a mapping is a page long at least and begins at one, and lives as long as the borrow of it. The kernel
        // changes the number atomically. Only the mapping that may be written to is ever stored into (`Ring::release`).
        unsafe { self.start.cast::<AtomicU64>().as_ref() }
    }

    /// A record's length and marks.
    fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.length, "a record lies within the ring");
        // SAFETY: within the mapping, as was just asserted, aligned, and alive as long as the borrow. The kernel changes it atomically.
        unsafe { self.start.add(at).cast::<AtomicU32>().as_ref() }
    }

    /// Bytes of a record that was told whole.
    fn bytes(&self, at: usize, length: usize) -> &[u8] {
        assert!(at.checked_add(length).is_some_and(|end| end <= self.length), "a record lies within the ring");
        // SAFETY: within the mapping, as was just asserted. The kernel writes no more into a record whose busy mark is gone, and none over
        // it before the position behind it has been stored: `Ring::release` does that, and takes the ring for itself, which ends the borrow.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(at), length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no borrow outlives the value. Failing leaves it mapped, which harms nothing.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::*;

    const PAGE: usize = 4096;
    const SIZE: usize = PAGE;

    /// The kernel's side, in a file of the same layout.
    struct Kernel {
        file: File,
        position: u64,
    }

    impl Kernel {
        fn new() -> Self {
            let file = tempfile::tempfile().unwrap();
            file.set_len((2 * PAGE + SIZE) as u64).unwrap();
            Self { file, position: 0 }
        }

        fn put(&self, at: u64, bytes: &[u8]) {
            for (offset, byte) in (at..).zip(bytes) {
                self.file.write_all_at(&[*byte], (2 * PAGE) as u64 + offset % SIZE as u64).unwrap();
            }
        }

        /// Makes room, as a program does, and returns where.
        fn reserve(&mut self, bytes: &[u8], marks: u32) -> u64 {
            let at = self.position;
            self.put(at, &(bytes.len() as u32 | marks).to_ne_bytes());
            self.put(at + HEADER as u64, bytes);
            self.position += ((HEADER + bytes.len()) as u64).next_multiple_of(ALIGNMENT);
            self.file.write_all_at(&self.position.to_ne_bytes(), PAGE as u64).unwrap();
            at
        }

        fn consumed(&self) -> u64 {
            let mut bytes = [0; 8];
            self.file.read_exact_at(&mut bytes, 0).unwrap();
            u64::from_ne_bytes(bytes)
        }
    }

    fn has_pages_of_four_kilobytes() -> bool {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).unwrap();
        let has = page == Some(PAGE as libc::c_long);
        assert!(has || std::env::var_os("TRUELINE_TEST_REQUIRE").is_none(), "pages of {page:?} bytes");
        if !has {
            eprintln!("skipped: pages of {page:?} bytes");
        }
        has
    }

    #[test]
    fn what_is_still_being_written_holds_back_what_came_after_it() {
        if !has_pages_of_four_kilobytes() {
            return;
        }
        let mut kernel = Kernel::new();
        let mut ring = Ring::map(kernel.file.as_fd(), SIZE).unwrap();
        assert!(matches!(ring.next(), Next::Nothing));
        let first = kernel.reserve(b"first", BUSY);
        kernel.reserve(b"gone", DISCARDED);
        kernel.reserve(b"second", 0);
        let end = ring.end();
        assert!(matches!(ring.next(), Next::Busy) && ring.position() == first);
        kernel.put(first, &5_u32.to_ne_bytes());
        assert!(matches!(ring.next(), Next::Record(b"first")));
        assert_eq!(kernel.consumed(), 0, "the kernel must not write over what is being looked at");
        assert!(matches!(ring.next(), Next::Record(b"second")));
        assert!(ring.position() == end && kernel.consumed() < end);
        ring.release();
        assert_eq!(kernel.consumed(), end);
        assert!(matches!(ring.next(), Next::Nothing));
    }

    #[test]
    fn a_map_of_another_shape_is_refused() {
        let kernel = Kernel::new();
        assert!(Ring::map(kernel.file.as_fd(), 3 * PAGE).is_err());
        assert!(Ring::map(kernel.file.as_fd(), 0).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_record_comes_back_once_and_in_order_wherever_it_lies(records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1500), 1..24)) {
            if has_pages_of_four_kilobytes() {
                let mut kernel = Kernel::new();
                let mut ring = Ring::map(kernel.file.as_fd(), SIZE).unwrap();
                for pair in records.chunks(2) {
                    for record in pair {
                        kernel.reserve(record, 0);
                    }
                    for record in pair {
                        match ring.next() {
                            Next::Record(bytes) => prop_assert_eq!(bytes, &record[..]),
                            other => prop_assert!(false, "{:?}", other),
                        }
                    }
                    ring.release();
                    prop_assert_eq!(kernel.consumed(), kernel.position);
                }
            }
        }
    }
}
