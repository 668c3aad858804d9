//! The daemon over its socket: CRI for what it has, our own API for the rest. Names, ids and
//! unambiguous prefixes are accepted everywhere.

use super::failure::CliError;
use hyper_util::rt::TokioIo;
use shim_proto::runtime_v1 as cri;
use shim_proto::runtime_v1::image_service_client::ImageServiceClient;
use shim_proto::runtime_v1::runtime_service_client::RuntimeServiceClient;
use shim_proto::wherry_v1::wherry_client::WherryClient;
use std::error::Error;
use std::io::ErrorKind;
use std::path::Path;
use tonic::transport::{Channel, Endpoint};

/// Label of pods that the command line made.
pub(crate) const OWN: &str = "wherry.dev/cli";
/// Label by which a kubelet's pods are known.
const KUBELET: &str = "io.kubernetes.pod.uid";

/// Clients of the daemon.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Pods and containers.
    pub(crate) runtime: RuntimeServiceClient<Channel>,
    /// Images.
    pub(crate) images: ImageServiceClient<Channel>,
    /// What the CRI lacks.
    pub(crate) own: WherryClient<Channel>,
}

impl Client {
    /// Connects; a daemon that does not run is told with the way out.
    pub(crate) async fn connect(socket: &Path) -> Result<Self, CliError> {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.map_err(|error| unreachable(socket, &error))?;
        let limit = usize::MAX;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(limit),
            images: ImageServiceClient::new(channel.clone()).max_decoding_message_size(limit),
            own: WherryClient::new(channel),
        })
    }

    /// Every container.
    pub(crate) async fn containers(&mut self) -> Result<Vec<cri::Container>, CliError> {
        Ok(self
            .runtime
            .list_containers(cri::ListContainersRequest::default())
            .await?
            .into_inner()
            .containers)
    }

    /// Every pod.
    pub(crate) async fn pods(&mut self) -> Result<Vec<cri::PodSandbox>, CliError> {
        Ok(self
            .runtime
            .list_pod_sandbox(cri::ListPodSandboxRequest::default())
            .await?
            .into_inner()
            .items)
    }

    /// The status of a container.
    pub(crate) async fn status(&mut self, id: &str) -> Result<cri::ContainerStatus, CliError> {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = self.runtime.container_status(request).await?.into_inner();
        answer.status.ok_or_else(|| CliError::new("the daemon sent no status"))
    }

    /// A pod of the command line with this name, id or prefix that has no container: what is left of a run
    /// that was killed at the worst moment.
    pub(crate) async fn find_empty_pod(&mut self, name: &str) -> Result<Option<String>, CliError> {
        let (containers, pods) = (self.containers().await?, self.pods().await?);
        let is_empty = |pod: &&cri::PodSandbox| {
            is_own(pod) && !containers.iter().any(|container| container.pod_sandbox_id == pod.id)
        };
        let fits = |pod: &&cri::PodSandbox| {
            pod.metadata.as_ref().is_some_and(|known| known.name == name)
                || name.len() >= 4 && pod.id.starts_with(name)
        };
        let mut fitting = pods.iter().filter(is_empty).filter(fits);
        Ok(fitting.next().filter(|_| fitting.next().is_none()).map(|pod| pod.id.clone()))
    }

    /// The container with this name, id or prefix, and its pod.
    pub(crate) async fn find(&mut self, name: &str) -> Result<Found, CliError> {
        let (containers, pods) = (self.containers().await?, self.pods().await?);
        let pod_of = |container: &cri::Container| {
            pods.iter().find(|pod| pod.id == container.pod_sandbox_id).cloned()
        };
        let named = |container: &&cri::Container| {
            let own = pod_of(container).is_some_and(|pod| is_own(&pod));
            own && container.metadata.as_ref().is_some_and(|known| known.name == name)
        };
        let mut fitting: Vec<&cri::Container> = containers.iter().filter(named).collect();
        let is_id = !name.is_empty() && name.bytes().all(|b| b.is_ascii_hexdigit());
        if fitting.is_empty() && is_id {
            fitting =
                containers.iter().filter(|container| container.id.starts_with(name)).collect();
        }
        match fitting.as_slice() {
            [only] => Ok(Found { container: (*only).clone(), pod: pod_of(only) }),
            [] => Err(CliError::new(format!(
                "there is no container \"{name}\"; \"wherry ps -a\" lists them"
            ))),
            _ => Err(CliError::new(format!(
                "\"{name}\" fits {} containers; give more of the id",
                fitting.len()
            ))),
        }
    }
}

/// Why nobody was reached, and what to do about it.
fn unreachable(socket: &Path, error: &(dyn Error + 'static)) -> CliError {
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    let told = causes.find_map(|error| error.downcast_ref::<std::io::Error>());
    let at = socket.display();
    CliError::new(match told.map(std::io::Error::kind) {
        Some(ErrorKind::PermissionDenied) => format!(
            "you may not connect to {at}; run this as root, or let your group in with the keys of [socket] (\"wherry config\" tells them)"
        ),
        Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused) | None => format!(
            "nobody serves on {at}; start the daemon with \"wherry serve\", or name its socket with --socket or WHERRY_SOCKET"
        ),
        Some(_) => {
            let why = told.map(ToString::to_string).unwrap_or_default();
            format!(
                "connect to {at}: {why}; name the daemon's socket with --socket or WHERRY_SOCKET"
            )
        }
    })
}

/// A container and its pod.
#[derive(Debug)]
pub(crate) struct Found {
    /// The container.
    pub(crate) container: cri::Container,
    /// Its pod, unless it vanished meanwhile.
    pub(crate) pod: Option<cri::PodSandbox>,
}

impl Found {
    /// Refuses to touch what a kubelet owns; `way_out` is what else may be done than to use kubectl.
    pub(crate) fn may_change(&self, force: bool, way_out: &str) -> Result<(), CliError> {
        match &self.pod {
            Some(pod) if is_kubelets(pod) && !force => Err(CliError::new(format!(
                "container {} belongs to the kubelet's pod {}, which would make it again; use kubectl{way_out}",
                short(&self.container.id),
                pod.metadata.as_ref().map_or("", |known| known.name.as_str())
            ))),
            Some(_) | None => Ok(()),
        }
    }

    /// True while its program runs.
    pub(crate) fn runs(&self) -> bool {
        self.container.state() == cri::ContainerState::ContainerRunning
    }

    /// Refuses one that does not run; `name` is what it was called.
    pub(crate) fn must_run(&self, name: &str) -> Result<(), CliError> {
        if self.runs() {
            return Ok(());
        }
        Err(CliError::new(format!(
            "container \"{name}\" does not run; start it with \"wherry start {name}\""
        )))
    }

    /// True if the command line made the pod.
    pub(crate) fn is_own(&self) -> bool {
        self.pod.as_ref().is_some_and(is_own)
    }
}

/// True if the command line made the pod.
pub(crate) fn is_own(pod: &cri::PodSandbox) -> bool {
    pod.labels.contains_key(OWN) && !is_kubelets(pod)
}

/// True if a kubelet made the pod.
pub(crate) fn is_kubelets(pod: &cri::PodSandbox) -> bool {
    pod.labels.contains_key(KUBELET)
}

/// The first twelve characters.
pub(crate) fn short(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id)
}
