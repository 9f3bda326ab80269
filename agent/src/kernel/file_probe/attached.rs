//! Loads the hooks, attaches each by itself, and reads what they tell.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use aya::maps::{Array, HashMap, Map, MapData};
use aya::programs::links::FdLink;
use aya::programs::{BtfTracePoint, FEntry, FExit, Program};
use aya::{Btf, Ebpf, EbpfLoader, VerifierLogLevel};

use super::record::{Operation, decode};
use super::{FOLDERS, FileProbeError};
use crate::kernel::file::Inode;
use crate::kernel::memory;
use crate::kernel::process_probe::attached::{KERNEL_TYPES, told};
use crate::kernel::process_probe::ring::Ring;
use crate::kernel::process_probe::{Drained, Hook};

/// The programs' names, and the functions and tracepoints of the kernel that they stand at.
const PROGRAMS: [(&str, &str); 10] = [
    ("on_event", "fsnotify"),
    ("on_child", INSTEAD),
    ("on_flags", "vfs_fileattr_set"),
    ("on_mapping", "security_mmap_file"),
    ("on_protection", "security_file_mprotect"),
    ("on_mount", "path_mount"),
    ("on_unmount", "path_umount"),
    ("on_move", "security_move_mount"),
    ("on_module", "module_load"),
    ("on_module_gone", "module_free"),
];
/// For where the one before it cannot be had.
const INSTEAD: &str = "__fsnotify_parent";
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/files.bpf.o"));
const RING: usize = 256 << 10;

/// `struct place` there: an inode, then the device in the kernel's packing.
type Place = [u64; 2];

/// What is attached is detached when this is dropped.
pub struct FileProbe {
    ring: Ring,
    ring_map: MapData,
    lost: Array<MapData, u64>,
    folders: HashMap<MapData, Place, u32>,
    followed: HashSet<Place>,
    hooks: Vec<Hook>,
    _links: Vec<FdLink>,
    /// Records that could not be understood: none, as long as programs and agent are of one build.
    refused: u64,
}

impl FileProbe {
    /// With at least one hook.
    pub fn start() -> Result<Self, FileProbeError> {
        // On a thread of its own as the process feed is, for the same reason.
        let load = std::thread::Builder::new().name("probe-load".to_owned()).spawn(Self::load);
        let probe = load.map_err(FileProbeError::Thread)?.join();
        memory::return_free_pages();
        probe.unwrap_or_else(|_| Err(FileProbeError::Load("the loader panicked".to_owned())))
    }

    fn load() -> Result<Self, FileProbeError> {
        let namespace = std::fs::metadata("/proc/self/ns/pid").map_err(FileProbeError::Namespace)?.ino();
        let namespace = u32::try_from(namespace).map_err(|_| FileProbeError::Namespace(io::Error::from_raw_os_error(libc::ERANGE)))?;
        std::fs::metadata(KERNEL_TYPES).map_err(|error| FileProbeError::Types(error.to_string()))?;
        let load = |error: &dyn std::error::Error| FileProbeError::Load(told(error));
        let mut loaded = EbpfLoader::new()
            .verifier_log_level(VerifierLogLevel::DISABLE)
            .override_global("own_pid_namespace", &namespace, true)
            .load(OBJECT)
            .map_err(|error| load(&error))?;
        let mut map = |name: &str| loaded.take_map(name).ok_or_else(|| FileProbeError::Load(format!("the object has no map named {name}")));
        let Map::RingBuf(ring_map) = map("ring")? else {
            return Err(FileProbeError::Load("the map named ring is none".to_owned()));
        };
        let lost = Array::try_from(map("lost")?).map_err(|error| load(&error))?;
        let folders = HashMap::try_from(map("folders")?).map_err(|error| load(&error))?;
        let ring = Ring::map(ring_map.fd().as_fd(), RING).map_err(FileProbeError::Ring)?;
        let types = Btf::from_sys_fs().map_err(|error| FileProbeError::Types(told(&error)))?;
        let (mut hooks, mut links) = (Vec::new(), Vec::new());
        for (program, place) in PROGRAMS {
            if place == INSTEAD && !links.is_empty() {
                continue;
            }
            let refused = attach(&mut loaded, program, place, &types).map(|link| links.push(link)).err();
            hooks.push(Hook { name: place, refused });
        }
        if links.is_empty() {
            return Err(FileProbeError::Attach(hooks));
        }
        Ok(Self { ring, ring_map, lost, folders, followed: HashSet::new(), hooks, _links: links, refused: 0 })
    }

