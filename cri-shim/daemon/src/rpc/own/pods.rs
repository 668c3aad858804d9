//! Pods of the command line: made with our own bridge allowed, started again after they ended. And what
//! the daemon tells about itself.

use crate::error::DaemonError;
use crate::rpc::sandbox;
use prost::Message;
use shim_model::kind::Refused;
use shim_proto::runtime_v1 as cri;
use shim_proto::wherry_v1 as own;
use shim_runtime::runtime::Runtime;

/// Info.
pub(crate) fn info(runtime: &Runtime) -> own::InfoResponse {
    let (config, host) = (runtime.config(), runtime.host());
    own::InfoResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state_dir: config.state.to_string_lossy().into_owned(),
        root_dir: config.root.to_string_lossy().into_owned(),
        pid: std::process::id(),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_layout: format!("{:?}", host.cgroup).to_lowercase(),
        kernel: format!("{}.{}", host.kernel.0, host.kernel.1),
    }
}

/// `RunPod`: like `RunPodSandbox`, but our own bridge will do where the node has no network.
pub(crate) async fn run(
    runtime: Runtime,
    request: own::RunPodRequest,
) -> Result<own::RunPodResponse, DaemonError> {
    let config = cri::PodSandboxConfig::decode(request.config.as_slice()).map_err(|error| {
        Refused::new("config", error.to_string(), "an encoded runtime.v1.PodSandboxConfig")
    })?;
    let mut config = sandbox::config(config, String::new())?;
    config.own = true;
    let id = runtime.run_sandbox(config).await?;
    Ok(own::RunPodResponse { pod_sandbox_id: id.to_string() })
}

/// `StartAgain`: the next attempt of an ended container in the same pod, with the same log. The ended one
/// goes once the next one runs; one that cannot be started leaves nothing behind. A container that
/// runs is answered as it is.
pub(crate) async fn start_again(
    runtime: Runtime,
    request: own::StartAgainRequest,
) -> Result<own::StartAgainResponse, DaemonError> {
    let known = runtime.container(&request.container_id)?;
    if known.is_running() {
        return Ok(own::StartAgainResponse { container_id: known.record.id.to_string() });
    }
    let mut config = known.record.config.clone();
    config.metadata.attempt = config.metadata.attempt.saturating_add(1);
    let folder =
        runtime.sandbox(known.record.sandbox.as_str())?.record.config.log_directory.clone();
    let next = runtime.create_container(known.record.sandbox.as_str(), config, &folder).await?;
    if let Err(cause) = runtime.start_container(next.as_str()).await {
        runtime.remove_container(next.as_str()).await?;
        return Err(cause.into());
    }
    runtime.remove_container(known.record.id.as_str()).await?;
    Ok(own::StartAgainResponse { container_id: next.to_string() })
}
