//! Running a handler's program: one clone for each command, written down or not before it goes on, with a log
//! of its own in memory and a deadline. Its end is met like that of every child; what it means is for whoever
//! wanted it.

use super::dress::Dress;
use crate::error::{failure, telling};
use crate::monitor::exit::{KILL, reaped};
use crate::monitor::group::{Group, SubGroup};
use crate::monitor::{Key, Monitor, connections::Asker};
use shim_model::handler::order::{Place, Program};
use shim_model::handler::said;
use shim_model::id::ContainerId;
use shim_model::limits;
use shim_model::wire::{Failure, Journal, Process};
use shim_sys::process::{self, Arguments, CloneInto, Cloned};
use shim_sys::{clock, fd, path, rooted};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Environment of every program: nothing of the pod's, nothing of ours.
const ENVIRONMENT: &std::ffi::CStr =
    c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A pid file is a number.
const PID_BYTES: usize = 32;
/// Ends of processes that nobody knows yet, while a program is at work.
const STRAYS: usize = 1_024;

/// Who runs a container.
#[derive(Debug)]
pub(crate) struct By {
    pub(crate) program: Program,
    /// The node's mount, network, UTS and IPC namespaces.
    pub(crate) node: [OwnedFd; 4],
    pub(crate) bundle: OwnedFd,
}

/// One command.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) by: &'a By,
    pub(crate) verb: &'static str,
    pub(crate) arguments: Vec<CString>,
    pub(crate) streams: [BorrowedFd<'a>; 3],
    /// The container's groups.
    pub(crate) group: Option<&'a Group>,
    /// A group of its own below them.
    pub(crate) sub: Option<&'a SubGroup>,
    /// What it finds where.
    pub(crate) trees: Vec<(CString, OwnedFd)>,
    /// To be written down first.
    pub(crate) journal: Option<ContainerId>,
}

/// A command at work.
#[derive(Debug)]
pub(crate) struct Task {
    by: Rc<By>,
    verb: &'static str,
    pidfd: OwnedFd,
    log: OwnedFd,
    purpose: Purpose,
    kill_at: Option<Duration>,
}

/// What is done when it ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Create(Key),
    Start(Key),
    Signal(Key, Asker),
    Exec(Key),
}

/// All commands at work.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    tasks: BTreeMap<i32, Task>,
    strays: Vec<(i32, i32)>,
}

impl Programs {
    pub(crate) fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(crate) fn is_one(&self, pid: i32) -> bool {
        self.tasks.contains_key(&pid)
    }

    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Duration> {
        self.tasks.values().filter_map(|task| task.kill_at)
    }

    /// A process ended that may turn out to be one that a program made.
    pub(crate) fn remember(&mut self, pid: i32, code: i32) {
        if !self.is_idle() && self.strays.len() < STRAYS {
            self.strays.push((pid, code));
        }
    }

    /// The code of a process that a program made and that has ended since.
    pub(crate) fn recall(&self, pid: i32) -> Option<i32> {
        self.strays.iter().rev().find(|(known, _)| *known == pid).map(|(_, code)| *code)
    }

    /// Kills commands whose time is over.
    pub(crate) fn end_late(&mut self, now: Duration) {
        for task in self.tasks.values_mut().filter(|task| task.kill_at.is_some_and(|at| at <= now))
        {
            task.kill_at = None;
            drop(process::pidfd_send_signal(&task.pidfd, KILL));
        }
    }
}

impl By {
    /// A place in the bundle as the program finds it: through this monitor, which holds the folder.
    pub(crate) fn place(&self, name: &str) -> CString {
        here(&self.bundle, &format!("/{name}"))
    }

    /// The number that the program wrote to a file in the bundle, which is gone afterwards.
    pub(crate) fn pid(&self, name: &str) -> Result<i32, Failure> {
        let doing = "read the pid file of the handler's program";
        let file = CString::new(name).unwrap_or_default();
        let text = rooted::open_for_reading(&self.bundle, &file)
            .and_then(|file| fd::read_to_end(file, PID_BYTES))
            .map_err(telling(doing))?;
        drop(path::remove_file(&self.bundle, name.as_bytes()));
        let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
        number.filter(|pid| *pid > 1).ok_or_else(|| {
            let text = String::from_utf8_lossy(&text).into_owned();
            Failure { step: format!("{doing}: it says {text:?}"), errno: 0, exec: false }
        })
    }
}

