//! Pod sandboxes: the protocol's messages to plain requests, and records back to messages.

use super::container::{resources, security};
use super::{filter, lists, verbose};
use crate::error::DaemonError;
use crate::telemetry;
use shim_model::kind::Refused;
use shim_model::sandbox::config as model;
use shim_model::sandbox::life::State;
use shim_proto::runtime_v1 as cri;
use shim_runtime::runtime::Runtime;
use shim_runtime::store::pod::{Pod, PodState};
use std::collections::BTreeMap;

/// `RunPodSandbox`.
pub(crate) async fn run(
    runtime: Runtime,
    request: cri::RunPodSandboxRequest,
) -> Result<cri::RunPodSandboxResponse, DaemonError> {
    let missing = || Refused::new("config", "nothing", "a sandbox's configuration");
    let config = config(request.config.ok_or_else(missing)?, request.runtime_handler)?;
    let begun = shim_runtime::host::now();
    let id = runtime.run_sandbox(config).await?;
    if let Ok(pod) = runtime.sandbox(id.as_str()) {
        telemetry::made("pod", &pod.state().facts.timing.made_since(begun));
    }
    Ok(cri::RunPodSandboxResponse { pod_sandbox_id: id.to_string() })
}

/// `StopPodSandbox`.
pub(crate) async fn stop(
    runtime: Runtime,
    request: cri::StopPodSandboxRequest,
) -> Result<cri::StopPodSandboxResponse, DaemonError> {
    runtime.stop_sandbox(&request.pod_sandbox_id).await?;
    Ok(cri::StopPodSandboxResponse {})
}

/// `RemovePodSandbox`.
pub(crate) async fn remove(
    runtime: Runtime,
    request: cri::RemovePodSandboxRequest,
) -> Result<cri::RemovePodSandboxResponse, DaemonError> {
    runtime.remove_sandbox(&request.pod_sandbox_id).await?;
    Ok(cri::RemovePodSandboxResponse {})
}

/// `UpdatePodSandboxResources`; comes before the kubelet writes the pod's group itself.
pub(crate) async fn update(
    runtime: Runtime,
    request: cri::UpdatePodSandboxResourcesRequest,
) -> Result<cri::UpdatePodSandboxResourcesResponse, DaemonError> {
    let overhead = request.overhead.map(resources::model);
    let resources = request.resources.map(resources::model);
    runtime.update_sandbox(&request.pod_sandbox_id, overhead, resources).await?;
    Ok(cri::UpdatePodSandboxResourcesResponse {})
}

/// `PodSandboxStatus`.
pub(crate) fn status(
    runtime: &Runtime,
    request: &cri::PodSandboxStatusRequest,
) -> Result<cri::PodSandboxStatusResponse, DaemonError> {
    Ok(shown(runtime, &*runtime.sandbox(&request.pod_sandbox_id)?, request.verbose))
}

/// `ListPodSandbox`.
pub(crate) fn list(
    runtime: &Runtime,
    request: &cri::ListPodSandboxRequest,
) -> cri::ListPodSandboxResponse {
    cri::ListPodSandboxResponse { items: listed(runtime, request.filter.clone()) }
}

/// `StreamPodSandboxes`.
pub(crate) fn stream(
    runtime: &Runtime,
    request: cri::StreamPodSandboxesRequest,
) -> Vec<cri::StreamPodSandboxesResponse> {
    let message = |pod_sandboxes| cri::StreamPodSandboxesResponse { pod_sandboxes };
    lists::parts(listed(runtime, request.filter), message)
}

fn listed(runtime: &Runtime, wanted: Option<cri::PodSandboxFilter>) -> Vec<cri::PodSandbox> {
    let wanted = wanted.unwrap_or_default();
    let pods = runtime.sandboxes();
    pods.iter().filter(|pod| passes(pod, &wanted)).map(|pod| entry(pod)).collect()
}

