//! The monitor: one process and one thread for each pod. It becomes the pod (`pod.rs`: namespaces,
//! shared memory, pod-init), then waits in one loop for the daemon's requests (`connections.rs`,
//! `command.rs`), for its containers' output (`streams.rs`, `log.rs`), for who is attached to them
//! (`attach.rs`, `input.rs`) and for their ends (`exit.rs`).
//! It outlives the daemon and the zygote; the daemon reaches it through the pod's listening socket.
//! What to do is decided by the daemon; what happened is told by the journal before anybody is told.

mod attach;
mod birth;
mod command;
mod connections;
mod container;
mod exec;
mod exit;
mod group;
mod handler;
mod input;
mod journal;
mod log;
mod oom;
mod pod;
mod start;
mod streams;
mod user;
mod watch;

use attach::Client;
use connections::Connections;
use container::Container;
use exec::{Exec, Leaving, LeftBehind};
use handler::program::Programs;
use journal::JournalFile;
use pod::Pod;
use shim_model::limits;
use shim_model::wire::{Journal, Process};
use shim_sys::credentials::Limit;
use shim_sys::error::SysError;
use shim_sys::poll::{Event, Interest, Poll};
use shim_sys::{clock, credentials, fd, namespace, process, signal};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use streams::Scratch;
use watch::Watch;

/// Names a container or exec of this monitor, never used twice.
pub(crate) type Key = u32;

/// Everything that one pod's monitor knows.
#[derive(Debug)]
pub(crate) struct Monitor {
    poll: Poll,
    children: OwnedFd,
    listener: OwnedFd,
    journal: JournalFile,
    connections: Connections,
    process: Process,
    /// Open files as the daemon may have them: what containers get, though the monitor has more.
    files: Option<Limit>,
    /// Own PID namespace, to come back to after cloning into another.
    pids: OwnedFd,
    /// Set by the first message.
    pod: Option<Pod>,
    containers: BTreeMap<Key, Container>,
    execs: BTreeMap<Key, Exec>,
    /// Commands of handlers' programs.
    programs: Programs,
    /// Who is attached to the containers.
    clients: BTreeMap<Key, Client>,
    /// Cgroups of ended execs that could not be removed yet.
    leaving: Vec<Leaving>,
    /// Those in which an exec left processes that live on.
    left: Vec<LeftBehind>,
    last_key: Key,
    scratch: Option<Scratch>,
    /// More ended children wait than one turn reaps.
    more_ended: bool,
    quit: Option<command::Quit>,
    /// Starts whose descriptors have not all come.
    parked: Vec<command::Parked>,
}

/// Runs a monitor in a fresh clone of the zygote until it is told to quit; its exit code. A failure
/// here ends the pod: the daemon sees the monitor's end.
pub(crate) fn run(listener: OwnedFd, journal: OwnedFd) -> i32 {
    match Monitor::new(listener, journal).and_then(|mut monitor| monitor.serve()) {
        Ok(()) => 0,
        Err(_error) => 1,
    }
}

impl Monitor {
    fn new(listener: OwnedFd, journal: OwnedFd) -> Result<Self, SysError> {
        fd::close_all_but(&mut [listener.as_fd(), journal.as_fd()])?;
        detach_standard_streams()?;
        credentials::new_session()?;
        credentials::become_subreaper()?;
        credentials::set_name(c"wherry-monitor")?;
        protect_from_oom();
        fd::set_nonblocking(&listener)?;
        let poll = Poll::new()?;
        let children = signal::child_descriptor()?;
        poll.add(&listener, Watch::Listener.token(), Interest::Read)?;
        poll.add(&children, Watch::Children.token(), Interest::Read)?;
        let pid = process::own_pid();
        let process = Process { pid, start: process::start_time(pid)? };
        let mut journal = JournalFile::new(journal);
        journal.append(&Journal::Monitor { process });
        Ok(Self {
            poll,
            children,
            listener,
            journal,
            connections: Connections::default(),
            process,
            files: more_files(),
            pids: namespace::own(namespace::Namespace::Pid)?,
            pod: None,
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            programs: Programs::default(),
            clients: BTreeMap::new(),
            leaving: Vec::new(),
            left: Vec::new(),
            last_key: 0,
            scratch: None,
            more_ended: false,
            quit: None,
            parked: Vec::new(),
        })
    }

