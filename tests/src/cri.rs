//! A client of the CRI as tests want it: a call is a function that waits. Failures come back as the
//! status that a kubelet would see. May be used by several threads at once, and goes on after a restart
//! of the daemon.

use crate::{handlers, until};
use hyper_util::rt::TokioIo;
use shim_proto::runtime_v1 as cri;
use shim_proto::runtime_v1::image_service_client::ImageServiceClient;
use shim_proto::runtime_v1::runtime_service_client::RuntimeServiceClient;
use shim_proto::wherry_v1::wherry_client::WherryClient;
use std::path::Path;
use tokio::runtime::Runtime as Threads;
use tonic::codec::Streaming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

/// The generated client of the runtime service.
pub type Runtime = RuntimeServiceClient<Channel>;
/// The generated client of the image service.
pub type Images = ImageServiceClient<Channel>;

/// A client of one daemon.
#[derive(Debug)]
pub struct Cri {
    threads: Threads,
    runtime: Runtime,
    images: Images,
    own: WherryClient<Channel>,
}

/// Every message of a stream, up to its end.
pub async fn all_of<T>(streamed: Result<Response<Streaming<T>>, Status>) -> Result<Vec<T>, Status> {
    let mut stream = streamed?.into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await? {
        messages.push(message);
    }
    Ok(messages)
}

/// What a command in a container said and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code.
    pub code: i32,
}

impl Cri {
    /// A client that connects when it is used.
    pub fn new(socket: &Path) -> Self {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let threads = threads.worker_threads(1).enable_all().build().unwrap();
        let socket = socket.to_owned();
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let channel = {
            let _inside = threads.enter();
            Endpoint::from_static("http://localhost").connect_with_connector_lazy(connect)
        };
        let limit = 16 << 20;
        let runtime = RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(limit);
        let images = ImageServiceClient::new(channel.clone()).max_decoding_message_size(limit);
        Self { threads, runtime, images, own: WherryClient::new(channel) }
    }

    /// A client of our own API.
    pub(crate) fn own(&self) -> WherryClient<Channel> {
        self.own.clone()
    }

    /// Waits for a call.
    pub(crate) fn wait<T>(&self, call: impl Future<Output = T>) -> T {
        self.threads.block_on(call)
    }

    /// Any call of the runtime service: `|mut client| async move { client.version(..).await }`.
    pub fn ask<T, F: Future<Output = Result<T, Status>>>(
        &self,
        call: impl FnOnce(Runtime) -> F,
    ) -> Result<T, Status> {
        self.threads.block_on(call(self.runtime.clone()))
    }

    /// Any call of the image service.
    pub fn ask_images<T, F: Future<Output = Result<T, Status>>>(
        &self,
        call: impl FnOnce(Images) -> F,
    ) -> Result<T, Status> {
        self.threads.block_on(call(self.images.clone()))
    }

    /// Version; the name of the runtime.
    pub fn version(&self) -> Result<String, Status> {
        let call = async { self.runtime.clone().version(cri::VersionRequest::default()).await };
        Ok(self.threads.block_on(call)?.into_inner().runtime_name)
    }

    /// `Status`, not verbose.
    pub fn runtime_status(&self) -> Result<cri::StatusResponse, Status> {
        let call = async { self.runtime.clone().status(cri::StatusRequest::default()).await };
        Ok(self.threads.block_on(call)?.into_inner())
    }

    /// What a verbose `Status` says beside the conditions.
    pub fn runtime_info(&self) -> serde_json::Value {
        let request = cri::StatusRequest { verbose: true };
        let call = async { self.runtime.clone().status(request).await };
        let answer = self.threads.block_on(call).unwrap().into_inner();
        serde_json::from_str(&answer.info["config"]).unwrap()
    }

    /// `RunPodSandbox`; the pod's id.
    pub fn run_pod(&self, config: &cri::PodSandboxConfig) -> Result<String, Status> {
        self.run_pod_by(config, &handlers::asked())
    }

