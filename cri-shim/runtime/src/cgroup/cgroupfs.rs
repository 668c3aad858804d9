//! The cgroupfs driver: leaves made by mkdir(2). A kubelet's pod group is never written and never
//! removed; only the leaf below it is ours, and folders above it that did not exist.

use super::{Cgroups, Leaf, put};
use crate::error::RuntimeError;
use shim_model::cgroup::devices::DeviceRules;
use shim_model::cgroup::driver::{DEFAULT_PARENT, GroupPath};
use shim_model::host::CgroupLayout;
use shim_model::limits;
use shim_model::resources::Resources;
use shim_sys::process;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// `SIGKILL`, signal(7).
const SIGKILL: i32 = 9;
/// Controllers of v2 that a leaf is to have.
const CONTROLLERS: [&str; 6] = ["cpu", "memory", "pids", "cpuset", "io", "hugetlb"];
/// Which files a delegated group's owner gets (kernel documentation, cgroup-v2, Delegation).
const DELEGATE: &str = "/sys/kernel/cgroup/delegate";
/// What it says at least.
const DELEGATED: &str = "cgroup.procs cgroup.subtree_control cgroup.threads";
/// Descriptors of processes open at once.
const KILLED_AT_ONCE: usize = 256;

impl Cgroups {
    /// Makes a leaf in every hierarchy with its limits, before any process is in it.
    pub fn create(
        &self,
        group: &GroupPath,
        resources: &Resources,
        devices: &DeviceRules,
    ) -> Result<Leaf, RuntimeError> {
        let made = self.make_all(group, resources, devices);
        if made.is_err() {
            let _the_first_error_counts = self.remove(group);
        }
        made
    }

    fn make_all(
        &self,
        group: &GroupPath,
        resources: &Resources,
        devices: &DeviceRules,
    ) -> Result<Leaf, RuntimeError> {
        for hierarchy in self.v1.iter() {
            self.make(&hierarchy.mount, group)?;
            if hierarchy.controllers.iter().any(|c| c == "cpuset") {
                inherit_cpuset(&hierarchy.mount, group)?;
            }
        }
        if let Some(mount) = &self.v2 {
            self.make(mount, group)?;
            if self.layout == CgroupLayout::V2 {
                enable_controllers(mount, group);
            }
        }
        self.apply(group, &self.version().limits(resources))?;
        self.limit_devices(group, devices)?;
        self.open(group)
    }

