//! The daemon's side of zygote and monitors: start one, talk to it, notice its end. A [`Monitor`] is a
//! connection with numbered requests; replies find their caller, events about a request find who made it,
//! all others go to the pod's watcher. No call holds a lock across a wait, and every call has a deadline.

use crate::error::RuntimeError;
use parking_lot::Mutex;
use shim_model::id::SandboxId;
use shim_model::limits;
use shim_model::signal::Signal;
use shim_model::wire::{self, Frame, FromMonitor, FromZygote, Process, ToMonitor, ToZygote};
use shim_sys::error::SysError;
use shim_sys::socket::{self, Bounds, Packet};
use shim_sys::{fd, path, process};
use std::collections::HashMap;
use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

/// What starts a zygote: the daemon's business, because it knows its own program.
pub type Launch = Box<dyn Fn() -> std::io::Result<(OwnedFd, OwnedFd)> + Send + Sync>;

/// The connection to the zygote; a dead one is replaced at the next request.
pub struct Zygote {
    launch: Launch,
    link: tokio::sync::Mutex<Option<Link>>,
    /// How many had to be replaced.
    lost: AtomicU64,
}

/// A zygote that was started.
struct Link {
    socket: AsyncFd<OwnedFd>,
    /// It is a child of this process.
    pidfd: OwnedFd,
}

impl fmt::Debug for Zygote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zygote").finish_non_exhaustive()
    }
}

/// A monitor that was just forked.
#[derive(Debug)]
pub struct Forked {
    /// Which process it is.
    pub process: Process,
    /// Readable once it ended.
    pub pidfd: OwnedFd,
}

impl Zygote {
    /// Uses this running zygote (its socket and its descriptor), and `launch` once it is gone.
    pub fn new(running: (OwnedFd, OwnedFd), launch: Launch) -> Result<Self, RuntimeError> {
        let link = Link::new(running)?;
        Ok(Self { launch, link: tokio::sync::Mutex::new(Some(link)), lost: AtomicU64::new(0) })
    }

    /// How many had to be replaced since the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Forks a monitor for a pod. One retry with a new zygote, because a dead one loses nothing.
    pub async fn fork(
        &self,
        sandbox: &SandboxId,
        listener: BorrowedFd<'_>,
        journal: BorrowedFd<'_>,
    ) -> Result<Forked, RuntimeError> {
        let mut slot = self.link.lock().await;
        for attempt in 0..2 {
            if slot.is_none() {
                let running = (self.launch)()
                    .map_err(RuntimeError::file("start the zygote from", "/proc/self/exe"))?;
                *slot = Some(Link::new(running)?);
            }
            let Some(link) = slot.as_ref() else { continue };
            let fds = [listener, journal];
            let asked = ask_zygote(&link.socket, sandbox, &fds);
            match tokio::time::timeout(limits::MONITOR_REPLY, asked).await {
                Ok(Ok(forked)) => return Ok(forked),
                Ok(Err(error @ RuntimeError::Role { .. })) => return Err(error),
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!(attempt, "the zygote does not answer; a new one is started");
                    if let Some(old) = slot.take() {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                        old.end().await;
                    }
                }
            }
        }
        Err(RuntimeError::RoleGone { role: "the zygote".to_owned(), doing: "fork a monitor" })
    }
}

impl Link {
    fn new((socket, pidfd): (OwnedFd, OwnedFd)) -> Result<Self, RuntimeError> {
        Ok(Self { socket: readable(socket)?, pidfd })
    }

    /// Ends a zygote that does not answer, and reaps it. Its monitors live on.
    async fn end(self) {
        let _gone = process::pidfd_send_signal(&self.pidfd, Signal::KILL.number());
        let again = self.pidfd.try_clone();
        if let Ok(pidfd) = again {
            drop(tokio::time::timeout(limits::KILL_WAIT, ended(pidfd)).await);
        }
        let _stuck_in_the_kernel = process::reap(&self.pidfd);
    }
}

