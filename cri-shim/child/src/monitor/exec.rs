//! Execs: a further process in a running container, in a cgroup of its own below the container's, so
//! that its timeout ends everything it started and nothing else. One that is waited for is answered when
//! its process ended, and what it left behind is killed then. One whose streams the asker has is answered
//! when its program is executed; its end is an event, and what it left behind lives on, as after a command
//! in a terminal. An exec ends with its container and with the connection that asked for it, and never
//! delays either.

use super::birth::{Birth, Heard, hear, release, talk};
use super::connections::Asker;
use super::container::{self, Container};
use super::exit::{KILL, reaped};
use super::group::{SubGroup, next};
use super::handler::exec::Making;
use super::watch::Watch;
use super::{Key, Monitor, null};
use crate::error::{refused, telling};
use crate::times::WalkTimes;
use crate::walk::{Candidates, Chapters, vanished};
use shim_model::limits;
use shim_model::plan::ExecPlan;
use shim_model::wire::{self, ExecEnd, Failure, FromMonitor};
use shim_sys::clock;
use shim_sys::error::Errno;
use shim_sys::poll::Interest;
use shim_sys::process::{self, Arguments, CloneInto, Cloned};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// One exec.
#[derive(Debug)]
pub(crate) struct Exec {
    pub(crate) container: Key,
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) asker: Asker,
    pub(crate) sub: Option<SubGroup>,
    pub(crate) kill_at: Option<Duration>,
    /// Nothing of it is to live on.
    pub(crate) killed: bool,
    pub(crate) timed_out: bool,
    pub(crate) kind: Kind,
    pub(crate) phase: Phase,
}

/// What its asker wants to hear.
#[derive(Debug)]
pub(crate) enum Kind {
    /// How it ended.
    Waited,
    /// That it began, with its terminal if it has one; later, how it ended.
    Streamed { terminal: Option<OwnedFd> },
}

/// What is to be run.
struct Order {
    key: Key,
    plan: ExecPlan,
    streams: [OwnedFd; 3],
    timeout: u64,
    kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// Joins and walks.
    Walking { told: OwnedFd, plan: ExecPlan, walked: Option<WalkTimes> },
    /// A handler's program is making its process.
    Making(Box<Making>),
    /// The command runs.
    Running,
    /// It could not be executed, which was told; the clone is still to be reaped.
    Failed,
}

/// The cgroup of an ended exec, while killed processes are still leaving it.
#[derive(Debug)]
pub(crate) struct Leaving {
    sub: SubGroup,
    tries: u32,
    /// When to try again.
    pub(crate) at: Duration,
}

/// The cgroup of an ended exec in which processes live on.
#[derive(Debug)]
pub(crate) struct LeftBehind {
    container: Key,
    sub: SubGroup,
}

impl Exec {
    pub(crate) const fn deadline(&self) -> Option<Duration> {
        self.kill_at
    }

    pub(crate) fn kill(&mut self) {
        self.killed = true;
        if let Some(sub) = &self.sub {
            sub.kill_all();
        }
        drop(process::pidfd_send_signal(&self.pidfd, KILL));
    }
}

impl Monitor {
    /// Runs a command; the reply comes now if it cannot be begun, else when it ended.
    pub(crate) fn exec(&mut self, asker: Asker, request: wire::Exec, fds: Vec<OwnedFd>) {
        let Some(key) = self.key_of(&request.container) else {
            return self.reply(asker, &FromMonitor::Unknown);
        };
        let mut fds = fds.into_iter();
        let streams = (|| {
            let (output, error) = (next(&mut fds)?, next(&mut fds)?);
            let input =
                if request.stdin { next(&mut fds)? } else { null().map_err(telling("exec"))? };
            Ok([input, output, error])
        })();
        let begun = streams.and_then(|streams| {
            let (plan, timeout, kind) = (request.plan, request.timeout, Kind::Waited);
            self.begin_exec(asker, Order { key, plan, streams, timeout, kind })
        });
        if let Err(failure) = begun {
            self.reply(asker, &FromMonitor::Failed(failure));
        }
    }

    /// Runs a command whose streams the asker has; the reply comes now if it cannot be begun, else when
    /// its program is executed.
    pub(crate) fn exec_streamed(
        &mut self,
        asker: Asker,
        request: wire::ExecStreamed,
        fds: Vec<OwnedFd>,
    ) {
        let Some(key) = self.key_of(&request.container) else {
            return self.reply(asker, &FromMonitor::Unknown);
        };
        let mut fds = fds.into_iter();
        let mut stream = |wanted: bool| {
            if wanted && !request.tty { next(&mut fds) } else { null().map_err(telling("exec")) }
        };
        let streams =
            (|| Ok([stream(request.stdin)?, stream(request.stdout)?, stream(request.stderr)?]))();
        let begun = streams.and_then(|streams| {
            let kind = Kind::Streamed { terminal: None };
            self.begin_exec(asker, Order { key, plan: request.plan, streams, timeout: 0, kind })
        });
        if let Err(failure) = begun {
            self.reply(asker, &FromMonitor::Failed(failure));
        }
    }

