//! The verbs of containers: convert, call the runtime, convert back. What a request may hold is decided
//! by the model; what a verb does, by the runtime.

use super::{config, resources, status};
use crate::error::DaemonError;
use crate::rpc::{lists, verbose};
use crate::telemetry;
use shim_model::kind::Refused;
use shim_proto::runtime_v1 as cri;
use shim_runtime::runtime::Runtime;
use std::collections::BTreeMap;
use std::time::Duration;

/// `CreateContainer`.
pub(crate) async fn create(
    runtime: Runtime,
    request: cri::CreateContainerRequest,
) -> Result<cri::CreateContainerResponse, DaemonError> {
    let missing = || Refused::new("config", "nothing", "a container's configuration");
    let config = config::config(request.config.ok_or_else(missing)?)?;
    // The rest of the sandbox's configuration is the stored one.
    let folder = request.sandbox_config.map(|sandbox| sandbox.log_directory).unwrap_or_default();
    let begun = shim_runtime::host::now();
    let id = runtime.create_container(&request.pod_sandbox_id, config, &folder).await?;
    if let Ok(container) = runtime.container(id.as_str()) {
        telemetry::made("container", &container.state().timing.made_since(begun));
    }
    Ok(cri::CreateContainerResponse { container_id: id.to_string() })
}

/// `StartContainer`.
pub(crate) async fn start(
    runtime: Runtime,
    request: cri::StartContainerRequest,
) -> Result<cri::StartContainerResponse, DaemonError> {
    let begun = shim_runtime::host::now();
    runtime.start_container(&request.container_id).await?;
    if let Ok(container) = runtime.container(&request.container_id) {
        telemetry::made("container", &container.state().timing.since(begun));
    }
    Ok(cri::StartContainerResponse {})
}

/// `StopContainer`; never refused for its argument: a negative timeout is 0.
pub(crate) async fn stop(
    runtime: Runtime,
    request: cri::StopContainerRequest,
) -> Result<cri::StopContainerResponse, DaemonError> {
    let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or_default());
    runtime.stop_container(&request.container_id, grace).await?;
    Ok(cri::StopContainerResponse {})
}

/// `RemoveContainer`.
pub(crate) async fn remove(
    runtime: Runtime,
    request: cri::RemoveContainerRequest,
) -> Result<cri::RemoveContainerResponse, DaemonError> {
    runtime.remove_container(&request.container_id).await?;
    Ok(cri::RemoveContainerResponse {})
}

/// `ListContainers`.
pub(crate) fn list(
    runtime: &Runtime,
    request: &cri::ListContainersRequest,
) -> cri::ListContainersResponse {
    cri::ListContainersResponse { containers: listed(runtime, request.filter.clone()) }
}

/// `StreamContainers`.
pub(crate) fn stream(
    runtime: &Runtime,
    request: cri::StreamContainersRequest,
) -> Vec<cri::StreamContainersResponse> {
    let message = |containers| cri::StreamContainersResponse { containers };
    lists::parts(listed(runtime, request.filter), message)
}

fn listed(runtime: &Runtime, wanted: Option<cri::ContainerFilter>) -> Vec<cri::Container> {
    let wanted = wanted.unwrap_or_default();
    let all = runtime.containers();
    let passing = all.iter().filter(|container| status::passes(container, &wanted));
    passing.map(|container| status::entry(container)).collect()
}

/// `ContainerStatus` that is not verbose.
pub(crate) fn status(
    runtime: &Runtime,
    request: &cri::ContainerStatusRequest,
) -> Result<cri::ContainerStatusResponse, DaemonError> {
    let container = runtime.container(&request.container_id)?;
    let shown = status::status_of(runtime, &container, &container.state());
    Ok(cri::ContainerStatusResponse { status: Some(shown), info: BTreeMap::new() })
}

/// `ContainerStatus` that is verbose.
pub(crate) async fn inspect(
    runtime: Runtime,
    request: cri::ContainerStatusRequest,
) -> Result<cri::ContainerStatusResponse, DaemonError> {
    let answer = status(&runtime, &request)?;
    let container = runtime.container(&request.container_id)?;
    let said = runtime.handler_state(&container).await;
    Ok(cri::ContainerStatusResponse {
        info: verbose::container(&runtime, &container, said),
        ..answer
    })
}

/// `UpdateContainerResources`; the request's annotations are opaque to us.
pub(crate) async fn update(
    runtime: Runtime,
    request: cri::UpdateContainerResourcesRequest,
) -> Result<cri::UpdateContainerResourcesResponse, DaemonError> {
    let change = request.linux.map(resources::model).unwrap_or_default();
    runtime.update_container(&request.container_id, change).await?;
    Ok(cri::UpdateContainerResourcesResponse {})
}

/// `ReopenContainerLog`.
pub(crate) async fn reopen(
    runtime: Runtime,
    request: cri::ReopenContainerLogRequest,
) -> Result<cri::ReopenContainerLogResponse, DaemonError> {
    runtime.reopen_log(&request.container_id).await?;
    Ok(cri::ReopenContainerLogResponse {})
}

/// `ExecSync`; a timeout of 0 is none.
pub(crate) async fn exec_sync(
    runtime: Runtime,
    request: cri::ExecSyncRequest,
) -> Result<cri::ExecSyncResponse, DaemonError> {
    let seconds = u64::try_from(request.timeout).map_err(|_negative| {
        Refused::new("timeout", request.timeout.to_string(), "0 or a number of seconds")
    })?;
    let timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
    let output = runtime.exec_sync(&request.container_id, &request.cmd, timeout).await?;
    Ok(cri::ExecSyncResponse {
        stdout: output.stdout,
        stderr: output.stderr,
        exit_code: output.code,
    })
}