async fn ask_zygote(
    link: &AsyncFd<OwnedFd>,
    sandbox: &SandboxId,
    fds: &[BorrowedFd<'_>],
) -> Result<Forked, RuntimeError> {
    let role = || "the zygote".to_owned();
    let fork = ToZygote::Fork { sandbox: sandbox.clone() };
    let bytes = encode((wire::VERSION, 1), &fork, role)?;
    send(link, &bytes, fds).await.map_err(RuntimeError::system("ask the zygote for a monitor"))?;
    let gone = || RuntimeError::RoleGone { role: role(), doing: "fork a monitor" };
    let mut packet = receive(link)
        .await
        .map_err(RuntimeError::system("hear the zygote's answer"))?
        .ok_or_else(gone)?;
    match decode::<FromZygote>(&packet.bytes, role)?.body {
        FromZygote::Forked { process } => {
            let pidfd = packet.fds.pop().ok_or_else(gone)?;
            Ok(Forked { process, pidfd })
        }
        FromZygote::Failed(failure) => {
            Err(RuntimeError::Role { doing: "fork a monitor".to_owned(), failure })
        }
    }
}

/// What a monitor tells without being asked.
#[derive(Debug)]
pub enum Told {
    /// One of its events.
    Event(FromMonitor),
    /// The connection ended: the monitor is gone, or left after `Quit`.
    Gone,
}

/// A connection to a pod's monitor.
#[derive(Debug)]
pub struct Monitor {
    role: String,
    version: u8,
    link: Arc<AsyncFd<OwnedFd>>,
    waiting: Arc<Mutex<Waiting>>,
    next: AtomicU64,
    reader: tokio::task::JoinHandle<()>,
}

/// An answer, and what came beside it.
#[derive(Debug)]
pub struct Answer {
    /// The message.
    pub body: FromMonitor,
    /// Its descriptor.
    pub descriptor: Option<OwnedFd>,
}

#[derive(Debug)]
struct Waiting {
    closed: bool,
    callers: HashMap<u64, oneshot::Sender<Answer>>,
    /// Who waits for an event about a request of theirs.
    later: HashMap<u64, oneshot::Sender<FromMonitor>>,
}

/// The event that belongs to a request, when it comes.
#[derive(Debug)]
pub struct Later {
    number: u64,
    event: oneshot::Receiver<FromMonitor>,
    waiting: Arc<Mutex<Waiting>>,
}

impl Later {
    /// Waits for it; `None` = the monitor is gone.
    pub async fn event(&mut self) -> Option<FromMonitor> {
        (&mut self.event).await.ok()
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        self.waiting.lock().later.remove(&self.number);
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Monitor {
    /// Connects to the socket `monitor.sock` in a pod's folder, to speak this version of the protocol; events
    /// arrive at `told`. A monitor that does not know the version ends the connection.
    pub fn connect(
        sandbox: &SandboxId,
        folder: &Path,
        told: mpsc::UnboundedSender<Told>,
        version: u8,
    ) -> Result<Self, RuntimeError> {
        let role = format!("the monitor of sandbox {}", sandbox.short());
        let socket = path::open_folder(folder)
            .and_then(|dir| socket::connect(dir, "monitor.sock"))
            .map_err(RuntimeError::system(format!("connect to {role}")))?;
        let link = Arc::new(readable(socket)?);
        let (callers, later) = (HashMap::new(), HashMap::new());
        let waiting = Arc::new(Mutex::new(Waiting { closed: false, callers, later }));
        let reader =
            tokio::spawn(read_all(Arc::clone(&link), Arc::clone(&waiting), told, role.clone()));
        Ok(Self { role, version, link, waiting, next: AtomicU64::new(1), reader })
    }

    /// Asks, and waits for the answer at most `deadline` long (`None` = as long as it takes).
    pub async fn call(
        &self,
        body: ToMonitor,
        fds: &[BorrowedFd<'_>],
        deadline: Option<Duration>,
    ) -> Result<FromMonitor, RuntimeError> {
        let (number, answer) = self.ask(body, fds).await?;
        let answer = self.within(number, answer, deadline).await?;
        Ok(answer.body)
    }

    /// As [`Monitor::call`], with the descriptor that the answer brings.
    pub async fn call_whole(
        &self,
        body: ToMonitor,
        fds: &[BorrowedFd<'_>],
        deadline: Duration,
    ) -> Result<Answer, RuntimeError> {
        let (number, answer) = self.ask(body, fds).await?;
        self.within(number, answer, Some(deadline)).await
    }

    /// Waits for an answer at most `deadline` long.
    async fn within(
        &self,
        number: u64,
        answer: oneshot::Receiver<Answer>,
        deadline: Option<Duration>,
    ) -> Result<Answer, RuntimeError> {
        let gone = |_| RuntimeError::RoleGone { role: self.role.clone(), doing: "answer" };
        let Some(after) = deadline else { return answer.await.map_err(gone) };
        if let Ok(answered) = tokio::time::timeout(after, answer).await {
            return answered.map_err(gone);
        }
        self.waiting.lock().callers.remove(&number);
        Err(RuntimeError::Deadline { doing: format!("an answer of {}", self.role), after })
    }

    /// True once the connection ended: the monitor died, or left.
    pub fn is_gone(&self) -> bool {
        self.waiting.lock().closed
    }

    /// True if it is of a build that knows this version of the protocol.
    pub const fn knows(&self, version: u8) -> bool {
        self.version >= version
    }

    /// Asks for something that ends later by an event; `begun` is given the request's number as soon as it
    /// is on its way, and lives until the answer is there.
    pub async fn follow<T>(
        &self,
        body: ToMonitor,
        fds: &[BorrowedFd<'_>],
        begun: impl FnOnce(u64) -> T,
    ) -> Result<(Answer, Later, T), RuntimeError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, event) = oneshot::channel();
        self.waiting.lock().later.insert(number, sender);
        let later = Later { number, event, waiting: Arc::clone(&self.waiting) };
        let answer = self.send(number, body, fds).await?;
        let begun = begun(number);
        let answer = self.within(number, answer, Some(limits::CONTAINER_START)).await?;
        Ok((answer, later, begun))
    }

    /// Asks, and gives the request's number with the way to hear the answer.
    pub async fn ask(
        &self,
        body: ToMonitor,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(u64, oneshot::Receiver<Answer>), RuntimeError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok((number, self.send(number, body, fds).await?))
    }

    async fn send(
        &self,
        number: u64,
        body: ToMonitor,
        fds: &[BorrowedFd<'_>],
    ) -> Result<oneshot::Receiver<Answer>, RuntimeError> {
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = self.waiting.lock();
            if waiting.closed {
                return Err(RuntimeError::RoleGone { role: self.role.clone(), doing: "answer" });
            }
            waiting.callers.insert(number, sender);
        }
        let role = || self.role.clone();
        let (first, rest) = fds.split_at(fds.len().min(limits::WIRE_DESCRIPTORS));
        let bytes = encode((self.version, number), &body, role)?;
        let mut sent = send(&self.link, &bytes, first).await;
        for chunk in rest.chunks(limits::WIRE_DESCRIPTORS) {
            let bytes = encode((self.version, number), &ToMonitor::Descriptors { number }, role)?;
            sent = match sent {
                Ok(()) => send(&self.link, &bytes, chunk).await,
                failed => failed,
            };
        }
        if let Err(source) = sent {
            self.waiting.lock().callers.remove(&number);
            return Err(RuntimeError::System { doing: format!("ask {}", self.role), source });
        }
        Ok(answer)
    }

    /// As [`Monitor::call`], and turns every answer but `Done` into an error.
    pub async fn order(&self, body: ToMonitor, fds: &[BorrowedFd<'_>]) -> Result<(), RuntimeError> {
        let doing = format!("order {}", self.role);
        match self.call(body, fds, Some(limits::MONITOR_REPLY)).await? {
            FromMonitor::Done | FromMonitor::Unknown => Ok(()),
            other => Err(unexpected(doing, other)),
        }
    }
}

/// An answer that does not fit the question, or a failure.
pub fn unexpected(doing: String, answer: FromMonitor) -> RuntimeError {
    let failure = match answer {
        FromMonitor::Failed(failure) => failure,
        other => {
            wire::Failure { step: format!("unexpected answer {other:?}"), errno: 0, exec: false }
        }
    };
    RuntimeError::Role { doing, failure }
}

/// Reads until the connection ends: answers to their callers, events to the watcher.
async fn read_all(
    link: Arc<AsyncFd<OwnedFd>>,
    waiting: Arc<Mutex<Waiting>>,
    told: mpsc::UnboundedSender<Told>,
    role: String,
) {
    while let Ok(Some(packet)) = receive(&link).await {
        let Ok(frame) = decode::<FromMonitor>(&packet.bytes, || role.clone()) else {
            tracing::warn!(role, "a message of a monitor cannot be understood");
            continue;
        };
        let (body, descriptor) = (frame.body, packet.fds.into_iter().next());
        let mut waiting = waiting.lock();
        match body {
            FromMonitor::ExecOver { number, .. } | FromMonitor::AttachLost { number } => {
                if let Some(client) = waiting.later.remove(&number) {
                    let _the_client_left = client.send(body);
                }
            }
            event if frame.number == 0 => {
                let _the_watcher_left = told.send(Told::Event(event));
            }
            body => {
                if let Some(caller) = waiting.callers.remove(&frame.number) {
                    let _the_caller_left = caller.send(Answer { body, descriptor });
                }
            }
        }
    }
    {
        let mut waiting = waiting.lock();
        waiting.closed = true;
        waiting.callers.clear();
        waiting.later.clear();
    }
    let _the_watcher_left = told.send(Told::Gone);
}

/// Waits for the end of a process by its pidfd.
pub async fn ended(pidfd: OwnedFd) {
    if let Ok(fd) = watched(pidfd) {
        drop(fd.readable().await);
    }
}

/// Puts a descriptor under the runtime's watch.
#[expect(
    deprecated,
    reason = "an OwnedFd stays open as long as it lives, which is what the unsafe successor asks for"
)]
pub(crate) fn watched(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

/// True while exactly this process lives.
pub fn alive(known: Process) -> bool {
    process::start_time(known.pid).is_ok_and(|start| start == known.start)
}

/// How much is accepted from a role of ours.
const BOUNDS: Bounds = Bounds { inline: limits::WIRE_MESSAGE_BYTES, memory: limits::RECORD_BYTES };

fn readable(socket: OwnedFd) -> Result<AsyncFd<OwnedFd>, RuntimeError> {
    fd::set_nonblocking(&socket).map_err(RuntimeError::system("prepare a socket"))?;
    watched(socket).map_err(RuntimeError::file("watch a socket of", "a role"))
}

async fn send(
    link: &AsyncFd<OwnedFd>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), SysError> {
    loop {
        match socket::send(link.get_ref(), bytes, fds, limits::WIRE_MESSAGE_BYTES) {
            Err(error) if error.would_block() => {
                let Ok(mut guard) = link.writable().await else { return Err(error) };
                guard.clear_ready();
            }
            sent => return sent,
        }
    }
}

async fn receive(link: &AsyncFd<OwnedFd>) -> Result<Option<Packet>, SysError> {
    loop {
        match socket::recv(link.get_ref(), BOUNDS) {
            Err(error) if error.would_block() => {
                let Ok(mut guard) = link.readable().await else { return Err(error) };
                guard.clear_ready();
            }
            received => return received,
        }
    }
}

fn encode<T: serde::Serialize>(
    (version, number): (u8, u64),
    body: &T,
    role: impl Fn() -> String,
) -> Result<Vec<u8>, RuntimeError> {
    wire::encode_as(version, number, body)
        .map_err(|source| RuntimeError::Message { role: role(), source })
}

fn decode<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    role: impl Fn() -> String,
) -> Result<Frame<T>, RuntimeError> {
    wire::decode(bytes).map_err(|source| RuntimeError::Message { role: role(), source })
}
