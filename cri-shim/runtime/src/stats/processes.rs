//! What the processes of a container have open, out of `/proc`. Processes come and go while it is read:
//! what is gone counts as nothing. How many descriptors are looked at is bounded, because a container may
//! have millions.

use crate::runtime::Runtime;
use crate::store::container::Container;
use shim_model::container::life::State;
use shim_model::limits;
use std::fs;
use std::path::PathBuf;

/// What a container's processes have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// How many there are.
    pub count: u64,
    /// Open descriptors of all of them; `None` = more than are counted.
    pub descriptors: Option<u64>,
    /// Those that are sockets.
    pub sockets: Option<u64>,
    /// How many files the first one may have open; `None` = any number.
    pub open_files: Option<u64>,
}

impl Runtime {
    /// Looks at all processes of a container, its execs among them.
    pub(super) fn processes(&self, container: &Container) -> Processes {
        let pids = self.0.cgroups.processes_once(&container.record.cgroup);
        let mut left = limits::COUNTED_DESCRIPTORS;
        let (mut descriptors, mut sockets) = (Some(0_u64), Some(0_u64));
        for pid in &pids {
            let found = descriptors_of(*pid, left);
            left = found.map_or(0, |(all, _)| left.saturating_sub(all));
            let add = |sum: Option<u64>, more: Option<usize>| {
                sum?.checked_add(u64::try_from(more?).ok()?)
            };
            descriptors = add(descriptors, found.map(|(all, _)| all));
            sockets = add(sockets, found.map(|(_, sockets)| sockets));
        }
        let first = match &container.state().life {
            State::Running { process, .. } => Some(process.pid),
            State::Creating {} | State::Created {} | State::Exited { .. } => None,
        };
        let limits = first.map(|pid| fs::read_to_string(format!("/proc/{pid}/limits")));
        let open_files = limits.and_then(|text| open_files(&text.ok()?));
        let count = u64::try_from(pids.len()).unwrap_or(u64::MAX);
        Processes { count, descriptors, sockets, open_files }
    }
}

/// Descriptors and sockets of a process; `None` if there are more than `most`.
fn descriptors_of(pid: i32, most: usize) -> Option<(usize, usize)> {
    let folder = PathBuf::from(format!("/proc/{pid}/fd"));
    let (mut all, mut sockets) = (0_usize, 0_usize);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if all >= most {
            return None;
        }
        all = all.saturating_add(1);
        let target = fs::read_link(entry.path()).unwrap_or_default();
        if target.to_string_lossy().starts_with("socket:") {
            sockets = sockets.saturating_add(1);
        }
    }
    Some((all, sockets))
}

/// The soft limit of `Max open files` (`proc_pid_limits(5)`).
fn open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{descriptors_of, open_files};

    #[test]
    fn the_soft_limit_is_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max open files            1024                 524288               files\n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(open_files("Max open files  unlimited unlimited files\n"), None);
    }

    #[test]
    fn descriptors_are_counted_up_to_a_bound() {
        let own = i32::try_from(std::process::id()).unwrap();
        let (all, sockets) = descriptors_of(own, 1_000).unwrap();
        let _pair = std::os::unix::net::UnixStream::pair().unwrap();
        let (more, with_pair) = descriptors_of(own, 1_000).unwrap();
        assert!(more >= all + 2 && with_pair >= sockets + 2, "{all} {more} {sockets} {with_pair}");
        assert_eq!(descriptors_of(own, 1), None);
        assert_eq!(descriptors_of(-1, 5), Some((0, 0)));
    }
}
