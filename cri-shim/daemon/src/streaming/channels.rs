//! The streams of one client, whatever carries them: which there are, how their bytes come and go, and the
//! sizes of its terminal. [`Inbound`] and [`Outbound`] are the two ends that stories and pumps hold; the
//! connection holds the others. Both are bounded: a program that does not read stops the reading of its
//! client's connection, a client that does not read stops the reading of its program. No sockets here.

use super::session::{Streams, WindowSize};
use bytes::Bytes;
use serde::Deserialize;
use shim_model::limits;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// The streams of an exec or attach; how a client names them is the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Role {
    Error,
    Stdin,
    Stdout,
    Stderr,
    Resize,
}

impl Role {
    /// The value of the header `streamType`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "error" => Self::Error,
            "stdin" => Self::Stdin,
            "stdout" => Self::Stdout,
            "stderr" => Self::Stderr,
            "resize" => Self::Resize,
            _ => return None,
        })
    }

    /// The streams that a client must make before anything starts: a command that is quicker than its
    /// client's last stream would leave the client waiting for half a minute.
    pub(crate) fn expected(streams: Streams, resizes: bool) -> Vec<Self> {
        let all = [
            (Self::Error, true),
            (Self::Stdin, streams.stdin),
            (Self::Stdout, streams.stdout),
            (Self::Stderr, streams.stderr),
            (Self::Resize, streams.tty && resizes),
        ];
        all.into_iter().filter(|(_, asked)| *asked).map(|(role, _)| role).collect()
    }
}

/// The streams of an exec or attach, once all are there.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(crate) error: Outbound,
    pub(crate) stdin: Option<Inbound>,
    pub(crate) stdout: Option<Outbound>,
    pub(crate) stderr: Option<Outbound>,
    pub(crate) resize: Option<Inbound>,
    /// Our side of the streams that only the client writes; ended with the session, which a client that
    /// waits for it would miss.
    pub(crate) silent: Vec<Outbound>,
}

// === from the client ===

/// Bytes of a client, and their place in what its connection may hold until they are used.
#[derive(Debug)]
pub(crate) struct Chunk {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a client sends on one stream.
#[derive(Debug)]
pub(crate) struct Inbound {
    chunks: mpsc::Receiver<Chunk>,
    /// The client gave the stream up, which is not its end.
    pub(crate) reset: CancellationToken,
}

impl Inbound {
    /// The next bytes; `None` at the client's end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Chunk> {
        self.chunks.recv().await
    }

    /// Bytes that are there already.
    pub(crate) fn at_hand(&mut self) -> Option<Chunk> {
        self.chunks.try_recv().ok()
    }
}

/// The connection's end of an [`Inbound`]; dropped at the client's end of the stream.
#[derive(Debug)]
pub(crate) struct Delivery {
    chunks: mpsc::Sender<Chunk>,
    reset: CancellationToken,
}

impl Delivery {
    /// Gives bytes to whoever reads the stream, and waits until there is room for them. Bytes that
    /// nobody reads any more are dropped.
    pub(crate) async fn deliver(&self, bytes: Bytes, room: &Arc<Semaphore>) {
        if bytes.is_empty() {
            return;
        }
        let wanted = bytes.len().min(limits::STREAM_INPUT_BYTES);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let place = async {
            // Two waits, so both must give up when the reader is gone.
            let place = self.chunks.reserve().await.ok()?;
            let room = Arc::clone(room).acquire_many_owned(wanted);
            tokio::select! {
                () = self.chunks.closed() => None,
                room = room => Some((place, room.ok()?)),
            }
        };
        if let Some((place, room)) = place.await {
            place.send(Chunk { bytes, _room: room });
        }
    }

    /// The client gave the stream up.
    pub(crate) fn reset(self) {
        self.reset.cancel();
    }
}

/// A new stream from a client.
pub(crate) fn inbound() -> (Delivery, Inbound) {
    let (sender, chunks) = mpsc::channel(limits::STREAM_INPUT_CHUNKS);
    let reset = CancellationToken::new();
    (Delivery { chunks: sender, reset: reset.clone() }, Inbound { chunks, reset })
}

