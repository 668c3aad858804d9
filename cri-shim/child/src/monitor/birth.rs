//! From a plan to a running clone: what containers and execs share. The clone waits for a byte until
//! its existence is in the journal, then joins its cgroups, perhaps namespaces, and walks.

use super::{FILES, Monitor, group};
use crate::label::Labels;
use crate::times::WalkTimes;
use crate::walk::{Candidates, Chapters, Fault, SAID_BYTES, Said, Walk};
use shim_model::plan::Step;
use shim_sys::credentials::{self, Limit};
use shim_sys::error::SysError;
use shim_sys::namespace::{self, Namespace};
use shim_sys::process::{self, CloneInto, Cloned};
use shim_sys::{fd, socket, userns};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Everything that a clone uses, laid out before it exists.
#[derive(Debug)]
pub(crate) struct Birth<'a> {
    /// The clone's end of the talk with the monitor.
    pub(crate) told: &'a OwnedFd,
    /// v1 groups to join.
    pub(crate) join: &'a [OwnedFd],
    /// The exec's own v1 group, joined last.
    pub(crate) join_last: Option<&'a OwnedFd>,
    /// The container whose mounts and cgroup view are joined; `None` for its first process.
    pub(crate) enter: Option<&'a OwnedFd>,
    /// The pod has a user namespace of its own: a first process was cloned into it, another one joins it.
    pub(crate) user: bool,
    pub(crate) slots: &'a [OwnedFd],
    pub(crate) streams: [BorrowedFd<'a>; 3],
    /// Its limit of open files, where the monitor's own is another.
    pub(crate) files: Option<Limit>,
    pub(crate) chapters: Chapters<'a>,
    pub(crate) program: &'a Candidates<'a>,
}

impl<'a> Birth<'a> {
    /// All that the clone keeps open; the rest of what the monitor holds is closed in it at once.
    pub(crate) fn keep(&self) -> Vec<BorrowedFd<'a>> {
        let mut keep = vec![self.told.as_fd()];
        keep.extend(self.streams);
        keep.extend(self.join.iter().chain(self.slots).map(AsFd::as_fd));
        keep.extend(self.join_last.into_iter().chain(self.enter).map(AsFd::as_fd));
        keep
    }

    /// The clone's life up to exec.
    pub(crate) fn begin(self, keep: &mut [BorrowedFd<'_>]) -> ! {
        let told = self.told;
        let fault = match self.prepare(keep) {
            Ok(walk) => walk.become_program(self.chapters, self.program, told),
            Err(error) => Fault::entry(&error),
        };
        fault.tell(told)
    }

    fn prepare(&self, keep: &mut [BorrowedFd<'_>]) -> Result<Walk<'a>, SysError> {
        fd::close_all_but(keep)?;
        let mut released = [0_u8; 1];
        if fd::read(self.told, &mut released)? == 0 {
            // The monitor died before it wrote this clone down: nobody will ever know of it.
            process::exit_now(1);
        }
        if let Some(files) = self.files {
            credentials::set_limit(FILES, files)?;
        }
        group::join(self.join)?;
        if let Some(tasks) = self.join_last {
            fd::write_all(tasks, b"0")?;
        }
        let mut walk = Walk::new(self.slots, self.streams);
        walk.labels = Labels::open(self.chapters.process.iter())?;
        let mut steps = self.chapters.mounts.iter().chain(self.chapters.process);
        if steps.any(|step| matches!(step, Step::OomScoreAdj(_))) {
            walk.oom_score = Some(fd::open_read_write(c"/proc/self/oom_score_adj")?);
        }
        self.change_namespaces()?;
        Ok(walk)
    }

    fn change_namespaces(&self) -> Result<(), SysError> {
        match (self.enter, self.user) {
            (Some(container), false) => {
                namespace::join(container, &[Namespace::Mount, Namespace::Cgroup])
            }
            (Some(container), true) => {
                let all = [Namespace::User, Namespace::Mount, Namespace::Cgroup];
                namespace::join(container, &all)?;
                credentials::not_dumpable()
            }
            (None, false) => Ok(()),
            (None, true) => userns::become_root(),
        }
    }
}

/// The two ends of a talk between monitor and clone: ours does not block.
pub(crate) fn talk() -> Result<(OwnedFd, OwnedFd), SysError> {
    let (ours, theirs) = socket::pair()?;
    fd::set_nonblocking(&ours)?;
    Ok((ours, theirs))
}

/// Lets a clone go on: its existence is written down.
pub(crate) fn release(told: &OwnedFd) -> Result<(), SysError> {
    fd::write_all(told, b"1")
}

/// What was heard of a clone.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Nothing yet.
    Nothing,
    /// It executed its program, or died right before.
    Executed,
    /// It made itself a terminal; there is more to hear. This is the master.
    Terminal(OwnedFd),
    /// It failed.
    Fault(Fault),
    /// It was gone before it said anything.
    Vanished,
}

/// Reads all that a clone has said so far; `walked` remembers that its walk was done, and when.
pub(crate) fn hear(told: &OwnedFd, walked: &mut Option<WalkTimes>) -> Heard {
    let mut message = [0_u8; SAID_BYTES];
    loop {
        let (count, descriptor) = match socket::recv_one(told, &mut message) {
            Ok(received) => received,
            Err(error) if error.would_block() => return Heard::Nothing,
            Err(_broken) => return Heard::Vanished,
        };
        if count == 0 {
            return if walked.is_some() { Heard::Executed } else { Heard::Vanished };
        }
        match Fault::said(message.get(..count).unwrap_or_default()) {
            Said::Walked(times) => *walked = Some(times),
            Said::Fault(fault) => return Heard::Fault(fault),
            Said::Terminal => {
                return descriptor.map_or(Heard::Vanished, Heard::Terminal);
            }
        }
    }
}

impl Monitor {
    /// Clones into the PID namespace of another process, if one is given, and comes back to our own.
    pub(crate) fn clone_among(
        &self,
        pids_of: Option<BorrowedFd<'_>>,
        into: CloneInto<'_>,
    ) -> Result<Cloned, SysError> {
        let Some(other) = pids_of else { return process::clone3(into) };
        namespace::join(other, &[Namespace::Pid])?;
        let cloned = process::clone3(into);
        if matches!(cloned, Ok(Cloned::Child)) {
            return cloned;
        }
        namespace::join(&self.pids, &[Namespace::Pid])?;
        cloned
    }
}
