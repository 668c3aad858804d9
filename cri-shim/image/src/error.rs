//! What can go wrong with images. A variant says what was tried and to what; callers branch on
//! [`ImageError::kind`]. Texts of registries are shortened and never hold credentials.

use crate::tar::TarError;
use shim_model::kind::{Kind, Refused};
use shim_sys::error::SysError;
use std::io::ErrorKind;
use std::path::PathBuf;

/// A failure of the image side.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// A name, digest or configuration is not what it must be.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The registry has no such thing.
    #[error("{what} is not in the registry {host}")]
    NotInRegistry { what: String, host: String },
    /// The registry wants other credentials.
    #[error("the registry {host} refuses {what}: {said}")]
    Denied { what: String, host: String, said: String },
    /// The registry answered with a failure.
    #[error("the registry {host} answered {status} to {what}: {said}")]
    Status { what: String, host: String, status: u16, said: String },
    /// The registry cannot be reached. The first word is one that kubelets know.
    #[error("RegistryUnavailable: {host} does not serve {what}: {said}")]
    Unavailable { what: String, host: String, said: String },
    /// The registry sends elsewhere, to where nobody follows.
    #[error("the registry {host} sends elsewhere for {what}: {said}")]
    Redirected { what: String, host: String, said: String },
    /// The bytes are not those that were named.
    #[error("{what} is not what was named: found {found}")]
    Mismatch { what: String, found: String },
    /// A manifest or media type this build does not know.
    #[error("{0}")]
    Unsupported(String),
    /// No image of an index fits this machine.
    #[error("{reference} has no image for {platform}; it has {has}")]
    NoPlatform { reference: String, platform: String, has: String },
    /// A layer's archive is malformed.
    #[error("read the layer {layer}")]
    Layer { layer: String, source: TarError },
    /// What export needs of a layer could not be kept or read.
    #[error("keep how the archive of layer {layer} was made")]
    Unrecorded { layer: String, source: std::io::Error },
    /// A layer's archive asks for what no layer may do.
    #[error("unpack {entry} of a layer: {why}")]
    Hostile { entry: String, why: String },
    /// A system call failed.
    #[error("{doing}")]
    System { doing: String, source: SysError },
    /// A file of ours could not be read or written.
    #[error("{doing} {path}")]
    File { doing: &'static str, path: PathBuf, source: std::io::Error },
    /// JSON that cannot be read.
    #[error("read {what}")]
    Json { what: String, source: serde_json::Error },
    /// A configuration file that cannot be read.
    #[error("read the configuration {path}")]
    Toml { path: PathBuf, source: Box<toml::de::Error> },
    /// The HTTP client could not be made, or the server's certificate is not accepted.
    #[error("connect to {host}: {said}")]
    Client { host: String, said: String },
    /// An archive to import is malformed.
    #[error("read the archive to import")]
    Archive { source: TarError },
    /// An archive to import lacks what it names.
    #[error("the archive has no {0}")]
    NotInArchive(String),
    /// Over a bound.
    #[error("{what} is over the bound of {bound}")]
    Bound { what: String, bound: u64 },
    /// The process that pulls ended.
    #[error("the pull worker ended while it pulled {0}")]
    Worker(String),
    /// The worker's failure, as it told it.
    #[error("{text}")]
    Told { text: String, kind: Kind },
    /// What a pull found or brought was deleted before it had its name.
    #[error("data of the image {0} was deleted while it was pulled")]
    Vanished(String),
    /// Nobody waits for this pull any more.
    #[error("the pull of {0} was cancelled")]
    Cancelled(String),
    /// No image here has this name.
    #[error("image \"{0}\" is not on this node")]
    Missing(String),
    /// A name that fits several images.
    #[error("image \"{0}\" is ambiguous")]
    Ambiguous(String),
}

/// A full disk, or a share of it that is used up.
fn no_room(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

impl ImageError {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Refused(_)
            | Self::Hostile { .. }
            | Self::Layer { .. }
            | Self::Archive { .. }
            | Self::NotInArchive(_)
            | Self::Ambiguous(_) => Kind::BadArgument,
            Self::NotInRegistry { .. } | Self::NoPlatform { .. } | Self::Missing(_) => {
                Kind::NotFound
            }
            Self::Unsupported(_) => Kind::Unsupported,
            Self::Bound { .. } => Kind::NoRoom,
            Self::File { source, .. } if no_room(source) => Kind::NoRoom,
            Self::System { source, .. } if no_room(&source.clone().into()) => Kind::NoRoom,
            Self::Unavailable { .. } | Self::Worker(_) | Self::Vanished(_) | Self::Cancelled(_) => {
                Kind::TryAgain
            }
            Self::Told { kind, .. } => *kind,
            Self::Denied { .. }
            | Self::Redirected { .. }
            | Self::Status { .. }
            | Self::Mismatch { .. }
            | Self::System { .. }
            | Self::Unrecorded { .. }
            | Self::File { .. }
            | Self::Json { .. }
            | Self::Toml { .. }
            | Self::Client { .. } => Kind::Internal,
        }
    }

    /// Adapter for `map_err` on a system call.
    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(SysError) -> Self {
        let doing = doing.into();
        move |source| Self::System { doing, source }
    }

    /// Adapter for `map_err` on a file operation.
    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }

    /// The whole chain in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}
