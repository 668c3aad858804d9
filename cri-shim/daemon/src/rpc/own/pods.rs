//! Pods of the command line: made with our own bridge allowed, started again after they ended, held until
//! their end was seen. And what the daemon tells about itself.

use crate::error::DaemonError;
use crate::rpc::sandbox;
use crate::telemetry;
use futures_util::StreamExt;
use prost::Message;
use shim_model::kind::Refused;
use shim_proto::runtime_v1 as cri;
use shim_proto::wherry_v1 as own;
use shim_runtime::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;

/// Info.
pub(crate) fn info(runtime: &Runtime) -> own::InfoResponse {
    let (config, host) = (runtime.config(), runtime.host());
    own::InfoResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state_dir: config.state.to_string_lossy().into_owned(),
        root_dir: config.root.to_string_lossy().into_owned(),
        pid: std::process::id(),
        cgroup_driver: format!("{:?}", runtime.cgroups().driver()).to_lowercase(),
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
    let mut config = sandbox::config(config, request.runtime_handler)?;
    config.own = true;
    let begun = shim_runtime::host::now();
    let id = runtime.run_sandbox(config).await?;
    if let Ok(pod) = runtime.sandbox(id.as_str()) {
        telemetry::made("pod", &pod.state().facts.timing.made_since(begun));
    }
    Ok(own::RunPodResponse { pod_sandbox_id: id.to_string() })
}

/// `StartAgain`: the same container once more. One that runs is answered as it is.
pub(crate) async fn start_again(
    runtime: Runtime,
    request: own::StartAgainRequest,
) -> Result<own::StartAgainResponse, DaemonError> {
    let id = runtime.container(&request.container_id)?.record.id.to_string();
    let begun = shim_runtime::host::now();
    runtime.start_again(&id).await?;
    if let Ok(container) = runtime.container(&id) {
        telemetry::made("container", &container.state().timing.since(begun));
    }
    Ok(own::StartAgainResponse { container_id: id })
}

/// `Wait`: the code once it has ended; then the stream stays open, and the container here, until whoever
/// listens has seen all of it, or the daemon stops.
pub(crate) fn wait(
    runtime: &Runtime,
    id: &str,
    ending: CancellationToken,
) -> Result<BoxStream<own::WaitEvent>, DaemonError> {
    let hold = runtime.hold(id)?;
    let events = futures_util::stream::unfold((hold, false), async |(hold, told)| {
        if told {
            std::future::pending::<()>().await;
        }
        let exit_code = hold.ended().await;
        Some((Ok(own::WaitEvent { exit_code }), (hold, true)))
    });
    Ok(Box::pin(events.take_until(ending.cancelled_owned())))
}
