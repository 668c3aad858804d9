//! The client's side of a session: the daemon's streams on one hand, our own standard streams on the other.
//! A terminal is raw while a session with a terminal is on it, and as it was on every way out; its size
//! goes along. What is run or attached is the caller's, and what a cut session is gone on with.

use super::client::Client;
use super::failure::CliError;
use super::keys::{Keys, Typed};
use super::say;
use super::signals::{Heard, Signals};
use shim_proto::wherry_v1 as own;
use shim_proto::wherry_v1::session_input::What as Say;
use shim_proto::wherry_v1::session_output::What as Told;
use shim_runtime::terminal::{self, Raw};
use std::io::{IsTerminal, Read};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tonic::{Code, Status, Streaming};

/// What becomes of a session, beside its output.
#[derive(Debug, Default)]
pub(crate) struct Manners {
    /// Keys that leave it; `None` = none do, because leaving would end the command.
    pub(crate) keys: Option<Keys>,
    /// The container that gets our signals, if any.
    pub(crate) signals_to: Option<String>,
}

/// How a session was over.
#[derive(Debug)]
pub(crate) enum Over {
    /// The process ended with this code.
    Ended(i32),
    /// The client left by its keys, or by a third signal.
    Left,
    /// A signal of ours ends us, with this code.
    Signalled(u8),
    /// The connection ended, or the client did not keep up. The process may run on.
    Cut(Cut),
}

/// Where a session was cut.
#[derive(Debug)]
pub(crate) struct Cut {
    /// So much of standard output was printed before.
    pub(crate) stdout: u64,
    /// And of standard error.
    pub(crate) stderr: u64,
    /// What the daemon said, or the connection.
    pub(crate) why: Status,
}

impl Cut {
    /// True if what was printed was not read in time.
    pub(crate) fn is_behind(&self) -> bool {
        self.why.code() == Code::ResourceExhausted
    }
}

/// So many times somebody wants us to end until we do, whatever the container makes of it.
const PATIENCE: u8 = 3;
/// What we read of our standard input at once.
const READ_BYTES: usize = 16 << 10;

/// The size of our terminal, for what is about to begin.
pub(crate) fn window() -> Option<own::WindowSize> {
    let size = terminal::size(std::io::stdout()).or_else(|| terminal::size(std::io::stdin()));
    size.map(|(columns, rows)| own::WindowSize { columns: columns.into(), rows: rows.into() })
}

/// Refuses `-i` with `-t` for somebody who has no terminal.
pub(crate) fn need_terminal() -> Result<(), CliError> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    Err(CliError::new("-i with -t needs a terminal here; leave out -t"))
}

/// A session that began, and that nobody talks in yet.
#[derive(Debug)]
pub(crate) struct Begun {
    say: Sender<own::SessionInput>,
    told: Streaming<own::SessionOutput>,
    began: own::Began,
}

impl Begun {
    /// Begins one. What cannot begin is told as a program that could not be started.
    pub(crate) async fn begin(client: &Client, what: Say) -> Result<Self, CliError> {
        let (say, said) = mpsc::channel(4);
        let first = own::SessionInput { what: Some(what) };
        let _the_receiver_is_here = say.send(first).await;
        let said = futures_util::stream::unfold(said, |mut said: Receiver<_>| async move {
            said.recv().await.map(|message| (message, said))
        });
        let answered = client.own.clone().session(said).await;
        let mut told = answered.map_err(|status| CliError::of_start(&status))?.into_inner();
        match told.message().await?.and_then(|message| message.what) {
            Some(Told::Began(began)) => Ok(Self { say, told, began }),
            Some(_) | None => Err(CliError::new("the daemon began no session")),
        }
    }

    /// Puts our own streams on it until it is over.
    pub(crate) async fn talk(self, client: &Client, manners: Manners) -> Result<Over, CliError> {
        let Self { say, mut told, began } = self;
        let raw = (began.tty && began.stdin).then(|| Raw::begin(std::io::stdin())).transpose();
        let _raw = raw.map_err(|error| CliError::new(shim_runtime::error::chain(&error)))?;
        let keys = manners.keys.filter(|_| began.tty);
        let mut printing = Printing::new(began.stdin && keys.is_some());
        if began.stdin {
            read_input(say.clone(), keys);
        }
        let mut ours = Ours::watch(began.tty, manners.signals_to, say)?;
        loop {
            let heard = tokio::select! {
                over = printing.step(&mut told) => match over? {
                    Some(over) => return Ok(over),
                    None => continue,
                },
                heard = ours.happens() => heard,
            };
            if let Some(heard) = heard
                && let Some(over) = ours.signalled(client, heard).await
            {
                return Ok(over);
            }
        }
    }
}

// === output ===

/// What was told and printed so far. A step may be given up half-way and is then gone on with.
#[derive(Debug)]
struct Printing {
    stdout: Printer<tokio::io::Stdout>,
    stderr: Printer<tokio::io::Stderr>,
    /// Keys may have left; else an end without a code is the daemon's.
    may_leave: bool,
}

/// One of our own streams.
#[derive(Debug)]
struct Printer<T> {
    to: T,
    printed: u64,
    /// What is still to be written, from where on.
    rest: (Vec<u8>, usize),
}

