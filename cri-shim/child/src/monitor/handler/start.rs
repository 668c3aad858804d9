//! Starting a container by a handler's program: `create`, which makes the process and stops it before the
//! container's own program; then `start`. Both are begun here and go on when the command before them ended.
//! Nothing of the program runs before a start is asked for, so a container that is only made costs nothing,
//! and every failure is the start's.

use super::console::Console;
use super::program::{By, Call, Purpose, here, word};
use crate::error::{refused, telling};
use crate::monitor::connections::Asker;
use crate::monitor::container::{Container, Phase, Stdin, Stream};
use crate::monitor::group::{Group, next};
use crate::monitor::log::LogFile;
use crate::monitor::start::{Pipes, watch_streams};
use crate::monitor::watch::Watch;
use crate::monitor::{Key, Monitor, oom};
use crate::times::{WalkTimes, moment};
use shim_model::handler::order::{StartBy, Tree};
use shim_model::id::ContainerId;
use shim_model::log::Output;
use shim_model::plan::PidNamespace;
use shim_model::wire::{Failure, FromMonitor, Journal, Nanos, Process};
use shim_sys::error::Errno;
use shim_sys::poll::Interest;
use shim_sys::tty::{self, Size};
use shim_sys::{clock, mount, process};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

/// What is kept while a program makes a container.
#[derive(Debug)]
pub(crate) struct Making {
    asker: Asker,
    /// When the order came.
    asked: u64,
    /// When `create` ended.
    created: u64,
    console: Option<Console>,
    size: Size,
    /// Its terminal is to be its standard input for clients too.
    pub(crate) stdin: bool,
    /// The process that the container has is its own first one.
    pub(crate) made: bool,
    /// It ended before it was said to run.
    pub(crate) ended: Option<(Nanos, i32)>,
}

impl Making {
    fn new(asker: Asker, console: Option<Console>, (size, stdin): ((u16, u16), bool)) -> Self {
        let size = Size { columns: size.0, rows: size.1 };
        let asked = moment();
        Self { asker, asked, created: asked, console, size, stdin, made: false, ended: None }
    }
}

impl Monitor {
    /// Starts a container; the reply comes now if that fails, else when the program has started it.
    pub(crate) fn start_by(&mut self, asker: Asker, start: StartBy, fds: Vec<OwnedFd>) {
        if let Err(failure) = self.try_start_by(asker, start, fds) {
            self.reply(asker, &FromMonitor::Failed(failure));
        }
    }

    fn try_start_by(
        &mut self,
        asker: Asker,
        start: StartBy,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        self.may_start(&start.container)?;
        let mut fds = fds.into_iter();
        let log = next(&mut fds)?;
        let group = Group::take(start.cgroup, &mut fds)?;
        let node = [next(&mut fds)?, next(&mut fds)?, next(&mut fds)?, next(&mut fds)?];
        let bundle = next(&mut fds)?;
        let trees = self.trees(start.trees, fds)?;
        let by = Rc::new(By { program: start.program, node, bundle });
        let pipes = if start.tty { Pipes::none() } else { Pipes::of(start.stdin) };
        let pipes = pipes.map_err(telling("make the standard streams"))?;
        self.give_streams(&pipes.theirs)?;
        let console = start.tty.then(|| Console::listen(&by.bundle, "console".to_owned()));
        let console = console.transpose().map_err(telling("listen for the terminal"))?;
        let oom_before = oom::count(group.oom.as_ref());
        let key = self.next_key();
        let call = Call {
            by: &by,
            verb: "create",
            arguments: create(&by, &start.bundle, console.as_ref(), &start.container),
            streams: pipes.theirs.each_ref().map(AsFd::as_fd),
            group: Some(&group),
            sub: None,
            trees,
            journal: Some(start.container.clone()),
        };
        let (process, pidfd) = self.run_program(&by, call, Purpose::Create(key))?;
        let (standard, error) = pipes.outputs.unzip();
        let container = Container {
            id: start.container,
            process,
            pidfd,
            group,
            oom_before,
            started: 0,
            other_pids: false,
            log: LogFile::new(Some(log)),
            standard: standard.map(|pipe| Stream::new(pipe, Output::Standard)),
            error: error.map(|pipe| Stream::new(pipe, Output::Error)),
            stdin: Stdin { end: pipes.stdin, once: start.stdin_once, full: false },
            tty: start.tty,
            peer: None,
            by: Some(by),
            phase: Phase::Making(Box::new(Making::new(asker, console, (start.size, start.stdin)))),
        };
        let watch = |fd: &OwnedFd, watch: Watch| self.poll.add(fd, watch.token(), Interest::Read);
        let watched = watch_streams(&container, key, watch);
        self.containers.insert(key, container);
        self.seat_early(key);
        if let Err(error) = watched {
            self.not_made(key, telling("watch the container")(error));
        }
        Ok(())
    }

    /// What the program finds in the bundle: given trees, and what this monitor holds.
    fn trees(
        &self,
        places: Vec<(CString, Tree)>,
        mut given: std::vec::IntoIter<OwnedFd>,
    ) -> Result<Vec<(CString, OwnedFd)>, Failure> {
        let doing = "take a tree for the handler's program";
        let mut trees = Vec::with_capacity(places.len());
        for (place, tree) in places {
            let own =
                |kind: &str| mount::clone_path(&word(&format!("/proc/self/ns/{kind}")), false);
            let found = match &tree {
                Tree::Given => {
                    trees.push((place, next(&mut given)?));
                    continue;
                }
                Tree::PodShm => mount::clone_path(c"/shm", false),
                Tree::Network => own("net"),
                Tree::Uts => own("uts"),
                Tree::Ipc => own("ipc"),
                Tree::User => mount::clone_path(&self.user_namespace()?, false),
                Tree::Pid(of) => mount::clone_path(&self.pid_namespace(of)?, false),
            };
            trees.push((place, found.map_err(telling(doing))?));
        }
        Ok(trees)
    }

