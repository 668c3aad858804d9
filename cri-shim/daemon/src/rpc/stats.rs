//! Statistics as messages (`cri-contract.md` §3.3): one value is one field, what the kernel does not say
//! stays unset. What is measured, and when, is the runtime's business.

use super::container::status as container_rpc;
use super::{filter, lists, sandbox};
use crate::error::DaemonError;
use shim_model::cgroup::stats::{Pressure, Stall, Stats};
use shim_model::interfaces::Interface;
use shim_proto::runtime_v1 as cri;
use shim_runtime::runtime::Runtime;
use shim_runtime::stats::disk::DiskUse;
use shim_runtime::stats::{ContainerUse, PodUse};
use shim_runtime::store::container::Container;
use shim_runtime::store::pod::Pod;

/// `ContainerStats`.
pub(crate) async fn one(
    runtime: Runtime,
    request: cri::ContainerStatsRequest,
) -> Result<cri::ContainerStatsResponse, DaemonError> {
    let found = runtime.container_use(&request.container_id).await?;
    Ok(cri::ContainerStatsResponse { stats: Some(container(&runtime, &found)) })
}

/// `ListContainerStats`: those that run.
pub(crate) async fn list(
    runtime: Runtime,
    request: cri::ListContainerStatsRequest,
) -> Result<cri::ListContainerStatsResponse, DaemonError> {
    Ok(cri::ListContainerStatsResponse { stats: listed(&runtime, request.filter).await? })
}

/// `StreamContainerStats`.
pub(crate) async fn stream(
    runtime: Runtime,
    request: cri::StreamContainerStatsRequest,
) -> Result<Vec<cri::StreamContainerStatsResponse>, DaemonError> {
    let message = |container_stats| cri::StreamContainerStatsResponse { container_stats };
    Ok(lists::parts(listed(&runtime, request.filter).await?, message))
}

async fn listed(
    runtime: &Runtime,
    wanted: Option<cri::ContainerStatsFilter>,
) -> Result<Vec<cri::ContainerStats>, DaemonError> {
    let wanted = wanted.unwrap_or_default();
    let measured = runtime.containers_use(|container| passes(container, &wanted)).await?;
    Ok(measured.iter().map(|found| container(runtime, found)).collect())
}

/// `PodSandboxStats`; an unknown or empty id is not found, never unimplemented (`cri-contract.md` §3.4).
pub(crate) async fn one_pod(
    runtime: Runtime,
    request: cri::PodSandboxStatsRequest,
) -> Result<cri::PodSandboxStatsResponse, DaemonError> {
    let found = runtime.pod_use(&request.pod_sandbox_id).await?;
    Ok(cri::PodSandboxStatsResponse { stats: Some(pod(&runtime, &found)) })
}

/// `ListPodSandboxStats`: those that are ready.
pub(crate) async fn list_pods(
    runtime: Runtime,
    request: cri::ListPodSandboxStatsRequest,
) -> Result<cri::ListPodSandboxStatsResponse, DaemonError> {
    Ok(cri::ListPodSandboxStatsResponse { stats: listed_pods(&runtime, request.filter).await? })
}

/// `StreamPodSandboxStats`.
pub(crate) async fn stream_pods(
    runtime: Runtime,
    request: cri::StreamPodSandboxStatsRequest,
) -> Result<Vec<cri::StreamPodSandboxStatsResponse>, DaemonError> {
    let message = |pod_sandbox_stats| cri::StreamPodSandboxStatsResponse { pod_sandbox_stats };
    Ok(lists::parts(listed_pods(&runtime, request.filter).await?, message))
}

async fn listed_pods(
    runtime: &Runtime,
    wanted: Option<cri::PodSandboxStatsFilter>,
) -> Result<Vec<cri::PodSandboxStats>, DaemonError> {
    let wanted = wanted.unwrap_or_default();
    let measured = runtime.pods_use(|pod| pod_passes(pod, &wanted)).await?;
    Ok(measured.iter().map(|found| pod(runtime, found)).collect())
}

/// True if a container passes a filter of statistics.
fn passes(container: &Container, wanted: &cri::ContainerStatsFilter) -> bool {
    filter::id(&wanted.id, container.record.id.as_str())
        && filter::id(&wanted.pod_sandbox_id, container.record.sandbox.as_str())
        && filter::labels(&wanted.label_selector, &container.record.config.labels)
}

