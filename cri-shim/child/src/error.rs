//! What can go wrong in a role. A variant says what was tried; the daemon gets it as a
//! [`Failure`] over the wire, so this file also makes one of the other.

use shim_model::kind::Kind;
use shim_model::wire::{Failure, WireError};
use shim_sys::error::{Errno, SysError};

/// A failure of zygote, monitor or child.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// A system call failed.
    #[error("{doing}")]
    System { doing: &'static str, source: SysError },
    /// A message or a journal entry has no form on the wire, or none that is known.
    #[error("{doing}")]
    Wire { doing: &'static str, source: WireError },
    /// The program's own file could not be copied.
    #[error("copy the program into memory")]
    Copy(#[source] std::io::Error),
    /// Not started as the zygote: descriptor 3 is no socket of the daemon.
    #[error("descriptor 3 is not open; this role is started by the daemon")]
    NoSocket,
}

impl ChildError {
    /// Makes the adapter for `map_err` on a system call.
    pub(crate) const fn system(doing: &'static str) -> impl FnOnce(SysError) -> Self {
        move |source| Self::System { doing, source }
    }

    /// What the caller can do about it.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::System { .. } | Self::Wire { .. } | Self::Copy(_) | Self::NoSocket => {
                Kind::Internal
            }
        }
    }
}

/// A failed step as the daemon is told: what was tried, which call failed, its errno.
pub(crate) fn failure(step: impl std::fmt::Display, error: &SysError) -> Failure {
    Failure { step: format!("{step}: {error}"), errno: error.errno() as i32, exec: false }
}

/// A refusal without a failed call.
pub(crate) fn refused(step: impl Into<String>, errno: Errno) -> Failure {
    Failure { step: step.into(), errno: errno as i32, exec: false }
}

/// Makes the adapter for `map_err` from a system call to what the daemon is told.
pub(crate) fn telling(step: &'static str) -> impl FnOnce(SysError) -> Failure {
    move |error| failure(step, &error)
}
