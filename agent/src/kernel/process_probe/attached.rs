//! Loads the programs, attaches each by itself, and reads what they tell.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use aya::maps::{Array, Map, MapData};
use aya::programs::{BtfTracePoint, tp_btf::BtfTracePointLink};
use aya::{Btf, Ebpf, EbpfLoader, VerifierLogLevel};

use super::record::decode;
use super::ring::Ring;
use super::{Drained, Hook, ProbeError};
use crate::kernel::memory;
use crate::process::event::ProcessEvent;

/// The programs' names, and the places in the kernel where they run. The end of processes comes first: one that was told
/// to begin must be told to end.
const PROGRAMS: [(&str, &str); 3] =
    [("on_exit", "sched_process_exit"), ("on_exec", "sched_process_exec"), ("on_fork", "sched_process_fork")];
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/process.bpf.o"));

pub(in crate::kernel) const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

const SMALLEST_RING: usize = 512 << 10;
const LARGEST_RING: usize = 4 << 20;
/// As many processes start at once as there are processors.
const RING_OF_PROCESSOR: usize = 64 << 10;

/// What is attached is detached when this is dropped.
pub struct ProcessProbe {
    ring: Ring,
    ring_map: MapData,
    lost: Array<MapData, u64>,
    queue: Array<MapData, [u64; 2]>,
    programs: Vec<OwnedFd>,
    hooks: Vec<Hook>,
    _links: Vec<BtfTracePointLink>,
    /// Records that could not be understood: none, as long as program and agent are of one build.
    refused: u64,
}

impl ProcessProbe {
    pub fn start() -> Result<Self, ProbeError> {
        // The kernel's description of its types is megabytes in small pieces, needed once. A thread that has ended keeps none of
        // them for itself, so that what the allocator got is free for the kernel again but for some pages.
        let load = std::thread::Builder::new().name("probe-load".to_owned()).spawn(Self::load);
        let probe = load.map_err(ProbeError::Thread)?.join();
        memory::return_free_pages();
        probe.unwrap_or_else(|_| Err(ProbeError::Load("the loader panicked".to_owned())))
    }

    fn load() -> Result<Self, ProbeError> {
        let namespace = std::fs::metadata("/proc/self/ns/pid").map_err(ProbeError::Namespace)?.ino();
        let namespace = u32::try_from(namespace).map_err(|_| ProbeError::Namespace(io::Error::from_raw_os_error(libc::ERANGE)))?;
        // Without it every program would be refused one by one, and none would say why.
        std::fs::metadata(KERNEL_TYPES).map_err(|error| ProbeError::Types(error.to_string()))?;
        let size = ring_size(std::thread::available_parallelism().map_or(1, usize::from));
        let wake_above = (size / 4) as u64;
        let mut loaded = EbpfLoader::new()
            .verifier_log_level(VerifierLogLevel::DISABLE)
            .override_global("own_pid_namespace", &namespace, true)
            .override_global("wake_above", &wake_above, true)
            .map_max_entries("ring", size as u32)
            .load(OBJECT)
            .map_err(|error| ProbeError::Load(told(&error)))?;
        let Some(Map::RingBuf(ring_map)) = loaded.take_map("ring") else {
            return Err(ProbeError::Load("the object has no map named ring".to_owned()));
        };
        let lost = loaded.take_map("lost").ok_or_else(|| ProbeError::Load("the object has no map named lost".to_owned()))?;
        let lost = Array::try_from(lost).map_err(|error| ProbeError::Load(told(&error)))?;
        let queue = loaded.take_map("queue").ok_or_else(|| ProbeError::Load("the object has no map named queue".to_owned()))?;
        let queue = Array::try_from(queue).map_err(|error| ProbeError::Load(told(&error)))?;
        let ring = Ring::map(ring_map.fd().as_fd(), size).map_err(ProbeError::Ring)?;
        let types = Btf::from_sys_fs().map_err(|error| ProbeError::Types(told(&error)))?;
        let mut probe = Self { ring, ring_map, lost, queue, programs: Vec::new(), hooks: Vec::new(), _links: Vec::new(), refused: 0 };
        for (program, place) in PROGRAMS {
            let attached = attach(&mut loaded, program, place, &types);
            let refused = match attached {
                Ok((link, fd)) => {
                    probe._links.push(link);
                    probe.programs.push(fd);
                    None
                }
                Err(reason) => Some(reason),
            };
            probe.hooks.push(Hook { name: place, refused });
        }
        if probe.hooks.iter().any(|hook| hook.refused.is_some()) {
            return Err(ProbeError::Attach(probe.hooks));
        }
        Ok(probe)
    }

