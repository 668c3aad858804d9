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

    /// Makes the adapter for `map_err` on a call through rustix; the target is only told on failure.
    pub(crate) fn rustix<T: Into<String>>(
        call: &'static str,
        target: impl FnOnce() -> T,
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| {
            // A non-blocking call with nothing to do is no failure to be described: naming the target
            // would cost more than the call.
            let target =
                if errno == rustix::io::Errno::AGAIN { String::new() } else { target().into() };
            Self::new(call, target, Errno::from_raw(errno.raw_os_error()))
        }
    }

    /// Makes the adapter for `map_err` on a call through nix; the target is only told on failure.
    pub(crate) fn nix<T: Into<String>>(
        call: &'static str,
        target: impl FnOnce() -> T,
    ) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::new(call, target(), errno)
    }

    /// True if a non-blocking call had nothing to do (`EAGAIN`).
    pub fn would_block(&self) -> bool {
        self.source == Errno::EAGAIN
    }

    /// True if the object was not there (`ENOENT`).
    pub fn is_missing(&self) -> bool {
        self.source == Errno::ENOENT
    }
}

impl From<SysError> for std::io::Error {
    /// Keeps the errno, so that an async runtime recognises [`std::io::ErrorKind::WouldBlock`].
    fn from(error: SysError) -> Self {
        Self::from(error.source)
    }
}
