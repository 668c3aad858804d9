//! Requests of the daemon: which act each one is. Every request gets one reply with its number, now or
//! when the thing it asked for has happened.

use super::connections::Asker;
use super::container::{Container, Phase};
use super::exit::KILL;
use super::{Key, Monitor};
use crate::error::refused;
use shim_model::handler::order::StartBy;
use shim_model::id::ContainerId;
use shim_model::limits;
use shim_model::wire::{FromMonitor, Start, ToMonitor, decode};
use shim_sys::error::Errno;
use shim_sys::socket::Packet;
use shim_sys::tty::{self, Size};
use shim_sys::{clock, process};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A start whose descriptors have not all come.
#[derive(Debug)]
pub(crate) struct Parked {
    asker: Asker,
    start: Beginning,
    fds: Vec<OwnedFd>,
    missing: usize,
}

/// Who starts a container.
#[derive(Debug)]
enum Beginning {
    /// This monitor.
    Own(Box<Start>),
    /// A handler's program.
    By(Box<StartBy>),
}

/// The monitor is leaving.
#[derive(Debug)]
pub(crate) struct Quit {
    asker: Asker,
    /// When it leaves whatever still lives.
    pub(crate) deadline: Duration,
}

impl Monitor {
    /// Does what a message asks. One that cannot be read says nothing about what was wanted, so its
    /// connection ends.
    pub(crate) fn obey(&mut self, connection: Key, packet: Packet) {
        let Ok(frame) = decode::<ToMonitor>(&packet.bytes) else {
            return self.end_connection(connection);
        };
        self.heard_version(connection, frame.version);
        let asker = Asker { connection, number: frame.number };
        match frame.body {
            ToMonitor::Setup(plan) => self.set_up(asker, &plan, packet.fds),
            ToMonitor::Start(start) => {
                let missing = start.more;
                self.start_or_park(asker, Beginning::Own(start), missing, packet.fds);
            }
            ToMonitor::Descriptors { number } => {
                self.more_descriptors(Asker { connection, number }, packet.fds);
            }
            ToMonitor::Signal { container, signal } => self.signal(asker, &container, signal),
            ToMonitor::Kill { container } => self.kill(asker, &container),
            ToMonitor::Reopen { container } => self.reopen(asker, &container, packet.fds),
            ToMonitor::Exec(request) => self.exec(asker, *request, packet.fds),
            ToMonitor::KillExec { number } => {
                self.kill_exec(Asker { connection, number });
                self.reply(asker, &FromMonitor::Done);
            }
            ToMonitor::State => self.tell_state(asker),
            ToMonitor::Forget { container } => self.forget(asker, &container),
            ToMonitor::Quit => self.begin_quit(asker),
            ToMonitor::Attach(request) => self.attach(asker, &request, packet.fds),
            ToMonitor::EndInput { number } => {
                self.end_input(Asker { connection, number });
                self.reply(asker, &FromMonitor::Done);
            }
            ToMonitor::Detach { number, keep_stdin } => {
                self.detach(Asker { connection, number }, keep_stdin);
                self.reply(asker, &FromMonitor::Done);
            }
            ToMonitor::Resize { container, columns, rows } => {
                self.resize(asker, &container, Size { columns, rows });
            }
            ToMonitor::ExecStreamed(request) => self.exec_streamed(asker, *request, packet.fds),
            ToMonitor::LendUserNamespace => self.lend_user_namespace(asker),
            ToMonitor::StartBy(start) => {
                let missing = start.more;
                self.start_or_park(asker, Beginning::By(start), missing, packet.fds);
            }
            ToMonitor::ExecBy(request) => self.exec_by(asker, &request, packet.fds),
        }
    }

    fn start_or_park(&mut self, asker: Asker, start: Beginning, missing: u16, fds: Vec<OwnedFd>) {
        let missing = usize::from(missing);
        if missing == 0 {
            self.begin(asker, start, fds);
        } else {
            self.parked.push(Parked { asker, start, fds, missing });
        }
    }

    fn more_descriptors(&mut self, asker: Asker, fds: Vec<OwnedFd>) {
        let Some(at) = self.parked.iter().position(|parked| parked.asker == asker) else { return };
        if let Some(parked) = self.parked.get_mut(at) {
            parked.missing = parked.missing.saturating_sub(fds.len());
            parked.fds.extend(fds);
            if parked.missing > 0 {
                return;
            }
        }
        let Parked { asker, start, fds, missing: _ } = self.parked.swap_remove(at);
        self.begin(asker, start, fds);
    }

    fn begin(&mut self, asker: Asker, start: Beginning, fds: Vec<OwnedFd>) {
        match start {
            Beginning::Own(start) => self.start(asker, *start, fds),
            Beginning::By(start) => self.start_by(asker, *start, fds),
        }
    }

    /// What was done only for a connection that is gone.
    pub(crate) fn forget_asker(&mut self, connection: Key) {
        self.parked.retain(|parked| parked.asker.connection != connection);
        self.kill_execs_for(connection);
        self.lose_clients_of(connection);
    }

