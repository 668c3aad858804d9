//! A cgroup of a test's own in every hierarchy of the machine. A space mounts them over the hierarchies,
//! so what a daemon in it makes is below them, and other daemons on the machine neither count nor see
//! it. Made before the space, removed after it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One folder per hierarchy.
#[derive(Debug)]
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
}

#[derive(Debug)]
struct Hierarchy {
    mount: PathBuf,
    own: PathBuf,
}

/// Controllers that a v2 hierarchy is to hand down.
const HANDED_DOWN: [&str; 5] = ["cpu", "memory", "pids", "cpuset", "io"];

impl Cgroups {
    /// Makes the folders. The error is the reason why this machine does not let us.
    pub fn new() -> Result<Self, String> {
        Self::named(&format!("wherry-test-{}", std::process::id()))
    }

    /// Likewise with a name that nobody else on the machine uses.
    pub fn named(name: &str) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut found = Self { hierarchies: Vec::new() };
        for mount in mounts.lines().filter_map(hierarchy) {
            let own = mount.join(name);
            fs::create_dir(&own).map_err(|error| format!("make {}: {error}", own.display()))?;
            prepare(&mount, &own);
            found.hierarchies.push(Hierarchy { mount, own });
        }
        if found.hierarchies.is_empty() {
            return Err("no cgroup hierarchy is mounted".to_owned());
        }
        Ok(found)
    }

    /// The script that puts them in the place of the machine's hierarchies. Not over them: runc takes the
    /// first mount of a controller that it finds, and would look for groups in the machine's root.
    pub fn script(&self) -> String {
        let instead = |h: &Hierarchy| {
            format!(
                "at=$(mktemp -d); mount --bind '{own}' $at; umount '{mount}'\n\
                 mount --bind $at '{mount}'; umount $at; rmdir $at\n",
                own = h.own.display(),
                mount = h.mount.display(),
            )
        };
        self.hierarchies.iter().map(instead).collect()
    }

    /// The script that puts its own shell into a group where the kernel counts processor time, as seen
    /// inside. What it starts is there too, unless it is moved to another group of these.
    pub fn enter_script(&self, group: &str) -> String {
        let counting = self.hierarchies.iter().filter(|h| h.counts_time());
        let enter = |h: &Hierarchy| {
            // A hierarchy that the space does without leaves an empty folder.
            let (mount, at) = (h.mount.display(), h.mount.join(group));
            let at = at.display();
            format!(
                "[ ! -f '{mount}/cgroup.procs' ] || {{ mkdir -p '{at}'; echo $$ >'{at}/cgroup.procs'; }}\n"
            )
        };
        counting.map(enter).collect()
    }

    /// Processor time that everything in these groups took so far, what has ended included.
    pub fn processor_time(&self) -> Option<Duration> {
        self.hierarchies.iter().find_map(|hierarchy| {
            if let Ok(nanos) = fs::read_to_string(hierarchy.own.join("cpuacct.usage")) {
                return nanos.trim().parse().ok().map(Duration::from_nanos);
            }
            let text = fs::read_to_string(hierarchy.own.join("cpu.stat")).ok()?;
            let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
            micros.parse().ok().map(Duration::from_micros)
        })
    }

    /// Every group below the test's own, as this process sees them.
    pub fn groups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for hierarchy in &self.hierarchies {
            below(&hierarchy.own, &mut found);
        }
        found.sort();
        found
    }

    /// Where a file of a group (a path below the root as the daemon sees it) is to be found.
    pub fn file(&self, group: &str, name: &str) -> Option<PathBuf> {
        let group = group.trim_start_matches('/');
        let paths = self.hierarchies.iter().map(|h| h.own.join(group).join(name));
        paths.into_iter().find(|path| path.exists())
    }

    /// Removes every group in them, as a reboot does. Nothing may run there.
    pub fn clear(&self) {
        for group in self.groups().iter().rev() {
            crate::until("an empty cgroup", || fs::remove_dir(group).ok());
        }
    }
}

impl Hierarchy {
    fn counts_time(&self) -> bool {
        let has = |file: &str| self.own.join(file).exists();
        has("cpuacct.usage") || has("cgroup.controllers")
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        // What runs there ends with its space, which may take the kernel a moment.
        self.clear();
        for hierarchy in &self.hierarchies {
            crate::until("an empty cgroup", || fs::remove_dir(&hierarchy.own).ok());
        }
    }
}

/// The mount point of a cgroup hierarchy, out of a line of `mountinfo` (proc(5)).
fn hierarchy(line: &str) -> Option<PathBuf> {
    let (left, right) = line.split_once(" - ")?;
    let kind = right.split(' ').next()?;
    let mount = left.split(' ').nth(4)?;
    ["cgroup", "cgroup2"].contains(&kind).then(|| mount.into())
}

/// What a group must have before others can be made below it: processors (v1), controllers (v2).
fn prepare(mount: &Path, own: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(text) = fs::read_to_string(mount.join(file)) {
            // v2 has the file too, and needs nothing.
            drop(fs::write(own.join(file), text));
        }
    }
    for folder in [mount, own] {
        let control = folder.join("cgroup.subtree_control");
        for controller in HANDED_DOWN.iter().filter(|_| control.exists()) {
            // A controller that v1 has, or that the machine does not hand down, is not to be had.
            drop(fs::write(&control, format!("+{controller}")));
        }
    }
}

fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
            below(&entry.path(), found);
        }
    }
}
