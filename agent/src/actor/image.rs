//! What the processes of an actor run, by the executable file itself: what the sensor's thread knows of them, and the observer
//! needs, beside what an actor says.
//!
//! Invariants: an image belongs to one process by pid and start time, and to one program of it by path; where two files were
//! seen under one such name, none is believed. Bounded: what was noted or asked for longest ago makes room.

use std::collections::HashMap;
use std::time::Duration;

use trueline_drift::Time;
use trueline_drift::actor::Process;

/// Processes remembered: those that changed something lately, and their parents.
const CAPACITY: usize = 8192;

/// A file, by what tells it from all others of its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// As makedev(3) packs it; the file system's own number or the one that stat(2) tells.
    pub device: u64,
    pub inode: u64,
    /// ctime, since 1970: moves with every change of the file, and no program can set it. Absent where it was not told.
    pub changed: Option<Duration>,
}

/// One process and the file that it executes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProcessImage {
    pub pid: u32,
    pub started_at: Option<Time>,
    /// As in [`Process::exe`].
    pub exe: String,
    /// Absent where the kernel did not tell, or the file had been removed when it was executed.
    pub file: Option<FileIdentity>,
    /// Who the process acts for, as far as it is known.
    pub uid: Option<u32>,
    /// It sees other mounts than the host's first process does: a path that it named may be another file here.
    pub is_apart: bool,
}

#[derive(Debug)]
struct Noted {
    image: ProcessImage,
    is_doubtful: bool,
    at: u64,
}

#[derive(Debug, Default)]
pub struct Images {
    noted: HashMap<(u32, Option<Time>), Vec<Noted>>,
    count: usize,
    notes: u64,
}

impl Images {
    pub fn note(&mut self, image: ProcessImage) {
        self.notes += 1;
        let at = self.notes;
        let programs = self.noted.entry((image.pid, image.started_at)).or_default();
        if let Some(known) = programs.iter_mut().find(|known| known.image.exe == image.exe) {
            let is_another = known.image.file.zip(image.file).is_some_and(|(known, now)| known != now);
            known.is_doubtful |= is_another;
            known.at = at;
            let is_apart = image.is_apart || known.image.is_apart;
            known.image = ProcessImage { file: image.file.or(known.image.file), uid: image.uid.or(known.image.uid), is_apart, ..image };
            return;
        }
        programs.push(Noted { image, is_doubtful: false, at });
        self.count += 1;
        if self.count > CAPACITY {
            self.make_room();
        }
    }

    /// Of this very program of the process. What is asked for counts as noted again.
    pub fn of(&mut self, process: &Process) -> Option<&ProcessImage> {
        let programs = self.noted.get_mut(&(process.pid, process.started_at))?;
        let exe = process.exe.as_deref()?;
        let noted = programs.iter_mut().find(|noted| noted.image.exe == exe && !noted.is_doubtful)?;
        self.notes += 1;
        noted.at = self.notes;
        Some(&noted.image)
    }

    /// Lets go of the older half at once, so that each note costs little in the mean.
    fn make_room(&mut self) {
        let mut times: Vec<u64> = self.noted.values().flatten().map(|noted| noted.at).collect();
        let middle = times.len() / 2;
        let (_, middle, _) = times.select_nth_unstable(middle);
        let middle = *middle;
        self.noted.retain(|_, programs| {
            programs.retain(|noted| noted.at >= middle);
            !programs.is_empty()
        });
        self.count = self.noted.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(pid: u32, exe: &str, inode: u64) -> ProcessImage {
        let file = FileIdentity { device: 1, inode, changed: None };
        ProcessImage { pid, started_at: None, exe: exe.to_owned(), file: Some(file), uid: None, is_apart: false }
    }

    fn process(pid: u32, exe: &str) -> Process {
        Process { exe: Some(exe.to_owned()), ..Process::bare(pid) }
    }

    #[test]
    fn each_program_of_a_process_has_its_own_file_and_two_files_of_one_name_none() {
        let mut images = Images::default();
        images.note(image(5, "/bin/sh", 1));
        images.note(image(5, "/bin/cat", 2));
        images.note(ProcessImage { file: None, uid: Some(7), ..image(5, "/bin/sh", 0) });
        let shell = images.of(&process(5, "/bin/sh")).unwrap();
        assert_eq!((shell.file.unwrap().inode, shell.uid), (1, Some(7)));
        assert_eq!(images.of(&process(5, "/bin/cat")).unwrap().file.unwrap().inode, 2);
        assert_eq!(images.of(&process(6, "/bin/cat")), None);
        let later = Process { started_at: Some(Time::from_seconds(1)), ..process(5, "/bin/sh") };
        assert_eq!(images.of(&later), None, "another process with the same pid");
        images.note(image(5, "/bin/cat", 3));
        assert_eq!(images.of(&process(5, "/bin/cat")), None);
    }

    #[test]
    fn the_oldest_make_room() {
        let mut images = Images::default();
        for pid in 0..=CAPACITY as u32 {
            images.note(image(pid, "/bin/sh", 1));
        }
        assert!(images.count <= CAPACITY);
        assert!(images.of(&process(0, "/bin/sh")).is_none());
        assert!(images.of(&process(CAPACITY as u32, "/bin/sh")).is_some());
    }
}
