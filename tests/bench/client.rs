//! One CRI client for every runtime: the same requests in the same order, as a kubelet makes them, timed
//! from outside. Knows no runtime but by its socket. May be used again after a restart of the daemon
//! only by making a new one.

use crate::images;
use anyhow::{Context, Result, ensure};
use hyper_util::rt::TokioIo;
use shim_proto::runtime_v1 as cri;
use shim_proto::runtime_v1::image_service_client::ImageServiceClient;
use shim_proto::runtime_v1::runtime_service_client::RuntimeServiceClient;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

/// A pod that runs, and how long each step took.
#[derive(Clone, Debug)]
pub(crate) struct Started {
    pub(crate) id: String,
    pub(crate) container: String,
    pub(crate) run: Duration,
    pub(crate) create: Duration,
    pub(crate) start: Duration,
}

/// A pod that is gone, and how long each step took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) stop: Duration,
    pub(crate) remove: Duration,
}

/// Ends a call that hangs. Not an assertion: a pull of a large image takes part of it.
const DEADLINE: Duration = Duration::from_mins(5);
/// Lists are small, but a message may be as large as kubelets allow.
const LARGEST: usize = 16 << 20;

impl Client {
    /// A client that connects when it is used.
    pub(crate) fn new(socket: PathBuf) -> Self {
        let connect = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost").timeout(DEADLINE);
        let channel = endpoint.connect_with_connector_lazy(connect);
        let runtime = RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(LARGEST);
        Self { runtime, images: ImageServiceClient::new(channel) }
    }

    /// Whether the runtime says that it and its network are ready.
    pub(crate) async fn is_ready(&self) -> bool {
        let answer = self.runtime.clone().status(cri::StatusRequest::default()).await;
        let status = answer.ok().and_then(|answer| answer.into_inner().status);
        // A runtime may have conditions of its own, such as containerd's about what is deprecated.
        let ready = |name: &str| {
            let conditions = status.iter().flat_map(|status| &status.conditions);
            conditions.into_iter().any(|one| one.r#type == name && one.status)
        };
        ready("RuntimeReady") && ready("NetworkReady")
    }

    /// `PullImage`.
    pub(crate) async fn pull(&self, image: &str) -> Result<()> {
        let request = cri::PullImageRequest { image: Some(spec(image)), ..Default::default() };
        let done = self.images.clone().pull_image(request).await;
        done.map(drop).with_context(|| format!("pull {image}"))
    }

    /// `RemoveImage`.
    pub(crate) async fn remove_image(&self, image: &str) -> Result<()> {
        let request = cri::RemoveImageRequest { image: Some(spec(image)) };
        let done = self.images.clone().remove_image(request).await;
        done.map(drop).with_context(|| format!("remove {image}"))
    }

    /// `RunPodSandbox`, `CreateContainer`, `StartContainer`.
    pub(crate) async fn start(&self, name: &str) -> Result<Started> {
        let mut runtime = self.runtime.clone();
        let sandbox = sandbox(name);
        let mut clock = Laps::begin();
        let request =
            cri::RunPodSandboxRequest { config: Some(sandbox.clone()), ..Default::default() };
        let answer = runtime.run_pod_sandbox(request).await.context("RunPodSandbox")?;
        let id = answer.into_inner().pod_sandbox_id;
        let run = clock.lap();
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: id.clone(),
            config: Some(container()),
            sandbox_config: Some(sandbox),
        };
        let answer = runtime.create_container(request).await.context("CreateContainer")?;
        let container = answer.into_inner().container_id;
        let create = clock.lap();
        let request = cri::StartContainerRequest { container_id: container.clone() };
        runtime.start_container(request).await.context("StartContainer")?;
        Ok(Started { id, container, run, create, start: clock.lap() })
    }

    /// `ExecSync` of `true`.
    pub(crate) async fn exec(&self, container: &str) -> Result<Duration> {
        let begun = Instant::now();
        let request = cri::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: vec!["true".to_owned()],
            timeout: 10,
        };
        let answer = self.runtime.clone().exec_sync(request).await.context("ExecSync")?;
        let code = answer.into_inner().exit_code;
        ensure!(code == 0, "true ended with {code}");
        Ok(begun.elapsed())
    }

    /// `StopPodSandbox`, `RemovePodSandbox`.
    pub(crate) async fn end(&self, pod: &str) -> Result<Ended> {
        let mut runtime = self.runtime.clone();
        let mut clock = Laps::begin();
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: pod.to_owned() };
        runtime.stop_pod_sandbox(request).await.context("StopPodSandbox")?;
        let stop = clock.lap();
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: pod.to_owned() };
        runtime.remove_pod_sandbox(request).await.context("RemovePodSandbox")?;
        Ok(Ended { stop, remove: clock.lap() })
    }

    /// `ListPodSandbox`, everything.
    pub(crate) async fn pods(&self) -> Result<Vec<cri::PodSandbox>> {
        let request = cri::ListPodSandboxRequest::default();
        let answer = self.runtime.clone().list_pod_sandbox(request).await;
        Ok(answer.context("ListPodSandbox")?.into_inner().items)
    }

    /// `ListContainers`, everything.
    pub(crate) async fn containers(&self) -> Result<Vec<cri::Container>> {
        let request = cri::ListContainersRequest::default();
        let answer = self.runtime.clone().list_containers(request).await;
        Ok(answer.context("ListContainers")?.into_inner().containers)
    }
}

/// How long each of several steps took.
struct Laps {
    last: Instant,
}

impl Laps {
    fn begin() -> Self {
        Self { last: Instant::now() }
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.last, now))
    }
}

fn spec(image: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: image.to_owned(), ..Default::default() }
}

fn namespaces() -> cri::NamespaceOption {
    cri::NamespaceOption {
        network: cri::NamespaceMode::Pod.into(),
        pid: cri::NamespaceMode::Container.into(),
        ..Default::default()
    }
}

fn sandbox(name: &str) -> cri::PodSandboxConfig {
    let security = cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces()),
        seccomp: Some(cri::SecurityProfile::default()),
        ..Default::default()
    };
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-of-{name}"),
            namespace: "bench".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        // Below what is a scratch folder inside the node.
        log_directory: format!("/var/lib/logs/{name}"),
        linux: Some(cri::LinuxPodSandboxConfig {
            security_context: Some(security),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The default seccomp profile, a memory limit and shares, as most pods have them.
fn container() -> cri::ContainerConfig {
    let security = cri::LinuxContainerSecurityContext {
        namespace_options: Some(namespaces()),
        seccomp: Some(cri::SecurityProfile::default()),
        ..Default::default()
    };
    let resources = cri::LinuxContainerResources {
        cpu_shares: 102,
        memory_limit_in_bytes: 64 << 20,
        oom_score_adj: 999,
        ..Default::default()
    };
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: "c".to_owned(), attempt: 0 }),
        image: Some(spec(images::SMALL)),
        command: vec!["sleep".to_owned(), "100000".to_owned()],
        log_path: "c.log".to_owned(),
        linux: Some(cri::LinuxContainerConfig {
            security_context: Some(security),
            resources: Some(resources),
        }),
        ..Default::default()
    }
}
