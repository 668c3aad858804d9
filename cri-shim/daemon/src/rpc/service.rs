//! Every RPC of the CRI, one line each: which room does it, and whether it is answered at once
//! (`read`), goes on without its caller (`finish`) or not (`follow`). Run and Create are followed, because the runtime itself finishes them and
//! must learn whether the answer reached somebody: a repeat is given the answer that did not.
//! What stands here as not built answers UNIMPLEMENTED with a sentence. No RPC is converted or decided here.

use super::call::{Answer, finish, follow, in_parts, read};
use super::{container::verbs as container, events, image, info, metrics, sandbox, stats, streams};
use crate::error::DaemonError;
use crate::streaming::server::Server;
use shim_proto::runtime_v1 as cri;
use shim_proto::runtime_v1::image_service_server::ImageService;
use shim_proto::runtime_v1::runtime_service_server::RuntimeService;
use shim_runtime::runtime::Runtime;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::codegen::BoxStream;

/// The CRI over a runtime.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    runtime: Runtime,
    streams: Arc<Server>,
    /// Ends what would never end by itself.
    ending: CancellationToken,
}

impl Service {
    /// Serves this runtime; its streams are served there, lists without an end end with `ending`.
    pub(crate) fn new(runtime: Runtime, streams: Server, ending: CancellationToken) -> Self {
        Self { runtime, streams: Arc::new(streams), ending }
    }

    /// The runtime behind it.
    pub(crate) fn runtime(&self) -> Runtime {
        self.runtime.clone()
    }
}