/// A request as plain data; unset messages are their zero values.
pub(crate) fn config(
    config: cri::PodSandboxConfig,
    handler: String,
) -> Result<model::SandboxConfig, Refused> {
    let missing = || Refused::new("config.metadata", "nothing", "name, uid and namespace");
    let metadata = config.metadata.ok_or_else(missing)?;
    let linux = config.linux.unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let id = |value: Option<cri::Int64Value>| value.map(|value| value.value);
    Ok(model::SandboxConfig {
        metadata: name(metadata),
        hostname: config.hostname,
        log_directory: config.log_directory,
        dns: config.dns_config.map(|dns| model::Dns {
            servers: dns.servers,
            searches: dns.searches,
            options: dns.options,
        }),
        ports: config.port_mappings.into_iter().enumerate().map(port).collect::<Result<_, _>>()?,
        labels: config.labels,
        annotations: config.annotations,
        cgroup_parent: linux.cgroup_parent,
        namespaces: namespaces(security.namespace_options.unwrap_or_default())?,
        sysctls: linux.sysctls,
        privileged: security.privileged,
        run_as_user: id(security.run_as_user),
        run_as_group: id(security.run_as_group),
        selinux: security.selinux_options.map(selinux),
        apparmor: profile(security.apparmor.as_ref())?,
        overhead: linux.overhead.map(resources::model),
        resources: linux.resources.map(resources::model),
        runtime_handler: handler,
        own: false,
    })
}

/// The AppArmor profile of its first process.
fn profile(found: Option<&cri::SecurityProfile>) -> Result<Option<model::Profile>, Refused> {
    found.map(|found| security::profile("apparmor", found)).transpose()
}

/// What a sandbox is called.
pub(crate) fn name(metadata: cri::PodSandboxMetadata) -> model::Metadata {
    model::Metadata {
        name: metadata.name,
        uid: metadata.uid,
        namespace: metadata.namespace,
        attempt: metadata.attempt,
    }
}

fn port((index, port): (usize, cri::PortMapping)) -> Result<model::PortMapping, Refused> {
    let protocol = match port.protocol() {
        cri::Protocol::Tcp => model::Protocol::Tcp,
        cri::Protocol::Udp => model::Protocol::Udp,
        cri::Protocol::Sctp => model::Protocol::Sctp,
    };
    if cri::Protocol::try_from(port.protocol).is_err() {
        let field = format!("config.port_mappings[{index}].protocol");
        return Err(Refused::new(field, port.protocol.to_string(), "TCP, UDP or SCTP"));
    }
    Ok(model::PortMapping {
        protocol,
        container_port: port.container_port,
        host_port: port.host_port,
        host_ip: port.host_ip,
    })
}

/// Namespace options of a pod or container.
pub(crate) fn namespaces(options: cri::NamespaceOption) -> Result<model::Namespaces, Refused> {
    let user = options.userns_options.map(|user| -> Result<_, Refused> {
        Ok(model::UserNamespace {
            mode: mode("userns_options.mode", user.mode)?,
            uids: ids(&user.uids),
            gids: ids(&user.gids),
        })
    });
    Ok(model::Namespaces {
        network: mode("network", options.network)?,
        pid: mode("pid", options.pid)?,
        ipc: mode("ipc", options.ipc)?,
        target_id: options.target_id,
        user: user.transpose()?,
    })
}

/// Lines of an id map.
pub(crate) fn ids(maps: &[cri::IdMapping]) -> Vec<model::IdMapping> {
    maps.iter()
        .map(|map| model::IdMapping {
            host_id: map.host_id,
            container_id: map.container_id,
            length: map.length,
        })
        .collect()
}

fn mode(field: &str, number: i32) -> Result<model::NamespaceMode, Refused> {
    match cri::NamespaceMode::try_from(number) {
        Ok(cri::NamespaceMode::Pod) => Ok(model::NamespaceMode::Pod),
        Ok(cri::NamespaceMode::Container) => Ok(model::NamespaceMode::Container),
        Ok(cri::NamespaceMode::Node) => Ok(model::NamespaceMode::Node),
        Ok(cri::NamespaceMode::Target) => Ok(model::NamespaceMode::Target),
        Err(_) => {
            let field = format!("config.linux.security_context.namespace_options.{field}");
            Err(Refused::new(field, number.to_string(), "POD, CONTAINER, NODE or TARGET"))
        }
    }
}

/// A label's parts.
pub(crate) fn selinux(options: cri::SeLinuxOption) -> model::Selinux {
    model::Selinux {
        user: options.user,
        role: options.role,
        kind: options.r#type,
        level: options.level,
    }
}

