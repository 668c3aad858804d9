//! Starting a container: from its plan and descriptors to a clone that walks, and from what the clone
//! says to the reply. The monitor never waits for a walk: it goes on with its loop.

use super::birth::{Birth, Heard, hear, release, talk};
use super::connections::Asker;
use super::container::{Container, Phase, Stdin, Stream, Walking};
use super::exit::KILL;
use super::group::{Group, next};
use super::log::LogFile;
use super::watch::Watch;
use super::{Key, Monitor, null, oom};
use crate::error::{failure, refused, telling};
use crate::times::moment;
use crate::walk::{Candidates, Chapters, vanished};
use shim_model::id::ContainerId;
use shim_model::log::Output;
use shim_model::plan::{InitPlan, PidNamespace, Step};
use shim_model::wire::{Exit, Failure, FromMonitor, Journal, Process, Start, StartTimes};
use shim_sys::error::{Errno, SysError};
use shim_sys::namespace::Namespace;
use shim_sys::poll::Interest;
use shim_sys::process::{Arguments, CloneInto, Cloned};
use shim_sys::{clock, fd, process, tty};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Exit code of a container whose program was never executed, as the field reports it.
const NEVER_STARTED: i32 = 128;

/// The two ends of a container's standard streams.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) theirs: [OwnedFd; 3],
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) outputs: Option<(OwnedFd, OwnedFd)>,
}

impl Pipes {
    /// None of our own: the container has a terminal.
    pub(crate) fn none() -> Result<Self, SysError> {
        Ok(Self { theirs: [null()?, null()?, null()?], stdin: None, outputs: None })
    }

    /// With a standard input, or with /dev/null.
    pub(crate) fn of(stdin: bool) -> Result<Self, SysError> {
        let (input, stdin) = if stdin {
            let (read, write) = fd::pipe()?;
            fd::set_nonblocking(&write)?;
            (read, Some(write))
        } else {
            (null()?, None)
        };
        let (standard, output) = fd::pipe()?;
        let (error, errors) = fd::pipe()?;
        fd::set_nonblocking(&standard)?;
        fd::set_nonblocking(&error)?;
        Ok(Self { theirs: [input, output, errors], stdin, outputs: Some((standard, error)) })
    }
}

/// Where the first process is cloned.
struct Pids<'a> {
    /// A new namespace.
    own: bool,
    /// The namespace of this process.
    among: Option<BorrowedFd<'a>>,
    /// It is not the monitor's.
    other: bool,
}

/// A clone that waits to be released.
struct Born {
    process: Process,
    pidfd: OwnedFd,
    told: OwnedFd,
}

impl Monitor {
    /// Starts a container; the reply comes now if that fails, else when its program is executed.
    pub(crate) fn start(&mut self, asker: Asker, start: Start, fds: Vec<OwnedFd>) {
        if let Err(failure) = self.try_start(asker, start, fds) {
            self.reply(asker, &FromMonitor::Failed(failure));
        }
    }

    fn try_start(
        &mut self,
        asker: Asker,
        mut start: Start,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        let asked = moment();
        self.check(&start)?;
        let mut fds = fds.into_iter();
        let log = start.log.then(|| next(&mut fds)).transpose()?;
        let group = Group::take(start.cgroup, &mut fds)?;
        let slots: Vec<OwnedFd> = fds.collect();
        if slots.len() != start.plan.sources.len() {
            let (found, wanted) = (slots.len(), start.plan.sources.len());
            let text = format!("take the plan's descriptors: {found} came, {wanted} are needed");
            return Err(refused(text, Errno::EPROTO));
        }
        let pipes = if start.tty { Pipes::none() } else { Pipes::of(start.stdin) };
        let pipes = pipes.map_err(telling("make the standard streams"))?;
        let oom_before = oom::count(group.oom.as_ref());
        let other_pids = self.pids(&start.plan.pid)?.other;
        self.give_streams(&pipes.theirs)?;
        let born = self.bear(&mut start.plan, &group, (&slots, &pipes))?;
        let (standard, error) = pipes.outputs.unzip();
        let container = Container {
            id: start.container,
            process: born.process,
            pidfd: born.pidfd,
            group,
            oom_before,
            started: 0,
            other_pids,
            log: LogFile::new(log),
            standard: standard.map(|pipe| Stream::new(pipe, Output::Standard)),
            error: error.map(|pipe| Stream::new(pipe, Output::Error)),
            stdin: Stdin { end: pipes.stdin, once: start.stdin_once, full: false },
            tty: start.tty,
            peer: None,
            by: None,
            phase: Phase::Walking(Box::new(Walking {
                asker,
                told: born.told,
                plan: start.plan,
                walked: None,
                asked,
                stdin: start.stdin,
            })),
        };
        self.admit(container)
    }

