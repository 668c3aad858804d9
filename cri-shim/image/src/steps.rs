//! When the steps of a pull began and how long they took: the daemon times the waiting, the worker its work.
//! Reads clocks, decides nothing.

use shim_model::phases::{Phase, Step};
use shim_model::wire::Nanos;
use shim_sys::clock;
use std::time::Duration;

/// A moment, on the clock that people read and on the one that never goes back.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    wall: Nanos,
    since_boot: Duration,
}

impl Moment {
    /// This one.
    pub fn now() -> Self {
        Self { wall: clock::now(), since_boot: clock::monotonic() }
    }

    /// A step that began then ends now.
    pub fn step(self, phase: Phase) -> Step {
        self.until(clock::monotonic(), phase)
    }

    /// A step that began then ended at this time of the clock that never goes back, which is the same in
    /// every process.
    pub fn until(self, end: Duration, phase: Phase) -> Step {
        let took = end.saturating_sub(self.since_boot);
        Step { phase, begin: self.wall, took: u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) }
    }
}
