//! The runtime as the streams' backend: its sessions and sockets under the trait's names. Decides nothing;
//! deadlines and checks of containers and pods are the runtime's.

use super::session::{Backend, Duplex, Exit, Session, Streams, WindowSize};
use crate::error::DaemonError;
use futures_util::FutureExt;
use shim_runtime::container::attach::AttachStream;
use shim_runtime::container::exec::ExecStream;
use shim_runtime::container::session as runtime;
use shim_runtime::runtime::Runtime;
use std::convert::Infallible;
use tokio::io::{AsyncRead, AsyncWrite};
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
        Ok(wrapped(session, |end| Exit::Code(end.code)))
    }

    async fn attach(&self, container: &str, streams: Streams) -> Result<Session, DaemonError> {
        let Streams { stdin, stdout, stderr, tty } = streams;
        let request = AttachStream { stdin, stdout, stderr, tty };
        let session = Self::attach(self, container, request).await?;
        Ok(wrapped(session, |_| Exit::Detached))
    }

    async fn dial(&self, sandbox: &str, port: u16) -> Result<Box<dyn Duplex>, DaemonError> {
        let stream = Self::dial(self, sandbox, port).await?;
        // Single characters must not wait for each other; without it they only come later.
        drop(stream.set_nodelay(true));
        Ok(Box::new(stream))
    }
}

fn wrapped(session: runtime::Session, exit: fn(runtime::End) -> Exit) -> Session {
    let runtime::Session { stdin, stdout, stderr, resize, ended } = session;
    // One size waits while one is applied: whoever sends them keeps only the last.
    let (sizes, asked) = mpsc::channel(1);
    let ended = async move {
        tokio::select! {
            end = ended => Ok(exit(end?)),
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
