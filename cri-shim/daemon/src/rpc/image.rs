//! Verbs of the image service, and images as messages. Pulling, storing and deleting is the image crate's;
//! here words are converted and a missing image of a removal is success.

use super::{lists, sandbox, verbose};
use crate::error::DaemonError;
use crate::telemetry;
use shim_image::auth::{self, Auth};
use shim_image::index::Image;
use shim_image::reference::Reference;
use shim_model::kind::{Kind, Refused};
use shim_model::phases::Phases;
use shim_proto::runtime_v1 as cri;
use shim_runtime::runtime::Runtime;
use shim_runtime::stats::disk::FsUse;
use std::path::Path;
use std::sync::Arc;

/// `ListImages`.
pub(crate) fn list(
    runtime: &Runtime,
    request: &cri::ListImagesRequest,
) -> Result<cri::ListImagesResponse, DaemonError> {
    Ok(cri::ListImagesResponse { images: listed(runtime, request.filter.clone())? })
}

/// `StreamImages`.
pub(crate) fn stream(
    runtime: &Runtime,
    request: cri::StreamImagesRequest,
) -> Result<Vec<cri::StreamImagesResponse>, DaemonError> {
    let message = |images| cri::StreamImagesResponse { images };
    Ok(lists::parts(listed(runtime, request.filter)?, message))
}

fn listed(
    runtime: &Runtime,
    filter: Option<cri::ImageFilter>,
) -> Result<Vec<cri::Image>, DaemonError> {
    let images = match name(filter.and_then(|filter| filter.image)) {
        Some(wanted) => find(runtime, &wanted)?.into_iter().collect(),
        None => runtime.images().list(),
    };
    Ok(images.iter().map(|image| entry(image)).collect())
}

/// `ImageStatus`; an image that is not here is an answer without one, not an error.
pub(crate) fn status(
    runtime: &Runtime,
    request: &cri::ImageStatusRequest,
) -> Result<cri::ImageStatusResponse, DaemonError> {
    let found = find(runtime, &name(request.image.clone()).ok_or_else(nameless)?)?;
    let wanted = found.as_ref().filter(|_| request.verbose);
    let info = wanted.map(|image| verbose::image(runtime, image)).unwrap_or_default();
    Ok(cri::ImageStatusResponse { image: found.map(|image| entry(&image)), info })
}

/// `PullImage`; answers with the image's id.
pub(crate) async fn pull(
    runtime: Runtime,
    request: cri::PullImageRequest,
) -> Result<cri::PullImageResponse, DaemonError> {
    if let Some(spec) = &request.image {
        runtime.handlers().check("image.runtime_handler", &spec.runtime_handler)?;
    }
    let name = name(request.image).ok_or_else(nameless)?;
    let auth = auth(&request.auth.unwrap_or_default(), &name)?;
    let pod = request.sandbox_config.and_then(|pod| pod.metadata).map(sandbox::name);
    let pulled = runtime.pull_image(&name, &auth, None, pod).await?;
    telemetry::made("image", &Phases(pulled.steps));
    Ok(cri::PullImageResponse { image_ref: pulled.image.id.to_string() })
}

/// `RemoveImage`; a missing one is done.
pub(crate) async fn remove(
    runtime: Runtime,
    request: cri::RemoveImageRequest,
) -> Result<cri::RemoveImageResponse, DaemonError> {
    runtime.remove_image(&name(request.image).ok_or_else(nameless)?).await?;
    Ok(cri::RemoveImageResponse {})
}

/// `ImageFsInfo`; images and writable layers share one file system.
pub(crate) async fn fs_info(runtime: Runtime) -> Result<cri::ImageFsInfoResponse, DaemonError> {
    Ok(filesystems(runtime.fs_use().await?, &runtime.config().root))
}

fn name(spec: Option<cri::ImageSpec>) -> Option<String> {
    spec.map(|spec| spec.image).filter(|name| !name.is_empty())
}

fn nameless() -> Refused {
    Refused::new("image.image", "nothing", "a name, a digest or an id")
}

fn find(runtime: &Runtime, name: &str) -> Result<Option<Arc<Image>>, DaemonError> {
    match runtime.images().find(name) {
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        found => Ok(found?),
    }
}

/// An image as an entry of a list.
fn entry(image: &Image) -> cri::Image {
    let user = image.config.user.split(':').next().unwrap_or_default();
    let uid = shim_model::users::id(user).map(i64::from);
    cri::Image {
        id: image.id.to_string(),
        repo_tags: image.tags.iter().cloned().collect(),
        repo_digests: image.digests.iter().cloned().collect(),
        size: image.size.max(1),
        uid: uid.map(|value| cri::Int64Value { value }),
        username: if uid.is_some() { String::new() } else { user.to_owned() },
        spec: None,
        pinned: image.pinned,
    }
}

/// Credentials of a pull; those that name another server are not for it.
fn auth(config: &cri::AuthConfig, name: &str) -> Result<Auth, DaemonError> {
    if !auth::are_for(&config.server_address, &Reference::parse(name)?.host) {
        return Ok(Auth::Anonymous);
    }
    Ok(Auth::from_parts(
        &config.username,
        &config.password,
        &config.auth,
        &config.identity_token,
        &config.registry_token,
    )?)
}

fn filesystems(usage: FsUse, mountpoint: &Path) -> cri::ImageFsInfoResponse {
    let entry = |(bytes, inodes): (u64, u64)| cri::FilesystemUsage {
        timestamp: usage.at,
        fs_id: Some(cri::FilesystemIdentifier {
            mountpoint: mountpoint.to_string_lossy().into_owned(),
        }),
        used_bytes: Some(cri::UInt64Value { value: bytes }),
        inodes_used: Some(cri::UInt64Value { value: inodes }),
    };
    cri::ImageFsInfoResponse {
        image_filesystems: vec![entry(usage.images)],
        container_filesystems: vec![entry(usage.containers)],
    }
}