/// What all streams of a connection may hold together.
pub(crate) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(limits::STREAM_INPUT_BYTES))
}

// === to the client ===

/// What a connection writes, in this order.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// At most a chunk of bytes; empty ones are written too.
    Data { stream: u32, bytes: Bytes },
    /// Our side of a stream ends.
    End { stream: u32 },
    /// A stream ends at once.
    Reset { stream: u32 },
    /// Nothing follows: the connection says goodbye.
    Last,
}

/// The client left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// What we send on one stream.
#[derive(Clone, Debug)]
pub(crate) struct Outbound {
    stream: u32,
    queue: mpsc::Sender<Outgoing>,
}

impl Outbound {
    pub(crate) fn new(stream: u32, queue: mpsc::Sender<Outgoing>) -> Self {
        Self { stream, queue }
    }

    /// Sends bytes, however many; waits while the client does not read.
    pub(crate) async fn send(&self, mut bytes: Bytes) -> Result<(), Gone> {
        loop {
            let now = bytes.split_to(bytes.len().min(limits::STREAM_CHUNK_BYTES));
            self.put(Outgoing::Data { stream: self.stream, bytes: now }).await?;
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Ends our side.
    pub(crate) async fn end(&self) -> Result<(), Gone> {
        self.put(Outgoing::End { stream: self.stream }).await
    }

    /// Gives the stream up.
    pub(crate) async fn reset(&self) -> Result<(), Gone> {
        self.put(Outgoing::Reset { stream: self.stream }).await
    }

    async fn put(&self, outgoing: Outgoing) -> Result<(), Gone> {
        self.queue.send(outgoing).await.map_err(|_closed| Gone)
    }
}

/// The queue of everything a connection writes for its streams.
pub(crate) fn outgoing() -> (mpsc::Sender<Outgoing>, mpsc::Receiver<Outgoing>) {
    mpsc::channel(limits::STREAM_OUTPUT_CHUNKS)
}

// === terminal sizes ===

/// Reads sizes out of what a client sends on its resize stream: JSON objects back to back, cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    /// The beginning of an object.
    rest: Vec<u8>,
    /// Something was no size, so what follows cannot be found.
    lost: bool,
}

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "Width", default)]
    width: i64,
    #[serde(rename = "Height", default)]
    height: i64,
}

impl Sizes {
    /// Takes bytes; gives the last whole size in them. Sizes without an area are none.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<WindowSize> {
        if self.lost {
            return None;
        }
        self.rest.extend_from_slice(bytes);
        let mut objects = serde_json::Deserializer::from_slice(&self.rest).into_iter::<Said>();
        let mut last = None;
        let mut read = 0;
        while let Some(object) = objects.next() {
            match object {
                Ok(said) => {
                    read = objects.byte_offset();
                    last = size(&said).or(last);
                }
                Err(error) => {
                    self.lost = !error.is_eof();
                    break;
                }
            }
        }
        self.rest.drain(..read);
        self.lost |= self.rest.len() > limits::TERMINAL_SIZE_BYTES;
        if self.lost {
            self.rest = Vec::new();
        }
        last
    }
}

fn size(said: &Said) -> Option<WindowSize> {
    let part = |number: i64| u16::try_from(number).ok().filter(|number| *number > 0);
    Some(WindowSize { columns: part(said.width)?, rows: part(said.height)? })
}

#[cfg(test)]
mod tests {
    use super::{Role, Sizes, inbound, room};
    use crate::streaming::session::{Streams, WindowSize};
    use bytes::Bytes;
    use proptest::prelude::*;
    use shim_model::limits;
    use std::time::Duration;