    fn user_namespace(&self) -> Result<CString, Failure> {
        let user = self.pod.as_ref().and_then(|pod| pod.user.as_ref());
        let none = || refused("join the pod's user namespace: it has none", Errno::ESRCH);
        user.map(|user| here(&user.namespace, "")).ok_or_else(none)
    }

    /// The namespace of a process that this monitor has not reaped, so that it is the one that is meant.
    fn pid_namespace(&self, of: &PidNamespace) -> Result<CString, Failure> {
        let pid = match of {
            PidNamespace::Pod => {
                self.pod.as_ref().and_then(|pod| pod.init.as_ref()).map(|init| init.process.pid)
            }
            PidNamespace::Target(id) => self.running(id).map(|target| target.process.pid),
            PidNamespace::Own | PidNamespace::Node => None,
        };
        let none = || refused("join a PID namespace: whoever holds it does not run", Errno::ESRCH);
        pid.map(|pid| word(&format!("/proc/{pid}/ns/pid"))).ok_or_else(none)
    }

    /// `create` ended: the container's first process is there, and `start` is next.
    pub(crate) fn created(&mut self, key: Key, done: Result<(), Failure>) {
        let next = done.and_then(|()| self.take_over(key)).and_then(|()| {
            let Some(container) = self.containers.get(&key) else { return Ok(()) };
            let Some(by) = container.by.clone() else { return Ok(()) };
            self.command(&by, "start", vec![word(container.id.as_str())], Purpose::Start(key))
        });
        if let Err(failure) = next {
            self.not_made(key, failure);
        }
    }

    /// A command without streams of anybody.
    pub(crate) fn command(
        &mut self,
        by: &Rc<By>,
        verb: &'static str,
        arguments: Vec<CString>,
        purpose: Purpose,
    ) -> Result<(), Failure> {
        let null = crate::monitor::null().map_err(telling("run the handler's program"))?;
        let call = Call {
            by,
            verb,
            arguments,
            streams: [null.as_fd(); 3],
            group: None,
            sub: None,
            trees: Vec::new(),
            journal: None,
        };
        self.run_program(by, call, purpose).map(drop)
    }

    /// Takes over what `create` made: the process, by the number in the pid file, and the terminal.
    fn take_over(&mut self, key: Key) -> Result<(), Failure> {
        let Some(container) = self.containers.get_mut(&key) else { return Ok(()) };
        let (Phase::Making(making), Some(by)) = (&mut container.phase, &container.by) else {
            return Ok(());
        };
        making.created = moment();
        let pid = by.pid("pid")?;
        if let Some(code) = self.programs.recall(pid) {
            making.ended = Some((clock::now(), code));
        } else {
            let doing = "find the container's first process";
            container.pidfd = process::pidfd_open(pid).map_err(telling(doing))?;
            let start = process::start_time(pid).map_err(telling(doing))?;
            container.process = Process { pid, start };
            let (container, process) = (container.id.clone(), container.process);
            self.journal.append(&Journal::Cloned { container, process });
        }
        making.made = true;
        let Some(console) = making.console.take() else { return Ok(()) };
        let (size, stdin) = (making.size, making.stdin);
        let doing = "take the terminal of the handler's program";
        let master = console.take(&by.bundle).map_err(telling(doing))?;
        if size.columns > 0 && size.rows > 0 {
            tty::set_size(&master, size).map_err(telling(doing))?;
        }
        self.take_terminal(key, master, stdin).map_err(telling(doing))
    }

    /// `start` ended: the container's program runs, or has run.
    pub(crate) fn start_ended(&mut self, key: Key, done: Result<(), Failure>) {
        if let Err(failure) = done {
            return self.not_made(key, failure);
        }
        let Some(container) = self.containers.get_mut(&key) else { return };
        let Phase::Making(making) = &mut container.phase else { return };
        let (asker, ended) = (making.asker, making.ended);
        // What the program did is its own; we only see where one command ends.
        let times = WalkTimes::all_at(making.created).between(making.asked, moment());
        let (container, process) = (container.id.clone(), container.process);
        self.runs(key, asker, times);
        if let Some((at, code)) = ended {
            // So that everybody hears of its start before its end: an answer may be overtaken.
            let started = self.containers.get(&key).map_or(at, |container| container.started);
            self.tell_all(&FromMonitor::Runs { container, process, at: started });
            self.end(key, at, code);
        }
    }

    /// A program could not make or start a container. Whoever it left is killed; its group goes with the
    /// daemon, and its state with `delete`.
    fn not_made(&mut self, key: Key, failure: Failure) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        let Phase::Making(making) = &mut container.phase else { return };
        if let (Some(console), Some(by)) = (making.console.take(), &container.by) {
            console.close(&by.bundle);
        }
        let (asker, to_reap) = (making.asker, making.made && making.ended.is_none());
        self.start_failed(key, asker, failure);
        if !to_reap {
            self.containers.remove(&key);
        }
    }
}

fn create(by: &By, bundle: &CString, console: Option<&Console>, id: &ContainerId) -> Vec<CString> {
    let mut arguments = vec![word("--bundle"), bundle.clone(), word("--pid-file"), by.place("pid")];
    if let Some(console) = console {
        arguments.extend([word("--console-socket"), by.place(console.name())]);
    }
    arguments.push(word(id.as_str()));
    arguments
}
