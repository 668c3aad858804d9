//! What containers and pods use, measured when somebody asks: one pass over the files of their groups and
//! of the pods' networks, on a thread for it. No lock is held meanwhile, and whoever vanishes is left out.
//! How much their writable layers hold was counted before (`disk.rs`).

pub mod detail;
pub mod disk;
pub mod groups;
pub mod network;
pub mod processes;

use crate::error::RuntimeError;
use crate::runtime::{Runtime, blocking};
use crate::store::container::Container;
use crate::store::pod::Pod;
use disk::DiskUse;
use groups::Shared;
use shim_model::cgroup::stats::{CpuSample, Stats};
use shim_model::id::SandboxId;
use shim_model::interfaces::Interface;
use shim_model::wire::Nanos;
use shim_sys::clock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one container uses.
#[derive(Debug)]
pub struct ContainerUse {
    /// Which.
    pub container: Arc<Container>,
    /// When it was measured.
    pub at: Nanos,
    /// What its group says.
    pub stats: Stats,
    /// CPU time in one second, nanoseconds; `None` until it was measured twice.
    pub cpu_rate: Option<u64>,
    /// Its writable layer, once that was counted.
    pub disk: Option<DiskUse>,
}

/// What one pod uses.
#[derive(Debug)]
pub struct PodUse {
    /// Which.
    pub pod: Arc<Pod>,
    /// When it was measured.
    pub at: Nanos,
    /// What its group says, or the sum over its containers where that group is not its alone.
    pub stats: Stats,
    /// It has a group that no other pod has.
    pub has_own_group: bool,
    /// CPU time in one second, nanoseconds.
    pub cpu_rate: Option<u64>,
    /// Its interfaces, the one that leads out first; `None` with the node's network.
    pub interfaces: Option<Vec<Interface>>,
    /// Its running containers.
    pub containers: Vec<ContainerUse>,
}

impl Runtime {
    /// Measures one container.
    pub async fn container_use(&self, id: &str) -> Result<ContainerUse, RuntimeError> {
        let container = self.container(id)?;
        let runtime = self.clone();
        blocking(move || Ok(runtime.measure(container))).await
    }

    /// Measures the running containers that are wanted.
    pub async fn containers_use(
        &self,
        wanted: impl Fn(&Container) -> bool,
    ) -> Result<Vec<ContainerUse>, RuntimeError> {
        let mut running = self.containers();
        running.retain(|container| container.is_running() && wanted(container));
        let runtime = self.clone();
        blocking(move || {
            let measured = running.into_iter().map(|container| runtime.measure(container));
            // One that ended while it was looked at has no group any more.
            Ok(measured.filter(|one| one.container.is_running()).collect())
        })
        .await
    }

    /// Measures one pod that is ready.
    pub async fn pod_use(&self, id: &str) -> Result<PodUse, RuntimeError> {
        let pod = self.sandbox(id)?;
        if !pod.is_ready() {
            return Err(pod.not_ready("be measured"));
        }
        let (id, own) = (pod.record.id.clone(), Arc::clone(&pod));
        let mut measured = self.pods_use(move |pod| pod.record.id == id).await?;
        measured.pop().ok_or_else(|| own.not_ready("be measured"))
    }

    /// Measures the ready pods that are wanted.
    pub async fn pods_use(
        &self,
        wanted: impl Fn(&Pod) -> bool,
    ) -> Result<Vec<PodUse>, RuntimeError> {
        let mut ready = self.sandboxes();
        ready.retain(|pod| pod.is_ready() && wanted(pod));
        let runtime = self.clone();
        blocking(move || Ok(runtime.measure_pods(ready))).await
    }

    pub(super) fn measure_pods(&self, pods: Vec<Arc<Pod>>) -> Vec<PodUse> {
        let shared = Shared::among(&self.0.store.pods());
        let mut running: BTreeMap<SandboxId, Vec<Arc<Container>>> = BTreeMap::new();
        for container in self.containers().into_iter().filter(|c| c.is_running()) {
            running.entry(container.record.sandbox.clone()).or_default().push(container);
        }
        let measured = pods.into_iter().map(|pod| {
            let own = running.remove(&pod.record.id).unwrap_or_default();
            self.measure_pod(pod, own, &shared)
        });
        measured.filter(|one| one.pod.is_ready()).collect()
    }

    fn measure_pod(&self, pod: Arc<Pod>, own: Vec<Arc<Container>>, shared: &Shared) -> PodUse {
        let containers = own.into_iter().map(|container| self.measure(container));
        let containers: Vec<_> = containers.filter(|one| one.container.is_running()).collect();
        let has_own_group = shared.has_its_own(&pod);
        let stats = if has_own_group {
            self.0.cgroups.stats(&pod.record.cgroup)
        } else {
            self.sum(&pod, &containers)
        };
        let cpu_rate = rate(&pod.cpu, stats.cpu_nanos);
        let interfaces = network::interfaces(&pod);
        PodUse { at: clock::now(), stats, has_own_group, cpu_rate, interfaces, containers, pod }
    }

    fn measure(&self, container: Arc<Container>) -> ContainerUse {
        let at = clock::now();
        let stats = self.0.cgroups.stats(&container.record.cgroup);
        let cpu_rate = rate(&container.cpu, stats.cpu_nanos);
        let disk = self.0.disks.of(&container.record.id);
        ContainerUse { container, at, stats, cpu_rate, disk }
    }
}

/// The rate since somebody asked before.
fn rate(known: &parking_lot::Mutex<Option<CpuSample>>, nanos: Option<u64>) -> Option<u64> {
    let now = u64::try_from(clock::monotonic().as_nanos()).ok()?;
    let mut known = known.lock();
    let sample = CpuSample::after(*known, nanos?, now);
    *known = Some(sample);
    sample.rate
}
