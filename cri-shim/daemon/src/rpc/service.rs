//! Every RPC, one line each, through one wrapper: a span, a panic that ends one call only, and the one
//! conversion of failures. What is not here answers UNIMPLEMENTED. Lifecycle work goes on in the
//! runtime when a caller leaves; reads never wait.

use super::container::{config as container_config, status as container_status};
use super::{image, info, sandbox, stats, status};
use futures_util::FutureExt;
use shim_image::error::ImageError;
use shim_model::kind::{Kind, Refused};
use shim_proto::runtime_v1 as cri;
use shim_proto::runtime_v1::image_service_server::ImageService;
use shim_proto::runtime_v1::runtime_service_server::RuntimeService;
use shim_runtime::error::RuntimeError;
use shim_runtime::runtime::Runtime;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status};
use tracing::Instrument;

type Answer<T> = Result<Response<T>, Status>;

/// The CRI over a runtime.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    runtime: Runtime,
}

impl Service {
    /// Serves this runtime.
    pub(crate) fn new(runtime: Runtime) -> Self {
        Self { runtime }
    }
}

/// One call: span, time, panic, status.
async fn call<T>(
    method: &'static str,
    id: &str,
    work: impl Future<Output = Result<T, Status>>,
) -> Answer<T> {
    let span = tracing::info_span!("rpc", method, id = id.get(..12).unwrap_or(id));
    let begun = Instant::now();
    let ended = AssertUnwindSafe(work).catch_unwind().instrument(span.clone()).await;
    let answer = ended.unwrap_or_else(|_panic| Err(status::panicked(method)));
    let _entered_for_one_line = span.in_scope(|| match &answer {
        Ok(_) => tracing::debug!(took = ?begun.elapsed(), "done"),
        Err(error) => tracing::warn!(took = ?begun.elapsed(), code = ?error.code(), error = error.message(), "failed"),
    });
    answer.map(Response::new)
}

fn told(error: &RuntimeError) -> Status {
    status::of(error)
}

fn refused(error: &Refused) -> Status {
    status::refused(error)
}

