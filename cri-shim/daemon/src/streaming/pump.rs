//! Moves bytes between a client's streams and a program. Owns how a session goes on and how it ends: the
//! outputs are read to their end before the last word, what a program left behind may not hold its client
//! for ever, and input that nobody takes is thrown away. Relies on the streams' bounds; has no deadline
//! for a slow client but the connection's.

use super::channels::{Inbound, Lanes, Outbound, Sizes};
use super::session::{Exit, Session, WindowSize};
use super::status::{self, Form};
use crate::error::DaemonError;
use bytes::BytesMut;
use futures_util::future;
use shim_model::limits;
use std::convert::Infallible;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How much to read at once: little from what is quiet, much from what fills it.
#[derive(Debug)]
pub(crate) struct Appetite(usize);

impl Default for Appetite {
    fn default() -> Self {
        Self(limits::STREAM_CHUNK_FIRST)
    }
}

impl Appetite {
    /// Makes room for the next read.
    pub(crate) fn prepare(&self, buffer: &mut BytesMut) {
        // Only whole new rooms: a few octets at the end of an old one would make tiny reads.
        if buffer.capacity().saturating_sub(buffer.len()) < self.0 / 2 {
            buffer.reserve(self.0);
        }
    }

    /// Learns from a read.
    pub(crate) fn learn(&mut self, read: usize) {
        if read >= self.0 / 2 {
            self.0 = self.0.saturating_mul(4).min(limits::STREAM_CHUNK_BYTES);
        } else if read < self.0 / 16 {
            self.0 = (self.0 / 4).max(limits::STREAM_CHUNK_FIRST);
        }
    }
}

/// Runs a session to its end: the program's, and that of its outputs.
pub(crate) async fn run(session: Session, lanes: &mut Lanes) -> Result<Exit, DaemonError> {
    let over = CancellationToken::new();
    let ending = async {
        let exit = session.ended.await;
        over.cancel();
        exit
    };
    let outputs = future::join3(
        ending,
        output(session.stdout, lanes.stdout.take(), &over),
        output(session.stderr, lanes.stderr.take(), &over),
    );
    let inputs = async {
        future::join(
            input(lanes.stdin.take(), session.stdin),
            sizes(lanes.resize.take(), session.resize),
        )
        .await;
        future::pending::<Infallible>().await
    };
    tokio::select! {
        (exit, (), ()) = outputs => exit,
        never = inputs => match never {},
    }
}

/// The last word of an exec or attach, after everything else that is said.
pub(crate) async fn finish(lanes: Lanes, form: Form, ended: &Result<Exit, DaemonError>) {
    let word = status::word(form, ended);
    let said = async {
        for lane in lanes.stdout.iter().chain(&lanes.stderr).chain(&lanes.silent) {
            lane.end().await?;
        }
        if !word.is_empty() {
            lanes.error.send(word.into()).await?;
        }
        lanes.error.end().await
    };
    // A client that left hears nothing, and misses nothing.
    drop(said.await);
}

/// A program's output to its end, or until nobody wants it.
async fn output<R: AsyncRead + Unpin>(
    from: Option<R>,
    lane: Option<Outbound>,
    over: &CancellationToken,
) {
    let Some(lane) = lane else { return };
    if let Some(mut from) = from {
        copy(&mut from, &lane, over).await;
    }
    // A client that left is told nothing; its connection's end ends the session.
    drop(lane.end().await);
}

async fn copy<R: AsyncRead + Unpin>(from: &mut R, lane: &Outbound, over: &CancellationToken) {
    let mut buffer = BytesMut::new();
    let mut appetite = Appetite::default();
    let mut left = limits::STREAM_LEFT_BYTES;
    loop {
        appetite.prepare(&mut buffer);
        let read = tokio::select! {
            biased;
            read = from.read_buf(&mut buffer) => read.unwrap_or_default(),
            () = waited(over) => 0,
        };
        if read == 0 || lane.send(buffer.split().freeze()).await.is_err() {
            return;
        }
        appetite.learn(read);
        if over.is_cancelled() {
            // The program is gone: more than its pipe held is somebody else's.
            left = left.saturating_sub(read);
        }
        if left == 0 {
            return;
        }
    }
}

/// After the program's end a child of it may hold the pipe open for a moment, not for ever.
async fn waited(over: &CancellationToken) {
    over.cancelled().await;
    tokio::time::sleep(limits::EXEC_DRAIN).await;
}

/// A client's input to its end.
async fn input<W: AsyncWrite + Unpin>(lane: Option<Inbound>, into: Option<W>) {
    let Some(mut lane) = lane else { return };
    if let Some(mut into) = into {
        while let Some(chunk) = lane.next().await {
            if into.write_all(chunk.as_ref()).await.is_err() || into.flush().await.is_err() {
                break;
            }
        }
        // The end of input, where the program can see one; it may have closed its side first.
        drop(into.shutdown().await);
    }
    // Input that nobody takes must not stop the connection.
    while lane.next().await.is_some() {}
}

/// Sizes of the client's terminal; of many at once only the last counts.
async fn sizes(lane: Option<Inbound>, into: Option<mpsc::Sender<WindowSize>>) {
    let Some(mut lane) = lane else { return };
    let mut sizes = Sizes::default();
    while let Some(chunk) = lane.next().await {
        let mut size = sizes.feed(chunk.as_ref());
        while let Some(more) = lane.at_hand() {
            size = sizes.feed(more.as_ref()).or(size);
        }
        if let (Some(size), Some(into)) = (size, &into) {
            // A terminal that is gone wants no size; what else comes is thrown away.
            into.send(size).await.unwrap_or_default();
        }
    }
}