    /// From then on each program that begins is told with the number of events that wait in this fanotify group, which must
    /// outlive the probe. The kernel's side finds the group when this process next starts a thread.
    pub fn show_queue(&mut self, group: BorrowedFd<'_>) {
        let place = u64::from(std::process::id()) << 32 | u64::from(group.as_raw_fd().unsigned_abs());
        // Refused, what begins is told without that number.
        let _ = self.queue.set(0, [place, 0], 0);
    }

    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// Passes on, in order, all that was told before the call, so that whatever process can have made an event read before the call
    /// has been told of; more may come with it. Waits at most a few milliseconds, for a record that is being written.
    pub fn drain(&mut self, mut take: impl FnMut(ProcessEvent)) -> Drained {
        let Self { ring, refused, .. } = self;
        ring.drain(&mut |bytes| match decode(bytes) {
            Ok(event) => take(event),
            Err(_) => *refused += 1,
        })
    }

    /// How many records were lost since the start: no room, or not understood.
    pub fn dropped(&self) -> u64 {
        // The map has this one entry for as long as it exists; asking cannot fail but for a broken kernel, and then nothing is sure.
        self.lost.get(&0, 0).unwrap_or(u64::MAX).saturating_add(self.refused)
    }

    /// How often the kernel left a program out, since it was running on the same processor already. 0 on every kernel that
    /// runs tracepoints without being interrupted, which all did until 6.18. Reads files: not for hot paths.
    pub fn missed(&self) -> u64 {
        self.programs.iter().map(|program| misses_of(program).unwrap_or(0)).sum()
    }
}

impl std::fmt::Debug for ProcessProbe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessProbe").field("hooks", &self.hooks).field("ring", &self.ring).finish_non_exhaustive()
    }
}

/// Ready for reading while anything waits in the ring; a thread that sleeps on it is woken only when a quarter is used.
impl AsFd for ProcessProbe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring_map.fd().as_fd()
    }
}

fn attach(loaded: &mut Ebpf, program: &str, place: &str, types: &Btf) -> Result<(BtfTracePointLink, OwnedFd), String> {
    let program = loaded.program_mut(program).ok_or_else(|| "the object has no such program".to_owned())?;
    let program: &mut BtfTracePoint = program.try_into().map_err(|error| told(&error))?;
    program.load(place, types).map_err(|error| told(&error))?;
    let id = program.attach().map_err(|error| told(&error))?;
    let link = program.take_link(id).map_err(|error| told(&error))?;
    let fd = program.fd().map_err(|error| told(&error))?.as_fd().try_clone_to_owned().map_err(|error| error.to_string())?;
    Ok((link, fd))
}

pub(in crate::kernel) fn misses_of(program: &OwnedFd) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

/// The error with its causes, on one line: this is said to be the reason for what is not covered.
pub(in crate::kernel) fn told(error: &dyn std::error::Error) -> String {
    // Of a program that the verifier refuses aya adds what it said, which is nothing here: no log was asked for.
    let own = |error: &dyn std::error::Error| error.to_string().replace("Verifier output:", "").trim().to_owned();
    let mut text = own(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = own(error);
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect::<Vec<_>>().join(" ")
}

fn ring_size(processors: usize) -> usize {
    processors.saturating_mul(RING_OF_PROCESSOR).clamp(SMALLEST_RING, LARGEST_RING).next_power_of_two()
}
