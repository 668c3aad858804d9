//! What can go wrong in the daemon itself: starting, its socket, its configuration; and the failures
//! of the rooms below as an RPC meets them. Callers branch on [`DaemonError::kind`]; which gRPC code
//! that becomes is `rpc/status.rs`.

use crate::config::load::LoadError;
use shim_image::error::ImageError;
use shim_model::kind::{Kind, Refused};
use shim_model::limits;
use shim_runtime::error::RuntimeError;
use std::io;
use std::net::SocketAddr;
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
    /// The page of metrics could not be served.
    #[error("serve metrics at {address}")]
    Metrics { address: String, source: io::Error },
    /// Metrics could not be written.
    #[error("write metrics as text")]
    Text(#[source] std::fmt::Error),
    /// Spans could not be sent anywhere.
    #[error("send spans to {endpoint}: {why}")]
    Traces { endpoint: String, why: String },
    /// The zygote could not be started.
    #[error("start the zygote")]
    Zygote(#[source] shim_child::ChildError),
    /// The async runtime or a signal handler could not be made.
    #[error("prepare {0}")]
    Prepare(&'static str, #[source] io::Error),
    /// The streaming server could not listen.
    #[error("listen for streams on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    /// A certificate or key of the streaming server could not be read.
    #[error("read {}", path.display())]
    Pem { path: PathBuf, source: rustls::pki_types::pem::Error },
    /// A certificate and its key cannot be used.
    #[error("use the certificate {}", path.display())]
    Tls { path: PathBuf, source: rustls::Error },
    /// Clients do not come for the streams that were asked for.
    #[error("{} streaming URLs wait for their clients already", limits::STREAM_TOKENS)]
    TooManyUrls,
    /// A client did not make all of its streams.
    #[error("the client did not make its streams within {} s", limits::STREAM_CREATION.as_secs())]
    StreamsLate,
    /// Nothing answered in a pod.
    #[error("connect: no answer within {} s", limits::FORWARD_DIAL.as_secs())]
    DialLate,
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
            Self::TooManyUrls => Kind::NoRoom,
            Self::StreamsLate | Self::DialLate => Kind::TooSlow,
            Self::Folder { .. }
            | Self::Stranger { .. }
            | Self::Logs(_)
            | Self::Metrics { .. }
            | Self::Text(_)
            | Self::Traces { .. }
            | Self::Bind { .. }
            | Self::Listen { .. }
            | Self::Pem { .. }
            | Self::Tls { .. }
            | Self::Zygote(_)
            | Self::Prepare(..)
            | Self::Serve { .. } => Kind::Internal,
        }
    }
}
