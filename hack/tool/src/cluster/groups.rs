//! Cgroups of a node: a group of its own in every hierarchy of the machine, which is then all that the node
//! sees, mounted in the place of the machine's. Version 1, 2 or both, as the machine has them.

use super::layout::{Home, Machine};
use super::space::run;
use anyhow::Context;
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What a new group of cpuset (version 1) must be told before a process may be in it.
const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where the machine has it.
    pub mount: PathBuf,
    /// `cgroup` or `cgroup2`.
    pub kind: String,
    /// Options that mount it once more; none for version 2.
    pub options: Option<String>,
}

/// The hierarchies in a text like `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).
pub fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    mounts.lines().filter_map(hierarchy).collect()
}

fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (before, after) = line.split_once(" - ")?;
    let mount = before.split(' ').nth(4)?;
    let mut after = after.split(' ');
    let kind = after.next()?;
    let options = after.nth(1)?;
    let options = match kind {
        "cgroup2" => None,
        "cgroup" => {
            let named: Vec<_> = options.split(',').filter(|word| *word != "rw").collect();
            let only_named = named.iter().all(|word| word.contains('='));
            Some(format!("{}{}", if only_named { "none," } else { "" }, named.join(",")))
        }
        _ => return None,
    };
    Some(Hierarchy { mount: mount.into(), kind: kind.to_owned(), options })
}

/// Those of this machine.
pub fn here() -> anyhow::Result<Vec<Hierarchy>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    Ok(hierarchies(&text))
}

/// The group that holds those of all nodes of a cluster: one for each home, so that clusters side by side
/// do not remove each other's.
fn group(home: &Home) -> String {
    let digest = Sha256::digest(home.0.as_os_str().as_bytes());
    let hex = data_encoding::HEXLOWER.encode(&digest);
    format!("wherry-cluster-{hex:.12}")
}

/// Puts this process into the node's group of every hierarchy.
pub fn join(all: &[Hierarchy], home: &Home, machine: Machine) -> anyhow::Result<()> {
    for hierarchy in all {
        let above = hierarchy.mount.join(group(home));
        let own = above.join(machine.to_string());
        fs::create_dir_all(&own).with_context(|| format!("make {}", own.display()))?;
        for file in CPUSET {
            if let Ok(value) = fs::read_to_string(hierarchy.mount.join(file)) {
                fs::write(above.join(file), &value)?;
                fs::write(own.join(file), &value)?;
            }
        }
        fs::write(own.join("cgroup.procs"), "0")
            .with_context(|| format!("join {}", own.display()))?;
    }
    Ok(())
}

/// Mounts what this process's cgroup namespace has of them below `root`.
pub fn mount(all: &[Hierarchy], root: &Path) -> anyhow::Result<()> {
    for hierarchy in all {
        let relative = hierarchy.mount.strip_prefix("/").context("a mount without a path")?;
        let place = root.join(relative);
        fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
        let place = place.display().to_string();
        match &hierarchy.options {
            Some(options) => run(&["mount", "-t", "cgroup", "-o", options, "cgroup", &place])?,
            None => run(&["mount", "-t", "cgroup2", "cgroup2", &place])?,
        }
    }
    Ok(())
}

/// Removes the groups of a node, or of all; nothing runs in them any more.
pub fn remove(home: &Home, node: Option<Machine>) -> anyhow::Result<()> {
    for hierarchy in here()? {
        let all = hierarchy.mount.join(group(home));
        let all = node.map_or(all.clone(), |node| all.join(node.to_string()));
        if all.is_dir() {
            let all = all.display().to_string();
            run(&["find", &all, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Home, group, hierarchies};

    #[test]
    fn clusters_with_other_homes_have_other_groups() {
        let [one, other] = ["/tmp/one", "/tmp/other"].map(|home| group(&Home(home.into())));
        assert_ne!(one, other);
        assert_eq!(one, "wherry-cluster-02c3a714b58d");
    }

    #[test]
    fn every_hierarchy_is_found_with_what_mounts_it_again() {
        let found = hierarchies(
            "23 1 254:0 / / rw - ext4 /dev/vda rw\n\
             33 31 0:30 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n",
        );
        let shown: Vec<_> = found
            .iter()
            .map(|each| (each.mount.to_str().unwrap(), each.options.as_deref()))
            .collect();
        assert_eq!(
            shown,
            [
                ("/sys/fs/cgroup/cpu", Some("cpu,cpuacct")),
                ("/sys/fs/cgroup/systemd", Some("none,name=systemd")),
                ("/sys/fs/cgroup/unified", None),
            ]
        );
    }
}
