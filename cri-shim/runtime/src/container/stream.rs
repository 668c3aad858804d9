//! The streams of a session as tokio reads and writes them: pipes, and the masters of terminals. An output
//! ends with its last writer; a command's also soon after the command, because what it left behind may
//! hold it open for ever. Whose they are is `session.rs`.

use super::session::tell;
use crate::error::RuntimeError;
use crate::monitors::{Monitor, watched};
use shim_model::limits;
use shim_model::wire::ToMonitor;
use shim_sys::{fd, tty};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::watch;
use tokio::time::Sleep;

/// The master of a command's terminal.
pub(crate) type Terminal = Arc<AsyncFd<OwnedFd>>;

/// Takes over the master of a terminal.
pub(crate) fn terminal(master: OwnedFd) -> Result<Terminal, RuntimeError> {
    fd::set_nonblocking(&master).map_err(RuntimeError::system("prepare a terminal"))?;
    let watched =
        watched(master).map_err(RuntimeError::file("watch a terminal of", "a session"))?;
    Ok(Arc::new(watched))
}

// === impl Input ===

/// Standard input of a session's process.
#[derive(Debug)]
pub struct Input {
    to: To,
    /// Told when this client says no more.
    closed: Option<(Arc<Monitor>, ToMonitor)>,
}

#[derive(Debug)]
enum To {
    Pipe(Sender),
    Terminal(Terminal),
    Nothing,
}

impl Input {
    pub(crate) const fn pipe(pipe: Sender) -> Self {
        Self { to: To::Pipe(pipe), closed: None }
    }

    /// The monitor passes on what is written here, and is told when that was all.
    pub(crate) const fn passed_on(pipe: Sender, monitor: Arc<Monitor>, number: u64) -> Self {
        let closed = Some((monitor, ToMonitor::EndInput { number }));
        Self { to: To::Pipe(pipe), closed }
    }

    pub(crate) const fn terminal(terminal: Terminal) -> Self {
        Self { to: To::Terminal(terminal), closed: None }
    }

    fn close(&mut self) {
        self.to = To::Nothing;
        if let Some((monitor, order)) = self.closed.take() {
            tell(monitor, order);
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.close();
    }
}

impl AsyncWrite for Input {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().to {
            To::Pipe(pipe) => Pin::new(pipe).poll_write(cx, bytes),
            To::Terminal(terminal) => loop {
                let mut guard = ready!(terminal.poll_write_ready(cx))?;
                if let Ok(done) = guard.try_io(|end| Ok(fd::write(end.get_ref(), bytes)?)) {
                    return Poll::Ready(done);
                }
            },
            To::Nothing => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().close();
        Poll::Ready(Ok(()))
    }
}

// === impl Output ===

/// An output of a session's process.
pub struct Output {
    from: Source,
    over: Over,
}

enum Source {
    Pipe(Receiver),
    /// With the other end, as long as the command runs: a moment in which no process has the terminal
    /// open would look like its end, and for good.
    Terminal(Terminal, Option<OwnedFd>),
    Nothing,
}

/// When an output ends although somebody still holds it open.
enum Over {
    /// It is read until its last writer closed it.
    Never,
    /// Resolves when the command ended.
    Running(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// The command ended; what it left behind may still write.
    Draining(Pin<Box<Sleep>>),
    /// Only what is there now is still read, at most so many bytes.
    Rest(usize),
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}

impl Output {
    /// Ends with its last writer.
    pub(crate) const fn of(pipe: Receiver) -> Self {
        Self { from: Source::Pipe(pipe), over: Over::Never }
    }

    /// Ends with its last writer, or soon after `ended` says true.
    pub(crate) fn until(pipe: Receiver, ended: watch::Receiver<bool>) -> Self {
        Self { from: Source::Pipe(pipe), over: Over::after(ended) }
    }

