//! Commands in a container that a handler's program started: the program's `exec` makes the process, apart
//! from itself, and ends; the process is this monitor's child then, with the streams that it was given. From
//! there on it is an exec like any other (`monitor/exec.rs`).

use super::console::Console;
use super::program::{By, Call, Purpose, here, word};
use crate::error::{refused, telling};
use crate::monitor::connections::Asker;
use crate::monitor::exec::{Exec, Kind, Phase};
use crate::monitor::group::{SubGroup, next};
use crate::monitor::{Key, Monitor, null};
use shim_model::handler::order::ExecBy;
use shim_model::id::ContainerId;
use shim_model::wire::{ExecEnd, Failure, FromMonitor};
use shim_sys::error::Errno;
use shim_sys::tty::{self, Size};
use shim_sys::{clock, fd, path, process};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// What is kept while a program makes a command's process.
#[derive(Debug)]
pub(crate) struct Making {
    by: Rc<By>,
    pid_file: String,
    console: Option<Console>,
    size: Size,
    /// The process of the OCI spec, which the program reads through this monitor.
    process: OwnedFd,
}

impl Monitor {
    /// Runs a command; the reply comes now if it cannot be begun.
    pub(crate) fn exec_by(&mut self, asker: Asker, request: &ExecBy, fds: Vec<OwnedFd>) {
        let Some(key) = self.key_of(&request.container) else {
            return self.reply(asker, &FromMonitor::Unknown);
        };
        if let Err(failure) = self.begin_exec_by(asker, key, request, fds) {
            self.reply(asker, &FromMonitor::Failed(failure));
        }
    }

