//! A pod's user namespace as the daemon uses it: to show mounts with the pod's ids. The monitor holds the
//! namespace and lends a descriptor, also to a daemon that was started again; the maps are in the pod's
//! record. Every mount of a tree is mapped, or the tree is refused: nothing is shown with other ids.

use crate::error::RuntimeError;
use crate::monitors::{Monitor, unexpected};
use crate::runtime::Runtime;
use crate::store::pod::Pod;
use crate::timing::Timing;
use shim_model::idmaps::UserMaps;
use shim_model::limits;
use shim_model::phases::Phase;
use shim_model::wire::{FromMonitor, ToMonitor};
use shim_sys::error::Errno;
use shim_sys::mount::{self, Change};
use std::os::fd::{AsFd, OwnedFd};

/// The namespace and what it does.
#[derive(Debug)]
pub struct Mapped {
    /// Maps as the pod's do.
    namespace: OwnedFd,
    /// The same as numbers.
    pub maps: UserMaps,
}

impl Mapped {
    /// A namespace with these maps.
    pub fn new(namespace: OwnedFd, maps: UserMaps) -> Self {
        Self { namespace, maps }
    }

    /// Shows a detached tree, with all that is mounted in it, with the pod's ids. `what` is its name for a
    /// refusal.
    pub fn show(&self, tree: impl AsFd, what: &str) -> Result<(), RuntimeError> {
        let id_map = Some(self.namespace.as_fd());
        let change = Change { id_map, recursive: true, ..Change::default() };
        mount::change(tree, change).map_err(|error| match error.errno() {
            // EINVAL: the file system cannot. EPERM: something in it is mapped already, or belongs to
            // another user namespace (mount_setattr(2)).
            Errno::EINVAL | Errno::EPERM => RuntimeError::Unsupported(format!(
                "show {what} with the ids of the pod's user namespace: a file system in it cannot map \
                 ids ({error}: {})",
                error.errno().desc()
            )),
            _ => RuntimeError::system(format!("map the ids of {what}"))(error),
        })
    }
}

impl Runtime {
    /// The pod's user namespace; `None` = the node's.
    pub(crate) async fn mapped(
        &self,
        pod: &Pod,
        monitor: &Monitor,
        timing: &Timing,
    ) -> Result<Option<Mapped>, RuntimeError> {
        let Some(maps) = pod.record.setup.user else { return Ok(None) };
        let lent = monitor.call_whole(ToMonitor::LendUserNamespace, &[], limits::MONITOR_REPLY);
        let answer = timing.during(Phase::UserNamespace, lent).await?;
        match (answer.body, answer.descriptor) {
            (FromMonitor::Done, Some(namespace)) => Ok(Some(Mapped { namespace, maps })),
            (other, _) => Err(unexpected("borrow the pod's user namespace".to_owned(), other)),
        }
    }
}