fn metadata(pod: &Pod) -> cri::PodSandboxMetadata {
    let known = &pod.record.config.metadata;
    cri::PodSandboxMetadata {
        name: known.name.clone(),
        uid: known.uid.clone(),
        namespace: known.namespace.clone(),
        attempt: known.attempt,
    }
}

/// Name and labels of a pod, for statistics.
pub(crate) fn attributes(pod: &Pod) -> cri::PodSandboxAttributes {
    cri::PodSandboxAttributes {
        id: pod.record.id.to_string(),
        metadata: Some(metadata(pod)),
        labels: pod.record.config.labels.clone(),
        annotations: pod.record.config.annotations.clone(),
    }
}

fn state(now: &PodState) -> cri::PodSandboxState {
    match now.life {
        State::Ready { .. } => cri::PodSandboxState::SandboxReady,
        State::Starting {} | State::NotReady { .. } => cri::PodSandboxState::SandboxNotready,
    }
}

/// A pod as an entry of a list.
pub(crate) fn entry(pod: &Pod) -> cri::PodSandbox {
    cri::PodSandbox {
        id: pod.record.id.to_string(),
        metadata: Some(metadata(pod)),
        state: state(&pod.state()).into(),
        created_at: pod.record.created_at,
        labels: pod.record.config.labels.clone(),
        annotations: pod.record.config.annotations.clone(),
        runtime_handler: pod.record.config.runtime_handler.clone(),
    }
}

/// True if a pod passes a filter.
pub(crate) fn passes(pod: &Pod, wanted: &cri::PodSandboxFilter) -> bool {
    filter::id(&wanted.id, pod.record.id.as_str())
        && filter::state(wanted.state.map(|wanted| wanted.state), state(&pod.state()).into())
        && filter::labels(&wanted.label_selector, &pod.record.config.labels)
}

/// The status of a pod; namespace options exactly as they were asked for.
pub(crate) fn status_of(pod: &Pod, now: &PodState) -> cri::PodSandboxStatus {
    let known = &pod.record.config;
    let mut ips = now.facts.ips.iter().map(ToString::to_string);
    let ip = ips.next().unwrap_or_default();
    let options = options(&known.namespaces);
    cri::PodSandboxStatus {
        id: pod.record.id.to_string(),
        metadata: Some(metadata(pod)),
        state: state(now).into(),
        created_at: pod.record.created_at,
        network: Some(cri::PodSandboxNetworkStatus {
            ip,
            additional_ips: ips.map(|ip| cri::PodIp { ip }).collect(),
        }),
        linux: Some(cri::LinuxPodSandboxStatus {
            namespaces: Some(cri::Namespace { options: Some(options) }),
        }),
        labels: known.labels.clone(),
        annotations: known.annotations.clone(),
        runtime_handler: known.runtime_handler.clone(),
    }
}

fn shown(runtime: &Runtime, pod: &Pod, is_verbose: bool) -> cri::PodSandboxStatusResponse {
    let status = status_of(pod, &pod.state());
    let info = if is_verbose { verbose::pod(runtime, pod) } else { BTreeMap::new() };
    cri::PodSandboxStatusResponse {
        status: Some(status),
        info,
        containers_statuses: Vec::new(),
        timestamp: 0,
    }
}

fn options(known: &model::Namespaces) -> cri::NamespaceOption {
    let number = |mode: model::NamespaceMode| -> i32 {
        match mode {
            model::NamespaceMode::Pod => cri::NamespaceMode::Pod,
            model::NamespaceMode::Container => cri::NamespaceMode::Container,
            model::NamespaceMode::Node => cri::NamespaceMode::Node,
            model::NamespaceMode::Target => cri::NamespaceMode::Target,
        }
        .into()
    };
    let maps = |maps: &[model::IdMapping]| -> Vec<cri::IdMapping> {
        maps.iter()
            .map(|map| cri::IdMapping {
                host_id: map.host_id,
                container_id: map.container_id,
                length: map.length,
            })
            .collect()
    };
    cri::NamespaceOption {
        network: number(known.network),
        pid: number(known.pid),
        ipc: number(known.ipc),
        target_id: known.target_id.clone(),
        userns_options: known.user.as_ref().map(|user| cri::UserNamespace {
            mode: number(user.mode),
            uids: maps(&user.uids),
            gids: maps(&user.gids),
        }),
    }
}
