//! Cgroups as deeds: what the host has, making and removing leaves, performing the writes that the
//! model decided. Everything here blocks for microseconds (file writes), except [`Cgroups::remove`],
//! which waits for the last process to be gone: call it from a blocking thread.

pub mod cgroupfs;
pub mod detect;
pub mod systemd;
#[cfg(test)]
mod tests;

use crate::error::RuntimeError;
use shim_model::cgroup::counters::Counters;
use shim_model::cgroup::driver::{Driver, GroupPath};
use shim_model::cgroup::stats::{PRESSURE_FILES, Pressure, Stats};
use shim_model::cgroup::v1::V1;
use shim_model::cgroup::v2::V2;
use shim_model::cgroup::{Version, Write};
use shim_model::host::{CgroupLayout, Hierarchy};
use shim_model::resources::Resources;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The node's cgroup hierarchies.
#[derive(Clone, Debug)]
pub struct Cgroups {
    pub(crate) v1: Arc<[V1Hierarchy]>,
    pub(crate) v2: Option<PathBuf>,
    pub(crate) layout: CgroupLayout,
    driver: Driver,
    systemd: systemd::Systemd,
    /// Folders above a leaf that we had to make, to be taken away again.
    made: Arc<parking_lot::Mutex<BTreeSet<PathBuf>>>,
    /// Sizes of huge pages that the node has, as the kernel names their files.
    page_sizes: Arc<[String]>,
}

/// One mounted v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V1Hierarchy {
    /// Controllers, or `name=NAME`.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
}

/// A leaf's descriptors, as the monitor wants them (`shim_model::wire::CgroupFds`).
#[derive(Debug)]
pub struct Leaf {
    /// v1: the `tasks` file of each hierarchy. The child writes its own number there, which skips the
    /// kernel's lock over all thread groups that `cgroup.procs` takes.
    pub join: Vec<OwnedFd>,
    /// v2: the folder for `CLONE_INTO_CGROUP`.
    pub into: Option<OwnedFd>,
    /// The folder with `cgroup.kill` (v2), or the freezer's (pure v1).
    pub kill: Option<OwnedFd>,
    /// `memory.events` (v2) or `memory.oom_control` (v1).
    pub oom: Option<OwnedFd>,
}

impl Cgroups {
    /// Looks at the mounts of this process.
    pub fn detect() -> Result<Self, RuntimeError> {
        let text = std::fs::read_to_string("/proc/self/mountinfo")
            .map_err(RuntimeError::file("read", "/proc/self/mountinfo"))?;
        let found = detect::hierarchies(&text);
        if found.v1.is_empty() && found.v2.is_none() {
            return Err(RuntimeError::Unsupported("no cgroup hierarchy is mounted".to_owned()));
        }
        let layout = match (&found.v2, found.v1.is_empty()) {
            (Some(_), true) => CgroupLayout::V2,
            (Some(_), false) => CgroupLayout::Hybrid,
            (None, _) => CgroupLayout::V1,
        };
        let page_sizes = page_sizes().into();
        let (v1, made) = (found.v1.into(), Arc::default());
        let (driver, systemd) = (Driver::Cgroupfs, systemd::Systemd::default());
        Ok(Self { v1, v2: found.v2, layout, driver, systemd, made, page_sizes })
    }

    /// Who makes groups.
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// The layout.
    pub fn layout(&self) -> CgroupLayout {
        self.layout
    }

    /// The v1 hierarchies as a container sees them.
    pub fn hierarchies(&self) -> Vec<Hierarchy> {
        let folder =
            |mount: &Path| mount.file_name().map(|name| name.to_string_lossy().into_owned());
        let options = |controllers: &[String]| match controllers {
            [named] if named.starts_with("name=") => vec!["none".to_owned(), named.clone()],
            others => others.to_vec(),
        };
        self.v1
            .iter()
            .filter_map(|h| {
                Some(Hierarchy { folder: folder(&h.mount)?, options: options(&h.controllers) })
            })
            .collect()
    }

