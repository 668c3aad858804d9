//! Statistics as messages. Relies on the runtime for one pass over each cgroup's files; keeps no history
//! and takes no lock that a write holds.

use super::container::status as container_rpc;
use super::{filter, sandbox, stream};
use crate::error::DaemonError;
use shim_model::cgroup::stats::Stats;
use shim_proto::runtime_v1 as cri;
use shim_runtime::host;
use shim_runtime::runtime::Runtime;
use shim_runtime::store::container::Container;
use shim_runtime::store::pod::Pod;

/// `ContainerStats`.
pub(crate) fn one(
    runtime: &Runtime,
    request: &cri::ContainerStatsRequest,
) -> Result<cri::ContainerStatsResponse, DaemonError> {
    let found = runtime.container(&request.container_id)?;
    Ok(cri::ContainerStatsResponse { stats: Some(container(runtime, &found, host::now())) })
}

/// `ListContainerStats`: those that run.
pub(crate) fn list(
    runtime: &Runtime,
    request: &cri::ListContainerStatsRequest,
) -> cri::ListContainerStatsResponse {
    cri::ListContainerStatsResponse { stats: listed(runtime, request.filter.clone()) }
}

/// `StreamContainerStats`.
pub(crate) fn stream(
    runtime: &Runtime,
    request: cri::StreamContainerStatsRequest,
) -> Vec<cri::StreamContainerStatsResponse> {
    let message = |container_stats| cri::StreamContainerStatsResponse { container_stats };
    stream::parts(listed(runtime, request.filter), message)
}

fn listed(
    runtime: &Runtime,
    wanted: Option<cri::ContainerStatsFilter>,
) -> Vec<cri::ContainerStats> {
    let wanted = wanted.unwrap_or_default();
    let all = runtime.containers();
    let running = all.iter().filter(|c| c.is_running() && passes(c, &wanted));
    let now = host::now();
    running.map(|c| container(runtime, c, now)).collect()
}

/// `PodSandboxStats`; an unknown or empty id is not found, never unimplemented (`cri-contract.md` §3.4).
pub(crate) fn one_pod(
    runtime: &Runtime,
    request: &cri::PodSandboxStatsRequest,
) -> Result<cri::PodSandboxStatsResponse, DaemonError> {
    let found = runtime.sandbox(&request.pod_sandbox_id)?;
    if !found.is_ready() {
        return Err(found.not_ready("be measured").into());
    }
    Ok(cri::PodSandboxStatsResponse { stats: Some(pod(runtime, &found, host::now())) })
}

/// `ListPodSandboxStats`: those that are ready.
pub(crate) fn list_pods(
    runtime: &Runtime,
    request: &cri::ListPodSandboxStatsRequest,
) -> cri::ListPodSandboxStatsResponse {
    cri::ListPodSandboxStatsResponse { stats: listed_pods(runtime, request.filter.clone()) }
}

/// `StreamPodSandboxStats`.
pub(crate) fn stream_pods(
    runtime: &Runtime,
    request: cri::StreamPodSandboxStatsRequest,
) -> Vec<cri::StreamPodSandboxStatsResponse> {
    let message = |pod_sandbox_stats| cri::StreamPodSandboxStatsResponse { pod_sandbox_stats };
    stream::parts(listed_pods(runtime, request.filter), message)
}

fn listed_pods(
    runtime: &Runtime,
    wanted: Option<cri::PodSandboxStatsFilter>,
) -> Vec<cri::PodSandboxStats> {
    let wanted = wanted.unwrap_or_default();
    let all = runtime.sandboxes();
    let ready = all.iter().filter(|pod| pod.is_ready() && pod_passes(pod, &wanted));
    let now = host::now();
    ready.map(|p| pod(runtime, p, now)).collect()
}

fn value(value: Option<u64>) -> Option<cri::UInt64Value> {
    value.map(|value| cri::UInt64Value { value })
}

fn cpu(stats: &Stats, now: i64) -> cri::CpuUsage {
    cri::CpuUsage {
        timestamp: now,
        usage_core_nano_seconds: value(stats.cpu_nanos),
        usage_nano_cores: None,
        psi: None,
    }
}

fn memory(stats: &Stats, now: i64) -> cri::MemoryUsage {
    cri::MemoryUsage {
        timestamp: now,
        working_set_bytes: value(stats.working_set()),
        available_bytes: value(stats.available()),
        usage_bytes: value(stats.memory),
        rss_bytes: value(stats.anonymous),
        page_faults: value(stats.faults),
        major_page_faults: value(stats.major_faults),
        psi: None,
    }
}

/// What one container uses.
fn container(runtime: &Runtime, container: &Container, now: i64) -> cri::ContainerStats {
    let stats = runtime.stats(container);
    cri::ContainerStats {
        attributes: Some(container_rpc::attributes(container)),
        cpu: Some(cpu(&stats, now)),
        memory: Some(memory(&stats, now)),
        writable_layer: None,
        swap: Some(cri::SwapUsage {
            timestamp: now,
            swap_available_bytes: None,
            swap_usage_bytes: value(stats.swap),
        }),
        io: None,
    }
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

/// What one pod uses: the sum over its running containers.
fn pod(runtime: &Runtime, pod: &Pod, now: i64) -> cri::PodSandboxStats {
    let own: Vec<_> = runtime
        .containers()
        .into_iter()
        .filter(|c| c.record.sandbox == pod.record.id && c.is_running())
        .collect();
    let mut sum = Stats::default();
    for stats in own.iter().map(|container| runtime.stats(container)) {
        let add = |sum: &mut Option<u64>, more: Option<u64>| {
            if let Some(more) = more {
                *sum = Some(sum.unwrap_or_default().saturating_add(more));
            }
        };
        add(&mut sum.cpu_nanos, stats.cpu_nanos);
        add(&mut sum.memory, stats.memory);
        add(&mut sum.inactive_file, stats.inactive_file);
        add(&mut sum.anonymous, stats.anonymous);
        add(&mut sum.faults, stats.faults);
        add(&mut sum.major_faults, stats.major_faults);
        add(&mut sum.tasks, stats.tasks);
    }
    let process = cri::ProcessUsage { timestamp: now, process_count: value(sum.tasks) };
    cri::PodSandboxStats {
        attributes: Some(sandbox::attributes(pod)),
        linux: Some(cri::LinuxPodSandboxStats {
            cpu: Some(cpu(&sum, now)),
            memory: Some(memory(&sum, now)),
            network: None,
            process: Some(process),
            containers: own.iter().map(|c| container(runtime, c, now)).collect(),
            io: None,
        }),
        windows: None,
    }
}
