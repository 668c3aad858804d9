//! Whose group is whose. A kubelet makes a group for each pod, and that one says what the pod uses. A pod
//! that named no group, or the same as another pod, has none of its own: there the sum over its parts is
//! taken.

use super::ContainerUse;
use crate::runtime::Runtime;
use crate::sandbox::run::pod_init_group;
use crate::store::pod::Pod;
use shim_model::cgroup::driver::{DEFAULT_PARENT, GroupPath};
use shim_model::cgroup::stats::Stats;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many pods have each group.
#[derive(Debug)]
pub(super) struct Shared(BTreeMap<GroupPath, usize>);

impl Shared {
    pub(super) fn among(pods: &[Arc<Pod>]) -> Self {
        let mut counts = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !pod.state().facts.torn_down) {
            let count: &mut usize = counts.entry(pod.record.cgroup.clone()).or_default();
            *count = count.saturating_add(1);
        }
        Self(counts)
    }

    pub(super) fn has_its_own(&self, pod: &Pod) -> bool {
        let group = &pod.record.cgroup;
        group.as_str() != DEFAULT_PARENT && self.0.get(group).is_none_or(|count| *count <= 1)
    }
}

impl Runtime {
    /// All parts of a pod together: its containers and its first process.
    pub(super) fn sum(&self, pod: &Pod, containers: &[ContainerUse]) -> Stats {
        let init = pod.record.setup.pod_init.then(|| self.0.cgroups.stats(&pod_init_group(pod)));
        containers.iter().map(|one| one.stats).chain(init).fold(Stats::nothing(), Stats::plus)
    }
}
