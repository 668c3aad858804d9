//! One WebSocket that carries channels: a reader and a writer over one socket, and nothing else that lives
//! longer. Owns its deadlines. A channel that the client may write is an [`Inbound`], one that we write an
//! [`Outbound`]; the socket's close is the last word, since channels of ours have no end of their own.

use super::bounds;
use super::channels::{Coding, Framing, Said};
use crate::streaming::channels::{Delivery, Inbound, Outbound, Outgoing, inbound, outgoing, room};
use crate::streaming::wire::{Activity, Left};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use shim_model::limits;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};

/// Who writes a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Client,
    Server,
    Both,
    Nobody,
}

/// A connection that waits to be run.
pub(crate) struct Connection<S> {
    reader: Reader<S>,
    writer: Writer<S>,
    activity: Arc<Activity>,
    idle: Duration,
}

/// What whoever uses a connection holds.
#[derive(Debug)]
pub(crate) struct Ends {
    /// What the client sends, by channel; `None` where it sends nothing.
    pub(crate) inbound: Vec<Option<Inbound>>,
    /// What we send, by channel.
    pub(crate) outbound: Vec<Outbound>,
    /// What is written; [`Outgoing::Last`] ends the connection.
    pub(crate) queue: mpsc::Sender<Outgoing>,
}

/// Takes a socket that speaks WebSocket from its next octet on.
pub(crate) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    io: S,
    framing: Framing,
    channels: &[Direction],
    idle: Duration,
) -> (Connection<S>, Ends) {
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(bounds())).await;
    let (sink, stream) = socket.split();
    let (queue, written) = outgoing();
    let (mut lanes, mut ends) = (Vec::new(), Vec::new());
    let mut outbound = Vec::new();
    for (number, direction) in (0u32..).zip(channels) {
        let (lane, end) = match direction {
            Direction::Client | Direction::Both => {
                let (lane, end) = inbound();
                (Some(lane), Some(end))
            }
            Direction::Server | Direction::Nobody => (None, None),
        };
        lanes.push(lane);
        ends.push(end);
        outbound.push(Outbound::new(number, queue.clone()));
    }
    let activity = Arc::new(Activity::now());
    let reader = Reader { stream, framing, lanes, room: room(), activity: Arc::clone(&activity) };
    let writer = Writer { sink, framing, written, activity: Arc::clone(&activity), idle };
    (Connection { reader, writer, activity, idle }, Ends { inbound: ends, outbound, queue })
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Reads and writes until the client is gone, or until everything up to the last word was written and
    /// the client had its time to close.
    pub(crate) async fn run(mut self) -> Left {
        let read = self.reader.run();
        let write = self.writer.run();
        tokio::pin!(read, write);
        tokio::select! {
            left = &mut read => left,
            written = &mut write => match written {
                Ok(()) => {
                    drop(tokio::time::timeout(limits::STREAM_LINGER, read).await);
                    Left::Finished
                }
                Err(error) => Left::Broken(error),
            },
            () = self.activity.idle(self.idle) => Left::Idle,
        }
    }
}

struct Reader<S> {
    stream: SplitStream<WebSocketStream<S>>,
    framing: Framing,
    lanes: Vec<Option<Delivery>>,
    room: Arc<Semaphore>,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Reader<S> {
    async fn run(&mut self) -> Left {
        loop {
            let message = match self.stream.next().await {
                // Everyday: a client that was killed says no goodbye.
                None
                | Some(Err(
                    Error::ConnectionClosed
                    | Error::AlreadyClosed
                    | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
                )) => return Left::Closed,
                Some(Err(Error::Io(error))) => return Left::Broken(error),
                Some(Err(error)) => return Left::Bad(error.to_string()),
                Some(Ok(message)) => message,
            };
            let payload = match message {
                // A client may send text where bytes are meant, and the other way round.
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::from(text),
                Message::Ping(_) => Bytes::new(),
                // Answers to our heartbeat. After a close the next read ends the connection.
                Message::Pong(_) | Message::Close(_) | Message::Frame(_) => continue,
            };
            self.activity.touch();
            match self.framing.read(payload) {
                Ok(Said::Data { channel, bytes }) => self.data(channel, bytes).await,
                Ok(Said::End { channel }) => self.end(channel),
                Ok(Said::Nothing) => {}
                Err(bad) => return Left::Bad(bad.to_string()),
            }
        }
    }

    async fn data(&mut self, channel: u8, bytes: Bytes) {
        // Channels that are not there are passed over: clients open all of them whatever was asked for.
        if let Some(Some(lane)) = self.lanes.get(usize::from(channel)) {
            lane.deliver(bytes, &self.room).await;
        }
    }

    fn end(&mut self, channel: u8) {
        if let Some(lane) = self.lanes.get_mut(usize::from(channel)) {
            *lane = None;
        }
    }
}

struct Writer<S> {
    sink: SplitSink<WebSocketStream<S>, Message>,
    framing: Framing,
    written: mpsc::Receiver<Outgoing>,
    activity: Arc<Activity>,
    idle: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Writer<S> {
    async fn run(&mut self) -> io::Result<()> {
        loop {
            let heartbeat = Instant::now().checked_add(limits::STREAM_HEARTBEAT);
            let heartbeat = heartbeat.unwrap_or_else(Instant::now);
            let message = tokio::select! {
                Some(outgoing) = self.written.recv() => {
                    self.activity.touch();
                    self.message(outgoing)
                }
                // Allowed unasked (RFC 6455 §5.5.3), and read by clients as a sign of life.
                () = tokio::time::sleep_until(heartbeat) => Some(Message::Pong(Bytes::new())),
            };
            let Some(message) = message else { continue };
            let last = matches!(message, Message::Close(_));
            let sent = tokio::time::timeout(self.idle, self.sink.send(message)).await?;
            match sent {
                Ok(()) if last => return Ok(()),
                Ok(()) => {}
                Err(Error::Io(error)) => return Err(error),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    fn message(&self, outgoing: Outgoing) -> Option<Message> {
        match outgoing {
            Outgoing::Data { stream, bytes } => {
                let octets = self.framing.write(u8::try_from(stream).ok()?, &bytes);
                match self.framing.coding {
                    Coding::Binary => Some(Message::Binary(octets.into())),
                    Coding::Base64 => Some(Message::Text(String::from_utf8(octets).ok()?.into())),
                }
            }
            // No channel of ours has an end before the connection's.
            Outgoing::End { .. } | Outgoing::Reset { .. } => None,
            Outgoing::Last => Some(Message::Close(Some(CloseFrame {
                code: CloseCode::Normal,
                reason: "".into(),
            }))),
        }
    }
}
