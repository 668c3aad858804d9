//! How much writable layers hold. They are counted in the background, one after the other, so that no
//! request ever waits for a disk: now and then, soon after somebody asked, and the more seldom the more
//! files there are. A new one is known to be empty. What a container that ended left behind is counted once
//! more and then known.

use crate::error::RuntimeError;
use crate::runtime::{Inner, Runtime, blocking};
use crate::store::container::Container;
use parking_lot::Mutex;
use shim_model::container::life::State;
use shim_model::id::ContainerId;
use shim_model::limits;
use shim_model::wire::Nanos;
use shim_sys::clock;
use std::collections::{BTreeMap, BTreeSet};
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
    /// Bytes and inodes of images.
    pub images: (u64, u64),
    /// Bytes and inodes of all writable layers.
    pub containers: (u64, u64),
}

type Known = BTreeMap<ContainerId, DiskUse>;

/// The last count of every writable layer.
#[derive(Debug, Default)]
pub struct Disks {
    known: Mutex<Known>,
    /// Somebody asked.
    asked: Notify,
}

impl Disks {
    /// What a container's layer held when it was counted last.
    pub fn of(&self, id: &ContainerId) -> Option<DiskUse> {
        self.asked.notify_one();
        self.known.lock().get(id).copied()
    }

    /// A layer that was just made. Its container is in the store already.
    pub(crate) fn begin(&self, id: ContainerId) {
        let empty = DiskUse { at: clock::now(), ..DiskUse::default() };
        self.known.lock().insert(id, empty);
    }
}

impl Runtime {
    /// What images and writable layers hold. A few small files of images are looked at for it.
    pub async fn fs_use(&self) -> Result<FsUse, RuntimeError> {
        let (disks, images) = (&self.0.disks, self.images().clone());
        disks.asked.notify_one();
        let images = blocking(move || Ok(images.usage())).await?;
        let mut sum = FsUse { at: 0, images, containers: (0, 0) };
        for one in disks.known.lock().values() {
            sum.at = sum.at.max(one.at);
            sum.containers.0 = sum.containers.0.saturating_add(one.bytes);
            sum.containers.1 = sum.containers.1.saturating_add(one.inodes);
        }
        if sum.at == 0 {
            sum.at = clock::now();
        }
        Ok(sum)
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
                let least = limits::USAGE_SOONEST.max(begun.elapsed() * limits::USAGE_SHARE);
                tokio::time::sleep(least).await;
                let more = limits::USAGE_EVERY.saturating_sub(least);
                drop(tokio::time::timeout(more, disks.asked.notified()).await);
            }
        });
    }
}

fn count(inner: &Inner) {
    let before = inner.disks.known.lock().clone();
    let mut counted = Known::new();
    for container in inner.store.containers() {
        let id = &container.record.id;
        if !before.get(id).is_some_and(|known| is_final(&container, known)) {
            let (bytes, inodes) = inner.images.writable().usage(id);
            counted.insert(id.clone(), DiskUse { at: clock::now(), bytes, inodes });
        }
    }
    let mut known = inner.disks.known.lock();
    known.extend(counted);
    let there = inner.store.containers();
    let there: BTreeSet<&ContainerId> = there.iter().map(|one| &one.record.id).collect();
    known.retain(|id, _| there.contains(id));
}

/// Nothing writes there any more since it was counted.
fn is_final(container: &Container, known: &DiskUse) -> bool {
    match container.state().life {
        State::Exited { finished, .. } => known.at > finished,
        State::Creating {} | State::Created {} | State::Running { .. } => false,
    }
}