/// A descriptor of this monitor as a path of the node.
pub(crate) fn here(fd: &impl AsRawFd, below: &str) -> CString {
    let path = format!("/proc/{}/fd/{}{below}", process::own_pid(), fd.as_raw_fd());
    CString::new(path).unwrap_or_default()
}

/// An argument.
pub(crate) fn word(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

impl Monitor {
    /// Starts a command. Its process, which is also the container's or the exec's until there is one.
    pub(crate) fn run_program(
        &mut self,
        by: &Rc<By>,
        mut call: Call<'_>,
        purpose: Purpose,
    ) -> Result<(Process, OwnedFd), Failure> {
        let doing = "run the handler's program";
        let log = fd::memfd(c"handler-log", false).map_err(telling(doing))?;
        let program = &by.program;
        let mut argv = vec![program.path.clone()];
        argv.extend(program.options.iter().cloned());
        argv.extend([word("--log"), here(&log, ""), word("--log-format"), word("json")]);
        argv.push(word(call.verb));
        argv.append(&mut call.arguments);
        let arguments = Arguments::new(argv, vec![ENVIRONMENT.to_owned()]);
        let (go, held) = fd::pipe().map_err(telling(doing))?;
        let enters = program.place != Place::Outside;
        let tasks = call.sub.filter(|_| program.place == Place::Groups).map(SubGroup::tasks);
        let tasks = tasks.transpose().map_err(telling("join the exec's cgroup"))?.flatten();
        let own = call.sub.and_then(SubGroup::into);
        let cgroup =
            own.or_else(|| call.group.and_then(|group| group.into.as_ref()).map(AsFd::as_fd));
        let into = CloneInto { cgroup: cgroup.filter(|_| enters), ..CloneInto::default() };
        let dress = Dress {
            go: &go,
            log: &log,
            call: &call,
            tasks: tasks.as_ref(),
            files: self.files,
            arguments: &arguments,
        };
        let mut keep = dress.keep();
        match process::clone3(into).map_err(telling(doing))? {
            Cloned::Child => dress.begin(&mut keep),
            Cloned::Parent { pid, pidfd } => {
                // Should this fail, `held` is dropped, and the clone leaves as unknown as it came.
                let start = process::start_time(pid).map_err(telling(doing))?;
                let process = Process { pid, start };
                if let Some(container) = call.journal {
                    self.journal.append(&Journal::Cloned { container, process });
                }
                let copy = fd::duplicate(&pidfd).map_err(telling(doing))?;
                fd::write_all(&held, b"1").map_err(telling(doing))?;
                let kill_at = Some(clock::monotonic().saturating_add(limits::HANDLER_COMMAND));
                let (by, verb) = (Rc::clone(by), call.verb);
                let task = Task { by, verb, pidfd, log, purpose, kill_at };
                self.programs.tasks.insert(pid, task);
                Ok((process, copy))
            }
        }
    }

    /// A command ended: on with what it was for.
    pub(crate) fn program_ended(&mut self, pid: i32) {
        let Some(task) = self.programs.tasks.remove(&pid) else { return };
        let code = reaped(&task.pidfd, pid);
        let done = if code == 0 { Ok(()) } else { Err(task.failure(code)) };
        match task.purpose {
            Purpose::Create(key) => self.created(key, done),
            Purpose::Start(key) => self.start_ended(key, done),
            Purpose::Signal(key, asker) => self.signal_ended(key, asker, done),
            Purpose::Exec(key) => self.exec_made(key, done),
        }
        if self.programs.is_idle() {
            self.programs.strays = Vec::new();
        }
    }
}

impl Task {
    fn failure(&self, code: i32) -> Failure {
        let name = self.by.program.path.to_string_lossy();
        let name = name.rsplit('/').next().unwrap_or_default();
        let ended = match (self.kill_at, code) {
            (None, _) => format!("it did not end within {:?}", limits::HANDLER_COMMAND),
            (Some(_), 137) => "it was killed; the memory limit may be too small for it".to_owned(),
            (Some(_), code) => format!("it ended with code {code} and said nothing"),
        };
        let log = fd::read_to_end(&self.log, limits::HANDLER_OUTPUT_BYTES);
        log.map_or_else(
            |error| failure(format!("{name} {}: read what it said", self.verb), &error),
            |log| said::failure(name, self.verb, &log, &ended),
        )
    }
}
