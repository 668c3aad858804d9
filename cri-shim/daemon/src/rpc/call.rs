//! The wrapper of every RPC: a span with method and id, the time it took, a panic that ends one call
//! only, and the one conversion of failures. Work goes on in a task of its own when its caller leaves,
//! because kubelets cancel calls every day (`cri-contract.md` 0.7); only what its caller alone wants is
//! ended then. What an RPC does is not known here.

use super::status;
use crate::error::DaemonError;
use crate::telemetry::{metrics, traces};
use shim_model::kind::Kind;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tonic::codegen::BoxStream;
use tonic::{Code, Response, Status};
use tracing::Instrument;

/// What a method of the protocol answers.
pub(crate) type Answer<T> = Result<Response<T>, Status>;

/// Work that is finished whether or not its caller waits: changes.
pub(crate) async fn finish<T: Send + 'static>(
    method: &'static str,
    id: &str,
    work: impl Future<Output = Result<T, DaemonError>> + Send + 'static,
) -> Answer<T> {
    let begun = Instant::now();
    let span = span(method, id);
    let ended = tokio::spawn(work.instrument(span.clone())).await;
    answer(method, &span, begun.elapsed(), ended.map_err(|_panic| Panicked))
}

/// Work that ends when its caller leaves: execs, pulls, and what the runtime itself finishes.
pub(crate) async fn follow<T: Send + 'static>(
    method: &'static str,
    id: &str,
    work: impl Future<Output = Result<T, DaemonError>> + Send + 'static,
) -> Answer<T> {
    let begun = Instant::now();
    let span = span(method, id);
    let mut task = EndOnDrop(tokio::spawn(work.instrument(span.clone())));
    let ended = (&mut task.0).await;
    answer(method, &span, begun.elapsed(), ended.map_err(|_panic| Panicked))
}

/// Work that waits for nothing.
pub(crate) fn read<T>(
    method: &'static str,
    id: &str,
    work: impl FnOnce() -> Result<T, DaemonError>,
) -> Answer<T> {
    let begun = Instant::now();
    let span = span(method, id);
    // Nothing that a panic could leave half-done is reached again: reads change nothing.
    let ended = span.in_scope(|| std::panic::catch_unwind(AssertUnwindSafe(work)));
    answer(method, &span, begun.elapsed(), ended.map_err(|_panic| Panicked))
}

/// The messages of a list, one after the other; what was refused is refused before the first.
pub(crate) fn in_parts<T: Send + 'static>(listed: Answer<Vec<T>>) -> Answer<BoxStream<T>> {
    let messages = listed?.into_inner();
    Ok(Response::new(Box::pin(futures_util::stream::iter(messages.into_iter().map(Ok)))))
}

/// A call that a bug ended; the panic's own message was told where it happened.
struct Panicked;

fn span(method: &'static str, id: &str) -> tracing::Span {
    let id = id.get(..12).unwrap_or(id);
    tracing::info_span!("rpc", method, id)
}

fn answer<T>(
    method: &'static str,
    span: &tracing::Span,
    took: Duration,
    ended: Result<Result<T, DaemonError>, Panicked>,
) -> Answer<T> {
    match ended {
        Ok(Ok(reply)) => {
            metrics::call(method, status::word(Code::Ok), took);
            span.in_scope(|| tracing::debug!(?took, "done"));
            Ok(Response::new(reply))
        }
        Ok(Err(error)) => {
            let status = status::of(&error);
            metrics::call(method, status::word(status.code()), took);
            traces::failed(span, status.message());
            span.in_scope(|| tell(&status, error.kind(), Some(took)));
            Err(status)
        }
        Err(Panicked) => {
            metrics::call(method, status::word(Code::Internal), took);
            traces::failed(span, "a bug ended this call");
            span.in_scope(|| tracing::error!(?took, "a bug ended this call"));
            Err(status::panicked(method))
        }
    }
}

/// The end of a stream that failed.
pub(crate) fn failed(method: &'static str, error: &DaemonError) -> Status {
    let status = status::of(error);
    span(method, "").in_scope(|| tell(&status, error.kind(), None));
    status
}

/// Failures end here, so they are told here, once. A thing that is gone is everyday news.
fn tell(status: &Status, kind: Kind, took: Option<Duration>) {
    let (code, error) = (status.code(), status.message());
    let took = took.map(tracing::field::debug);
    match kind {
        Kind::NotFound | Kind::AlreadyExists | Kind::Unsupported => {
            tracing::debug!(took, ?code, error, "refused");
        }
        Kind::BadArgument | Kind::WrongState => tracing::info!(took, ?code, error, "refused"),
        Kind::TryAgain | Kind::TooSlow | Kind::NoRoom | Kind::Internal => {
            tracing::warn!(took, ?code, error, "failed");
        }
    }
}

/// A task that ends with whoever waits for it.
struct EndOnDrop<T>(JoinHandle<T>);

impl<T> Drop for EndOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::{finish, follow, read};
    use std::sync::Arc;
    use tokio::sync::Notify;
    use tonic::Code;

    #[tokio::test]
    async fn a_panic_ends_one_call() {
        let answer = finish::<()>("Test", "", async { panic!("a bug") }).await;
        assert_eq!(answer.unwrap_err().code(), Code::Internal);
        let answer = read::<()>("Test", "", || panic!("a bug"));
        assert_eq!(answer.unwrap_err().code(), Code::Internal);
    }

    #[tokio::test]
    async fn changes_are_finished_without_their_caller() {
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let work = {
            let (go, done) = (Arc::clone(&go), Arc::clone(&done));
            async move {
                go.notified().await;
                done.notify_one();
                Ok(())
            }
        };
        let mut call = Box::pin(finish("Test", "", work));
        assert!(futures_util::poll!(call.as_mut()).is_pending());
        drop(call);
        go.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn what_is_followed_ends_with_its_caller() {
        struct Told(Arc<Notify>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let dropped = Arc::new(Notify::new());
        let told = Told(Arc::clone(&dropped));
        let work = async move {
            let _told = told;
            std::future::pending().await
        };
        let mut call = Box::pin(follow::<()>("Test", "", work));
        assert!(futures_util::poll!(call.as_mut()).is_pending());
        drop(call);
        dropped.notified().await;
    }
}
