//! Ends: reap whoever ended, find out who it was, and for a container write down when and how, once
//! its output is in the log, before anybody is told. Orphans that came to this monitor as subreaper are
//! reaped as well, so many at a time.

use super::container::Phase;
use super::{Key, Monitor, oom};
use shim_model::limits;
use shim_model::wire::{Exit, FromMonitor, Journal, Nanos};
use shim_sys::clock;
use shim_sys::process::{self, Ended};
use std::os::fd::OwnedFd;

/// SIGKILL.
pub(crate) const KILL: i32 = 9;

impl Monitor {
    /// Deals with children that ended, so many in one turn.
    pub(crate) fn reap(&mut self) {
        for _ in 0..limits::REAP_BATCH {
            match process::ended_child(false) {
                Ok(Ended::Child(pid)) => self.child_ended(pid),
                Ok(Ended::None | Ended::NoChildren) | Err(_) => {
                    self.more_ended = false;
                    return;
                }
            }
        }
    }

    fn child_ended(&mut self, pid: i32) {
        if self.programs.is_one(pid) {
            return self.program_ended(pid);
        }
        let container = self
            .containers
            .iter()
            .find(|(_, container)| container.process.pid == pid && container.lives());
        if let Some((&key, _)) = container {
            return self.container_ended(key);
        }
        if let Some((&key, _)) = self.execs.iter().find(|(_, exec)| exec.pid == pid) {
            return self.exec_ended(key);
        }
        if self.pod.as_ref().is_some_and(|pod| pod.is_init(pid)) {
            return self.pod_init_ended(pid);
        }
        // A handler's program may have made it, and not said so yet.
        let pidfd = (!self.programs.is_idle()).then(|| process::pidfd_open(pid));
        if let Some(Ok(pidfd)) = pidfd {
            let code = reaped(&pidfd, pid);
            return self.programs.remember(pid, code);
        }
        drop(process::reap_number(pid));
    }

    fn container_ended(&mut self, key: Key) {
        let at = clock::now();
        // What the clone said last counts: it may have been executed and ended within this turn.
        self.container_said(key);
        let Some(container) = self.containers.get_mut(&key) else { return };
        let code = reaped(&container.pidfd, container.process.pid);
        match &mut container.phase {
            Phase::Running => self.end(key, at, code),
            // Its end is told when its start has been.
            Phase::Making(making) => making.ended = Some((at, code)),
            Phase::Walking(_) | Phase::NotStarted | Phase::Draining { .. } | Phase::Ended(_) => {
                self.containers.remove(&key);
            }
        }
    }

    /// A container that ran has ended: what it printed is still read.
    pub(crate) fn end(&mut self, key: Key, at: Nanos, code: i32) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        let counted = oom::count(container.group.oom.as_ref());
        let oom = oom::killed(code, container.oom_before, counted);
        let exit = Exit { at: at.max(container.started), code, oom, log_lost: 0 };
        let deadline = clock::monotonic().saturating_add(limits::LOG_DRAIN);
        container.phase = Phase::Draining { exit, deadline };
        container.peer = None;
        container.group.kill_all();
        self.kill_execs_of(key);
        self.kill_left_behind(key);
        self.finish_if_drained(key);
    }

    /// Its output is in the log: writes the exit down and tells everybody.
    pub(crate) fn finish(&mut self, key: Key) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        let Phase::Draining { exit, deadline: _ } = &container.phase else { return };
        let exit = Exit { log_lost: container.log.lost, ..exit.clone() };
        container.log.close();
        container.phase = Phase::Ended(exit.clone());
        let container = container.id.clone();
        self.close_stdin(key);
        self.journal.append(&Journal::Exited { container: container.clone(), exit: exit.clone() });
        self.tell_all(&FromMonitor::Exited { container, exit });
    }

    fn pod_init_ended(&mut self, pid: i32) {
        let at = clock::now();
        drop(process::reap_number(pid));
        if let Some(pod) = &mut self.pod {
            pod.init = None;
        }
        self.journal.append(&Journal::PodInitExited { at });
        self.tell_all(&FromMonitor::PodInitExited { at });
    }
}

/// Reaps a child that is known to have ended; its exit code.
pub(crate) fn reaped(pidfd: &OwnedFd, pid: i32) -> i32 {
    if let Ok(Some(code)) = process::reap(pidfd) {
        return code;
    }
    // Cannot be, for it was seen as ended; it must not be seen so for ever.
    drop(process::reap_number(pid));
    255
}