    pub fn hooks(&self) -> &[Hook] {
        &self.hooks
    }

    /// From now on what happens to entries of these folders is told, and of no others; the first [`FOLDERS`] of them.
    pub fn follow(&mut self, folders: &[Inode]) -> Result<(), String> {
        let wanted: HashSet<Place> = folders.iter().take(FOLDERS).map(place_of).collect();
        // First, so that there is room.
        for gone in self.followed.difference(&wanted) {
            self.folders.remove(gone).map_err(|error| told(&error))?;
        }
        self.followed.retain(|place| wanted.contains(place));
        for place in wanted {
            if !self.followed.contains(&place) {
                self.folders.insert(place, 0, 0).map_err(|error| told(&error))?;
                self.followed.insert(place);
            }
        }
        Ok(())
    }

    /// Passes on, in order, all that was told before the call.
    pub fn drain(&mut self, take: &mut dyn FnMut(Operation)) -> Drained {
        let Self { ring, refused, .. } = self;
        ring.drain(&mut |bytes| match decode(bytes) {
            Ok(operation) => take(operation),
            Err(_) => *refused += 1,
        })
    }

    /// How many records were lost since the start: no room, or not understood.
    pub fn dropped(&self) -> u64 {
        self.lost.get(&0, 0).unwrap_or(u64::MAX).saturating_add(self.refused)
    }
}

impl std::fmt::Debug for FileProbe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileProbe").field("hooks", &self.hooks).field("ring", &self.ring).finish_non_exhaustive()
    }
}

/// Ready for reading while anything waits in the ring.
impl AsFd for FileProbe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring_map.fd().as_fd()
    }
}

fn place_of(inode: &Inode) -> Place {
    let device = u64::from(libc::major(inode.device)) << 20 | u64::from(libc::minor(inode.device));
    // The device is the first half of the second number in memory.
    let second = if cfg!(target_endian = "big") { device << 32 } else { device };
    [inode.number, second]
}

fn attach(loaded: &mut Ebpf, program: &str, place: &str, types: &Btf) -> Result<FdLink, String> {
    let reason = |error: &dyn std::error::Error| told(error);
    match loaded.program_mut(program) {
        Some(Program::FEntry(program)) => attach_entry(program, place, types),
        Some(Program::FExit(program)) => attach_exit(program, place, types),
        Some(Program::BtfTracePoint(program)) => attach_tracepoint(program, place, types),
        _ => return Err("the object has no such program".to_owned()),
    }
    .map_err(|error| reason(&error))
}

fn attach_entry(program: &mut FEntry, place: &str, types: &Btf) -> Result<FdLink, aya::programs::ProgramError> {
    program.load(place, types)?;
    let id = program.attach()?;
    program.take_link(id).map(FdLink::from)
}

fn attach_exit(program: &mut FExit, place: &str, types: &Btf) -> Result<FdLink, aya::programs::ProgramError> {
    program.load(place, types)?;
    let id = program.attach()?;
    program.take_link(id).map(FdLink::from)
}

fn attach_tracepoint(program: &mut BtfTracePoint, place: &str, types: &Btf) -> Result<FdLink, aya::programs::ProgramError> {
    program.load(place, types)?;
    let id = program.attach()?;
    program.take_link(id).map(FdLink::from)
}