impl Printing {
    fn new(may_leave: bool) -> Self {
        let (stdout, stderr) = (tokio::io::stdout(), tokio::io::stderr());
        Self { stdout: Printer::new(stdout), stderr: Printer::new(stderr), may_leave }
    }

    /// Prints what was told and hears what comes next; `Some` = it is over.
    async fn step(
        &mut self,
        told: &mut Streaming<own::SessionOutput>,
    ) -> Result<Option<Over>, CliError> {
        self.print().await.map_err(|error| CliError::of_output(&error))?;
        let message = match told.message().await {
            Ok(message) => message.and_then(|message| message.what),
            Err(status) => return Ok(Some(self.cut(status))),
        };
        match message {
            Some(Told::Stdout(bytes)) => self.stdout.rest = (bytes, 0),
            Some(Told::Stderr(bytes)) => self.stderr.rest = (bytes, 0),
            Some(Told::Ended(end)) => return Ok(Some(Over::Ended(end.exit_code))),
            Some(Told::Began(_)) => {}
            None if self.may_leave => return Ok(Some(Over::Left)),
            None => {
                return Ok(Some(self.cut(Status::unavailable("the daemon ended the session"))));
            }
        }
        Ok(None)
    }

    const fn cut(&self, why: Status) -> Over {
        Over::Cut(Cut { stdout: self.stdout.printed, stderr: self.stderr.printed, why })
    }

    async fn print(&mut self) -> std::io::Result<()> {
        self.stdout.print().await?;
        self.stderr.print().await
    }
}

impl<T: AsyncWrite + Unpin> Printer<T> {
    const fn new(to: T) -> Self {
        Self { to, printed: 0, rest: (Vec::new(), 0) }
    }

    /// Writes what is left, remembering how far it came.
    async fn print(&mut self) -> std::io::Result<()> {
        let (bytes, at) = &mut self.rest;
        while let Some(rest) = bytes.get(*at..).filter(|rest| !rest.is_empty()) {
            let count = self.to.write(rest).await?;
            *at = at.saturating_add(count);
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            self.printed = self.printed.saturating_add(count);
        }
        self.to.flush().await
    }
}

// === input ===

/// Reads our standard input on a thread of its own, which ends with this process: a read of a terminal
/// cannot be given up.
fn read_input(say: Sender<own::SessionInput>, mut keys: Option<Keys>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; READ_BYTES];
        while let Ok(count @ 1..) = std::io::stdin().lock().read(&mut buffer) {
            let bytes = buffer.get(..count).unwrap_or_default();
            let typed = keys.as_mut().map_or_else(|| Typed::On(bytes.to_vec()), |k| k.take(bytes));
            let (bytes, leaves) = match typed {
                Typed::On(bytes) => (bytes, false),
                Typed::Leave(bytes) => (bytes, true),
            };
            if !bytes.is_empty() && !tell(&say, Say::Stdin(bytes)) {
                return;
            }
            if leaves {
                tell(&say, Say::Detach(own::Detach {}));
                return;
            }
        }
        tell(&say, Say::StdinEnded(own::StdinEnded {}));
    });
}

fn tell(say: &Sender<own::SessionInput>, what: Say) -> bool {
    say.blocking_send(own::SessionInput { what: Some(what) }).is_ok()
}

// === signals and size ===

/// What happens to us while we print.
struct Ours {
    resized: Option<Signal>,
    /// Our size is still to be told.
    size_due: bool,
    signals: Signals,
    signals_to: Option<String>,
    asked: u8,
    say: Sender<own::SessionInput>,
}

impl Ours {
    fn watch(
        tty: bool,
        signals_to: Option<String>,
        say: Sender<own::SessionInput>,
    ) -> Result<Self, CliError> {
        let resized = tty.then(|| signal(SignalKind::window_change())).transpose();
        let resized = resized
            .map_err(|error| CliError::new(format!("watch for the window's size: {error}")))?;
        // With a terminal they must not end us before it is as it was.
        let watched = tty || signals_to.is_some();
        let signals = if watched { Signals::watch()? } else { Signals::none() };
        // With a terminal keys are the container's signals, and ours are ours.
        let signals_to = signals_to.filter(|_| !tty);
        // Whoever is attached later brings another window; and this one may have changed meanwhile.
        Ok(Self { resized, size_due: tty, signals, signals_to, asked: 0, say })
    }

    /// Waits for the next thing, and tells a signal. May be given up at any time: nothing is lost.
    async fn happens(&mut self) -> Option<Heard> {
        let resized = async {
            match &mut self.resized {
                Some(resized) => resized.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            heard = self.signals.next() => return Some(heard),
            _ = resized => self.size_due = true,
            // A process that reads nothing holds this up, and nothing else.
            room = self.say.reserve(), if self.size_due => {
                self.size_due = false;
                if let (Ok(room), Some(size)) = (room, window()) {
                    room.send(own::SessionInput { what: Some(Say::Size(size)) });
                }
            }
        }
        None
    }

    async fn signalled(&mut self, client: &Client, heard: Heard) -> Option<Over> {
        let Some(id) = &self.signals_to else { return Some(Over::Signalled(heard.code())) };
        if heard.asks_to_end() {
            self.asked = self.asked.saturating_add(1);
        }
        if self.asked >= PATIENCE {
            say(&format!("wherry: left after {PATIENCE} signals; the container runs on"));
            return Some(Over::Left);
        }
        heard.pass_on(client, id).await;
        None
    }
}
