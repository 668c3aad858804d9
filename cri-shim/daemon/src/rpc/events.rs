//! `GetContainerEvents`: what happens from now on, one message each, until the client leaves or the daemon
//! ends. A client that does not read is told that it missed something, and must list again. How events
//! come about is the runtime's business.

use super::{call, container::status as container, sandbox};
use crate::error::DaemonError;
use futures_util::StreamExt;
use shim_proto::runtime_v1 as cri;
use shim_runtime::events::{Event, Happened, Listening};
use shim_runtime::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;

/// `GetContainerEvents`.
pub(crate) fn stream(
    runtime: &Runtime,
    ending: CancellationToken,
) -> Result<BoxStream<cri::ContainerEventResponse>, DaemonError> {
    let (runtime, listening) = (runtime.clone(), runtime.listen()?);
    let told = futures_util::stream::unfold(Some(listening), move |listening| {
        let runtime = runtime.clone();
        async move { next(&runtime, listening?).await }
    });
    Ok(Box::pin(told.take_until(ending.cancelled_owned())))
}

type Told = Result<cri::ContainerEventResponse, tonic::Status>;

async fn next(
    runtime: &Runtime,
    mut listening: Listening<Event>,
) -> Option<(Told, Option<Listening<Event>>)> {
    match listening.next().await {
        Ok(Some(event)) => Some((Ok(message(runtime, &event)), Some(listening))),
        Ok(None) => None,
        Err(error) => Some((Err(call::failed("GetContainerEvents", &error.into())), None)),
    }
}

/// An event with the statuses of its pod and of everything in it, as they were then.
fn message(runtime: &Runtime, event: &Event) -> cri::ContainerEventResponse {
    let what = match event.what {
        Happened::Created => cri::ContainerEventType::ContainerCreatedEvent,
        Happened::Started => cri::ContainerEventType::ContainerStartedEvent,
        Happened::Stopped => cri::ContainerEventType::ContainerStoppedEvent,
        Happened::Deleted => cri::ContainerEventType::ContainerDeletedEvent,
    };
    let containers = event.containers.iter();
    cri::ContainerEventResponse {
        container_id: event.id.clone(),
        container_event_type: what.into(),
        created_at: event.at,
        pod_sandbox_status: Some(sandbox::status_of(&event.pod, &event.state)),
        containers_statuses: containers
            .map(|(one, state)| container::status_of(runtime, one, state))
            .collect(),
    }
}
