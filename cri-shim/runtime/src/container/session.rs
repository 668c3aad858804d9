//! A session: the streams of a command, or of a container's first process, in the hands of one client.
//! The bytes go through pipes and terminals whose other ends are the process's or its monitor's; no
//! socket of ours carries them. Whoever drops [`Session::ended`] before it resolved leaves: a command is
//! killed with all it started, an attached client is detached. What is run and joined is decided in
//! `exec.rs` and `attach.rs`.

use crate::error::RuntimeError;
use crate::monitors::Monitor;
use shim_model::limits;
use shim_model::wire::ToMonitor;
use shim_sys::fd;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// The streams of one client. The fields may be taken apart and used by different tasks.
#[derive(Debug)]
pub struct Session {
    /// Standard input, where it was asked for and the process has one. Shutting it down, or dropping it,
    /// ends the process's input; on a terminal it only ends what this client types.
    pub stdin: Option<Input>,
    /// Standard output, where it was asked for; with a terminal it holds everything.
    pub stdout: Option<Output>,
    /// Standard error, where it was asked for.
    pub stderr: Option<Output>,
    /// Changes the size of the terminal.
    pub resize: Resize,
    /// Resolves when the process ended. Outputs may hold more, and end soon after.
    pub ended: Ended,
}

/// How the process of a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Its code; 128 + n for death by signal n.
    pub code: i32,
}

// === impl Input ===

/// Standard input of a session's process.
#[derive(Debug)]
pub struct Input(Option<Sender>);

impl Input {
    pub(crate) const fn pipe(pipe: Sender) -> Self {
        Self(Some(pipe))
    }
}

impl AsyncWrite for Input {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Some(pipe) => Pin::new(pipe).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().0 = None;
        Poll::Ready(Ok(()))
    }
}

// === impl Output ===

/// An output of a session's process.
pub struct Output {
    pipe: Option<Receiver>,
    over: Over,
}

/// When an output ends although somebody still holds it open.
enum Over {
    /// Resolves when the process has ended and what it left behind had its time.
    Later(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// Only what is there now is still read, at most so many bytes.
    Now(usize),
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("pipe", &self.pipe).finish_non_exhaustive()
    }
}

impl Output {
    /// Ends with its last writer, or soon after `ended` says true.
    pub(crate) fn until(pipe: Receiver, mut ended: watch::Receiver<bool>) -> Self {
        let over = async move {
            // Without a sender nobody will tell, so it has ended as well.
            drop(ended.wait_for(|ended| *ended).await);
            tokio::time::sleep(limits::EXEC_DRAIN).await;
        };
        Self { pipe: Some(pipe), over: Over::Later(Box::pin(over)) }
    }
}

impl AsyncRead for Output {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(pipe) = &mut this.pipe else { return Poll::Ready(Ok(())) };
        let is_over = this.over.poll(cx);
        let before = into.filled().len();
        match Pin::new(pipe).poll_read(cx, into) {
            Poll::Pending if is_over => this.pipe = None,
            Poll::Pending => return Poll::Pending,
            Poll::Ready(failed @ Err(_)) => return Poll::Ready(failed),
            Poll::Ready(Ok(())) => {
                let count = into.filled().len().saturating_sub(before);
                if (count == 0 && into.remaining() > 0) || this.over.spent(count) {
                    this.pipe = None;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Over {
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if let Self::Later(time) = self
            && time.as_mut().poll(cx).is_ready()
        {
            *self = Self::Now(limits::PIPE_BYTES);
        }
        matches!(self, Self::Now(_))
    }

    /// Counts what was read; true = that was all that may still be read.
    fn spent(&mut self, count: usize) -> bool {
        match self {
            Self::Later(_) => false,
            Self::Now(left) => {
                *left = left.saturating_sub(count);
                *left == 0
            }
        }
    }
}

// === impl Resize ===

/// Changes the size of a session's terminal; without a terminal it does nothing.
#[derive(Clone, Debug)]
pub struct Resize(());

impl Resize {
    pub(crate) const fn nothing() -> Self {
        Self(())
    }

    /// The terminal has this size from now on. A size of zero says nothing and is ignored.
    #[expect(clippy::unused_async, reason = "the terminal of a container is its monitor's")]
    pub async fn to(&self, _columns: u16, _rows: u16) -> Result<(), RuntimeError> {
        Ok(())
    }
}

// === impl Ended ===

/// The end of a session's process.
pub struct Ended {
    wait: Pin<Box<dyn Future<Output = Result<End, RuntimeError>> + Send>>,
    leave: Option<Leave>,
}

/// What is done if the client leaves first.
#[derive(Debug)]
pub(crate) struct Leave {
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) order: ToMonitor,
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ended").field("leave", &self.leave).finish_non_exhaustive()
    }
}

impl Ended {
    pub(crate) fn new(
        leave: Leave,
        wait: impl Future<Output = Result<End, RuntimeError>> + Send + 'static,
    ) -> Self {
        Self { wait: Box::pin(wait), leave: Some(leave) }
    }
}

impl Future for Ended {
    type Output = Result<End, RuntimeError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let ended = ready!(this.wait.as_mut().poll(cx));
        this.leave = None;
        Poll::Ready(ended)
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(leave) = self.leave.take() {
            leave.tell();
        }
    }
}

impl Leave {
    /// Tells the monitor, beside the caller. Without a runtime the daemon ends, and its monitors see
    /// that by themselves.
    pub(crate) fn tell(self) {
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { drop(self.monitor.order(self.order, &[]).await) });
        }
    }
}

// === pipes ===

/// A pipe that is read here; its write end for the other side.
pub(crate) fn reading() -> Result<(Receiver, OwnedFd), RuntimeError> {
    let (read, write) = fd::pipe().map_err(RuntimeError::system("make a pipe"))?;
    fd::set_nonblocking(&read).map_err(RuntimeError::system("prepare a pipe"))?;
    let receiver = Receiver::from_owned_fd(read)
        .map_err(RuntimeError::file("watch a pipe of", "a session"))?;
    Ok((receiver, write))
}

/// A pipe that is written here; its read end for the other side.
pub(crate) fn writing() -> Result<(Sender, OwnedFd), RuntimeError> {
    let (read, write) = fd::pipe().map_err(RuntimeError::system("make a pipe"))?;
    fd::set_nonblocking(&write).map_err(RuntimeError::system("prepare a pipe"))?;
    let sender =
        Sender::from_owned_fd(write).map_err(RuntimeError::file("watch a pipe of", "a session"))?;
    Ok((sender, read))
}

/// Where output goes that nobody wants.
pub(crate) fn nowhere() -> Result<OwnedFd, RuntimeError> {
    fd::open_read_write(c"/dev/null").map_err(RuntimeError::system("open /dev/null"))
}
