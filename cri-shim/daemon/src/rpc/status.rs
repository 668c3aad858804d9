//! Failure to gRPC code: the one place. Text is the whole chain; credentials never stand in it, because
//! no error of ours holds any.

use shim_image::error::ImageError;
use shim_model::kind::{Kind, Refused};
use shim_runtime::error::{RuntimeError, chain};
use tonic::{Code, Status};

/// What the clients act on (`cri-contract.md` 0.13).
const fn code(kind: Kind) -> Code {
    match kind {
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::BadArgument => Code::InvalidArgument,
        Kind::WrongState => Code::FailedPrecondition,
        Kind::TryAgain => Code::Unavailable,
        Kind::TooSlow => Code::DeadlineExceeded,
        Kind::NoRoom => Code::ResourceExhausted,
        Kind::Unsupported | Kind::Internal => Code::Unknown,
    }
}

/// The status of a failure.
pub(crate) fn of(error: &RuntimeError) -> Status {
    Status::new(code(error.kind()), chain(error))
}

/// The status of a failed pull. Always UNKNOWN where the text begins with a word that kubelets know:
/// they see such words only with this code.
pub(crate) fn of_pull(error: &ImageError) -> Status {
    let text = error.chain();
    match error.kind() {
        Kind::TryAgain => Status::new(Code::Unknown, text),
        kind => Status::new(code(kind), text),
    }
}

/// The status of a refused field.
pub(crate) fn refused(error: &Refused) -> Status {
    Status::new(Code::InvalidArgument, error.to_string())
}

/// An RPC that is not built, with a sentence.
pub(crate) fn not_built(sentence: &str) -> Status {
    Status::new(Code::Unimplemented, sentence)
}

/// A task of ours that ended without an answer: a bug, told as such.
pub(crate) fn panicked(method: &str) -> Status {
    Status::new(
        Code::Internal,
        format!("{method} ended in a bug of the runtime; its log tells more"),
    )
}
