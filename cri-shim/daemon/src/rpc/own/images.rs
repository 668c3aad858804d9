//! Images of the command line: pulls that tell how they come along, archives, further names. Paths are
//! the daemon's host's and absolute; who may connect is root on it anyway.

use crate::error::DaemonError;
use crate::rpc::call;
use crate::telemetry;
use shim_image::archive::export::To;
use shim_image::auth::Auth;
use shim_image::index::{Adoption, Image};
use shim_image::progress::Progress;
use shim_model::kind::Refused;
use shim_model::phases::Phases;
use shim_proto::wherry_v1 as own;
use shim_runtime::error::RuntimeError;
use shim_runtime::runtime::Runtime;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tonic::Status;
use tonic::codegen::BoxStream;

/// A pull under way, as its listener hears it.
struct Pulling {
    work: Pin<Box<dyn Future<Output = Result<Arc<Image>, RuntimeError>> + Send>>,
    /// Ends when the work does.
    events: UnboundedReceiver<Progress>,
    state: State,
}

/// Where a pull is.
enum State {
    /// The work goes on.
    Working,
    /// It ended; what was heard before is told first.
    Ended(Result<Arc<Image>, RuntimeError>),
    /// Everything was told.
    Told,
}

/// Pull: progress, then the image's id or the failure. Ends with whoever listens.
pub(crate) fn pull(runtime: Runtime, name: String) -> BoxStream<own::PullEvent> {
    let (heard, events) = unbounded_channel();
    let work = Box::pin(async move {
        let pulled = runtime.pull_image(&name, &Auth::Anonymous, Some(heard), None).await?;
        telemetry::made("image", &Phases(pulled.steps));
        Ok(pulled.image)
    });
    let pulling = Pulling { work, events, state: State::Working };
    Box::pin(futures_util::stream::unfold(pulling, next))
}

async fn next(mut pulling: Pulling) -> Option<(Result<own::PullEvent, Status>, Pulling)> {
    while matches!(pulling.state, State::Working) {
        tokio::select! {
            biased;
            Some(event) = pulling.events.recv() => return Some((Ok(progress(&event)), pulling)),
            ended = &mut pulling.work => pulling.state = State::Ended(ended),
        }
    }
    if let Ok(event) = pulling.events.try_recv() {
        return Some((Ok(progress(&event)), pulling));
    }
    match std::mem::replace(&mut pulling.state, State::Told) {
        State::Ended(Ok(image)) => {
            let image_id = image.id.to_string();
            Some((Ok(own::PullEvent { image_id, ..own::PullEvent::default() }), pulling))
        }
        State::Ended(Err(error)) => Some((Err(call::failed("Pull", &error.into())), pulling)),
        State::Working | State::Told => None,
    }
}

fn progress(event: &Progress) -> own::PullEvent {
    own::PullEvent {
        layer: event.layer.to_string(),
        done: event.done,
        total: event.total,
        image_id: String::new(),
    }
}

/// Import.
pub(crate) async fn import(
    runtime: Runtime,
    request: own::ImportRequest,
) -> Result<own::ImportResponse, DaemonError> {
    let path = absolute(&request.path)?;
    let tag = (!request.tag.is_empty()).then_some(request.tag.as_str());
    let adoption = Adoption { digests: request.digests, pinned: request.pinned };
    let images = runtime.images().import_as(path, tag, adoption).await?;
    let name =
        |image: &Arc<Image>| image.tags.first().cloned().unwrap_or_else(|| image.id.to_string());
    Ok(own::ImportResponse { images: images.iter().map(name).collect() })
}

/// Export; a failed one leaves no file behind.
pub(crate) async fn export(
    runtime: Runtime,
    request: own::ExportRequest,
) -> Result<own::ExportResponse, DaemonError> {
    let path = absolute(&request.path)?;
    let to = match request.format.as_str() {
        "oci" | "" => To::OciArchive(new_file(&path)?),
        "docker" => To::DockerArchive(new_file(&path)?),
        "oci-dir" => To::OciLayout(path.clone()),
        other => return Err(Refused::new("format", other, "oci, oci-dir or docker").into()),
    };
    let is_file = !matches!(to, To::OciLayout(_));
    if let Err(error) = runtime.images().export(request.images, to).await {
        if is_file && let Err(left) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), error = %left, "half an archive stays");
        }
        return Err(error.into());
    }
    Ok(own::ExportResponse {})
}

/// Tag.
pub(crate) async fn tag(
    runtime: Runtime,
    request: own::TagRequest,
) -> Result<own::TagResponse, DaemonError> {
    runtime.images().tag(&request.image, &request.tag).await?;
    Ok(own::TagResponse {})
}

/// Untag.
pub(crate) async fn untag(
    runtime: Runtime,
    request: own::UntagRequest,
) -> Result<own::UntagResponse, DaemonError> {
    let (untagged, deleted) = runtime.untag_image(&request.image, request.force).await?;
    Ok(own::UntagResponse { untagged, deleted: deleted.unwrap_or_default() })
}

/// Relative paths would mean the daemon's own folder.
fn absolute(path: &str) -> Result<PathBuf, Refused> {
    if Path::new(path).is_absolute() {
        Ok(PathBuf::from(path))
    } else {
        Err(Refused::new("path", path, "an absolute path"))
    }
}

/// A file that nobody had before: an export never overwrites.
fn new_file(path: &Path) -> Result<File, Refused> {
    File::options().write(true).create_new(true).open(path).map_err(|error| {
        let found = format!("{}: {error}", path.display());
        Refused::new("path", found, "a file that does not exist yet, in a folder that does")
    })
}