    fn begin_exec(&mut self, asker: Asker, order: Order) -> Result<(), Failure> {
        let Order { key, mut plan, streams, timeout, kind } = order;
        self.check_exec(key)?;
        let number = self.next_key();
        let group = self.containers.get(&key).map(|container| container.group.make_sub(number));
        let sub = group.transpose().map_err(telling("make the exec's cgroup"))?.flatten();
        match self.bear_exec((key, number), &mut plan, (&streams, sub.as_ref())) {
            Ok((pid, pidfd, told)) => {
                let kill_at = (timeout > 0)
                    .then(|| clock::monotonic().saturating_add(Duration::from_nanos(timeout)));
                let phase = Phase::Walking { told, plan, walked: None };
                let (killed, timed_out, container) = (false, false, key);
                let exec = Exec {
                    container,
                    pid,
                    pidfd,
                    asker,
                    sub,
                    kill_at,
                    killed,
                    timed_out,
                    kind,
                    phase,
                };
                self.execs.insert(number, exec);
                Ok(())
            }
            Err(failure) => {
                self.leave(sub);
                Err(failure)
            }
        }
    }

    pub(crate) fn check_exec(&self, key: Key) -> Result<(), Failure> {
        let runs = |container: &Container| matches!(container.phase, container::Phase::Running);
        if !self.containers.get(&key).is_some_and(runs) {
            return Err(refused("exec in a container that does not run", Errno::ESRCH));
        }
        if self.execs.values().filter(|exec| exec.container == key).count()
            >= limits::EXECS_PER_CONTAINER
        {
            let text = format!("exec: {} are at work already", limits::EXECS_PER_CONTAINER);
            return Err(refused(text, Errno::EAGAIN));
        }
        Ok(())
    }

    fn bear_exec(
        &self,
        (key, number): (Key, Key),
        plan: &mut ExecPlan,
        (streams, sub): (&[OwnedFd; 3], Option<&SubGroup>),
    ) -> Result<(i32, OwnedFd, OwnedFd), Failure> {
        let gone = || refused("exec in a container that does not run", Errno::ESRCH);
        let container = self.containers.get(&key).ok_or_else(gone)?;
        let (argv, env) =
            (std::mem::take(&mut plan.program.argv), std::mem::take(&mut plan.program.env));
        let arguments = Arguments::new(argv, env);
        let program = Candidates { paths: &plan.program.candidates, arguments };
        self.give_streams(streams)?;
        let (told, theirs) = talk().map_err(telling("talk to the clone"))?;
        let tasks = sub.map(SubGroup::tasks).transpose().map_err(telling("join the exec's cgroup"));
        let tasks = tasks?.flatten();
        let birth = Birth {
            told: &theirs,
            join: &container.group.join,
            join_last: tasks.as_ref(),
            enter: Some(&container.pidfd),
            user: self.has_user_namespace(),
            slots: &[],
            files: self.files,
            streams: streams.each_ref().map(AsFd::as_fd),
            chapters: Chapters { mounts: &[], process: &plan.process },
            program: &program,
        };
        let mut keep = birth.keep();
        let among = container.other_pids.then(|| container.pidfd.as_fd());
        let cgroup = sub.and_then(SubGroup::into);
        let into = CloneInto { cgroup, ..CloneInto::default() };
        match self.clone_among(among, into).map_err(telling("clone the exec"))? {
            Cloned::Child => birth.begin(&mut keep),
            Cloned::Parent { pid, pidfd } => {
                let watch = Watch::ExecWalk(number).token();
                self.poll
                    .add(&told, watch, Interest::Read)
                    .and_then(|()| release(&told))
                    .map_err(telling("watch the exec"))?;
                Ok((pid, pidfd, told))
            }
        }
    }

    /// The clone of an exec said something.
    pub(crate) fn exec_said(&mut self, key: Key) {
        let Some(exec) = self.execs.get_mut(&key) else { return };
        let Phase::Walking { told, plan, walked } = &mut exec.phase else { return };
        let failure = match hear(told, walked) {
            Heard::Nothing => return,
            Heard::Executed => return self.exec_began(key),
            Heard::Terminal(master) => {
                if let Kind::Streamed { terminal } = &mut exec.kind {
                    *terminal = Some(master);
                }
                return self.exec_said(key);
            }
            Heard::Vanished if exec.timed_out => {
                exec.phase = Phase::Running;
                return;
            }
            Heard::Vanished => vanished(),
            Heard::Fault(fault) => {
                let chapters = Chapters { mounts: &[], process: &plan.process };
                fault.explain(chapters, &plan.program.candidates)
            }
        };
        exec.phase = Phase::Failed;
        let asker = exec.asker;
        self.reply(asker, &FromMonitor::Failed(failure));
    }

