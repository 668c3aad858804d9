//! A session: the streams of a command, or of a container's first process, in the hands of one client.
//! The bytes go through pipes and terminals whose other ends are the process's or its monitor's; no
//! socket of ours carries them. Whoever drops [`Session::ended`] before it resolved leaves: a command is
//! killed with all it started, an attached client is detached. What is run and joined is decided in
//! `exec.rs` and `attach.rs`.

use super::stream::{Input, Output, Terminal};
use crate::error::RuntimeError;
use crate::monitors::Monitor;
use shim_model::id::ContainerId;
use shim_model::wire::ToMonitor;
use shim_sys::tty::{self, Size};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::runtime::Handle;

/// The streams of one client. The fields may be taken apart and used by different tasks.
#[derive(Debug)]
pub struct Session {
    /// Standard input, where it was asked for and the process has one. Shutting it down, or dropping it,
    /// says that this client says no more: a command's input ends, a container's if it is made so.
    pub stdin: Option<Input>,
    /// Standard output, where it was asked for; with a terminal it holds everything.
    pub stdout: Option<Output>,
    /// Standard error, where it was asked for.
    pub stderr: Option<Output>,
    /// Changes the size of the terminal.
    pub resize: Resize,
    /// Resolves when the process ended. Outputs may hold more then, and end soon after.
    pub ended: Ended,
}

/// How the process of a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Its code; 128 + n for death by signal n.
    pub code: i32,
}

// === impl Resize ===

/// Changes the size of a session's terminal; without a terminal it does nothing.
#[derive(Clone, Debug)]
pub struct Resize(Window);

#[derive(Clone, Debug)]
enum Window {
    None,
    /// A command's own.
    Here(Terminal),
    /// A container's, which its monitor holds.
    There(Arc<Monitor>, ContainerId),
}

impl Resize {
    pub(crate) const fn nothing() -> Self {
        Self(Window::None)
    }

    pub(crate) const fn here(terminal: Terminal) -> Self {
        Self(Window::Here(terminal))
    }

    pub(crate) const fn there(monitor: Arc<Monitor>, container: ContainerId) -> Self {
        Self(Window::There(monitor, container))
    }

    /// The terminal has this size from now on. A size of zero says nothing and is ignored.
    pub async fn to(&self, columns: u16, rows: u16) -> Result<(), RuntimeError> {
        if columns == 0 || rows == 0 {
            return Ok(());
        }
        match &self.0 {
            Window::None => Ok(()),
            Window::Here(terminal) => tty::set_size(terminal.get_ref(), Size { columns, rows })
                .map_err(RuntimeError::system("resize a terminal")),
            Window::There(monitor, container) => {
                let container = container.clone();
                monitor.order(ToMonitor::Resize { container, columns, rows }, &[]).await
            }
        }
    }
}

// === impl Ended ===

/// The end of a session's process. Awaited by reference it can still be told to leave.
pub struct Ended {
    wait: Pin<Box<dyn Future<Output = Result<End, RuntimeError>> + Send>>,
    leave: Leave,
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
        Self { wait: Box::pin(wait), leave }
    }

    /// Leaves an attached container as it is, to come again: unlike a client that vanishes, this does not
    /// close a standard input that belongs to the first client only. A command is killed all the same.
    /// Whoever holds [`Session::stdin`] drops it after this.
    pub async fn detach(mut self) -> Result<(), RuntimeError> {
        let Some((monitor, order)) = self.leave.0.take() else { return Ok(()) };
        let order = match order {
            ToMonitor::Detach { number, .. } => ToMonitor::Detach { number, keep_stdin: true },
            other => other,
        };
        monitor.order(order, &[]).await
    }
}

impl Future for Ended {
    type Output = Result<End, RuntimeError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let ended = ready!(this.wait.as_mut().poll(cx));
        if ended.is_ok() {
            this.leave.0 = None;
        }
        Poll::Ready(ended)
    }
}

/// What the monitor is told if the client leaves: when this is dropped.
pub(crate) struct Leave(Option<(Arc<Monitor>, ToMonitor)>);

impl fmt::Debug for Leave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Leave").field(&self.0.as_ref().map(|(_, order)| order)).finish()
    }
}

impl Leave {
    pub(crate) const fn by(monitor: Arc<Monitor>, order: ToMonitor) -> Self {
        Self(Some((monitor, order)))
    }

    /// There is nothing to leave any more.
    pub(crate) fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some((monitor, order)) = self.0.take() {
            tell(monitor, order);
        }
    }
}

/// Tells a monitor something beside the caller. Without a runtime the daemon ends, and its monitors see
/// that by themselves.
pub(crate) fn tell(monitor: Arc<Monitor>, order: ToMonitor) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move { drop(monitor.order(order, &[]).await) });
    }
}