/// True if a pod passes a filter of statistics.
fn pod_passes(pod: &Pod, wanted: &cri::PodSandboxStatsFilter) -> bool {
    filter::id(&wanted.id, pod.record.id.as_str())
        && filter::labels(&wanted.label_selector, &pod.record.config.labels)
}

/// What one container uses.
fn container(runtime: &Runtime, found: &ContainerUse) -> cri::ContainerStats {
    let (at, stats) = (found.at, &found.stats);
    cri::ContainerStats {
        attributes: Some(container_rpc::attributes(&found.container)),
        cpu: Some(cpu(stats, found.cpu_rate, at)),
        memory: Some(memory(stats, at)),
        writable_layer: found.disk.map(|disk| writable(runtime, disk)),
        swap: Some(cri::SwapUsage {
            timestamp: at,
            swap_available_bytes: value(stats.swap_available()),
            swap_usage_bytes: value(stats.swap),
        }),
        io: io(stats, at),
    }
}

/// What one pod uses.
fn pod(runtime: &Runtime, found: &PodUse) -> cri::PodSandboxStats {
    let (at, stats) = (found.at, &found.stats);
    let process = cri::ProcessUsage { timestamp: at, process_count: value(stats.tasks) };
    cri::PodSandboxStats {
        attributes: Some(sandbox::attributes(&found.pod)),
        linux: Some(cri::LinuxPodSandboxStats {
            cpu: Some(cpu(stats, found.cpu_rate, at)),
            memory: Some(memory(stats, at)),
            network: found.interfaces.as_deref().map(|found| network(found, at)),
            process: Some(process),
            containers: found.containers.iter().map(|one| container(runtime, one)).collect(),
            io: io(stats, at),
        }),
        windows: None,
    }
}

fn value(value: Option<u64>) -> Option<cri::UInt64Value> {
    value.map(|value| cri::UInt64Value { value })
}

fn cpu(stats: &Stats, rate: Option<u64>, at: i64) -> cri::CpuUsage {
    cri::CpuUsage {
        timestamp: at,
        usage_core_nano_seconds: value(stats.cpu_nanos),
        usage_nano_cores: value(rate),
        psi: stats.cpu_pressure.map(pressure),
    }
}

fn memory(stats: &Stats, at: i64) -> cri::MemoryUsage {
    cri::MemoryUsage {
        timestamp: at,
        working_set_bytes: value(stats.working_set()),
        available_bytes: value(stats.available()),
        usage_bytes: value(stats.memory),
        rss_bytes: value(stats.anonymous),
        page_faults: value(stats.faults),
        major_page_faults: value(stats.major_faults),
        psi: stats.memory_pressure.map(pressure),
    }
}

/// Nothing but pressure is told of disks; without it there is nothing to tell.
fn io(stats: &Stats, at: i64) -> Option<cri::IoUsage> {
    stats.io_pressure.map(|found| cri::IoUsage { timestamp: at, psi: Some(pressure(found)) })
}

fn pressure(found: Pressure) -> cri::PsiStats {
    let stall = |stall: Stall| cri::PsiData {
        total: stall.total_nanos,
        avg10: f64::from(stall.avg10) / 100.0,
        avg60: f64::from(stall.avg60) / 100.0,
        avg300: f64::from(stall.avg300) / 100.0,
    };
    cri::PsiStats { full: Some(stall(found.full)), some: Some(stall(found.some)) }
}

/// All writable layers are on the root's file system.
fn writable(runtime: &Runtime, disk: DiskUse) -> cri::FilesystemUsage {
    let mountpoint = runtime.config().root.to_string_lossy().into_owned();
    cri::FilesystemUsage {
        timestamp: disk.at,
        fs_id: Some(cri::FilesystemIdentifier { mountpoint }),
        used_bytes: value(Some(disk.bytes)),
        inodes_used: value(Some(disk.inodes)),
    }
}

/// The first leads out; it is not among the others.
fn network(found: &[Interface], at: i64) -> cri::NetworkUsage {
    let interface = |found: &Interface| cri::NetworkInterfaceUsage {
        name: found.name.clone(),
        rx_bytes: value(Some(found.received.bytes)),
        rx_errors: value(Some(found.received.errors)),
        tx_bytes: value(Some(found.sent.bytes)),
        tx_errors: value(Some(found.sent.errors)),
    };
    let mut all = found.iter().map(interface);
    cri::NetworkUsage { timestamp: at, default_interface: all.next(), interfaces: all.collect() }
}