    /// Likewise what a terminal shows.
    pub(crate) fn shown(
        terminal: Terminal,
        ended: watch::Receiver<bool>,
    ) -> Result<Self, RuntimeError> {
        let peer =
            tty::peer(terminal.get_ref()).map_err(RuntimeError::system("hold a terminal"))?;
        Ok(Self { from: Source::Terminal(terminal, Some(peer)), over: Over::after(ended) })
    }
}

impl AsyncRead for Output {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.over.poll(cx);
        if !matches!(this.over, Over::Running(_))
            && let Source::Terminal(_, peer) = &mut this.from
        {
            *peer = None;
        }
        let before = into.filled().len();
        match this.from.poll(cx, into) {
            Poll::Pending if matches!(this.over, Over::Rest(_)) => this.from = Source::Nothing,
            Poll::Pending => return Poll::Pending,
            Poll::Ready(failed @ Err(_)) => return Poll::Ready(failed),
            Poll::Ready(Ok(())) => {
                let count = into.filled().len().saturating_sub(before);
                if (count == 0 && into.remaining() > 0) || this.over.spent(count) {
                    this.from = Source::Nothing;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Pipe(pipe) => Pin::new(pipe).poll_read(cx, into),
            Self::Terminal(terminal, _) => show(terminal, cx, into),
            Self::Nothing => Poll::Ready(Ok(())),
        }
    }
}

/// EIO: nobody has the other end of a terminal open (tty(4) does not say so; the kernel's `n_tty_read`).
const HUNG_UP: i32 = 5;

fn show(
    terminal: &AsyncFd<OwnedFd>,
    cx: &mut Context<'_>,
    into: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    loop {
        let mut guard = ready!(terminal.poll_read_ready(cx))?;
        let space = into.initialize_unfilled();
        let Ok(read) = guard.try_io(|end| Ok(fd::read(end.get_ref(), space)?)) else { continue };
        return Poll::Ready(match read {
            Ok(count) => {
                into.advance(count);
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(HUNG_UP) => Ok(()),
            Err(error) => Err(error),
        });
    }
}

impl Over {
    fn after(mut ended: watch::Receiver<bool>) -> Self {
        Self::Running(Box::pin(async move {
            // Without a sender nobody will tell, so it has ended as well.
            drop(ended.wait_for(|ended| *ended).await);
        }))
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Self::Running(ended) = self
            && ended.as_mut().poll(cx).is_ready()
        {
            *self = Self::Draining(Box::pin(tokio::time::sleep(limits::EXEC_DRAIN)));
        }
        if let Self::Draining(time) = self
            && time.as_mut().poll(cx).is_ready()
        {
            *self = Self::Rest(limits::PIPE_BYTES);
        }
    }

    /// Counts what was read; true = that was all that may still be read.
    const fn spent(&mut self, count: usize) -> bool {
        match self {
            Self::Never | Self::Running(_) | Self::Draining(_) => false,
            Self::Rest(left) => {
                *left = left.saturating_sub(count);
                *left == 0
            }
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

#[cfg(test)]
mod tests {
    use super::{Output, reading, terminal};
    use shim_sys::{fd, tty};
    use std::time::Duration;
    use tokio::io::AsyncReadExt;
    use tokio::sync::watch;

    #[tokio::test]
    async fn an_output_ends_after_the_command_whoever_holds_it() {
        let (ended, over) = watch::channel(false);
        let (pipe, held) = reading().unwrap();
        let mut output = Output::until(pipe, over);
        fd::write_all(&held, b"before").unwrap();
        let mut text = [0; 16];
        assert_eq!(output.read(&mut text).await.unwrap(), 6);
        let silent = tokio::time::timeout(Duration::from_millis(50), output.read(&mut text)).await;
        assert!(silent.is_err(), "it ended before the command");
        ended.send_replace(true);
        fd::write_all(&held, b"after").unwrap();
        let mut rest = Vec::new();
        output.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"after");
    }

    #[tokio::test]
    async fn what_is_left_behind_cannot_keep_an_output_going() {
        let (ended, over) = watch::channel(true);
        let (pipe, held) = reading().unwrap();
        let mut output = Output::until(pipe, over);
        fd::set_nonblocking(&held).unwrap();
        let (mut got, mut buffer) = (0, vec![0; 4096]);
        loop {
            while fd::write(&held, &[7; 4096]).is_ok() {}
            match output.read(&mut buffer).await.unwrap() {
                0 => break,
                count => got += count,
            }
        }
        assert!(got > 0);
        drop(ended);
    }

    #[tokio::test]
    async fn a_terminal_ends_when_the_command_ended_and_nobody_has_it() {
        let root = std::fs::File::open("/").unwrap();
        let Ok(pty) = tty::open(root) else {
            eprintln!("skipped: no devpts here");
            return;
        };
        let (ended, over) = watch::channel(false);
        let mut output = Output::shown(terminal(pty.master).unwrap(), over).unwrap();
        fd::write_all(&pty.peer, b"shown\n").unwrap();
        drop(pty.peer);
        let mut text = [0; 16];
        let count = output.read(&mut text).await.unwrap();
        assert_eq!(&text[..count], b"shown\r\n");
        let waits = tokio::time::timeout(Duration::from_millis(50), output.read(&mut text)).await;
        assert!(waits.is_err(), "{waits:?}");
        ended.send_replace(true);
        assert_eq!(output.read(&mut text).await.unwrap(), 0);
    }
}
