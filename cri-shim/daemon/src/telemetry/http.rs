//! The page of metrics, for whoever is given the address: `/metrics` are the daemon's own,
//! `/metrics/cadvisor` those of pods and containers as a kubelet shows them. Off unless configured. Owns
//! its listener, how many may be connected, and for how long. Nothing can be changed from here.

use super::metrics;
use crate::config::telemetry::Listen;
use crate::error::DaemonError;
use crate::listen;
use crate::rpc;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use pin_project_lite::pin_project;
use shim_model::limits;
use shim_runtime::runtime::Runtime;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// The text format that every scraper reads.
const TEXT: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Rights of a socket: root's, until somebody gives it to a group.
const MODE: u32 = 0o660;

/// Serves the page until `ending`; nothing if none is configured.
pub(crate) async fn serve(
    listen: &Listen,
    runtime: &Runtime,
    ending: CancellationToken,
) -> Result<(), DaemonError> {
    let listener = match listen {
        Listen::Off => return Ok(()),
        Listen::Tcp(address) => {
            let failed = |source| DaemonError::Metrics { address: address.to_string(), source };
            Either::Tcp(TcpListener::bind(address).await.map_err(failed)?)
        }
        Listen::Unix(path) => {
            let address = path.display().to_string();
            let failed = |source| DaemonError::Metrics { address, source };
            Either::Unix(listen::bind(path, (MODE, None)).map_err(failed)?)
        }
    };
    let places = Arc::new(Semaphore::new(limits::METRICS_CONNECTIONS));
    let router = Router::new()
        .route("/metrics", get(own))
        .route("/metrics/cadvisor", get(containers))
        .with_state(runtime.clone());
    tokio::spawn(async move {
        let served = axum::serve(Bounded { listener, places }, router);
        if let Err(error) = served.with_graceful_shutdown(ending.cancelled_owned()).await {
            tracing::warn!(%error, "the page of metrics is not served any more");
        }
    });
    Ok(())
}

async fn own(State(runtime): State<Runtime>) -> Response {
    page(metrics::text(&runtime).await)
}

async fn containers(State(runtime): State<Runtime>) -> Response {
    page(rpc::metrics::text(&runtime).await)
}

fn page(text: Result<String, DaemonError>) -> Response {
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT)], text).into_response(),
        Err(error) => {
            let error = shim_runtime::error::chain(&error);
            (StatusCode::INTERNAL_SERVER_ERROR, error).into_response()
        }
    }
}

/// Either kind of address.
enum Either {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A listener that takes a bounded number of connections, each for a bounded time.
struct Bounded {
    listener: Either,
    places: Arc<Semaphore>,
}

impl axum::serve::Listener for Bounded {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                std::future::pending().await
            };
            let stream: io::Result<Stream> = match &self.listener {
                Either::Tcp(listener) => listener.accept().await.map(|(tcp, _)| Box::pin(tcp) as _),
                Either::Unix(listener) => {
                    listener.accept().await.map(|(unix, _)| Box::pin(unix) as _)
                }
            };
            match stream {
                Ok(stream) => {
                    let ends = Box::pin(tokio::time::sleep(limits::METRICS_CONNECTION));
                    return (Connection { stream, ends, _place: place }, ());
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection to the metrics could not be accepted");
                    tokio::time::sleep(limits::ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

trait Both: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Both for T {}
type Stream = Pin<Box<dyn Both>>;

pin_project! {
    /// One scraper's connection; reads end with its time.
    struct Connection {
        stream: Stream,
        ends: Pin<Box<Sleep>>,
        _place: OwnedSemaphorePermit,
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        if this.ends.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        this.stream.as_mut().poll_read(cx, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        // A client that does not read must not keep its place for ever either.
        if this.ends.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        this.stream.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.as_mut().poll_shutdown(cx)
    }
}
