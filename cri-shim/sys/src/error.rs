//! The one error of this crate: which system call failed, on what, and how. Its text is the call as
//! strace(1) prints it; the errno is the source. It decides nothing: callers look at [`SysError::errno`].

pub use nix::errno::Errno;

/// A failed system call.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{call}({target})")]
pub struct SysError {
    /// Name of the call, as in its manual page.
    pub call: &'static str,
    /// What it was done to: path, descriptor's path, id.
    pub target: String,
    /// The kernel's answer.
    pub source: Errno,
}

impl SysError {
    /// A failed `call` on `target`.
    pub fn new(call: &'static str, target: impl Into<String>, errno: Errno) -> Self {
        Self { call, target: target.into(), source: errno }
    }

    /// A failed `call` on `target`, with the errno of the calling thread.
    pub fn last(call: &'static str, target: impl Into<String>) -> Self {
        Self::new(call, target, Errno::last())
    }

    /// The kernel's answer.
    pub const fn errno(&self) -> Errno {
        self.source
    }

    /// True if the object was not there (`ENOENT`).
    pub fn is_missing(&self) -> bool {
        self.source == Errno::ENOENT
    }
}