    /// The version that limits and counts.
    pub(crate) fn version(&self) -> &'static dyn Version {
        match self.layout {
            CgroupLayout::V2 => &V2,
            CgroupLayout::V1 | CgroupLayout::Hybrid => &V1,
        }
    }

    /// Where a controller's files of a group are; `None` if the host lacks the controller.
    pub(crate) fn folder(&self, controller: &str, group: &GroupPath) -> Option<PathBuf> {
        match (self.layout, &self.v2) {
            (CgroupLayout::V2, Some(mount)) => Some(mount.join(group.as_str())),
            _ => self
                .v1
                .iter()
                .find(|h| h.controllers.iter().any(|known| known == controller))
                .map(|h| h.mount.join(group.as_str())),
        }
    }

    /// Every folder of a group.
    pub(crate) fn folders(&self, group: &GroupPath) -> Vec<PathBuf> {
        let v1 = self.v1.iter().map(|h| &h.mount);
        v1.chain(&self.v2).map(|mount| mount.join(group.as_str())).collect()
    }

    /// Puts new limits in force on a leaf with processes in it, all of them or none: what a refusal
    /// interrupts is taken back, last write first. `resources` is the whole set, old and new together.
    pub fn update(&self, group: &GroupPath, resources: &Resources) -> Result<(), RuntimeError> {
        let now = self.stats(group).memory_limit;
        let mut done = Vec::new();
        for write in self.version().update(resources, now) {
            let path = self.folder(write.controller, group).map(|folder| folder.join(&write.file));
            let before = path.map(|path| (text(&path), path));
            if let Err(refused) = self.apply(group, std::slice::from_ref(&write)) {
                take_back(done);
                return Err(refused);
            }
            done.extend(before);
        }
        Ok(())
    }

    /// Performs writes; the first failure names the file. Those to one file in a row, as v1's device rules
    /// are, open it once: each is one rule, wherever in the file it lands.
    pub fn apply(&self, group: &GroupPath, writes: &[Write]) -> Result<(), RuntimeError> {
        let mut last: Option<(PathBuf, File)> = None;
        for write in writes {
            let Some(folder) = self.folder(write.controller, group) else {
                if write.optional {
                    continue;
                }
                let text = format!(
                    "the host has no cgroup controller {} for {}",
                    write.controller, write.file
                );
                return Err(RuntimeError::Unsupported(text));
            };
            let path = folder.join(&write.file);
            let again = last.take().filter(|(open, _)| *open == path).map(|(_, file)| file);
            let done = again.map_or_else(|| open(&path), Ok).and_then(|mut file| {
                file.write_all(write.text.as_bytes())?;
                Ok(file)
            });
            match done {
                Ok(file) => last = Some((path, file)),
                Err(error) if write.optional && error.kind() == ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(RuntimeError::Limit { path, text: write.text.clone(), source });
                }
            }
        }
        Ok(())
    }

    /// What a group uses.
    pub fn stats(&self, group: &GroupPath) -> Stats {
        let version = self.version();
        let mut stats = version.stats(&self.texts(group, version.files()));
        // Pressure is told by the v2 hierarchy also where all controllers are v1's.
        if let (CgroupLayout::Hybrid, Some(mount)) = (self.layout, &self.v2) {
            let folder = mount.join(group.as_str());
            let [cpu, memory, io] =
                PRESSURE_FILES.map(|file| Pressure::parse(&text(&folder.join(file))));
            (stats.cpu_pressure, stats.memory_pressure, stats.io_pressure) = (cpu, memory, io);
        }
        stats
    }

    /// What a group counted.
    pub fn counters(&self, group: &GroupPath) -> Counters {
        let version = self.version();
        let mut counters = version.counters(&self.texts(group, version.counter_files()));
        // A hybrid host may have this controller, and only this, in the v2 hierarchy.
        let (folder, version): (_, &dyn Version) = match self.folder("hugetlb", group) {
            Some(folder) => (folder, version),
            None => match &self.v2 {
                Some(mount) => (mount.join(group.as_str()), &V2),
                None => return counters,
            },
        };
        let number = |file: String| text(&folder.join(file)).trim().parse::<u64>().ok();
        for size in self.page_sizes.iter() {
            let (used, most) = version.huge_page_files(size);
            if let Some(used) = number(used) {
                counters.huge_pages.insert(size.clone(), (used, most.and_then(number)));
            }
        }
        counters
    }

    /// The texts of files of a group; a missing one is empty.
    fn texts(&self, group: &GroupPath, files: &[(&str, &str)]) -> Vec<String> {
        let read = |(controller, file): &(&str, &str)| {
            self.folder(controller, group)
                .map(|folder| text(&folder.join(file)))
                .unwrap_or_default()
        };
        files.iter().map(read).collect()
    }
}

/// Sizes of huge pages, out of the names of `/sys/kernel/mm/hugepages/hugepages-2048kB`.
fn page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let size = |name: &str| {
        let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some(shim_model::cgroup::page_size(kib))
    };
    entries.filter_map(|entry| size(&entry.file_name().to_string_lossy())).collect()
}

/// Writes what files had before, in the reverse of the order in which they were changed: as no step on the
/// way there contradicted another, none does on the way back.
fn take_back(done: Vec<(String, PathBuf)>) {
    for (before, path) in done.into_iter().rev() {
        // A file with a line for each device takes one of them at a time.
        for line in before.lines().filter(|line| !line.is_empty()) {
            if let Err(error) = put(path.clone(), line) {
                let error = crate::error::chain(&error);
                tracing::warn!(error, "a limit stays between the old and the new one");
            }
        }
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Writes to a file of the kernel's.
pub(crate) fn put(path: PathBuf, text: &str) -> Result<(), RuntimeError> {
    let written = open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| RuntimeError::Limit { path, text: text.to_owned(), source })
}

/// A file of the kernel's is never made: cgroup file systems answer EACCES to that, which would hide that
/// the file is missing.
fn open(path: &Path) -> std::io::Result<File> {
    File::options().write(true).open(path)
}
