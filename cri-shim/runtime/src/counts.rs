//! What the runtime counted since it was started: everything that its metrics are made of, as one type.
//! Whoever shows them reads them; nothing is decided by them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub(crate) fn more(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// How much it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Counts {
    /// Pulls that brought an image.
    pub pulls: Count,
    /// Pulls that did not.
    pub pulls_failed: Count,
    /// Containers that were started.
    pub starts: Count,
    /// Containers that ended.
    pub ends: Count,
    /// Those that memory ran out for.
    pub out_of_memory: Count,
    /// Bytes of output that no log could take.
    pub log_lost: Count,
    /// Monitors that died with their pods still there.
    pub monitors_lost: Count,
}