    fn check(&self, start: &Start) -> Result<(), Failure> {
        self.may_start(&start.container)?;
        let makes_one = |step: &Step| matches!(step, Step::Terminal { .. });
        if start.tty != start.plan.mounts.iter().any(makes_one) {
            return Err(refused("give the container a terminal: its plan differs", Errno::EPROTO));
        }
        Ok(())
    }

    /// Whoever starts it.
    pub(crate) fn may_start(&self, container: &ContainerId) -> Result<(), Failure> {
        if self.pod.is_none() {
            return Err(refused("start a container before the pod is set up", Errno::EINVAL));
        }
        if self.quit.is_some() {
            return Err(refused("start a container while the pod ends", Errno::ESHUTDOWN));
        }
        if self.key_of(container).is_some() {
            return Err(refused("start a container a second time", Errno::EEXIST));
        }
        Ok(())
    }

    fn pids(&self, choice: &PidNamespace) -> Result<Pids<'_>, Failure> {
        match choice {
            PidNamespace::Own => Ok(Pids { own: true, among: None, other: true }),
            PidNamespace::Node => Ok(Pids { own: false, among: None, other: false }),
            PidNamespace::Pod => {
                let init = self.pod.as_ref().and_then(|pod| pod.init.as_ref());
                let none = || refused("join the pod's PID namespace: it has none", Errno::ESRCH);
                let init = init.ok_or_else(none)?;
                Ok(Pids { own: false, among: Some(init.pidfd.as_fd()), other: true })
            }
            PidNamespace::Target(id) => {
                let none = || refused("join the target container: it does not run", Errno::ESRCH);
                let target = self.running(id).ok_or_else(none)?;
                let other = target.other_pids;
                Ok(Pids { own: false, among: other.then(|| target.pidfd.as_fd()), other })
            }
        }
    }

    pub(crate) fn running(&self, id: &ContainerId) -> Option<&Container> {
        let known = self.key_of(id).and_then(|key| self.containers.get(&key));
        known.filter(|container| matches!(container.phase, Phase::Running))
    }

    fn bear(
        &self,
        plan: &mut InitPlan,
        group: &Group,
        (slots, pipes): (&[OwnedFd], &Pipes),
    ) -> Result<Born, Failure> {
        let (argv, env) =
            (std::mem::take(&mut plan.program.argv), std::mem::take(&mut plan.program.env));
        let arguments = Arguments::new(argv, env);
        let program = Candidates { paths: &plan.program.candidates, arguments };
        let (told, theirs) = talk().map_err(telling("talk to the clone"))?;
        let birth = Birth {
            told: &theirs,
            join: &group.join,
            join_last: None,
            enter: None,
            user: self.has_user_namespace(),
            slots,
            files: self.files,
            streams: pipes.theirs.each_ref().map(AsFd::as_fd),
            chapters: Chapters { mounts: &plan.mounts, process: &plan.process },
            program: &program,
        };
        let mut keep = birth.keep();
        let pids = self.pids(&plan.pid)?;
        let cgroup = group.into.as_ref().map(AsFd::as_fd);
        let new: &[Namespace] =
            if pids.own { &[Namespace::Mount, Namespace::Pid] } else { &[Namespace::Mount] };
        let into = CloneInto { new, cgroup, sibling: false };
        match self.clone_in_pod(pids.among, into).map_err(telling("clone the container"))? {
            Cloned::Child => birth.begin(&mut keep),
            Cloned::Parent { pid, pidfd } => {
                // Should this fail, `told` is dropped, and the clone leaves as unknown as it came.
                let start = process::start_time(pid)
                    .map_err(|error| failure("read when the container began", &error))?;
                Ok(Born { process: Process { pid, start }, pidfd, told })
            }
        }
    }

    /// Writes a clone down, watches it, lets it go on.
    fn admit(&mut self, container: Container) -> Result<(), Failure> {
        let step = telling("watch the container");
        let key = self.next_key();
        let Phase::Walking(walking) = &container.phase else { return Ok(()) };
        let watch = |fd: &OwnedFd, watch: Watch| self.poll.add(fd, watch.token(), Interest::Read);
        watch(&walking.told, Watch::Walk(key))
            .and_then(|()| watch_streams(&container, key, watch))
            .map_err(step)?;
        let (id, process) = (container.id.clone(), container.process);
        self.journal.append(&Journal::Cloned { container: id, process });
        release(&walking.told).map_err(telling("release the clone"))?;
        self.containers.insert(key, container);
        self.seat_early(key);
        Ok(())
    }

    /// A clone said something.
    pub(crate) fn container_said(&mut self, key: Key) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        let Phase::Walking(walking) = &mut container.phase else { return };
        let failure = match hear(&walking.told, &mut walking.walked) {
            Heard::Nothing => return,
            Heard::Executed => {
                let asker = walking.asker;
                let walked = walking.walked.unwrap_or_default();
                let times = walked.between(walking.asked, moment());
                return self.runs(key, asker, times);
            }
            Heard::Terminal(master) => {
                let stdin = walking.stdin;
                match self.take_terminal(key, master, stdin) {
                    Ok(()) => return self.container_said(key),
                    Err(error) => failure("watch the terminal", &error),
                }
            }
            Heard::Vanished => vanished(),
            Heard::Fault(fault) => {
                let plan = &walking.plan;
                let chapters = Chapters { mounts: &plan.mounts, process: &plan.process };
                fault.explain(chapters, &plan.program.candidates)
            }
        };
        let Some(Phase::Walking(walking)) = self.containers.get(&key).map(|c| &c.phase) else {
            return;
        };
        let asker = walking.asker;
        self.start_failed(key, asker, failure);
    }

    /// The container made itself a terminal: what it prints and what is typed goes through the master.
    pub(crate) fn take_terminal(
        &mut self,
        key: Key,
        master: OwnedFd,
        stdin: bool,
    ) -> Result<(), SysError> {
        let Some(container) = self.containers.get_mut(&key) else { return Ok(()) };
        // It was opened so already, by a process that might have changed it since.
        fd::set_nonblocking(&master)?;
        let stdin = stdin.then(|| fd::duplicate(&master)).transpose()?;
        container.peer = Some(tty::peer(&master)?);
        self.poll.add(&master, Watch::Output(key, Output::Standard).token(), Interest::Read)?;
        container.standard = Some(Stream::new(master, Output::Standard));
        container.stdin.end = stdin;
        self.resume_input(key);
        Ok(())
    }

    /// A container that was being started runs.
    pub(crate) fn runs(&mut self, key: Key, asker: Asker, times: StartTimes) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        let at = clock::now();
        container.started = at;
        container.phase = Phase::Running;
        let (process, id) = (container.process, container.id.clone());
        self.journal.append(&Journal::Started { container: id.clone(), process, at });
        if self.is_there(asker) {
            let version = self.version_of(asker);
            self.reply(asker, &FromMonitor::runs(version, (process, at), times));
        } else {
            // Another daemon may have seen it as being started.
            self.tell_all(&FromMonitor::Runs { container: id, process, at });
        }
        process::trim_heap();
    }

    /// A container that was being started will never run.
    pub(crate) fn start_failed(&mut self, key: Key, asker: Asker, failure: Failure) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        container.phase = Phase::NotStarted;
        // It is alone in its group. Not by cgroup.kill: Linux 6.13 and later may kill what is cloned
        // into a group that was once killed, and the daemon may use this one again.
        drop(process::pidfd_send_signal(&container.pidfd, KILL));
        container.standard = None;
        container.error = None;
        container.stdin.end = None;
        container.peer = None;
        container.log.close();
        let (id, at) = (container.id.clone(), clock::now());
        let entry = Journal::NotStarted { container: id.clone(), at, failure: failure.clone() };
        self.journal.append(&entry);
        self.unseat(key);
        if self.is_there(asker) {
            return self.reply(asker, &FromMonitor::Failed(failure));
        }
        // Another daemon may have seen it as being started.
        let exit = Exit { at, code: NEVER_STARTED, oom: false, log_lost: 0 };
        self.tell_all(&FromMonitor::Exited { container: id, exit });
    }
}

pub(crate) fn watch_streams(
    container: &Container,
    key: Key,
    watch: impl Fn(&OwnedFd, Watch) -> Result<(), SysError>,
) -> Result<(), SysError> {
    for (stream, output) in
        [(&container.standard, Output::Standard), (&container.error, Output::Error)]
    {
        if let Some(stream) = stream {
            watch(&stream.pipe, Watch::Output(key, output))?;
        }
    }
    Ok(())
}
