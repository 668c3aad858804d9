//! What can go wrong in the daemon itself: starting, its socket, its configuration; and the failures
//! of the rooms below as an RPC meets them. Callers branch on [`DaemonError::kind`]; which gRPC code
//! that becomes is `rpc/status.rs`.

use crate::config::load::LoadError;
use shim_image::error::ImageError;
use shim_model::kind::{Kind, Refused};
use shim_runtime::error::RuntimeError;
use std::io;
use std::path::PathBuf;

/// A failure of the daemon.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DaemonError {
    /// A field of a request cannot be what it is.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Pods and containers.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Images.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// An RPC that this build does not have.
    #[error("{0}")]
    NotBuilt(&'static str),
    /// The socket could not be made.
    #[error("bind the socket {}", path.display())]
    Bind { path: PathBuf, source: io::Error },
    /// Somebody serves there.
    #[error("another daemon serves {}", .0.display())]
    Served(PathBuf),
    /// One of our folders could not be made or narrowed.
    #[error("prepare the folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    /// One of our folders is somebody else's.
    #[error("the folder {} belongs to user {uid}, not to the daemon's", path.display())]
    Stranger { path: PathBuf, uid: u32 },
    /// The log could not be started.
    #[error("start the log")]
    Logs(#[source] tracing_subscriber::util::TryInitError),
    /// The zygote could not be started.
    #[error("start the zygote")]
    Zygote(#[source] shim_child::ChildError),
    /// The async runtime or a signal handler could not be made.
    #[error("prepare {0}")]
    Prepare(&'static str, #[source] io::Error),
    /// The server ended with a failure.
    #[error("serve {}", path.display())]
    Serve { path: PathBuf, source: tonic::transport::Error },
}

impl DaemonError {
    /// What the caller can do about it.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Refused(_) | Self::Config(_) => Kind::BadArgument,
            Self::Runtime(error) => error.kind(),
            Self::Image(error) => error.kind(),
            Self::NotBuilt(_) => Kind::Unsupported,
            Self::Served(_) => Kind::AlreadyExists,
            Self::Folder { .. }
            | Self::Stranger { .. }
            | Self::Logs(_)
            | Self::Bind { .. }
            | Self::Zygote(_)
            | Self::Prepare(..)
            | Self::Serve { .. } => Kind::Internal,
        }
    }
}
