//! `wherry.v1`: what the CRI lacks and the command line needs. Same socket, same wrapper for failures.

use crate::error::DaemonError;
use crate::rpc::{sandbox, status};
use futures_util::StreamExt;
use prost::Message;
use shim_image::archive::export::To;
use shim_image::auth::Auth;
use shim_image::progress::Progress;
use shim_model::kind::Refused;
use shim_proto::runtime_v1 as cri;
use shim_proto::wherry_v1 as own;
use shim_proto::wherry_v1::wherry_server::Wherry;
use shim_runtime::runtime::Runtime;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

/// Our own API over a runtime.
#[derive(Clone, Debug)]
pub(crate) struct OwnService {
    runtime: Runtime,
}

impl OwnService {
    /// Serves this runtime.
    pub(crate) fn new(runtime: Runtime) -> Self {
        Self { runtime }
    }
}

fn told(error: impl Into<DaemonError>) -> Status {
    status::of(&error.into())
}

fn refused(field: &str, found: &str, allowed: &str) -> Status {
    told(Refused::new(field, found, allowed))
}

/// A path of the daemon's host; relative ones would mean the daemon's own folder.
fn absolute(field: &str, path: &str) -> Result<PathBuf, Status> {
    let path = Path::new(path);
    if path.is_absolute() {
        Ok(path.to_owned())
    } else {
        Err(refused(field, &path.to_string_lossy(), "an absolute path"))
    }
}

#[tonic::async_trait]
impl Wherry for OwnService {
    async fn info(&self, _: Request<own::InfoRequest>) -> Answer<own::InfoResponse> {
        let (config, host) = (self.runtime.config(), self.runtime.host());
        Ok(Response::new(own::InfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state_dir: config.state.to_string_lossy().into_owned(),
            root_dir: config.root.to_string_lossy().into_owned(),
            pid: std::process::id(),
            cgroup_driver: "cgroupfs".to_owned(),
            cgroup_layout: format!("{:?}", host.cgroup).to_lowercase(),
            kernel: format!("{}.{}", host.kernel.0, host.kernel.1),
        }))
    }

    async fn run_pod(&self, request: Request<own::RunPodRequest>) -> Answer<own::RunPodResponse> {
        let bytes = request.into_inner().config;
        let config = cri::PodSandboxConfig::decode(bytes.as_slice()).map_err(|error| {
            refused("config", &error.to_string(), "an encoded runtime.v1.PodSandboxConfig")
        })?;
        let mut config = sandbox::config(config, String::new()).map_err(told)?;
        config.own = true;
        let id = self.runtime.run_sandbox(config).await.map_err(told)?;
        Ok(Response::new(own::RunPodResponse { pod_sandbox_id: id.to_string() }))
    }

    async fn start_again(
        &self,
        request: Request<own::StartAgainRequest>,
    ) -> Answer<own::StartAgainResponse> {
        let id = request.into_inner().container_id;
        let known = self.runtime.container(&id).map_err(told)?;
        let mut config = known.record.config.clone();
        config.metadata.attempt = config.metadata.attempt.saturating_add(1);
        let directory = known
            .record
            .log_path
            .parent()
            .map(|dir| dir.to_string_lossy().into_owned())
            .unwrap_or_default();
        let sandbox = known.record.sandbox.to_string();
        let made =
            self.runtime.create_container(&sandbox, config, &directory).await.map_err(told)?;
        self.runtime.remove_container(&id).await.map_err(told)?;
        self.runtime.start_container(made.as_str()).await.map_err(told)?;
        Ok(Response::new(own::StartAgainResponse { container_id: made.to_string() }))
    }

    async fn pull(&self, request: Request<own::PullRequest>) -> Answer<BoxStream<own::PullEvent>> {
        let name = request.into_inner().image;
        let images = self.runtime.images().clone();
        let (heard, events) = mpsc::unbounded_channel::<Progress>();
        let (out, answers) = mpsc::unbounded_channel();
        let last = out.clone();
        tokio::spawn(async move {
            let pulled = images.pull(&name, &Auth::Anonymous, Some(heard)).await;
            let event = pulled.map(|image| own::PullEvent {
                image_id: image.id.to_string(),
                ..own::PullEvent::default()
            });
            let _the_client_left = last.send(event.map_err(told));
        });
        let forward = UnboundedReceiverStream::new(events).map(|event| {
            Ok(own::PullEvent {
                layer: event.layer.to_string(),
                done: event.done,
                total: event.total,
                image_id: String::new(),
            })
        });
        drop(out);
        let stream = futures_util::stream::select(forward, UnboundedReceiverStream::new(answers));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn import(&self, request: Request<own::ImportRequest>) -> Answer<own::ImportResponse> {
        let request = request.into_inner();
        let path = absolute("path", &request.path)?;
        let tag = (!request.tag.is_empty()).then_some(request.tag.as_str());
        let images = self.runtime.images().import(path, tag).await.map_err(told)?;
        let name = |image: &shim_image::index::Image| {
            image.tags.first().cloned().unwrap_or_else(|| image.id.to_string())
        };
        Ok(Response::new(own::ImportResponse {
            images: images.iter().map(|image| name(image)).collect(),
        }))
    }

    async fn export(&self, request: Request<own::ExportRequest>) -> Answer<own::ExportResponse> {
        let request = request.into_inner();
        let path = absolute("path", &request.path)?;
        let file = || {
            let created = std::fs::File::options().write(true).create_new(true).open(&path);
            created.map_err(|error| {
                refused(
                    "path",
                    &format!("{}: {error}", path.display()),
                    "a file that does not exist yet",
                )
            })
        };
        let to = match request.format.as_str() {
            "oci" | "" => To::OciArchive(file()?),
            "docker" => To::DockerArchive(file()?),
            "oci-dir" => To::OciLayout(path),
            other => return Err(refused("format", other, "oci, oci-dir or docker")),
        };
        self.runtime.images().export(request.images, to).await.map_err(told)?;
        Ok(Response::new(own::ExportResponse {}))
    }

    async fn tag(&self, request: Request<own::TagRequest>) -> Answer<own::TagResponse> {
        let request = request.into_inner();
        self.runtime.images().tag(&request.image, &request.tag).await.map_err(told)?;
        Ok(Response::new(own::TagResponse {}))
    }
}
