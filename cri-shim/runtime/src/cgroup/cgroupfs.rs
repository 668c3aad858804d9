//! The cgroupfs driver: leaves made by mkdir(2). A kubelet's pod group is never written and never
//! removed; only the leaf below it is ours, and folders above it that did not exist.

use super::{Cgroups, Leaf};
use crate::error::RuntimeError;
use shim_model::cgroup::devices::DeviceRules;
use shim_model::cgroup::driver::GroupPath;
use shim_model::host::CgroupLayout;
use shim_model::limits;
use shim_model::resources::Resources;
use shim_sys::process;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
            if self.layout == CgroupLayout::V2 {
                enable_controllers(mount, group);
            }
            self.make(mount, group)?;
        }
        self.apply(group, &self.version().limits(resources))?;
        self.limit_devices(group, devices)?;
        self.open(group)
    }

    fn limit_devices(&self, group: &GroupPath, devices: &DeviceRules) -> Result<(), RuntimeError> {
        if let (CgroupLayout::V2, Some(mount)) = (self.layout, &self.v2) {
            let Some(program) = devices.v2_program() else { return Ok(()) };
            return attach(&mount.join(group.as_str()), &program);
        }
        let Some(folder) = self.folder("devices", group) else { return Ok(()) };
        for (file, text) in devices.v1_writes() {
            let path = folder.join(file);
            fs::write(&path, &text).map_err(|source| RuntimeError::Limit { path, text, source })?;
        }
        Ok(())
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

    /// SIGKILL to everything in a leaf. Safe to repeat; a missing leaf is done.
    pub fn kill(&self, group: &GroupPath) {
        if let Some(mount) = &self.v2
            && fs::write(mount.join(group.as_str()).join("cgroup.kill"), "1").is_ok()
            && self.layout == CgroupLayout::V2
        {
            return;
        }
        if let Some(freezer) = self.folder("freezer", group) {
            let _not_frozen_is_fine = fs::write(freezer.join("freezer.state"), "THAWED");
        }
        for pid in self.processes(group) {
            let _gone_is_fine = process::kill_number(pid);
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
        for mount in self.v1.iter().map(|h| &h.mount).chain(&self.v2) {
            let placed = self
                .make(mount, group)
                .and_then(|()| if is_cpuset(mount) { inherit_cpuset(mount, group) } else { Ok(()) })
                .and_then(|()| {
                    let path = mount.join(group.as_str()).join("cgroup.procs");
                    fs::write(&path, pid.to_string()).map_err(RuntimeError::file("write", path))
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
        let mut path = mount.to_owned();
        for part in group.as_str().split('/') {
            path.push(part);
            match fs::create_dir(&path) {
                Ok(()) if path != leaf => {
                    self.made.lock().insert(path.clone());
                }
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(RuntimeError::file("make the cgroup", path)(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Takes away empty folders above a leaf that we made; the default parent stays.
    fn remove_made(&self, group: &GroupPath) {
        let mut made = self.made.lock();
        for folder in self.folders(group) {
            for above in folder.ancestors().skip(1) {
                if above.ends_with("wherry/pods")
                    || !made.contains(above)
                    || fs::remove_dir(above).is_err()
                {
                    break;
                }
                made.remove(above);
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

fn is_cpuset(mount: &Path) -> bool {
    mount.join("cpuset.cpus").exists()
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
                fs::write(&own, text.trim()).map_err(RuntimeError::file("write", own))?;
            }
        }
    }
    Ok(())
}

/// Turns controllers on from the root down to the leaf's parent; what the host lacks stays off, and a
/// limit that needs it fails by name then.
fn enable_controllers(mount: &Path, group: &GroupPath) {
    let mut path = mount.to_owned();
    for part in group.as_str().split('/') {
        for controller in ["cpu", "memory", "pids", "cpuset", "io", "hugetlb"] {
            let _missing_is_told_by_the_limit =
                fs::write(path.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        path.push(part);
        let _made_again_below = fs::create_dir(&path);
    }
}

/// Removes a group's folder with the sub-groups of execs; false while something is left.
fn remove_tree(folder: &Path) -> bool {
    match fs::remove_dir(folder) {
        Ok(()) => return true,
        Err(error) if error.kind() == ErrorKind::NotFound => return true,
        Err(_) => {}
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path());
    }
    match fs::remove_dir(folder) {
        Ok(()) => true,
        Err(error) => error.kind() == ErrorKind::NotFound,
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

#[cfg(test)]
mod tests {
    use crate::cgroup::Cgroups;
    use shim_model::cgroup::devices::DeviceRules;
    use shim_model::cgroup::driver::GroupPath;
    use shim_model::host::CgroupLayout;
    use shim_model::resources::Resources;
    use std::io::Read;
    use std::os::fd::{AsFd, OwnedFd};
    use std::process::{Child, Command, Stdio};

    /// This machine's cgroups, and a group for one test.
    fn machine(name: &str) -> Option<(Cgroups, GroupPath)> {
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| {
            use std::os::unix::fs::MetadataExt;
            own.uid() == 0
        });
        if !is_root {
            eprintln!("skipped: needs root");
            return None;
        }
        let cgroups = Cgroups::detect().unwrap();
        let own = format!("/wherry-test-{name}-{}", std::process::id());
        Some((cgroups, GroupPath::parent(&own).unwrap().named("leaf")))
    }

    /// Only the v2 half of this machine, as a host without v1 would have it.
    fn v2_only(cgroups: &Cgroups) -> Option<Cgroups> {
        if cgroups.v2.is_none() {
            eprintln!("skipped: no cgroup2 mount");
            return None;
        }
        Some(Cgroups { v1: [].into(), layout: CgroupLayout::V2, ..cgroups.clone() })
    }

    fn folders(cgroups: &Cgroups, group: &GroupPath) -> usize {
        cgroups.folders(group).iter().filter(|folder| folder.exists()).count()
    }

    /// A shell in the leaf, put there by the descriptors that the monitor gets.
    fn shell_in(cgroups: &Cgroups, group: &GroupPath, script: &str) -> Child {
        let leaf = cgroups.open(group).unwrap();
        let folder = cgroups.v2.as_ref().map(|mount| mount.join(group.as_str()));
        let joins: Vec<OwnedFd> = leaf.join.iter().map(|fd| fd.try_clone().unwrap()).collect();
        // The shell waits for a line, so that it is in the group before it does anything.
        let mut child = Command::new("/bin/sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id().to_string();
        for tasks in joins {
            shim_sys::fd::write(tasks.as_fd(), pid.as_bytes()).unwrap();
        }
        if let Some(folder) = folder {
            std::fs::write(folder.join("cgroup.procs"), &pid).unwrap();
        }
        drop(child.stdin.take().unwrap());
        child
    }

    #[test]
    fn root_a_leaf_is_made_filled_killed_and_removed() {
        let Some((cgroups, group)) = machine("life") else { return };
        let limits = Resources { memory_limit: 64 << 20, pids_limit: 20, ..Resources::default() };
        cgroups.create(&group, &limits, &DeviceRules::of(false, &[])).unwrap();
        let made = folders(&cgroups, &group);
        let mut child = shell_in(&cgroups, &group, "exec sleep 1000");
        let inside = cgroups.processes(&group);
        let stats = cgroups.stats(&group);
        cgroups.kill(&group);
        let status = child.wait().unwrap();
        cgroups.remove(&group).unwrap();
        cgroups.remove(&group).unwrap();
        assert_eq!(made, cgroups.folders(&group).len());
        assert_eq!(inside, [i32::try_from(child.id()).unwrap()]);
        assert_eq!(stats.tasks, Some(1));
        assert_eq!(stats.memory_limit, Some(64 << 20));
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        let parent = GroupPath::parent(group.to_string().trim_end_matches("/leaf")).unwrap();
        assert_eq!((folders(&cgroups, &group), folders(&cgroups, &parent)), (0, 0));
    }

    #[test]
    fn root_remove_kills_what_is_left_in_sub_groups() {
        let Some((cgroups, group)) = machine("rest") else { return };
        cgroups.create(&group, &Resources::default(), &DeviceRules::All).unwrap();
        let mut child = shell_in(&cgroups, &group, "sleep 1000 & sleep 1001 & exec sleep 1002");
        // The sleepers are below the shell; wait until all are there.
        while cgroups.processes(&group).len() < 3 {
            std::thread::yield_now();
        }
        if let Some(mount) = &cgroups.v2 {
            let sub = mount.join(group.as_str()).join("exec-1");
            std::fs::create_dir(&sub).unwrap();
            std::fs::write(sub.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        // Reaped here while remove waits for it: a zombie holds no group, but keeps its number.
        let removed = std::thread::scope(|scope| {
            let removing = scope.spawn(|| cgroups.remove(&group));
            child.wait().unwrap();
            removing.join().unwrap()
        });
        removed.unwrap();
        assert_eq!(folders(&cgroups, &group), 0);
    }

    fn device_denials(cgroups: &Cgroups, group: &GroupPath) -> String {
        let rules = DeviceRules::of(false, &[]);
        cgroups.create(group, &Resources::default(), &rules).unwrap();
        // /dev/kmsg (1:11) is in no rule; a node of a forbidden device may be made, not opened.
        let script = "for d in null zero kmsg; do (: </dev/$d) 2>&- && echo $d; done";
        let mut child = shell_in(cgroups, group, script);
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        child.wait().unwrap();
        cgroups.remove(group).unwrap();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn root_the_default_rules_are_in_force_in_v1() {
        let Some((cgroups, group)) = machine("devices-v1") else { return };
        if cgroups.layout == CgroupLayout::V2 {
            eprintln!("skipped: no v1 hierarchy");
            return;
        }
        assert_eq!(device_denials(&cgroups, &group), "null zero");
    }

    #[test]
    fn root_the_default_rules_are_in_force_in_v2() {
        let Some((cgroups, group)) = machine("devices-v2") else { return };
        let Some(cgroups) = v2_only(&cgroups) else { return };
        assert_eq!(device_denials(&cgroups, &group), "null zero");
    }

    #[test]
    fn root_a_limit_that_the_kernel_refuses_leaves_nothing_behind() {
        let Some((cgroups, group)) = machine("refused") else { return };
        let limits = Resources { cpuset_cpus: "9999".to_owned(), ..Resources::default() };
        let error = cgroups.create(&group, &limits, &DeviceRules::All).unwrap_err();
        assert!(error.to_string().contains("cpuset.cpus"), "{error}");
        assert_eq!(folders(&cgroups, &group), 0);
    }
}
