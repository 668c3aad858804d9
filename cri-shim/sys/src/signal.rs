//! Signal masks and dispositions, and signals as readable descriptors (`signalfd(2)`). Which signals a
//! process gets is `process.rs`.

use crate::error::SysError;
use crate::fd;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, OwnedFd};

/// Unblocks every signal. Allocates nothing.
pub fn unblock_all() -> Result<(), SysError> {
    set(SigSet::empty())
}

/// Blocks every signal that can be blocked.
pub fn block_all() -> Result<(), SysError> {
    set(SigSet::all())
}

fn set(mask: SigSet) -> Result<(), SysError> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)
        .map_err(SysError::nix("rt_sigprocmask", || "SIG_SETMASK"))
}

/// Gives every signal its default action: the Rust runtime ignores SIGPIPE, callers may ignore more,
/// and an ignored signal stays ignored over exec (signal(7)).
pub fn default_all() {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL installs no function; for SIGKILL, SIGSTOP and the two numbers that libc
        // keeps for itself the call fails, which is what we want.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// A non-blocking descriptor that is readable while SIGCHLD waits; the signal must be blocked.
pub fn child_descriptor() -> Result<OwnedFd, SysError> {
    let mut mask = SigSet::empty();
    mask.add(nix::sys::signal::Signal::SIGCHLD);
    SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(SysError::nix("signalfd4", || "SIGCHLD"))
        .and_then(|signals| fd::duplicate(signals.as_fd()))
}

/// Sleeps until SIGCHLD waits, and takes it; the signal must be blocked. May wake up without reason.
pub fn wait_for_child() {
    let mut mask = SigSet::empty();
    mask.add(nix::sys::signal::Signal::SIGCHLD);
    mask.wait().ok();
}

/// Takes what waits in such a descriptor: one signal, however many children ended.
pub fn drain(signals: impl AsFd) {
    let mut buffer = [0_u8; 128];
    fd::read(&signals, &mut buffer).ok();
}
