//! The daemon's socket. Owns binding it so that it never exists with wider rights than configured, the
//! check of who connects, and the stream wrapper that every connection passes through: it makes any
//! `:authority` acceptable and ends the stream once the shutdown's grace is over. Relies on the folder
//! being ours. What is said over the connection is not known here.

use crate::authority::frames::Rewriter;
use crate::config::keys::Socket;
use crate::error::DaemonError;
use pin_project_lite::pin_project;
use shim_model::limits;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, UdsConnectInfo};

/// A bound socket; its path is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    allowed: Arc<Allowed>,
}

/// Who may connect besides root.
#[derive(Debug)]
struct Allowed {
    uids: Vec<u32>,
    gids: Vec<u32>,
}

impl Listener {
    /// Binds the socket. One that somebody serves is not taken over.
    pub(crate) async fn bind(config: &Socket) -> Result<Self, DaemonError> {
        let path = config.path.clone();
        let failed = |source| DaemonError::Bind { path: config.path.clone(), source };
        if UnixStream::connect(&path).await.is_ok() {
            return Err(DaemonError::Served(path));
        }
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o711).create(folder).map_err(failed)?;
        }
        let rights = (config.mode.0, config.gids.first().copied());
        let socket = bind(&path, rights).map_err(failed)?;
        let allowed = Allowed { uids: config.uids.clone(), gids: config.gids.clone() };
        Ok(Self { socket, path, allowed: Arc::new(allowed) })
    }

    /// The next connection of somebody who may connect. A failed accept (no descriptors left) is told
    /// and tried again; it never ends the server.
    pub(crate) async fn accept(&self, cut: &CancellationToken) -> Connection {
        loop {
            match self.socket.accept().await {
                Ok((stream, _)) if self.may(&stream) => return Connection::new(stream, cut),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(limits::ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn may(&self, stream: &UnixStream) -> bool {
        match stream.peer_cred() {
            Ok(peer) if self.allowed.may(peer.uid(), peer.gid()) => true,
            Ok(peer) => {
                tracing::warn!(
                    uid = peer.uid(),
                    gid = peer.gid(),
                    pid = peer.pid(),
                    "a connection is refused: neither root nor a configured user or group"
                );
                false
            }
            Err(error) => {
                tracing::warn!(%error, "a connection is refused: its credentials cannot be read");
                false
            }
        }
    }
}

impl Allowed {
    fn may(&self, uid: u32, gid: u32) -> bool {
        uid == 0 || self.uids.contains(&uid) || self.gids.contains(&gid)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A socket file that stays is replaced by the next start.
        drop(fs::remove_file(&self.path));
    }
}

/// Binds beside the path, sets rights and group, and renames: the path never leads to a socket that is
/// wider than it should be. Only a socket is replaced.
pub(crate) fn bind(path: &Path, (mode, group): (u32, Option<u32>)) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|known| !known.file_type().is_socket()) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something else than a socket is there",
        ));
    }
    let beside = beside(path);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixListener::bind(&beside)?;
    if group.is_some() {
        std::os::unix::fs::chown(&beside, None, group)?;
    }
    fs::set_permissions(&beside, fs::Permissions::from_mode(mode))?;
    fs::rename(&beside, path)?;
    Ok(socket)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

pin_project! {
    /// One client's stream.
    #[derive(Debug)]
    pub(crate) struct Connection {
        #[pin]
        stream: UnixStream,
        // Boxed, so that the connection can be moved although the future cannot.
        cut: Pin<Box<WaitForCancellationFutureOwned>>,
        rewriter: Rewriter,
        // What the server should see and has not read yet; from `seen` on.
        ready: Vec<u8>,
        seen: usize,
    }
}

impl Connection {
    fn new(stream: UnixStream, cut: &CancellationToken) -> Self {
        Self {
            stream,
            cut: Box::pin(cut.clone().cancelled_owned()),
            rewriter: Rewriter::default(),
            ready: Vec::new(),
            seen: 0,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut this = self.project();
        loop {
            let waiting = this.ready.get(*this.seen..).unwrap_or_default();
            if !waiting.is_empty() {
                let count = waiting.len().min(into.remaining());
                into.put_slice(waiting.get(..count).unwrap_or_default());
                *this.seen = this.seen.saturating_add(count);
                return Poll::Ready(Ok(()));
            }
            if this.cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut space = [std::mem::MaybeUninit::uninit(); limits::CONNECTION_READ_BYTES];
            let mut buffer = ReadBuf::uninit(&mut space);
            ready!(this.stream.as_mut().poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.ready.clear();
            *this.seen = 0;
            this.rewriter.feed(buffer.filled(), this.ready);
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Connection {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use super::Allowed;

    #[test]
    fn root_and_the_configured_may_connect() {
        let allowed = Allowed { uids: vec![7], gids: vec![9] };
        assert!(allowed.may(0, 1) && allowed.may(7, 1) && allowed.may(3, 9));
        assert!(!allowed.may(3, 1) && !allowed.may(9, 7));
    }
}
