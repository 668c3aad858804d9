//! A container's cgroup as the monitor holds it: descriptors that the daemon opened, never paths. Kill
//! everything in it, make and remove the sub-groups of execs. Limits and the group itself are the
//! daemon's.

use shim_model::limits;
use shim_model::wire::{CgroupFds, Failure};
use shim_sys::error::{Errno, SysError};
use shim_sys::{fd, process, rooted};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The descriptors of one group.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// `tasks` files of v1 hierarchies.
    pub(crate) join: Vec<OwnedFd>,
    /// The v2 folder, for `CLONE_INTO_CGROUP`.
    pub(crate) into: Option<OwnedFd>,
    /// The folder with `cgroup.procs`, and on v2 `cgroup.kill`.
    pub(crate) kill: Option<OwnedFd>,
    /// `memory.events` or `memory.oom_control`.
    pub(crate) oom: Option<OwnedFd>,
}

/// Takes the next descriptor of a message.
pub(crate) fn next(fds: &mut std::vec::IntoIter<OwnedFd>) -> Result<OwnedFd, Failure> {
    let step = "take the descriptors of a message: too few came".to_owned();
    fds.next().ok_or(Failure { step, errno: Errno::EPROTO as i32, exec: false })
}

impl Group {
    /// Takes the announced descriptors, in the order of [`CgroupFds`].
    pub(crate) fn take(
        announced: CgroupFds,
        fds: &mut std::vec::IntoIter<OwnedFd>,
    ) -> Result<Self, Failure> {
        let mut group = Self::default();
        for _ in 0..announced.join {
            group.join.push(next(fds)?);
        }
        group.into = announced.into.then(|| next(fds)).transpose()?;
        group.kill = announced.kill.then(|| next(fds)).transpose()?;
        group.oom = announced.oom.then(|| next(fds)).transpose()?;
        Ok(group)
    }

    /// SIGKILL to everything in the group and below it.
    pub(crate) fn kill_all(&self) {
        if let Some(folder) = &self.kill {
            kill_below(folder);
        }
    }

    /// Makes a group below this one for an exec. `None` without a group.
    pub(crate) fn make_sub(&self, number: u32) -> Result<Option<SubGroup>, SysError> {
        let Some(parent) = &self.kill else { return Ok(None) };
        let name = CString::new(format!("exec-{number}")).unwrap_or_default();
        let parent = fd::duplicate(parent)?;
        match rooted::make_folder(&parent, &name) {
            Ok(()) => {}
            // Left by an exec of a monitor that is gone; there is one monitor for a container.
            Err(error) if error.errno() == Errno::EEXIST => {}
            Err(error) => return Err(error),
        }
        let folder = rooted::open(&parent, &name)?;
        let sub = SubGroup { parent, name, folder, v2: self.into.is_some() };
        Ok(Some(sub))
    }
}

/// The group of one exec.
#[derive(Debug)]
pub(crate) struct SubGroup {
    parent: OwnedFd,
    name: CString,
    folder: OwnedFd,
    v2: bool,
}

impl SubGroup {
    /// Below its container's.
    pub(crate) fn name(&self) -> &CStr {
        &self.name
    }

    /// For `CLONE_INTO_CGROUP`, where it is a group of v2.
    pub(crate) fn into(&self) -> Option<BorrowedFd<'_>> {
        self.v2.then(|| self.folder.as_fd())
    }

    /// The file that a process joins by, where it is a group of v1.
    pub(crate) fn tasks(&self) -> Result<Option<OwnedFd>, SysError> {
        if self.v2 {
            return Ok(None);
        }
        rooted::open_for_writing(&self.folder, c"tasks").map(Some)
    }

    /// SIGKILL to everything in it.
    pub(crate) fn kill_all(&self) {
        kill_below(&self.folder);
    }

    /// Removes it; `EBUSY` while a killed process is still leaving.
    pub(crate) fn remove(&self) -> Result<(), SysError> {
        match rooted::remove_folder(&self.parent, &self.name) {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Writes `0` to each file: the calling process joins its group.
pub(crate) fn join(files: &[OwnedFd]) -> Result<(), SysError> {
    files.iter().try_for_each(|file| fd::write_all(file, b"0"))
}

fn kill_below(folder: &OwnedFd) {
    // cgroup.kill: Linux 5.14, v2 only, whole subtree, no race with fork.
    let by_kernel =
        rooted::open_for_writing(folder, c"cgroup.kill").and_then(|file| fd::write_all(file, b"1"));
    if by_kernel.is_err() {
        kill_each(folder);
    }
}

/// Signals every process of the group, frozen meanwhile where it is a freezer's, so that nobody forks
/// away; again for those that were forked before, until a round meets nobody new. What is frozen dies
/// when it is thawed.
fn kill_each(folder: &OwnedFd) {
    let freezer = rooted::open_for_writing(folder, c"freezer.state").ok();
    let switch = |state: &[u8]| freezer.iter().for_each(|file| drop(fd::write(file, state)));
    switch(b"FROZEN");
    signal_each(folder);
    switch(b"THAWED");
}

fn signal_each(folder: &OwnedFd) {
    let mut met = BTreeSet::new();
    for _ in 0..limits::KILL_ROUNDS {
        let list = rooted::open_for_reading(folder, c"cgroup.procs")
            .and_then(|file| fd::read_to_end(file, limits::RECORD_BYTES));
        let text = list.unwrap_or_default();
        let mut found = false;
        for pid in text.split(|byte| *byte == b'\n').filter_map(number) {
            if met.insert(pid) {
                found = true;
                drop(process::kill_number(pid));
            }
        }
        if !found {
            return;
        }
    }
}

/// A process id; 0 stands for a process of another PID namespace and must not be signalled.
fn number(line: &[u8]) -> Option<i32> {
    std::str::from_utf8(line).ok()?.parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::{Group, number};
    use shim_model::wire::CgroupFds;
    use std::os::fd::OwnedFd;

    #[test]
    fn descriptors_are_taken_in_order_and_counted() {
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        let announced = CgroupFds { join: 2, into: false, kill: true, oom: true };
        let group = Group::take(announced, &mut vec![file(), file(), file(), file()].into_iter());
        let group = group.unwrap();
        assert_eq!((group.join.len(), group.into.is_none(), group.oom.is_some()), (2, true, true));
        assert!(Group::take(announced, &mut vec![file(), file()].into_iter()).is_err());
    }

    #[test]
    fn nobody_but_real_processes_is_signalled() {
        let lines: [&[u8]; 5] = [b"17", b"0", b"", b"-1", b"x"];
        assert_eq!(lines.map(number), [Some(17), None, None, None, None]);
    }
}