    fn begin_exec_by(
        &mut self,
        asker: Asker,
        key: Key,
        request: &ExecBy,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Failure> {
        self.check_exec(key)?;
        let container = self.containers.get(&key);
        let none = || refused("exec: no program started this container", Errno::EINVAL);
        let (container, by) = container.and_then(|c| Some((c, c.by.clone()?))).ok_or_else(none)?;
        let id = container.id.clone();
        let mut fds = fds.into_iter();
        let mut stream = |wanted: bool| {
            if wanted && !request.tty { next(&mut fds) } else { null().map_err(telling("exec")) }
        };
        let streams = [stream(request.stdin)?, stream(request.stdout)?, stream(request.stderr)?];
        self.give_streams(&streams)?;
        let number = self.last_key.wrapping_add(1);
        let process = fd::sealed_memfd(c"process", &request.process).map_err(telling("exec"))?;
        let console = request.tty.then(|| Console::listen(&by.bundle, format!("console-{number}")));
        let console = console.transpose().map_err(telling("listen for the terminal"))?;
        let making = Making {
            by,
            pid_file: format!("pid-{number}"),
            console,
            size: Size { columns: request.size.0, rows: request.size.1 },
            process,
        };
        let sub = container.group.make_sub(number).map_err(telling("make the exec's cgroup"))?;
        let ran = self.run_exec((key, &id), &making, &streams, sub.as_ref());
        match ran {
            Ok((pid, pidfd)) => {
                let kind =
                    if request.waited { Kind::Waited } else { Kind::Streamed { terminal: None } };
                let kill_at = (request.timeout > 0).then(|| {
                    clock::monotonic().saturating_add(Duration::from_nanos(request.timeout))
                });
                let phase = Phase::Making(Box::new(making));
                let exec = Exec {
                    container: key,
                    pid,
                    pidfd,
                    asker,
                    sub,
                    kill_at,
                    killed: false,
                    timed_out: false,
                    kind,
                    phase,
                };
                self.execs.insert(number, exec);
                Ok(())
            }
            Err(failure) => {
                making.tidy();
                self.leave(sub);
                Err(failure)
            }
        }
    }

    /// Its key is the number that names its files.
    fn run_exec(
        &mut self,
        (container, id): (Key, &ContainerId),
        making: &Making,
        streams: &[OwnedFd; 3],
        sub: Option<&SubGroup>,
    ) -> Result<(i32, OwnedFd), Failure> {
        let number = self.next_key();
        let by = &making.by;
        // Taken out while the program is run: nothing else happens meanwhile.
        let group = self.containers.get_mut(&container).map(|c| std::mem::take(&mut c.group));
        let call = Call {
            by,
            verb: "exec",
            arguments: arguments(making, sub, id),
            streams: streams.each_ref().map(AsFd::as_fd),
            group: group.as_ref(),
            sub,
            trees: Vec::new(),
            journal: None,
        };
        let ran = self.run_program(by, call, Purpose::Exec(number));
        if let (Some(container), Some(group)) = (self.containers.get_mut(&container), group) {
            container.group = group;
        }
        ran.map(|(process, pidfd)| (process.pid, pidfd))
    }

    /// `exec` ended: the command's process is there, or never was.
    pub(crate) fn exec_made(&mut self, key: Key, done: Result<(), Failure>) {
        let Some(exec) = self.execs.get_mut(&key) else { return };
        let Phase::Making(making) = std::mem::replace(&mut exec.phase, Phase::Running) else {
            return;
        };
        let made = match done.and_then(|()| making.by.pid(&making.pid_file)) {
            Ok(pid) => (*making).master().map(|master| (pid, master)),
            Err(failure) => {
                (*making).tidy();
                Err(failure)
            }
        };
        let (pid, master) = match made {
            Ok(made) => made,
            Err(failure) => return self.exec_not_made(key, failure),
        };
        let gone = self.programs.recall(pid);
        if gone.is_none() {
            match process::pidfd_open(pid) {
                Ok(pidfd) => (exec.pid, exec.pidfd) = (pid, pidfd),
                Err(error) => return self.exec_not_made(key, telling("find the command")(error)),
            }
        }
        if exec.killed {
            exec.kill();
        }
        if let Kind::Streamed { terminal } = &mut exec.kind {
            *terminal = master;
        }
        self.exec_began(key);
        if let Some(code) = gone {
            self.exec_over(key, code);
        }
    }

    fn exec_not_made(&mut self, key: Key, failure: Failure) {
        let Some(exec) = self.execs.remove(&key) else { return };
        if let Some(sub) = &exec.sub {
            sub.kill_all();
        }
        let reply = match exec.kind {
            Kind::Waited if exec.timed_out => {
                FromMonitor::ExecEnded(ExecEnd { code: 137, timed_out: true })
            }
            Kind::Waited | Kind::Streamed { .. } => FromMonitor::Failed(failure),
        };
        self.reply(exec.asker, &reply);
        self.leave(exec.sub);
    }
}

impl Making {
    /// Takes away what the program left in the bundle.
    fn tidy(self) {
        drop(path::remove_file(&self.by.bundle, self.pid_file.as_bytes()));
        if let Some(console) = self.console {
            console.close(&self.by.bundle);
        }
    }

    /// The terminal that was asked for, in the size that was.
    fn master(mut self) -> Result<Option<OwnedFd>, Failure> {
        let doing = "take the terminal of the handler's program";
        let Some(console) = self.console.take() else { return Ok(None) };
        let master = console.take(&self.by.bundle).map_err(telling(doing))?;
        if self.size.columns > 0 && self.size.rows > 0 {
            tty::set_size(&master, self.size).map_err(telling(doing))?;
        }
        Ok(Some(master))
    }
}

fn arguments(making: &Making, sub: Option<&SubGroup>, id: &ContainerId) -> Vec<CString> {
    let by = &making.by;
    let mut arguments = vec![word("--detach"), word("--process"), here(&making.process, "")];
    arguments.extend([word("--pid-file"), by.place(&making.pid_file)]);
    if let Some(console) = &making.console {
        arguments.extend([word("--console-socket"), by.place(console.name())]);
    }
    if let (Some(prefix), Some(sub)) = (&by.program.sub_group, sub) {
        let name = [prefix.to_bytes(), sub.name().to_bytes()].concat();
        arguments.extend([word("--cgroup"), CString::new(name).unwrap_or_default()]);
    }
    arguments.push(word(id.as_str()));
    arguments
}
