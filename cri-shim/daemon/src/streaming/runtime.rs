//! The runtime as the streams' backend: its sessions and sockets under the trait's names. Owns the order in
//! which a command whose client left is ended: killed first, then its pipes close. A command that saw them
//! close might end by itself, and what it started in the background would live on, as it may after an end
//! of the command's own. Decides nothing else; checks of containers and pods are the runtime's.

use super::session::{Backend, Duplex, Exit, Session, Streams, WindowSize};
use crate::error::DaemonError;
use futures_util::FutureExt;
use shim_runtime::container::attach::AttachStream;
use shim_runtime::container::exec::ExecStream;
use shim_runtime::container::session as runtime;
use shim_runtime::runtime::Runtime;
use std::any::Any;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

impl Backend for Runtime {
    async fn exec(
        &self,
        container: &str,
        command: &[String],
        streams: Streams,
    ) -> Result<Session, DaemonError> {
        let Streams { stdin, stdout, stderr, tty } = streams;
        let request = ExecStream { command: command.to_vec(), stdin, stdout, stderr, tty };
        let session = self.exec_stream(container, request).await?;
        let runtime::Session { stdin, stdout, stderr, resize, ended } = session;
        let closed = Arc::new(Closed::default());
        let mut killed = Killed { ended: Some(ended), closed: Arc::clone(&closed) };
        let end = async move {
            let end = killed.end().await?;
            Ok(Exit::Code(end.code))
        };
        Ok(session_of(
            stdin.map(|end| Held::new(end, &closed)),
            [stdout, stderr].map(|end| end.map(|end| Held::new(end, &closed))),
            resize,
            end,
        ))
    }

    async fn attach(&self, container: &str, streams: Streams) -> Result<Session, DaemonError> {
        let Streams { stdin, stdout, stderr, tty } = streams;
        let request = AttachStream { stdin, stdout, stderr, tty };
        let session = Self::attach(self, container, request).await?;
        let runtime::Session { stdin, stdout, stderr, resize, ended } = session;
        let end = async move { Ok(ended.await.map(|_| Exit::Detached)?) };
        Ok(session_of(stdin, [stdout, stderr], resize, end))
    }

    async fn dial(&self, sandbox: &str, port: u16) -> Result<Box<dyn Duplex>, DaemonError> {
        let stream = Self::dial(self, sandbox, port).await?;
        // Single characters must not wait for each other; without it they only come later.
        drop(stream.set_nodelay(true));
        Ok(Box::new(stream))
    }
}

fn session_of<I, O>(
    stdin: Option<I>,
    [stdout, stderr]: [Option<O>; 2],
    resize: runtime::Resize,
    end: impl Future<Output = Result<Exit, DaemonError>> + Send + 'static,
) -> Session
where
    I: AsyncWrite + Send + Unpin + 'static,
    O: AsyncRead + Send + Unpin + 'static,
{
    // One size waits while one is applied: whoever sends them keeps only the last.
    let (sizes, asked) = mpsc::channel(1);
    let ended = async move {
        tokio::select! {
            end = end => end,
            never = apply(asked, resize) => match never {},
        }
    };
    Session {
        stdin: stdin.map(|input| Box::new(input) as Box<dyn AsyncWrite + Send + Unpin>),
        stdout: stdout.map(|output| Box::new(output) as Box<dyn AsyncRead + Send + Unpin>),
        stderr: stderr.map(|output| Box::new(output) as Box<dyn AsyncRead + Send + Unpin>),
        resize: Some(sizes),
        ended: ended.boxed(),
    }
}

/// Applies sizes as long as the session is.
async fn apply(mut asked: mpsc::Receiver<WindowSize>, resize: runtime::Resize) -> Infallible {
    while let Some(WindowSize { columns, rows }) = asked.recv().await {
        if let Err(error) = resize.to(columns, rows).await {
            tracing::debug!(%error, "a terminal was not resized");
        }
    }
    std::future::pending().await
}

// === the order of a command's end ===

/// Ends of a command's pipes that nobody uses any more; closed when the last one that knows this is gone.
#[derive(Default)]
struct Closed(Mutex<Vec<Box<dyn Any + Send>>>);

/// An end of a pipe that closes with the others, after the command was killed.
struct Held<T: Send + 'static> {
    end: Option<T>,
    closed: Arc<Closed>,
}

impl<T: Send + 'static> Held<T> {
    fn new(end: T, closed: &Arc<Closed>) -> Self {
        Self { end: Some(end), closed: Arc::clone(closed) }
    }
}

impl<T: Send + 'static> Drop for Held<T> {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            self.closed.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(end));
        }
    }
}

impl<T: AsyncRead + Send + Unpin + 'static> AsyncRead for Held<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.end {
            Some(end) => Pin::new(end).poll_read(cx, into),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl<T: AsyncWrite + Send + Unpin + 'static> AsyncWrite for Held<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.end {
            Some(end) => Pin::new(end).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.end {
            Some(end) => Pin::new(end).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// The client's own end of input: that closes at once.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.end {
            Some(end) => Pin::new(end).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// Dropped before the command's end: kills it, and closes its pipes then.
struct Killed {
    ended: Option<runtime::Ended>,
    closed: Arc<Closed>,
}

impl Killed {
    async fn end(&mut self) -> Result<runtime::End, DaemonError> {
        let Some(ended) = &mut self.ended else { return std::future::pending().await };
        let end = ended.await;
        if end.is_ok() {
            self.ended = None;
        }
        Ok(end?)
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let Some(ended) = self.ended.take() else { return };
        let closed = Arc::clone(&self.closed);
        // Without a runtime the daemon ends, and the monitor sees that by itself.
        if let Ok(tasks) = tokio::runtime::Handle::try_current() {
            tasks.spawn(async move {
                if let Err(error) = ended.detach().await {
                    tracing::debug!(%error, "a command whose client left could not be killed");
                }
                drop(closed);
            });
        }
    }
}