    /// `RunPodSandbox` with a handler; the pod's id.
    pub fn run_pod_by(
        &self,
        config: &cri::PodSandboxConfig,
        handler: &str,
    ) -> Result<String, Status> {
        let request = cri::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: handler.to_owned(),
        };
        let call = async { self.runtime.clone().run_pod_sandbox(request).await };
        Ok(self.threads.block_on(call)?.into_inner().pod_sandbox_id)
    }

    /// `StopPodSandbox`.
    pub fn stop_pod(&self, id: &str) -> Result<(), Status> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let call = async { self.runtime.clone().stop_pod_sandbox(request).await };
        self.threads.block_on(call).map(drop)
    }

    /// `RemovePodSandbox`.
    pub fn remove_pod(&self, id: &str) -> Result<(), Status> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let call = async { self.runtime.clone().remove_pod_sandbox(request).await };
        self.threads.block_on(call).map(drop)
    }

    /// `PodSandboxStatus`, verbose.
    pub fn pod_status(&self, id: &str) -> Result<cri::PodSandboxStatusResponse, Status> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let call = async { self.runtime.clone().pod_sandbox_status(request).await };
        Ok(self.threads.block_on(call)?.into_inner())
    }

    /// Whether a pod is ready.
    pub fn is_ready(&self, pod: &str) -> bool {
        let status = self.pod_status(pod).unwrap().status.unwrap();
        status.state() == cri::PodSandboxState::SandboxReady
    }

    /// The verbose part of a pod's status.
    pub fn pod_info(&self, id: &str) -> serde_json::Value {
        serde_json::from_str(&self.pod_status(id).unwrap().info["info"]).unwrap()
    }

    /// `ListPodSandbox`, everything.
    pub fn pods(&self) -> Result<Vec<cri::PodSandbox>, Status> {
        let request = cri::ListPodSandboxRequest::default();
        let call = async { self.runtime.clone().list_pod_sandbox(request).await };
        Ok(self.threads.block_on(call)?.into_inner().items)
    }

    /// `CreateContainer`; the container's id.
    pub fn create(
        &self,
        pod: &str,
        config: &cri::ContainerConfig,
        sandbox: &cri::PodSandboxConfig,
    ) -> Result<String, Status> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config.clone()),
            sandbox_config: Some(sandbox.clone()),
        };
        let call = async { self.runtime.clone().create_container(request).await };
        Ok(self.threads.block_on(call)?.into_inner().container_id)
    }

    /// `StartContainer`.
    pub fn start(&self, id: &str) -> Result<(), Status> {
        let request = cri::StartContainerRequest { container_id: id.to_owned() };
        let call = async { self.runtime.clone().start_container(request).await };
        self.threads.block_on(call).map(drop)
    }

    /// `StopContainer` with this many seconds of grace.
    pub fn stop(&self, id: &str, timeout: i64) -> Result<(), Status> {
        let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout };
        let call = async { self.runtime.clone().stop_container(request).await };
        self.threads.block_on(call).map(drop)
    }

    /// `RemoveContainer`.
    pub fn remove(&self, id: &str) -> Result<(), Status> {
        let request = cri::RemoveContainerRequest { container_id: id.to_owned() };
        let call = async { self.runtime.clone().remove_container(request).await };
        self.threads.block_on(call).map(drop)
    }

    /// `ContainerStatus`, verbose.
    pub fn inspect(&self, id: &str) -> Result<cri::ContainerStatusResponse, Status> {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
        let call = async { self.runtime.clone().container_status(request).await };
        Ok(self.threads.block_on(call)?.into_inner())
    }

    /// The status of a container that must be there.
    pub fn status(&self, id: &str) -> cri::ContainerStatus {
        self.inspect(id).unwrap().status.unwrap()
    }

    /// The verbose part of a container's status.
    pub fn info(&self, id: &str) -> serde_json::Value {
        serde_json::from_str(&self.inspect(id).unwrap().info["info"]).unwrap()
    }

    /// The status of a container once it ended.
    pub fn ended(&self, id: &str) -> cri::ContainerStatus {
        until("an end of the container", || {
            let status = self.status(id);
            (status.state() == cri::ContainerState::ContainerExited).then_some(status)
        })
    }

    /// `ListContainers`, everything.
    pub fn containers(&self) -> Result<Vec<cri::Container>, Status> {
        let request = cri::ListContainersRequest::default();
        let call = async { self.runtime.clone().list_containers(request).await };
        Ok(self.threads.block_on(call)?.into_inner().containers)
    }

    /// `ExecSync` with this many seconds, 0 = no limit.
    pub fn exec(&self, id: &str, command: &[&str], timeout: i64) -> Result<Said, Status> {
        let cmd = command.iter().map(|word| (*word).to_owned()).collect();
        let request = cri::ExecSyncRequest { container_id: id.to_owned(), cmd, timeout };
        let call = async { self.runtime.clone().exec_sync(request).await };
        let answer = self.threads.block_on(call)?.into_inner();
        Ok(Said {
            stdout: String::from_utf8_lossy(&answer.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&answer.stderr).into_owned(),
            code: answer.exit_code,
        })
    }

    /// What a shell script in a container prints; it must succeed.
    pub fn shell(&self, id: &str, script: &str) -> String {
        let said = self.exec(id, &["sh", "-c", script], 0).unwrap();
        assert_eq!(said.code, 0, "{script}: {said:?}");
        said.stdout
    }

    /// `Exec`; the URL.
    pub fn exec_url(&self, request: cri::ExecRequest) -> Result<String, Status> {
        let call = async { self.runtime.clone().exec(request).await };
        Ok(self.threads.block_on(call)?.into_inner().url)
    }

    /// `Attach`; the URL.
    pub fn attach_url(&self, request: cri::AttachRequest) -> Result<String, Status> {
        let call = async { self.runtime.clone().attach(request).await };
        Ok(self.threads.block_on(call)?.into_inner().url)
    }

    /// `PortForward`; the URL.
    pub fn forward_url(&self, pod: &str, ports: &[i32]) -> Result<String, Status> {
        let request =
            cri::PortForwardRequest { pod_sandbox_id: pod.to_owned(), port: ports.to_vec() };
        let call = async { self.runtime.clone().port_forward(request).await };
        Ok(self.threads.block_on(call)?.into_inner().url)
    }

    /// `ReopenContainerLog`.
    pub fn reopen_log(&self, id: &str) -> Result<(), Status> {
        let request = cri::ReopenContainerLogRequest { container_id: id.to_owned() };
        let call = async { self.runtime.clone().reopen_container_log(request).await };
        self.threads.block_on(call).map(drop)
    }

    /// `ListImages`.
    pub fn images(&self) -> Result<Vec<cri::Image>, Status> {
        let request = cri::ListImagesRequest::default();
        let call = async { self.images.clone().list_images(request).await };
        Ok(self.threads.block_on(call)?.into_inner().images)
    }

    /// `ImageStatus`; `None` for an image that is not here.
    pub fn image(&self, name: &str) -> Result<Option<cri::Image>, Status> {
        let image = Some(cri::ImageSpec { image: name.to_owned(), ..Default::default() });
        let request = cri::ImageStatusRequest { image, verbose: false };
        let call = async { self.images.clone().image_status(request).await };
        Ok(self.threads.block_on(call)?.into_inner().image)
    }

    /// `PullImage` without credentials; the image's id.
    pub fn pull(&self, name: &str) -> Result<String, Status> {
        let image = Some(cri::ImageSpec { image: name.to_owned(), ..Default::default() });
        let request = cri::PullImageRequest { image, ..Default::default() };
        let call = async { self.images.clone().pull_image(request).await };
        Ok(self.threads.block_on(call)?.into_inner().image_ref)
    }

    /// `ImageFsInfo`.
    pub fn image_fs(&self) -> Result<cri::ImageFsInfoResponse, Status> {
        let call =
            async { self.images.clone().image_fs_info(cri::ImageFsInfoRequest::default()).await };
        Ok(self.threads.block_on(call)?.into_inner())
    }

    /// `RemoveImage`.
    pub fn remove_image(&self, name: &str) -> Result<(), Status> {
        let image = Some(cri::ImageSpec { image: name.to_owned(), ..Default::default() });
        let call =
            async { self.images.clone().remove_image(cri::RemoveImageRequest { image }).await };
        self.threads.block_on(call).map(drop)
    }
}
