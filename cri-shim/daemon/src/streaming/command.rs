//! Exec and attach over either wire: which streams the client must make, and the story once all are there.
//! Over SPDY the client makes them one by one; over WebSocket they are the first channels, there at once.
//! What is then done is `exec` and `attach`.

use super::attach::attach;
use super::channels::{Inbound, Lanes, Outbound, Role};
use super::exec::{Exec, exec};
use super::session::{Backend, Exit, Streams};
use super::spdy::connection::{self as spdy, Admit, Opened};
use super::spdy::headers::Headers;
use super::status::{self, Form};
use super::token::Ask;
use super::websocket::channels::Framing;
use super::websocket::connection::{self as websocket, Direction};
use super::wire::{self, Left};
use crate::error::DaemonError;
use bytes::Bytes;
use shim_model::limits;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// A command's client: what it asked for, and how long its connection may be quiet.
#[derive(Debug)]
pub(crate) struct Client<'a, B> {
    pub(crate) backend: &'a B,
    pub(crate) ask: &'a Ask,
    pub(crate) idle: Duration,
}

impl<B: Backend> Client<'_, B> {
    fn streams(&self) -> Streams {
        match self.ask {
            Ask::Exec { streams, .. } | Ask::Attach { streams, .. } => *streams,
            Ask::Forward { .. } => Streams::default(),
        }
    }

    /// Over SPDY.
    pub(crate) async fn spdy<S>(&self, io: S, resizes: bool, form: Form) -> Left
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        let expected = Role::expected(self.streams(), resizes);
        let mut gathered = Gathered::new(expected.len());
        let (connection, mut ends) = spdy::open(io, Roles(expected), self.idle);
        let queue = ends.queue.clone();
        let session = async {
            let gathering = gathered.all(&mut ends.opened);
            let in_time = tokio::time::timeout(limits::STREAM_CREATION, gathering).await;
            match (in_time, gathered.lanes()) {
                (Ok(()), Ok(lanes)) => self.story(form, lanes).await,
                (_, Err(error)) => late(form, error).await,
                (Err(_), Ok(_)) => {}
            }
        };
        wire::over(connection.run(), session, queue).await
    }

    /// Over WebSocket.
    pub(crate) async fn websocket<S>(&self, io: S, framing: Framing, form: Form) -> Left
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let streams = self.streams();
        let reads = |asked| if asked { Direction::Client } else { Direction::Nobody };
        let writes = |asked| if asked { Direction::Server } else { Direction::Nobody };
        // The first three have the numbers of their descriptors.
        let channels = [
            reads(streams.stdin),
            writes(streams.stdout),
            writes(streams.stderr),
            Direction::Server,
            reads(streams.tty),
        ];
        let (connection, ends) = websocket::open(io, framing, &channels, self.idle).await;
        let queue = ends.queue.clone();
        let session = async {
            let Some(lanes) = channel_lanes(streams, ends) else { return };
            let first = lanes.stdout.as_ref().or(lanes.stderr.as_ref()).unwrap_or(&lanes.error);
            // An empty message tells the client that it is connected.
            if first.send(Bytes::new()).await.is_ok() {
                self.story(form, lanes).await;
            }
        };
        wire::over(connection.run(), session, queue).await
    }

    async fn story(&self, form: Form, lanes: Lanes) {
        match self.ask {
            Ask::Exec { container, command, streams } => {
                let what = Exec { container, command, streams: *streams };
                exec(self.backend, what, form, lanes).await;
            }
            Ask::Attach { container, streams } => {
                attach(self.backend, container, *streams, form, lanes).await;
            }
            Ask::Forward { .. } => {}
        }
    }
}

fn channel_lanes(streams: Streams, ends: websocket::Ends) -> Option<Lanes> {
    let [stdin, _, _, _, resize] = <[Option<Inbound>; 5]>::try_from(ends.inbound).ok()?;
    let [_, stdout, stderr, error, _] = <[Outbound; 5]>::try_from(ends.outbound).ok()?;
    Some(Lanes {
        error,
        stdin,
        stdout: streams.stdout.then_some(stdout),
        stderr: streams.stderr.then_some(stderr),
        resize,
        silent: Vec::new(),
    })
}

/// The client did not make its streams in time; it is told where it can be.
async fn late(form: Form, error: Option<Outbound>) {
    let Some(error) = error else { return };
    let word = status::word(form, &Err::<Exit, _>(DaemonError::StreamsLate));
    if error.send(word.into()).await.is_ok() {
        drop(error.end().await);
    }
}

/// The streams that a client still has to make; any other is refused.
#[derive(Debug)]
struct Roles(Vec<Role>);

impl Admit for Roles {
    type Stream = Role;

    fn admit(&mut self, _: u32, headers: &Headers) -> Option<Role> {
        let role = Role::named(headers.get("streamtype")?)?;
        let at = self.0.iter().position(|expected| *expected == role)?;
        Some(self.0.swap_remove(at))
    }

    fn complete(&self) -> bool {
        self.0.is_empty()
    }
}

/// The streams that were made so far.
#[derive(Debug, Default)]
struct Gathered {
    missing: usize,
    error: Option<Outbound>,
    stdin: Option<Inbound>,
    stdout: Option<Outbound>,
    stderr: Option<Outbound>,
    resize: Option<Inbound>,
    silent: Vec<Outbound>,
}

impl Gathered {
    fn new(missing: usize) -> Self {
        Self { missing, ..Self::default() }
    }

    async fn all(&mut self, opened: &mut mpsc::Receiver<Opened<Role>>) {
        while self.missing > 0 {
            let Some(Opened { what, inbound, outbound }) = opened.recv().await else { return };
            self.missing = self.missing.saturating_sub(1);
            match what {
                Role::Error => self.error = Some(outbound),
                Role::Stdout => self.stdout = Some(outbound),
                Role::Stderr => self.stderr = Some(outbound),
                Role::Stdin => {
                    self.stdin = Some(inbound);
                    self.silent.push(outbound);
                }
                Role::Resize => {
                    self.resize = Some(inbound);
                    self.silent.push(outbound);
                }
            }
        }
    }

    /// All of them, or the one that tells the client that some are missing.
    fn lanes(self) -> Result<Lanes, Option<Outbound>> {
        let Self { missing: 0, error: Some(error), stdin, stdout, stderr, resize, silent } = self
        else {
            return Err(self.error);
        };
        Ok(Lanes { error, stdin, stdout, stderr, resize, silent })
    }
}
