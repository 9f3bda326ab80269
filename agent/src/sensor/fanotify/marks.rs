//! Which file systems are marked, and who watches what cannot be.
//!
//! Invariant: new marks are made before old ones are taken away, so that nothing is unwatched in between.

use std::collections::HashMap;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use trueline_drift::{GapReason, ItemKind};

use super::{MASK, UNNAMED, Worker};
use crate::kernel::fanotify::Reach;
use crate::kernel::handle::{filesystem_of, handle_of};
use crate::sensor::coverage::{Coverage, POLL};
use crate::sensor::inotify::{Inotify, Scope};
use crate::sensor::mounts::{Mount, mounts_of, parse_mounts, watched_on};
use crate::sensor::outlet::Closed;
use crate::sensor::resolve::Place;
use crate::sensor::sensors::unwatched_sysctls;
use crate::sensor::view::{View, file_scope, into_bytes};
use crate::sensor::{Depth, Target};

impl Worker {
    /// Finds roots and mounts anew; what came into view, and what a mount or an unmount showed or hid,
    /// must be read again.
    pub(super) fn refresh(&mut self) -> Result<(), Closed> {
        let view = std::mem::replace(&mut self.view, View::new(&self.policy));
        let before = self.mounts.clone();
        if let Err(error) = self.mark_mounts() {
            return self.lose("file:*", GapReason::SensorLost, &error);
        }
        let differ = |one: &[Mount], other: &[Mount]| -> Vec<PathBuf> {
            one.iter().filter(|mount| !other.contains(mount)).map(|mount| mount.point.clone()).collect()
        };
        let mut points = differ(&self.mounts, &before);
        points.extend(differ(&before, &self.mounts));
        let mounter = self.take_mounter(!points.is_empty())?;
        let mut points: Vec<_> = points.into_iter().map(|point| (point, mounter.clone())).collect();
        points.extend(self.view.roots().iter().filter(|root| !view.roots().contains(root)).map(|root| (root.clone(), None)));
        for (point, actor) in points {
            let point = into_bytes(point);
            if self.view.contains(&point) {
                self.touch(Target::Path(point), actor, Depth::Tree, None, libc::FAN_CREATE)?;
            }
        }
        Ok(())
    }

    pub(super) fn mark_mounts(&mut self) -> io::Result<Option<Receiver<()>>> {
        let mut table = Vec::new();
        self.mount_table.rewind()?;
        self.mount_table.read_to_end(&mut table)?;
        let all = parse_mounts(&table);
        let roots = self.view.roots();
        self.mounts = mounts_of(roots, &all);
        let (mut places, mut marks) = (HashMap::<_, Vec<Place>>::new(), HashMap::new());
        let (mut refused, mut covered) = (Vec::new(), Vec::new());
        self.rows.clear();
        for mount in &self.mounts {
            let watched = watched_on(mount, roots, &all);
            match self.mark(mount) {
                Ok((filesystem, place)) => {
                    places.entry(filesystem).or_default().push(place);
                    marks.entry(filesystem).or_insert_with(|| mount.point.clone());
                    for path in watched {
                        self.rows.push(Coverage { name: "fanotify", scope: file_scope(&path), watching: true, reason: None });
                        covered.push(path);
                    }
                }
                Err(error) => {
                    let reason = format!("fanotify refuses the {} file system at {}: {error}", mount.kind, mount.point.display());
                    refused.extend(watched.into_iter().map(|path| Scope { path, reason: reason.clone() }));
                }
            }
        }
        let unmarked = self.unmark_left(&marks);
        (self.places, self.marks) = (places, marks);
        self.directories.clear();
        let in_place = self.fall_back(refused, covered);
        self.publish();
        unmarked.map(|()| in_place)
    }

    /// Takes away the marks of file systems that hold nothing watched any more. An unmounted one takes its mark along, and then its path
    /// leads to the one beneath, whose mark must stay.
    fn unmark_left(&self, wanted: &HashMap<[u8; 8], PathBuf>) -> io::Result<()> {
        for (filesystem, path) in self.marks.iter().filter(|(filesystem, _)| !wanted.contains_key(*filesystem)) {
            let is_there = || filesystem_of(path).is_ok_and(|there| there == *filesystem);
            if is_there() {
                // Events of a file system that is not wanted are ignored by now, marked or not.
                let _ = self.group.unmark(Reach::Filesystem, MASK, path);
                if !is_there() {
                    wanted.values().try_for_each(|path| self.group.mark(Reach::Filesystem, MASK, path))?;
                    return Err(io::Error::other("a file system was unmounted while its mark was taken away"));
                }
            }
        }
        Ok(())
    }

    /// A mark alone is of no use where handles cannot be turned into paths, so that is tried too.
    fn mark(&self, mount: &Mount) -> io::Result<([u8; 8], Place)> {
        let filesystem = filesystem_of(&mount.point)?;
        let place = Place::new(mount);
        place.open(&handle_of(&mount.point)?)?;
        self.group.mark(Reach::Filesystem, MASK, &mount.point)?;
        Ok((filesystem, place))
    }

    fn fall_back(&mut self, refused: Vec<Scope>, covered: Vec<PathBuf>) -> Option<Receiver<()>> {
        if !refused.is_empty() && self.fallback.is_none() {
            match Inotify::start(self.outlet.clone(), Arc::clone(&self.coverage)) {
                Ok(inotify) => self.fallback = Some(inotify),
                Err(error) => {
                    let poll = |scope: Scope| Coverage {
                        name: POLL,
                        scope: file_scope(&scope.path),
                        watching: false,
                        reason: Some(format!("{}; {error}", scope.reason)),
                    };
                    self.rows.extend(refused.into_iter().map(poll));
                    return None;
                }
            }
        }
        self.fallback.as_ref().map(|inotify| inotify.watch(self.view.clone(), refused, covered))
    }

    pub(super) fn publish(&self) {
        let mut rows = self.rows.clone();
        if self.policy.watches_kind(ItemKind::Sysctl) {
            rows.push(match &self.sysctls {
                Ok(_) => Coverage { name: "fanotify", scope: "sysctl:*".to_owned(), watching: true, reason: None },
                Err(error) => unwatched_sysctls(&format!("fanotify refuses {}: {error}", Path::new("/proc/sys").display())),
            });
        }
        let unnamed = if self.ordinary_priority { Some(UNNAMED) } else { None };
        let blind = (!self.group.names_process()).then_some("the kernel names processes by number alone (before 5.15)");
        for row in rows.iter_mut().filter(|row| row.watching) {
            row.reason = blind.or(unnamed).map(str::to_owned);
        }
        self.coverage.replace("fanotify", rows);
    }
}