fn now() -> i64 {
    shim_runtime::host::now()
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(&self, _: Request<cri::VersionRequest>) -> Answer<cri::VersionResponse> {
        call("Version", "", async { Ok(info::version()) }).await
    }

    async fn status(&self, request: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        call("Status", "", async { Ok(info::status(&self.runtime, request.get_ref().verbose)) })
            .await
    }

    async fn runtime_config(
        &self,
        _: Request<cri::RuntimeConfigRequest>,
    ) -> Answer<cri::RuntimeConfigResponse> {
        call("RuntimeConfig", "", async { Ok(info::runtime_config()) }).await
    }

    async fn update_runtime_config(
        &self,
        _: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        // Pod addresses come from the CNI configuration; the kubelet's range is not needed.
        call("UpdateRuntimeConfig", "", async { Ok(cri::UpdateRuntimeConfigResponse::default()) })
            .await
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<cri::RunPodSandboxRequest>,
    ) -> Answer<cri::RunPodSandboxResponse> {
        let request = request.into_inner();
        call("RunPodSandbox", "", async {
            let config = request.config.ok_or_else(|| {
                refused(&Refused::new("config", "nothing", "a sandbox's configuration"))
            })?;
            let config =
                sandbox::config(config, request.runtime_handler).map_err(|e| refused(&e))?;
            let id = self.runtime.run_sandbox(config).await.map_err(|e| told(&e))?;
            Ok(cri::RunPodSandboxResponse { pod_sandbox_id: id.to_string() })
        })
        .await
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Answer<cri::StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        call("StopPodSandbox", &id, async {
            self.runtime.stop_sandbox(&id).await.map_err(|e| told(&e))?;
            Ok(cri::StopPodSandboxResponse {})
        })
        .await
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Answer<cri::RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        call("RemovePodSandbox", &id, async {
            self.runtime.remove_sandbox(&id).await.map_err(|e| told(&e))?;
            Ok(cri::RemovePodSandboxResponse {})
        })
        .await
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Answer<cri::PodSandboxStatusResponse> {
        let request = request.into_inner();
        call("PodSandboxStatus", &request.pod_sandbox_id, async {
            let pod = self.runtime.sandbox(&request.pod_sandbox_id).map_err(|e| told(&e))?;
            Ok(sandbox::status(&pod, request.verbose))
        })
        .await
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<cri::ListPodSandboxRequest>,
    ) -> Answer<cri::ListPodSandboxResponse> {
        let wanted = request.into_inner().filter.unwrap_or_default();
        call("ListPodSandbox", "", async {
            let pods = self.runtime.sandboxes();
            let items = pods
                .iter()
                .filter(|pod| sandbox::passes(pod, &wanted))
                .map(|pod| sandbox::entry(pod))
                .collect();
            Ok(cri::ListPodSandboxResponse { items })
        })
        .await
    }

    async fn create_container(
        &self,
        request: Request<cri::CreateContainerRequest>,
    ) -> Answer<cri::CreateContainerResponse> {
        let request = request.into_inner();
        call("CreateContainer", &request.pod_sandbox_id.clone(), async {
            let config = request.config.ok_or_else(|| {
                refused(&Refused::new("config", "nothing", "a container's configuration"))
            })?;
            let config = container_config::config(config).map_err(|e| refused(&e))?;
            let directory =
                request.sandbox_config.map(|sandbox| sandbox.log_directory).unwrap_or_default();
            let made =
                self.runtime.create_container(&request.pod_sandbox_id, config, &directory).await;
            Ok(cri::CreateContainerResponse {
                container_id: made.map_err(|e| told(&e))?.to_string(),
            })
        })
        .await
    }

    async fn start_container(
        &self,
        request: Request<cri::StartContainerRequest>,
    ) -> Answer<cri::StartContainerResponse> {
        let id = request.into_inner().container_id;
        call("StartContainer", &id, async {
            self.runtime.start_container(&id).await.map_err(|e| told(&e))?;
            Ok(cri::StartContainerResponse {})
        })
        .await
    }

    async fn stop_container(
        &self,
        request: Request<cri::StopContainerRequest>,
    ) -> Answer<cri::StopContainerResponse> {
        let request = request.into_inner();
        call("StopContainer", &request.container_id, async {
            // Never refused for its argument: a negative timeout is 0.
            let grace = Duration::from_secs(u64::try_from(request.timeout).unwrap_or_default());
            self.runtime
                .stop_container(&request.container_id, grace)
                .await
                .map_err(|e| told(&e))?;
            Ok(cri::StopContainerResponse {})
        })
        .await
    }

    async fn remove_container(
        &self,
        request: Request<cri::RemoveContainerRequest>,
    ) -> Answer<cri::RemoveContainerResponse> {
        let id = request.into_inner().container_id;
        call("RemoveContainer", &id, async {
            self.runtime.remove_container(&id).await.map_err(|e| told(&e))?;
            Ok(cri::RemoveContainerResponse {})
        })
        .await
    }

    async fn list_containers(
        &self,
        request: Request<cri::ListContainersRequest>,
    ) -> Answer<cri::ListContainersResponse> {
        let wanted = request.into_inner().filter.unwrap_or_default();
        call("ListContainers", "", async {
            let all = self.runtime.containers();
            let containers = all
                .iter()
                .filter(|c| container_status::passes(c, &wanted))
                .map(|c| container_status::entry(c))
                .collect();
            Ok(cri::ListContainersResponse { containers })
        })
        .await
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        let request = request.into_inner();
        call("ContainerStatus", &request.container_id, async {
            let container = self.runtime.container(&request.container_id).map_err(|e| told(&e))?;
            Ok(container_status::status(&self.runtime, &container, request.verbose))
        })
        .await
    }

    async fn reopen_container_log(
        &self,
        request: Request<cri::ReopenContainerLogRequest>,
    ) -> Answer<cri::ReopenContainerLogResponse> {
        let id = request.into_inner().container_id;
        call("ReopenContainerLog", &id, async {
            self.runtime.reopen_log(&id).await.map_err(|e| told(&e))?;
            Ok(cri::ReopenContainerLogResponse {})
        })
        .await
    }

    async fn exec_sync(
        &self,
        request: Request<cri::ExecSyncRequest>,
    ) -> Answer<cri::ExecSyncResponse> {
        let request = request.into_inner();
        call("ExecSync", &request.container_id, async {
            let seconds = u64::try_from(request.timeout).map_err(|_negative| {
                refused(&Refused::new(
                    "timeout",
                    request.timeout.to_string(),
                    "0 or a number of seconds",
                ))
            })?;
            let timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
            let output = self
                .runtime
                .exec_sync(&request.container_id, &request.cmd, timeout)
                .await
                .map_err(|e| told(&e))?;
            Ok(cri::ExecSyncResponse {
                stdout: output.stdout,
                stderr: output.stderr,
                exit_code: output.code,
            })
        })
        .await
    }

    async fn container_stats(
        &self,
        request: Request<cri::ContainerStatsRequest>,
    ) -> Answer<cri::ContainerStatsResponse> {
        let id = request.into_inner().container_id;
        call("ContainerStats", &id, async {
            let container = self.runtime.container(&id).map_err(|e| told(&e))?;
            Ok(cri::ContainerStatsResponse {
                stats: Some(stats::container(&self.runtime, &container, now())),
            })
        })
        .await
    }

    async fn list_container_stats(
        &self,
        request: Request<cri::ListContainerStatsRequest>,
    ) -> Answer<cri::ListContainerStatsResponse> {
        let wanted = request.into_inner().filter.unwrap_or_default();
        call("ListContainerStats", "", async {
            let running = self
                .runtime
                .containers()
                .into_iter()
                .filter(|c| c.is_running() && stats::passes(c, &wanted));
            let stats = running.map(|c| stats::container(&self.runtime, &c, now())).collect();
            Ok(cri::ListContainerStatsResponse { stats })
        })
        .await
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<cri::PodSandboxStatsRequest>,
    ) -> Answer<cri::PodSandboxStatsResponse> {
        let id = request.into_inner().pod_sandbox_id;
        call("PodSandboxStats", &id, async {
            let pod = self.runtime.sandbox(&id).map_err(|e| told(&e))?;
            if !pod.is_ready() {
                return Err(told(&pod.not_ready("be measured")));
            }
            Ok(cri::PodSandboxStatsResponse { stats: Some(stats::pod(&self.runtime, &pod, now())) })
        })
        .await
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Answer<cri::ListPodSandboxStatsResponse> {
        let wanted = request.into_inner().filter.unwrap_or_default();
        call("ListPodSandboxStats", "", async {
            let ready = self
                .runtime
                .sandboxes()
                .into_iter()
                .filter(|pod| pod.is_ready() && stats::pod_passes(pod, &wanted));
            let stats = ready.map(|pod| stats::pod(&self.runtime, &pod, now())).collect();
            Ok(cri::ListPodSandboxStatsResponse { stats })
        })
        .await
    }

    async fn exec(&self, _: Request<cri::ExecRequest>) -> Answer<cri::ExecResponse> {
        Err(status::not_built("streaming exec comes with the next release; ExecSync works"))
    }

    async fn attach(&self, _: Request<cri::AttachRequest>) -> Answer<cri::AttachResponse> {
        Err(status::not_built("attach comes with the next release"))
    }

    async fn port_forward(
        &self,
        _: Request<cri::PortForwardRequest>,
    ) -> Answer<cri::PortForwardResponse> {
        Err(status::not_built("port-forward comes with the next release"))
    }

    async fn checkpoint_container(
        &self,
        _: Request<cri::CheckpointContainerRequest>,
    ) -> Answer<cri::CheckpointContainerResponse> {
        Err(status::not_built("checkpoints are not built"))
    }
}

#[tonic::async_trait]
impl ImageService for Service {
    async fn list_images(
        &self,
        request: Request<cri::ListImagesRequest>,
    ) -> Answer<cri::ListImagesResponse> {
        let wanted = request
            .into_inner()
            .filter
            .and_then(|f| f.image)
            .map(|spec| spec.image)
            .unwrap_or_default();
        call("ListImages", "", async {
            let images = if wanted.is_empty() {
                self.runtime.images().list()
            } else {
                self.find(&wanted)?.into_iter().collect()
            };
            Ok(cri::ListImagesResponse {
                images: images.iter().map(|found| image::entry(found)).collect(),
            })
        })
        .await
    }

    async fn image_status(
        &self,
        request: Request<cri::ImageStatusRequest>,
    ) -> Answer<cri::ImageStatusResponse> {
        let request = request.into_inner();
        call("ImageStatus", "", async {
            let name = request.image.map(|spec| spec.image).unwrap_or_default();
            let found = self.find(&name)?;
            let info = match &found {
                Some(found) if request.verbose => [(
                    "info".to_owned(),
                    serde_json::json!({"chain": found.chain, "config": found.config}).to_string(),
                )]
                .into(),
                Some(_) | None => std::collections::BTreeMap::new(),
            };
            Ok(cri::ImageStatusResponse { image: found.map(|found| image::entry(&found)), info })
        })
        .await
    }

    async fn pull_image(
        &self,
        request: Request<cri::PullImageRequest>,
    ) -> Answer<cri::PullImageResponse> {
        let request = request.into_inner();
        call("PullImage", "", async {
            let name = request.image.map(|spec| spec.image).unwrap_or_default();
            let pulled = self.runtime.images().pull(&name, &image::auth(request.auth), None).await;
            Ok(cri::PullImageResponse {
                image_ref: pulled.map_err(|e| status::of_pull(&e))?.id.to_string(),
            })
        })
        .await
    }

    async fn remove_image(
        &self,
        request: Request<cri::RemoveImageRequest>,
    ) -> Answer<cri::RemoveImageResponse> {
        let name = request.into_inner().image.map(|spec| spec.image).unwrap_or_default();
        call("RemoveImage", "", async {
            self.runtime.remove_image(&name).await.map_err(|e| told(&e))?;
            Ok(cri::RemoveImageResponse {})
        })
        .await
    }

    async fn image_fs_info(
        &self,
        _: Request<cri::ImageFsInfoRequest>,
    ) -> Answer<cri::ImageFsInfoResponse> {
        call("ImageFsInfo", "", async {
            let usage = self.runtime.fs_usage().await;
            Ok(image::fs_info(usage, &self.runtime.config().root, now()))
        })
        .await
    }
}

impl Service {
    fn find(&self, name: &str) -> Result<Option<std::sync::Arc<shim_image::index::Image>>, Status> {
        if name.is_empty() {
            return Err(refused(&Refused::new("image.image", "nothing", "an image")));
        }
        match self.runtime.images().find(name) {
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            found => found.map_err(|error: ImageError| status::of_pull(&error)),
        }
    }
}