fn not_built<T>(sentence: &'static str) -> Result<T, DaemonError> {
    Err(DaemonError::NotBuilt(sentence))
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(&self, _: Request<cri::VersionRequest>) -> Answer<cri::VersionResponse> {
        read("Version", "", || Ok(info::version()))
    }

    async fn status(&self, q: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        let q = q.into_inner();
        read("Status", "", || Ok(info::status(&self.runtime, q)))
    }

    async fn runtime_config(
        &self,
        _: Request<cri::RuntimeConfigRequest>,
    ) -> Answer<cri::RuntimeConfigResponse> {
        read("RuntimeConfig", "", || Ok(info::runtime_config(self.runtime.cgroups().driver())))
    }

    async fn update_runtime_config(
        &self,
        q: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        let q = q.into_inner();
        read("UpdateRuntimeConfig", "", || info::update(&q))
    }

    async fn run_pod_sandbox(
        &self,
        q: Request<cri::RunPodSandboxRequest>,
    ) -> Answer<cri::RunPodSandboxResponse> {
        let q = q.into_inner();
        follow("RunPodSandbox", "", sandbox::run(self.runtime(), q)).await
    }

    async fn stop_pod_sandbox(
        &self,
        q: Request<cri::StopPodSandboxRequest>,
    ) -> Answer<cri::StopPodSandboxResponse> {
        let q = q.into_inner();
        finish("StopPodSandbox", &q.pod_sandbox_id.clone(), sandbox::stop(self.runtime(), q)).await
    }

    async fn remove_pod_sandbox(
        &self,
        q: Request<cri::RemovePodSandboxRequest>,
    ) -> Answer<cri::RemovePodSandboxResponse> {
        let q = q.into_inner();
        finish("RemovePodSandbox", &q.pod_sandbox_id.clone(), sandbox::remove(self.runtime(), q))
            .await
    }

    async fn pod_sandbox_status(
        &self,
        q: Request<cri::PodSandboxStatusRequest>,
    ) -> Answer<cri::PodSandboxStatusResponse> {
        let q = q.into_inner();
        read("PodSandboxStatus", &q.pod_sandbox_id, || sandbox::status(&self.runtime, &q))
    }

    async fn list_pod_sandbox(
        &self,
        q: Request<cri::ListPodSandboxRequest>,
    ) -> Answer<cri::ListPodSandboxResponse> {
        let q = q.into_inner();
        read("ListPodSandbox", "", || Ok(sandbox::list(&self.runtime, &q)))
    }

    async fn stream_pod_sandboxes(
        &self,
        q: Request<cri::StreamPodSandboxesRequest>,
    ) -> Answer<BoxStream<cri::StreamPodSandboxesResponse>> {
        let q = q.into_inner();
        in_parts(read("StreamPodSandboxes", "", || Ok(sandbox::stream(&self.runtime, q))))
    }

    async fn create_container(
        &self,
        q: Request<cri::CreateContainerRequest>,
    ) -> Answer<cri::CreateContainerResponse> {
        let q = q.into_inner();
        follow("CreateContainer", &q.pod_sandbox_id.clone(), container::create(self.runtime(), q))
            .await
    }

    async fn start_container(
        &self,
        q: Request<cri::StartContainerRequest>,
    ) -> Answer<cri::StartContainerResponse> {
        let q = q.into_inner();
        finish("StartContainer", &q.container_id.clone(), container::start(self.runtime(), q)).await
    }

    async fn stop_container(
        &self,
        q: Request<cri::StopContainerRequest>,
    ) -> Answer<cri::StopContainerResponse> {
        let q = q.into_inner();
        finish("StopContainer", &q.container_id.clone(), container::stop(self.runtime(), q)).await
    }

    async fn remove_container(
        &self,
        q: Request<cri::RemoveContainerRequest>,
    ) -> Answer<cri::RemoveContainerResponse> {
        let q = q.into_inner();
        finish("RemoveContainer", &q.container_id.clone(), container::remove(self.runtime(), q))
            .await
    }

    async fn list_containers(
        &self,
        q: Request<cri::ListContainersRequest>,
    ) -> Answer<cri::ListContainersResponse> {
        let q = q.into_inner();
        read("ListContainers", "", || Ok(container::list(&self.runtime, &q)))
    }

    async fn stream_containers(
        &self,
        q: Request<cri::StreamContainersRequest>,
    ) -> Answer<BoxStream<cri::StreamContainersResponse>> {
        let q = q.into_inner();
        in_parts(read("StreamContainers", "", || Ok(container::stream(&self.runtime, q))))
    }

    async fn container_status(
        &self,
        q: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        let q = q.into_inner();
        if q.verbose {
            let id = q.container_id.clone();
            return finish("ContainerStatus", &id, container::inspect(self.runtime(), q)).await;
        }
        read("ContainerStatus", &q.container_id, || container::status(&self.runtime, &q))
    }

    async fn update_container_resources(
        &self,
        q: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Answer<cri::UpdateContainerResourcesResponse> {
        let q = q.into_inner();
        finish(
            "UpdateContainerResources",
            &q.container_id.clone(),
            container::update(self.runtime(), q),
        )
        .await
    }

    async fn reopen_container_log(
        &self,
        q: Request<cri::ReopenContainerLogRequest>,
    ) -> Answer<cri::ReopenContainerLogResponse> {
        let q = q.into_inner();
        finish("ReopenContainerLog", &q.container_id.clone(), container::reopen(self.runtime(), q))
            .await
    }

    async fn exec_sync(&self, q: Request<cri::ExecSyncRequest>) -> Answer<cri::ExecSyncResponse> {
        let q = q.into_inner();
        follow("ExecSync", &q.container_id.clone(), container::exec_sync(self.runtime(), q)).await
    }

    async fn container_stats(
        &self,
        q: Request<cri::ContainerStatsRequest>,
    ) -> Answer<cri::ContainerStatsResponse> {
        let q = q.into_inner();
        follow("ContainerStats", &q.container_id.clone(), stats::one(self.runtime(), q)).await
    }

    async fn list_container_stats(
        &self,
        q: Request<cri::ListContainerStatsRequest>,
    ) -> Answer<cri::ListContainerStatsResponse> {
        let q = q.into_inner();
        follow("ListContainerStats", "", stats::list(self.runtime(), q)).await
    }

    async fn stream_container_stats(
        &self,
        q: Request<cri::StreamContainerStatsRequest>,
    ) -> Answer<BoxStream<cri::StreamContainerStatsResponse>> {
        let q = q.into_inner();
        in_parts(follow("StreamContainerStats", "", stats::stream(self.runtime(), q)).await)
    }

    async fn pod_sandbox_stats(
        &self,
        q: Request<cri::PodSandboxStatsRequest>,
    ) -> Answer<cri::PodSandboxStatsResponse> {
        let q = q.into_inner();
        follow("PodSandboxStats", &q.pod_sandbox_id.clone(), stats::one_pod(self.runtime(), q))
            .await
    }

    async fn list_pod_sandbox_stats(
        &self,
        q: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Answer<cri::ListPodSandboxStatsResponse> {
        let q = q.into_inner();
        follow("ListPodSandboxStats", "", stats::list_pods(self.runtime(), q)).await
    }

    async fn stream_pod_sandbox_stats(
        &self,
        q: Request<cri::StreamPodSandboxStatsRequest>,
    ) -> Answer<BoxStream<cri::StreamPodSandboxStatsResponse>> {
        let q = q.into_inner();
        in_parts(follow("StreamPodSandboxStats", "", stats::stream_pods(self.runtime(), q)).await)
    }

    async fn update_pod_sandbox_resources(
        &self,
        q: Request<cri::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<cri::UpdatePodSandboxResourcesResponse> {
        let q = q.into_inner();
        finish(
            "UpdatePodSandboxResources",
            &q.pod_sandbox_id.clone(),
            sandbox::update(self.runtime(), q),
        )
        .await
    }

    async fn exec(&self, q: Request<cri::ExecRequest>) -> Answer<cri::ExecResponse> {
        let q = q.into_inner();
        let id = q.container_id.clone();
        read("Exec", &id, || streams::exec(&self.runtime, &self.streams, q))
    }

    async fn attach(&self, q: Request<cri::AttachRequest>) -> Answer<cri::AttachResponse> {
        let q = q.into_inner();
        read("Attach", &q.container_id, || streams::attach(&self.runtime, &self.streams, &q))
    }

    async fn port_forward(
        &self,
        q: Request<cri::PortForwardRequest>,
    ) -> Answer<cri::PortForwardResponse> {
        let q = q.into_inner();
        read("PortForward", &q.pod_sandbox_id, || {
            streams::port_forward(&self.runtime, &self.streams, &q)
        })
    }

    async fn checkpoint_container(
        &self,
        q: Request<cri::CheckpointContainerRequest>,
    ) -> Answer<cri::CheckpointContainerResponse> {
        let q = q.into_inner();
        read("CheckpointContainer", &q.container_id, || not_built("checkpoints are not built"))
    }

    async fn checkpoint_pod(
        &self,
        q: Request<cri::CheckpointPodRequest>,
    ) -> Answer<cri::CheckpointPodResponse> {
        let q = q.into_inner();
        read("CheckpointPod", &q.pod_sandbox_id, || not_built("checkpoints are not built"))
    }

    async fn restore_pod(
        &self,
        _: Request<cri::RestorePodRequest>,
    ) -> Answer<cri::RestorePodResponse> {
        read("RestorePod", "", || not_built("checkpoints are not built"))
    }

    async fn get_container_events(
        &self,
        _: Request<cri::GetEventsRequest>,
    ) -> Answer<BoxStream<cri::ContainerEventResponse>> {
        read("GetContainerEvents", "", || events::stream(&self.runtime, self.ending.clone()))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<cri::ListMetricDescriptorsRequest>,
    ) -> Answer<cri::ListMetricDescriptorsResponse> {
        read("ListMetricDescriptors", "", || Ok(metrics::descriptors()))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<cri::ListPodSandboxMetricsRequest>,
    ) -> Answer<cri::ListPodSandboxMetricsResponse> {
        follow("ListPodSandboxMetrics", "", metrics::list(self.runtime())).await
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<cri::StreamPodSandboxMetricsRequest>,
    ) -> Answer<BoxStream<cri::StreamPodSandboxMetricsResponse>> {
        in_parts(follow("StreamPodSandboxMetrics", "", metrics::stream(self.runtime())).await)
    }
}

#[tonic::async_trait]
impl ImageService for Service {
    async fn list_images(
        &self,
        q: Request<cri::ListImagesRequest>,
    ) -> Answer<cri::ListImagesResponse> {
        let q = q.into_inner();
        read("ListImages", "", || image::list(&self.runtime, &q))
    }

    async fn stream_images(
        &self,
        q: Request<cri::StreamImagesRequest>,
    ) -> Answer<BoxStream<cri::StreamImagesResponse>> {
        let q = q.into_inner();
        in_parts(read("StreamImages", "", || image::stream(&self.runtime, q)))
    }

    async fn image_status(
        &self,
        q: Request<cri::ImageStatusRequest>,
    ) -> Answer<cri::ImageStatusResponse> {
        let q = q.into_inner();
        read("ImageStatus", "", || image::status(&self.runtime, &q))
    }

    async fn pull_image(
        &self,
        q: Request<cri::PullImageRequest>,
    ) -> Answer<cri::PullImageResponse> {
        let q = q.into_inner();
        follow("PullImage", "", image::pull(self.runtime(), q)).await
    }

    async fn remove_image(
        &self,
        q: Request<cri::RemoveImageRequest>,
    ) -> Answer<cri::RemoveImageResponse> {
        let q = q.into_inner();
        finish("RemoveImage", "", image::remove(self.runtime(), q)).await
    }

    async fn image_fs_info(
        &self,
        _: Request<cri::ImageFsInfoRequest>,
    ) -> Answer<cri::ImageFsInfoResponse> {
        follow("ImageFsInfo", "", image::fs_info(self.runtime())).await
    }
}