    #[test]
    fn all_that_was_asked_for_is_expected() {
        let streams = Streams { stdin: true, stdout: true, stderr: false, tty: true };
        let expected = Role::expected(streams, true);
        assert_eq!(expected, [Role::Error, Role::Stdin, Role::Stdout, Role::Resize]);
        assert_eq!(Role::expected(streams, false).len(), 3);
        assert_eq!(Role::expected(Streams::default(), true), [Role::Error]);
    }

    /// The last size that the pieces hold.
    fn check(pieces: &[&str]) -> Option<(u16, u16)> {
        let mut sizes = Sizes::default();
        let all = pieces.iter().map(|piece| sizes.feed(piece.as_bytes()));
        all.fold(None, |last, size| size.or(last)).map(|size| (size.columns, size.rows))
    }

    #[test]
    fn the_last_whole_size_counts() {
        assert_eq!(check(&[r#"{"Width":80,"Height":24}"#]), Some((80, 24)));
        assert_eq!(check(&[r#"{"Width":80,"Height":24}{"Width":1,"Height":2}"#]), Some((1, 2)));
        assert_eq!(check(&["{\"Width\":80,\"Height\":24}\n{\"Width\":1,"]), Some((80, 24)));
        assert_eq!(check(&[r#"{"Width":65535,"Height":65535}"#]), Some((65_535, 65_535)));
        for none in [r#"{"Width":0,"Height":0}"#, r#"{"Width":65536,"Height":1}"#, "{}", "", "[1"] {
            assert_eq!(check(&[none]), None, "{none}");
        }
        assert_eq!(check(&["x", r#"{"Width":80,"Height":24}"#]), None);
        assert_eq!(check(&[r#"{"Width":-1,"Height":2}{"Width":80,"Height":24}"#]), Some((80, 24)));
    }

    #[test]
    fn a_size_without_end_is_given_up() {
        let mut sizes = Sizes::default();
        for _ in 0..100 {
            assert_eq!(sizes.feed(format!("{{\"{}", "x".repeat(500)).as_bytes()), None);
            assert!(sizes.rest.len() <= limits::TERMINAL_SIZE_BYTES);
        }
    }

    proptest! {
        #[test]
        fn sizes_may_be_cut_anywhere(all in proptest::collection::vec((1u16.., 1u16..), 1..20), cut in 1usize..40) {
            let text: Vec<String> = all.iter()
                .map(|(w, h)| format!("{{\"Width\":{w},\"Height\":{h}}}"))
                .collect();
            let mut sizes = Sizes::default();
            let text = text.concat();
            let found: Vec<_> = text.as_bytes().chunks(cut).filter_map(|c| sizes.feed(c)).collect();
            let (columns, rows) = *all.last().unwrap();
            prop_assert_eq!(found.last(), Some(&WindowSize { columns, rows }));
        }

        #[test]
        fn any_octets_are_sizes_or_none(pieces: Vec<Vec<u8>>) {
            let mut sizes = Sizes::default();
            for piece in pieces {
                sizes.feed(&piece);
                prop_assert!(sizes.rest.len() <= limits::TERMINAL_SIZE_BYTES);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_holds_so_many_bytes_for_its_programs() {
        let room = room();
        let chunk = || Bytes::from(vec![0; limits::STREAM_INPUT_BYTES / 4]);
        let (first, mut slow) = inbound();
        let (second, other) = inbound();
        for _ in 0..3 {
            first.deliver(chunk(), &room).await;
        }
        second.deliver(chunk(), &room).await;
        let wait = |delivery| tokio::time::timeout(Duration::from_secs(9), delivery);
        assert!(wait(second.deliver(chunk(), &room)).await.is_err(), "all room is taken");
        drop(slow.next().await);
        assert!(wait(first.deliver(chunk(), &room)).await.is_ok());
        drop(other);
        assert!(wait(second.deliver(chunk(), &room)).await.is_ok(), "nobody reads it any more");
        drop(slow);
        assert!(wait(first.deliver(Bytes::from_static(b"x"), &room)).await.is_ok());
        assert_eq!(room.available_permits(), limits::STREAM_INPUT_BYTES);
    }
}