    fn serve(&mut self) -> Result<(), SysError> {
        let mut events = Vec::new();
        loop {
            events.clear();
            self.poll.wait(&mut events, self.timeout())?;
            for event in &events {
                self.happened(*event);
            }
            if self.more_ended {
                self.reap();
            }
            self.pass_deadlines();
            if self.may_leave() {
                return Ok(());
            }
        }
    }

    fn happened(&mut self, event: Event) {
        match Watch::from_token(event.token) {
            Some(Watch::Listener) => self.accept(),
            Some(Watch::Children) => {
                signal::drain(&self.children);
                self.more_ended = true;
            }
            Some(Watch::Connection(key)) => self.connection_ready(key, event.writable),
            Some(Watch::Walk(key)) => self.container_said(key),
            Some(Watch::Output(key, output)) => self.output_ready(key, output),
            Some(Watch::ExecWalk(key)) => self.exec_said(key),
            Some(Watch::Stdin(key)) => self.stdin_has_room(key),
            Some(Watch::Input(key)) => self.pass_input(key),
            Some(Watch::Room(key, output)) => self.client_has_room(key, output),
            None => {}
        }
    }

    /// How long nothing needs to be done by the clock.
    fn timeout(&self) -> Option<Duration> {
        if self.more_ended {
            return Some(Duration::ZERO);
        }
        let now = clock::monotonic();
        self.deadlines().min().map(|deadline| deadline.saturating_sub(now))
    }

    fn deadlines(&self) -> impl Iterator<Item = Duration> {
        let containers = self.containers.values().filter_map(Container::deadline);
        let execs = self.execs.values().filter_map(Exec::deadline);
        let clients = self.clients.values().filter_map(Client::deadline);
        let leaving = self.leaving.iter().map(|group| group.at);
        let scratch = self.scratch.iter().map(|scratch| scratch.idle_at);
        let quit = self.quit.iter().map(|quit| quit.deadline);
        let journal = self.journal.retry_at.iter().copied();
        containers
            .chain(execs)
            .chain(self.programs.deadlines())
            .chain(clients)
            .chain(leaving)
            .chain(scratch)
            .chain(quit)
            .chain(journal)
    }

    fn pass_deadlines(&mut self) {
        let now = clock::monotonic();
        self.end_drains(now);
        self.end_late_execs(now);
        self.programs.end_late(now);
        self.lose_late_clients(now);
        self.remove_exec_groups(now);
        self.journal.retry(now);
        if self.scratch.as_ref().is_some_and(|scratch| scratch.idle_at <= now) {
            self.scratch = None;
            process::trim_heap();
        }
    }

    fn next_key(&mut self) -> Key {
        self.last_key = self.last_key.wrapping_add(1);
        self.last_key
    }
}

/// `RLIMIT_NOFILE` (setrlimit(2)).
pub(crate) const FILES: u32 = 7;

/// Raises the limit of open files as far as is allowed: containers, execs and attached clients all have
/// some here. The limit before.
fn more_files() -> Option<Limit> {
    let before = credentials::limit(FILES).ok()?;
    let soft = before.hard.min(limits::MONITOR_FILES).max(before.soft);
    credentials::set_limit(FILES, Limit { soft, ..before }).ok()?;
    Some(before)
}

/// The daemon's standard streams belong to the daemon: held open here, whoever reads them would never
/// see their end.
fn detach_standard_streams() -> Result<(), SysError> {
    let null = null()?;
    fd::place(&null, fd::Standard::Input)?;
    fd::place(&null, fd::Standard::Output)?;
    fd::place(&null, fd::Standard::Error)
}

/// The tiny root's `/dev/null`.
fn null() -> Result<OwnedFd, SysError> {
    fd::open_read_write(c"/dev/null")
}

/// Without `CAP_SYS_RESOURCE` the score cannot be lowered; the monitor works all the same.
fn protect_from_oom() {
    if let Ok(file) = fd::open_read_write(c"/proc/self/oom_score_adj") {
        drop(fd::write(&file, b"-998"));
    }
}