    /// Gives a leaf of cgroup v2 to the root of a user namespace, as far as the kernel says that a delegated
    /// group's files may be given (`/sys/kernel/cgroup/delegate`): it may make groups below its own. Limits
    /// stay the node's. v1 has no such thing.
    pub fn delegate(&self, group: &GroupPath, owner: (u32, u32)) -> Result<(), RuntimeError> {
        let (CgroupLayout::V2, Some(mount)) = (self.layout, &self.v2) else { return Ok(()) };
        let folder = mount.join(group.as_str());
        let list = fs::read_to_string(DELEGATE).unwrap_or_else(|_| DELEGATED.to_owned());
        let files = list.split_whitespace().map(|name| folder.join(name));
        for path in files.chain([folder.clone()]).filter(|path| path.exists()) {
            std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1))
                .map_err(RuntimeError::file("give the pod's root", path))?;
        }
        Ok(())
    }

    fn limit_devices(&self, group: &GroupPath, devices: &DeviceRules) -> Result<(), RuntimeError> {
        if let (CgroupLayout::V2, Some(mount)) = (self.layout, &self.v2) {
            let Some(program) = devices.v2_program() else { return Ok(()) };
            return attach(&mount.join(group.as_str()), &program);
        }
        let Some(folder) = self.folder("devices", group) else { return Ok(()) };
        devices.v1_writes().into_iter().try_for_each(|(file, text)| put(folder.join(file), &text))
    }

    /// The descriptors of an existing leaf.
    pub fn open(&self, group: &GroupPath) -> Result<Leaf, RuntimeError> {
        let mut join = Vec::new();
        for hierarchy in self.v1.iter() {
            let path = hierarchy.mount.join(group.as_str()).join("tasks");
            let file = OpenOptions::new()
                .write(true)
                .open(&path)
                .map_err(RuntimeError::file("open", path))?;
            join.push(OwnedFd::from(file));
        }
        let folder = |path: PathBuf| {
            File::open(&path).map(OwnedFd::from).map_err(RuntimeError::file("open", path))
        };
        let v2 = self.v2.as_ref().map(|mount| mount.join(group.as_str()));
        let kill = v2.clone().or_else(|| self.folder("freezer", group));
        let counter = match self.layout {
            CgroupLayout::V2 => "memory.events",
            CgroupLayout::V1 | CgroupLayout::Hybrid => "memory.oom_control",
        };
        let oom = self.folder("memory", group).and_then(|dir| File::open(dir.join(counter)).ok());
        Ok(Leaf {
            join,
            into: v2.map(folder).transpose()?,
            kill: kill.map(folder).transpose()?,
            oom: oom.map(OwnedFd::from),
        })
    }

    /// Numbers of the processes in a leaf and below it.
    pub fn processes(&self, group: &GroupPath) -> Vec<i32> {
        let mut found = Vec::new();
        for folder in self.folders(group) {
            collect_processes(&folder, &mut found);
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// As [`Self::processes`], out of one hierarchy: for whoever only wants to look.
    pub fn processes_once(&self, group: &GroupPath) -> Vec<i32> {
        let mut found = Vec::new();
        let mount = self.v2.as_ref().or_else(|| self.v1.first().map(|h| &h.mount));
        if let Some(mount) = mount {
            collect_processes(&mount.join(group.as_str()), &mut found);
        }
        found
    }

    /// SIGKILL to everything in a leaf. Safe to repeat; a missing leaf is done.
    pub fn kill(&self, group: &GroupPath) {
        let v2 = self.v2.as_ref().map(|mount| mount.join(group.as_str()).join("cgroup.kill"));
        let killed = v2.is_some_and(|path| put(path, "1").is_ok());
        if killed && self.layout == CgroupLayout::V2 {
            return;
        }
        // What does not run cannot fork while it is being signalled; what is frozen does not die.
        let freezer = self.folder("freezer", group).map(|folder| folder.join("freezer.state"));
        let freeze = |state: &str| {
            if let Some(path) = freezer.clone() {
                let _a_missing_leaf_is_done = put(path, state);
            }
        };
        if !killed {
            freeze("FROZEN");
        }
        self.signal_each(group);
        freeze("THAWED");
    }

    /// Signals the processes by descriptor: who is in the list before and after his descriptor was
    /// opened is meant, and not a later process with the same number.
    fn signal_each(&self, group: &GroupPath) {
        for numbers in self.processes(group).chunks(KILLED_AT_ONCE) {
            let open = |pid: &i32| Some((*pid, process::pidfd_open(*pid).ok()?));
            let opened: Vec<(i32, OwnedFd)> = numbers.iter().filter_map(open).collect();
            let still = self.processes(group);
            for (_, pidfd) in opened.iter().filter(|(pid, _)| still.binary_search(pid).is_ok()) {
                let _gone_is_fine = process::pidfd_send_signal(pidfd, SIGKILL);
            }
        }
    }

    /// Kills what is left in a leaf and removes it, and folders above it that we made. Blocks until
    /// the last process is gone, at most `limits::KILL_WAIT`. A missing leaf is done.
    pub fn remove(&self, group: &GroupPath) -> Result<(), RuntimeError> {
        let deadline = Instant::now() + limits::KILL_WAIT;
        let mut pause = Duration::from_micros(200);
        loop {
            let left: Vec<PathBuf> =
                self.folders(group).into_iter().filter(|dir| !remove_tree(dir)).collect();
            let Some(first) = left.first() else { break };
            if Instant::now() > deadline {
                let doing = format!(
                    "remove the cgroup {} with processes {:?}",
                    first.display(),
                    self.processes(group)
                );
                return Err(RuntimeError::Deadline { doing, after: limits::KILL_WAIT });
            }
            self.kill(group);
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        self.remove_made(group);
        Ok(())
    }

    /// Puts a process into one of our own groups, best effort: without the right to do so it stays
    /// where it is, and that is told once.
    pub fn adopt(&self, group: &GroupPath, pid: i32) {
        // v2 has files of the same names, and needs nothing in them.
        let v1 = self.v1.iter().map(|h| (&h.mount, h.controllers.iter().any(|c| c == "cpuset")));
        for (mount, is_cpuset) in v1.chain(self.v2.iter().map(|mount| (mount, false))) {
            let placed = self
                .make(mount, group)
                .and_then(|()| if is_cpuset { inherit_cpuset(mount, group) } else { Ok(()) })
                .and_then(|()| {
                    put(mount.join(group.as_str()).join("cgroup.procs"), &pid.to_string())
                });
            if let Err(error) = placed {
                tracing::warn!(
                    error = crate::error::chain(&error),
                    "a process of ours stays in its present cgroup"
                );
            }
        }
    }

    /// Makes the folder of a group in one hierarchy, remembering parents that were missing.
    fn make(&self, mount: &Path, group: &GroupPath) -> Result<(), RuntimeError> {
        let leaf = mount.join(group.as_str());
        match fs::create_dir(&leaf) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(RuntimeError::file("make the cgroup", leaf)(error)),
        }
        // Locked, so that nobody takes a parent away between making it and making what is below it.
        let mut made = self.made.lock();
        let mut path = mount.to_owned();
        for part in group.as_str().split('/') {
            path.push(part);
            match fs::create_dir(&path) {
                Ok(()) if path != leaf => {
                    made.insert(path.clone());
                }
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(RuntimeError::file("make the cgroup", path)(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Takes away empty folders above a leaf that we made; the default parent stays. On a hybrid host
    /// nobody else makes pods' groups in the v2 hierarchy, so there they are ours even if a restart of
    /// the daemon forgot it.
    fn remove_made(&self, group: &GroupPath) {
        let ours = self.v2.as_ref().filter(|_| self.layout == CgroupLayout::Hybrid);
        let mut made = self.made.lock();
        for folder in self.folders(group) {
            for above in folder.ancestors().skip(1) {
                let in_ours = ours.is_some_and(|mount| above != mount && above.starts_with(mount));
                if above.ends_with(DEFAULT_PARENT) || !(in_ours || made.contains(above)) {
                    break;
                }
                match fs::remove_dir(above) {
                    Err(error) if error.kind() != ErrorKind::NotFound => break,
                    Ok(()) | Err(_) => made.remove(above),
                };
            }
        }
    }
}

/// Puts a device program in force for everything in a folder of cgroup v2 and below it.
fn attach(folder: &Path, program: &[u8]) -> Result<(), RuntimeError> {
    let handle = File::open(folder).map_err(RuntimeError::file("open", folder))?;
    shim_sys::bpf::limit_devices(&handle, program)
        .map_err(RuntimeError::system(format!("limit the devices of {}", folder.display())))
}

/// A new v1 cpuset is empty and refuses every process until it has CPUs and memory nodes.
fn inherit_cpuset(mount: &Path, group: &GroupPath) -> Result<(), RuntimeError> {
    let mut path = mount.to_owned();
    for part in group.as_str().split('/') {
        let above = path.clone();
        path.push(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = path.join(file);
            let text = fs::read_to_string(&own).map_err(RuntimeError::file("read", &own))?;
            if text.trim().is_empty() {
                let from = above.join(file);
                let text = fs::read_to_string(&from).map_err(RuntimeError::file("read", from))?;
                put(own, text.trim())?;
            }
        }
    }
    Ok(())
}

/// Turns controllers on from the root down to the leaf's parent, where they are not on already; what the
/// host lacks stays off, and a limit that needs it fails by name then. Not in a group with processes of its
/// own: that would become a threaded domain by it, in whose groups nobody can be (cgroup-v2, Threads).
fn enable_controllers(mount: &Path, group: &GroupPath) {
    let mut path = mount.to_owned();
    for part in group.as_str().split('/') {
        let control = path.join("cgroup.subtree_control");
        let on = fs::read_to_string(&control).unwrap_or_default();
        let off = |wanted: &&&str| !on.split_whitespace().any(|known| known == **wanted);
        let off: Vec<&&str> = CONTROLLERS.iter().filter(off).collect();
        // The root may have both, and a read of it would be long.
        let procs = (path != mount && !off.is_empty()).then(|| path.join("cgroup.procs"));
        let busy = procs.is_some_and(|procs| fs::read(procs).is_ok_and(|text| !text.is_empty()));
        for controller in off.into_iter().filter(|_| !busy) {
            let _missing_is_told_by_the_limit = put(control.clone(), &format!("+{controller}"));
        }
        path.push(part);
    }
}

/// Removes a group's folder with the sub-groups of execs; false while something is left.
fn remove_tree(folder: &Path) -> bool {
    match fs::remove_dir(folder) {
        Ok(()) => return true,
        Err(error) if error.kind() == ErrorKind::NotFound => return true,
        Err(_) => {}
    }
    remove_below(folder);
    match fs::remove_dir(folder) {
        Ok(()) => true,
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// Removes the groups below a folder, as far as nobody is in them.
pub(super) fn remove_below(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path());
    }
}

fn collect_processes(folder: &Path, found: &mut Vec<i32>) {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    found.extend(
        text.lines().filter_map(|line| line.trim().parse::<i32>().ok()).filter(|pid| *pid > 0),
    );
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        collect_processes(&entry.path(), found);
    }
}
