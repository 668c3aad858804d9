//! The terminal that this program was started in, for the command line, which has no hands of its own: its
//! size, and raw mode while a session with a terminal is on it. Knows nothing of pods.

use crate::error::RuntimeError;
use shim_sys::tty;
use std::os::fd::AsFd;

/// The terminal is raw; dropped, it is as it was.
#[derive(Debug)]
pub struct Raw(#[expect(dead_code, reason = "it is held for its end")] tty::Raw);

impl Raw {
    /// From now on every key is passed on, none is echoed and none makes a signal.
    pub fn begin(terminal: impl AsFd) -> Result<Self, RuntimeError> {
        tty::Raw::begin(terminal).map(Self).map_err(RuntimeError::system("make the terminal raw"))
    }
}

/// Columns and rows; `None` = no terminal.
pub fn size(terminal: impl AsFd) -> Option<(u16, u16)> {
    tty::size(terminal).ok().map(|size| (size.columns, size.rows))
}
