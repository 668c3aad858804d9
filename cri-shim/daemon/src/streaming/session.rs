//! What a stream works on, and the one trait behind which containers and pods are. Owns no bytes. A
//! [`Session`] is dropped when its client leaves: that detaches an attach and kills an exec's command.

use crate::error::DaemonError;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// A program's input, its outputs and its end: exec or attach, already started.
pub(crate) struct Session {
    /// Dropped at the client's end of input.
    pub(crate) stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    pub(crate) stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub(crate) stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Where the sizes of the client's terminal go.
    pub(crate) resize: Option<mpsc::Sender<WindowSize>>,
    /// The command's exit; of an attach, the container's.
    pub(crate) ended: BoxFuture<'static, Result<Exit, DaemonError>>,
}

/// How a session ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command's code; 128 + n for death by signal n.
    Code(i32),
    /// What a client was attached to is over.
    Detached,
}

/// Size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WindowSize {
    pub(crate) columns: u16,
    pub(crate) rows: u16,
}

/// Which streams a client asked for. With a terminal there is no standard error of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the four fields of the protocol's requests")]
pub(crate) struct Streams {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: bool,
}

/// A connection to a port in a pod.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Containers and pods, as streams need them.
pub(crate) trait Backend: Send + Sync + 'static {
    /// Starts a command in a running container.
    fn exec(
        &self,
        container: &str,
        command: &[String],
        streams: Streams,
    ) -> impl Future<Output = Result<Session, DaemonError>> + Send;

    /// Joins the streams of a container's first process.
    fn attach(
        &self,
        container: &str,
        streams: Streams,
    ) -> impl Future<Output = Result<Session, DaemonError>> + Send;

    /// Connects to a port on a pod's loopback.
    fn dial(
        &self,
        sandbox: &str,
        port: u16,
    ) -> impl Future<Output = Result<Box<dyn Duplex>, DaemonError>> + Send;
}