    pub(crate) fn exec_began(&mut self, key: Key) {
        let Some(exec) = self.execs.get_mut(&key) else { return };
        exec.phase = Phase::Running;
        let asker = exec.asker;
        if let Kind::Streamed { terminal } = &mut exec.kind {
            // Not kept here: a terminal hangs up when the asker is gone.
            let terminal = terminal.take();
            self.reply_with(asker, &FromMonitor::ExecBegan, terminal);
        }
    }

    pub(crate) fn exec_ended(&mut self, key: Key) {
        self.exec_said(key);
        let Some(exec) = self.execs.get(&key) else { return };
        let code = reaped(&exec.pidfd, exec.pid);
        self.exec_over(key, code);
    }

    /// It ended, and was reaped.
    pub(crate) fn exec_over(&mut self, key: Key, code: i32) {
        let Some(exec) = self.execs.remove(&key) else { return };
        let (asker, end) = (exec.asker, ExecEnd { code, timed_out: exec.timed_out });
        let may_live_on = matches!(exec.kind, Kind::Streamed { .. }) && !exec.killed;
        if let Some(sub) = exec.sub.as_ref().filter(|_| !may_live_on) {
            sub.kill_all();
        }
        match (exec.phase, exec.kind) {
            (Phase::Failed, _) => {}
            (Phase::Walking { .. } | Phase::Making(_) | Phase::Running, Kind::Waited) => {
                self.reply(asker, &FromMonitor::ExecEnded(end));
            }
            (Phase::Walking { .. } | Phase::Making(_) | Phase::Running, Kind::Streamed { .. }) => {
                let number = asker.number;
                self.tell(asker.connection, &FromMonitor::ExecOver { number, end });
            }
        }
        self.left.retain(|left| left.container != exec.container || left.sub.remove().is_err());
        if may_live_on {
            self.leave_behind(exec.container, exec.sub);
        } else {
            self.leave(exec.sub);
        }
    }

    /// The group of an exec whose processes may live on; too many of them may not.
    fn leave_behind(&mut self, container: Key, sub: Option<SubGroup>) {
        let Some(sub) = sub.filter(|sub| sub.remove().is_err()) else { return };
        let lives = self.containers.get(&container).is_some_and(Container::lives);
        let count = self.left.iter().filter(|left| left.container == container).count();
        if lives && count < limits::EXECS_LEFT_BEHIND {
            return self.left.push(LeftBehind { container, sub });
        }
        sub.kill_all();
        self.leave(Some(sub));
    }

    /// The container ended, and with it what its execs left behind.
    pub(crate) fn kill_left_behind(&mut self, container: Key) {
        let all = self.left.extract_if(.., |left| left.container == container);
        let subs: Vec<SubGroup> = all.map(|left| left.sub).collect();
        for sub in subs {
            sub.kill_all();
            self.leave(Some(sub));
        }
    }

    /// Kills execs whose time is over.
    pub(crate) fn end_late_execs(&mut self, now: Duration) {
        for exec in self.execs.values_mut().filter(|exec| exec.kill_at.is_some_and(|at| at <= now))
        {
            exec.kill_at = None;
            exec.timed_out = true;
            exec.kill();
        }
    }

    /// Kills the exec that this connection began by this request.
    pub(crate) fn kill_exec(&mut self, asker: Asker) {
        self.execs.values_mut().filter(|exec| exec.asker == asker).for_each(Exec::kill);
    }

    pub(crate) fn kill_execs_of(&mut self, container: Key) {
        self.execs.values_mut().filter(|exec| exec.container == container).for_each(Exec::kill);
    }

    pub(crate) fn kill_execs_for(&mut self, connection: Key) {
        let theirs = self.execs.values_mut().filter(|exec| exec.asker.connection == connection);
        theirs.for_each(Exec::kill);
    }

    pub(crate) fn leave(&mut self, sub: Option<SubGroup>) {
        let Some(sub) = sub.filter(|sub| sub.remove().is_err()) else { return };
        let at = clock::monotonic().saturating_add(Duration::from_millis(1));
        self.leaving.push(Leaving { sub, tries: 0, at });
    }

    /// Tries again to remove the cgroups of ended execs, with growing pauses; what still does not go is
    /// the daemon's, with the container's own group.
    pub(crate) fn remove_exec_groups(&mut self, now: Duration) {
        self.leaving.retain_mut(|group| {
            if group.at > now {
                return true;
            }
            if group.sub.remove().is_ok() || group.tries >= limits::EXEC_GROUP_TRIES {
                return false;
            }
            group.tries = group.tries.saturating_add(1);
            group.sub.kill_all();
            group.at = now.saturating_add(Duration::from_millis(1 << group.tries));
            true
        });
    }
}
