//! What can go wrong while doing what the model decided. One enum for the crate; a variant says what
//! was tried and to what, the cause is its source; callers branch on [`RuntimeError::kind`].

use shim_model::kind::{Kind, Refused};
use shim_model::record::RecordError;
use shim_model::wire::Failure;
use std::io::ErrorKind;
use std::path::PathBuf;

/// A failure of the runtime.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// A field of the request cannot be what it is.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// No sandbox or container with this id, name or prefix.
    #[error("{what} \"{id}\" is not known")]
    NotFound { what: &'static str, id: String },
    /// A prefix that fits several.
    #[error("{what} \"{id}\" is ambiguous: {count} fit")]
    Ambiguous { what: &'static str, id: String, count: usize },
    /// The name belongs to somebody.
    #[error("the name {name} is reserved for {what} {owner}")]
    Taken { what: &'static str, name: String, owner: String },
    /// Not in this state.
    #[error("{what} {id} is {found}, it must be {wanted} to {verb}")]
    State {
        what: &'static str,
        id: String,
        found: String,
        wanted: &'static str,
        verb: &'static str,
    },
    /// A lower limit of memory would kill.
    #[error("container {id} uses {used} bytes of memory, its limit cannot be {limit}")]
    InUse { id: String, used: u64, limit: i64 },
    /// So many listen to events already.
    #[error("listen to events: {0} clients do already")]
    Listeners(usize),
    /// A listener did not read.
    #[error("events were missed because they were not read in time; list again, then listen again")]
    Missed,
    /// The image is not here.
    #[error("image \"{0}\" is not on this node; pull it first")]
    NoImage(String),
    /// The image is to stay.
    #[error("the image {image} stays: {why}")]
    ImageStays { image: String, why: shim_model::untag::Stays },
    /// The image's side failed.
    #[error("{doing}")]
    Image { doing: String, source: shim_image::error::ImageError },
    /// An image could not be pulled; the message begins with what kubelets look for.
    #[error(transparent)]
    Pull(shim_image::error::ImageError),
    /// A system call failed.
    #[error("{doing}")]
    System { doing: String, source: shim_sys::error::SysError },
    /// A limit was refused by the kernel.
    #[error("write \"{text}\" to {path}")]
    Limit { path: PathBuf, text: String, source: std::io::Error },
    /// A file of ours could not be read or written.
    #[error("{doing} {path}")]
    File { doing: &'static str, path: PathBuf, source: std::io::Error },
    /// A record of ours is damaged.
    #[error("read the record {path}")]
    Record { path: PathBuf, source: RecordError },
    /// The container's program could not be started.
    #[error("start container {container}: {failure}")]
    Start { container: String, failure: Failure },
    /// A command could not be run in a container.
    #[error("run a command in container {container}: {failure}")]
    Exec { container: String, failure: Failure },
    /// A client could not be attached to a container.
    #[error("attach to container {container}: {failure}")]
    Attach { container: String, failure: Failure },
    /// An attached client was too slow.
    #[error(
        "the client of container {0} did not read what the container printed, and was left behind"
    )]
    LeftBehind(String),
    /// The network could not be made or taken away.
    #[error("{doing}: {why}")]
    Network { doing: String, why: String },
    /// Nobody answers on a port of a pod.
    #[error("connect to port {port} of sandbox {sandbox}")]
    Dial {
        port: u16,
        sandbox: String,
        #[source]
        cause: Box<Self>,
    },
    /// A plugin of NRI refuses, failed, or asks for what cannot be done.
    #[error("NRI plugin {plugin}, asked about {about}: {why}")]
    Plugin { plugin: String, about: &'static str, why: String },
    /// A container's plan cannot be written or read.
    #[error("use the plan {path}")]
    Plan { path: PathBuf, source: postcard::Error },
    /// A value has no JSON form.
    #[error("{doing}")]
    Json { doing: &'static str, source: serde_json::Error },
    /// A monitor or the zygote answered with a failure.
    #[error("{doing}: {failure}")]
    Role { doing: String, failure: Failure },
    /// A monitor or the zygote does not answer any more.
    #[error("{role} is gone while it should {doing}")]
    RoleGone { role: String, doing: &'static str },
    /// A message between our own processes could not be understood.
    #[error("understand a message of {role}")]
    Message { role: String, source: shim_model::wire::WireError },
    /// systemd refused, or cannot be reached.
    #[error("ask systemd for {verb} of {unit}")]
    Systemd { verb: &'static str, unit: String, source: zbus::Error },
    /// A deadline passed.
    #[error("{doing}: not done after {after:?}")]
    Deadline { doing: String, after: std::time::Duration },
    /// This build or this host cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// Several things failed while something was taken away; all are told.
    #[error("{doing}: {}", join(.causes))]
    Several { doing: String, causes: Vec<Self> },
    /// A task of ours ended without an answer.
    #[error("{0} ended without an answer")]
    Lost(&'static str),
    /// Work that another caller began failed; its error is told to all who waited.
    #[error(transparent)]
    Shared(std::sync::Arc<Self>),
}

fn join(causes: &[RuntimeError]) -> String {
    causes.iter().map(|cause| chain(cause)).collect::<Vec<_>>().join("; ")
}

/// EAGAIN: how a monitor refuses what is beyond a bound.
const TOO_MANY: i32 = 11;

/// A full disk, or a share of it that is used up.
fn no_room(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// The whole chain of an error in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl RuntimeError {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Refused(_) | Self::Ambiguous { .. } | Self::Limit { .. } => Kind::BadArgument,
            Self::NotFound { .. } | Self::NoImage(_) => Kind::NotFound,
            Self::Taken { .. } => Kind::AlreadyExists,
            Self::State { .. } | Self::InUse { .. } | Self::ImageStays { .. } => Kind::WrongState,
            Self::File { source, .. } if no_room(source) => Kind::NoRoom,
            Self::System { source, .. } if no_room(&source.clone().into()) => Kind::NoRoom,
            // The program is not in the image, or not a program: the request named it.
            Self::Start { failure, .. } | Self::Exec { failure, .. } if failure.exec => {
                Kind::BadArgument
            }
            Self::Exec { failure, .. } | Self::Attach { failure, .. }
                if failure.errno == TOO_MANY =>
            {
                Kind::NoRoom
            }
            Self::LeftBehind(_) | Self::Listeners(_) | Self::Missed => Kind::NoRoom,
            Self::System { .. }
            | Self::File { .. }
            | Self::Record { .. }
            | Self::Start { .. }
            | Self::Role { .. }
            | Self::Message { .. }
            | Self::Exec { .. }
            | Self::Attach { .. }
            | Self::Plan { .. }
            | Self::Json { .. }
            | Self::Network { .. }
            | Self::Plugin { .. }
            | Self::Lost(_) => Kind::Internal,
            Self::Image { source, .. } | Self::Pull(source) => source.kind(),
            Self::Dial { cause, .. } => cause.kind(),
            Self::RoleGone { .. } | Self::Systemd { .. } => Kind::TryAgain,
            Self::Deadline { .. } => Kind::TooSlow,
            Self::Unsupported(_) => Kind::Unsupported,
            Self::Several { causes, .. } => causes.first().map_or(Kind::Internal, Self::kind),
            Self::Shared(cause) => cause.kind(),
        }
    }

    /// Makes the adapter for `map_err` on a system call.
    pub fn system(doing: impl Into<String>) -> impl FnOnce(shim_sys::error::SysError) -> Self {
        let doing = doing.into();
        move |source| Self::System { doing, source }
    }

    /// Makes the adapter for `map_err` on something of the image side.
    pub fn image(doing: impl Into<String>) -> impl FnOnce(shim_image::error::ImageError) -> Self {
        let doing = doing.into();
        move |source| Self::Image { doing, source }
    }

    /// Makes the adapter for `map_err` on a file operation.
    pub fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }
}
