//! What SPDY and WebSocket connections have in common: how they end, when they were last used, how they are
//! written to, and how a session is run over one. No protocol is known here.

use super::channels::Outgoing;
use bytes::{Buf, Bytes};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Left {
    /// Our last word was written.
    Finished,
    /// The client closed it, or said that it would.
    Closed,
    /// The client said what cannot be understood.
    Bad(String),
    /// The socket failed, or took nothing for too long.
    Broken(io::Error),
    /// Nothing was said for too long.
    Idle,
}

/// When something was last said. Our own heartbeats and their answers do not count.
#[derive(Debug)]
pub(crate) struct Activity(Mutex<Instant>);

impl Activity {
    pub(crate) fn now() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    pub(crate) fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns when nothing was said for so long.
    pub(crate) async fn idle(&self, idle: Duration) {
        loop {
            let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let left = idle.saturating_sub(last.elapsed());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// Writes all of it. A client may read as slowly as it likes, but not nothing for as long as `stall`.
pub(crate) async fn put<W: AsyncWrite + Unpin>(
    io: &mut W,
    head: Bytes,
    body: Bytes,
    stall: Duration,
) -> io::Result<()> {
    let mut all = head.chain(body);
    while all.has_remaining() {
        if tokio::time::timeout(stall, io.write_buf(&mut all)).await?? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    tokio::time::timeout(stall, io.flush()).await?
}

/// Runs a session over its connection. If the client leaves first, the session is dropped where it stands;
/// if the session ends first, what it said is still written.
pub(crate) async fn over(
    connection: impl Future<Output = Left>,
    session: impl Future<Output = ()>,
    queue: mpsc::Sender<Outgoing>,
) -> Left {
    tokio::pin!(connection);
    let whole = async move {
        session.await;
        drop(queue.send(Outgoing::Last).await);
    };
    tokio::select! {
        left = &mut connection => left,
        () = whole => connection.await,
    }
}
