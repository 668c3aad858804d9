//! How much writable layers hold. They are counted in the background, one after the other, so that no
//! request ever waits for a disk; the more files there are, the more seldom. What a container that ended
//! left behind is counted once more and then known.

use crate::runtime::{Inner, Runtime, blocking};
use crate::store::container::Container;
use parking_lot::Mutex;
use shim_model::container::life::State;
use shim_model::id::ContainerId;
use shim_model::limits;
use shim_model::wire::Nanos;
use shim_sys::clock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Notify;

/// What one writable layer held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// When it was counted.
    pub at: Nanos,
    /// Bytes on disk.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

/// What layers and writable layers hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsUse {
    /// When.
    pub at: Nanos,
    /// Bytes and inodes of all layers of images.
    pub images: (u64, u64),
    /// Bytes and inodes of all writable layers.
    pub containers: (u64, u64),
}

type Known = BTreeMap<ContainerId, DiskUse>;

/// The last count of every writable layer.
#[derive(Debug, Default)]
pub struct Disks {
    known: Mutex<Arc<Known>>,
    /// Somebody asked for a layer that was never counted.
    asked: Notify,
}

impl Disks {
    /// What a container's layer held when it was counted last.
    pub fn of(&self, id: &ContainerId) -> Option<DiskUse> {
        let found = self.known.lock().get(id).copied();
        if found.is_none() {
            self.asked.notify_one();
        }
        found
    }

    fn all(&self) -> Arc<Known> {
        Arc::clone(&self.known.lock())
    }
}

impl Runtime {
    /// What layers and writable layers hold. Nothing is read for it.
    pub fn fs_use(&self) -> FsUse {
        let known = self.0.disks.all();
        let at = known.values().map(|one| one.at).max().unwrap_or_else(clock::now);
        let containers = known.values().fold((0_u64, 0_u64), |sum, one| {
            (sum.0.saturating_add(one.bytes), sum.1.saturating_add(one.inodes))
        });
        FsUse { at, images: self.images().layer_usage(), containers }
    }

    /// Counts writable layers again and again, as long as there is a runtime.
    pub(crate) fn count_disks(&self) {
        let (weak, disks) = (Arc::downgrade(&self.0), Arc::clone(&self.0.disks));
        tokio::spawn(async move {
            while let Some(inner) = weak.upgrade() {
                let begun = Instant::now();
                let _the_next_round_tries_again = blocking(move || {
                    count(&inner);
                    Ok(())
                })
                .await;
                let least = begun.elapsed() * limits::USAGE_SHARE;
                tokio::time::sleep(least).await;
                let more = limits::USAGE_EVERY.saturating_sub(least);
                drop(tokio::time::timeout(more, disks.asked.notified()).await);
            }
        });
    }
}

fn count(inner: &Inner) {
    let before = inner.disks.all();
    let mut now = Known::new();
    for container in inner.store.containers() {
        let id = &container.record.id;
        let known = before.get(id).filter(|known| is_final(&container, known));
        let found = known.copied().unwrap_or_else(|| {
            let (bytes, inodes) = inner.images.writable().usage(id);
            DiskUse { at: clock::now(), bytes, inodes }
        });
        now.insert(id.clone(), found);
    }
    *inner.disks.known.lock() = Arc::new(now);
}

/// Nothing writes there any more since it was counted.
fn is_final(container: &Container, known: &DiskUse) -> bool {
    match container.state().life {
        State::Exited { finished, .. } => known.at > finished,
        State::Creating {} | State::Created {} | State::Running { .. } => false,
    }
}