    /// A container that never started is not known any more, though its clone may still be dying.
    pub(crate) fn key_of(&self, id: &ContainerId) -> Option<Key> {
        let started = |container: &Container| !matches!(container.phase, Phase::NotStarted);
        let mut known = self.containers.iter();
        known.find(|(_, known)| known.id == *id && started(known)).map(|(key, _)| *key)
    }

    fn signal(&mut self, asker: Asker, id: &ContainerId, signal: i32) {
        let known = self.key_of(id).and_then(|key| Some((key, self.containers.get(&key)?)));
        let Some((key, container)) = known else {
            return self.reply(asker, &FromMonitor::Unknown);
        };
        if container.by.is_some() {
            return self.signal_by(asker, key, signal);
        }
        let sent = if container.lives() {
            process::pidfd_send_signal(&container.pidfd, signal)
        } else {
            Ok(())
        };
        let reply = match sent {
            Err(error) if error.errno() != Errno::ESRCH => {
                FromMonitor::Failed(crate::error::failure("send a signal", &error))
            }
            Ok(()) | Err(_) => FromMonitor::Done,
        };
        self.reply(asker, &reply);
    }

    /// A size of zero says that the client knows none, and changes nothing.
    fn resize(&mut self, asker: Asker, id: &ContainerId, size: Size) {
        let known = self.key_of(id).and_then(|key| self.containers.get(&key));
        let Some(container) = known else { return self.reply(asker, &FromMonitor::Unknown) };
        let sized = match &container.standard {
            Some(terminal) if container.tty && size.columns > 0 && size.rows > 0 => {
                tty::set_size(&terminal.pipe, size)
            }
            Some(_) | None => Ok(()),
        };
        let reply = match sized {
            Ok(()) => FromMonitor::Done,
            Err(error) => FromMonitor::Failed(crate::error::failure("resize the terminal", &error)),
        };
        self.reply(asker, &reply);
    }

    fn kill(&mut self, asker: Asker, id: &ContainerId) {
        let reply = match self.key_of(id) {
            Some(key) => {
                self.kill_container(key);
                FromMonitor::Done
            }
            None => FromMonitor::Unknown,
        };
        self.reply(asker, &reply);
    }

    fn kill_container(&mut self, key: Key) {
        let Some(container) = self.containers.get(&key) else { return };
        if container.lives() {
            container.group.kill_all();
            drop(process::pidfd_send_signal(&container.pidfd, KILL));
        }
        self.kill_execs_of(key);
    }

    fn reopen(&mut self, asker: Asker, id: &ContainerId, fds: Vec<OwnedFd>) {
        let key = self.key_of(id);
        let reply =
            match (key.and_then(|key| self.containers.get_mut(&key)), fds.into_iter().next()) {
                (None, _) => FromMonitor::Unknown,
                (Some(_), None) => {
                    FromMonitor::Failed(refused("reopen the log: no file came", Errno::EPROTO))
                }
                (Some(container), Some(file)) => {
                    // What was read is written by the end of the same turn, so the old file is complete.
                    if !matches!(container.phase, Phase::Ended(_)) {
                        container.log.reopen(file);
                    }
                    FromMonitor::Done
                }
            };
        self.reply(asker, &reply);
    }

    fn tell_state(&mut self, asker: Asker) {
        let pod_init = self.pod.as_ref().and_then(|pod| pod.init.as_ref()).map(|init| init.process);
        let containers = self.containers.values().filter_map(Container::state).collect();
        self.reply(asker, &FromMonitor::State { pod_init, containers });
    }

    fn forget(&mut self, asker: Asker, id: &ContainerId) {
        let Some(key) = self.key_of(id) else { return self.reply(asker, &FromMonitor::Unknown) };
        let ended = self.containers.get(&key).is_some_and(|c| matches!(c.phase, Phase::Ended(_)));
        let reply = if ended {
            self.containers.remove(&key);
            FromMonitor::Done
        } else {
            FromMonitor::Failed(refused("forget a container that has not ended", Errno::EBUSY))
        };
        self.reply(asker, &reply);
    }

    fn begin_quit(&mut self, asker: Asker) {
        let keys: Vec<Key> = self.containers.keys().copied().collect();
        for key in keys {
            self.kill_container(key);
        }
        let deadline = clock::monotonic().saturating_add(limits::KILL_WAIT);
        self.quit = Some(Quit { asker, deadline });
    }

    /// True once everything has ended (or is stuck in the kernel past the deadline) and the reply is
    /// on its way.
    pub(crate) fn may_leave(&mut self) -> bool {
        let Some(quit) = &self.quit else { return false };
        let (asker, late) = (quit.asker, quit.deadline <= clock::monotonic());
        let busy = self
            .containers
            .values()
            .any(|c| c.lives() || matches!(c.phase, Phase::Draining { .. }));
        let waits = !self.execs.is_empty() || !self.leaving.is_empty() || !self.programs.is_idle();
        let idle = !busy && !waits;
        if idle && let Some(init) = self.pod.as_ref().and_then(|pod| pod.init.as_ref()) {
            drop(process::pidfd_send_signal(&init.pidfd, KILL));
            if !late {
                return false;
            }
        }
        if !idle && !late {
            return false;
        }
        self.reply(asker, &FromMonitor::Done);
        true
    }
}
