//! The server behind streaming URLs. Owns its socket, the tokens, who may have how many streams, and the
//! life of each connection, which is one task from its first octet to its last: request head, answer, then
//! what was agreed on. Answers nothing but the three paths, and sends nobody elsewhere. A bug in one
//! connection ends that connection.

use super::negotiate::{self, Agreed, Purpose, Refusal, Spoken};
use super::session::{Backend, Duplex};
use super::tls::{Tls, TlsFiles};
use super::token::{Ask, Tokens};
use super::wire::Left;
use super::{command, portforward};
use crate::error::DaemonError;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, on};
use hyper_util::rt::TokioIo;
use shim_model::limits;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};
use tracing::Instrument;

/// What can be configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) address: SocketAddr,
    pub(crate) idle: Duration,
    pub(crate) tls: Option<TlsFiles>,
}

/// A running server; it and all its streams end when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    tokens: Arc<Mutex<Tokens>>,
    /// Scheme and address of every URL.
    base: String,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Listens, and serves what the backend has.
    pub(crate) async fn start<B: Backend>(
        settings: Settings,
        backend: B,
    ) -> Result<Self, DaemonError> {
        let tls = settings.tls.map(Tls::open).transpose()?;
        let failed = |source| DaemonError::Listen { address: settings.address, source };
        let listener = TcpListener::bind(settings.address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let base = format!("{}://{address}", if tls.is_some() { "https" } else { "http" });
        let tokens = Arc::new(Mutex::new(Tokens::default()));
        let house = Arc::new(House {
            backend,
            tokens: Arc::clone(&tokens),
            idle: settings.idle,
            tls,
            seats: Arc::new(Semaphore::new(limits::STREAM_SESSIONS)),
            taken: Arc::default(),
        });
        Ok(Self { tokens, base, accepting: tokio::spawn(accept(listener, house)) })
    }

    /// The URL where a request's client finds its streams, once, within a minute.
    pub(crate) fn url(&self, ask: Ask) -> Result<String, DaemonError> {
        let path = ask.path();
        let token = locked(&self.tokens).keep(ask, rand::random(), Instant::now());
        let token = token.ok_or(DaemonError::TooManyUrls)?;
        Ok(format!("{}/{path}/{token}", self.base))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Short sections only, never over an await.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all connections share.
struct House<B> {
    backend: B,
    tokens: Arc<Mutex<Tokens>>,
    idle: Duration,
    tls: Option<Tls>,
    seats: Arc<Semaphore>,
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

/// A place among the streams of the node and of one container or pod.
struct Seat {
    _place: OwnedSemaphorePermit,
    taken: Arc<Mutex<HashMap<String, usize>>>,
    object: String,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = locked(&self.taken);
        if let Some(count) = taken.get_mut(&self.object) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.object);
            }
        }
    }
}

// === connections ===

async fn accept<B: Backend>(listener: TcpListener, house: Arc<House<B>>) {
    let strangers = Strangers::default();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (stream, place) = next(&listener, &strangers) => {
                let house = Arc::clone(&house);
                let span = tracing::info_span!("stream");
                connections.spawn(connection(stream, place, house).instrument(span));
            }
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a bug ended a stream");
                }
            }
        }
    }
}

/// Connections that have not shown a token yet. When all places are taken, who has held one for longest
/// gives it up: a pod on the host's network can open connections and say nothing, and a kubelet that says
/// what it wants at once must get through all the same.
#[derive(Clone, Debug)]
struct Strangers {
    places: Arc<Semaphore>,
    /// Wakes whoever waits longest.
    full: Arc<Notify>,
}

impl Default for Strangers {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(limits::STREAM_STRANGERS));
        Self { places, full: Arc::default() }
    }
}

/// A place among the strangers.
struct Place {
    _place: Option<OwnedSemaphorePermit>,
    full: Arc<Notify>,
}

impl Strangers {
    async fn place(&self) -> Place {
        let full = Arc::clone(&self.full);
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Place { _place: Some(place), full };
        }
        self.full.notify_one();
        Place { _place: Arc::clone(&self.places).acquire_owned().await.ok(), full }
    }
}

/// The next connection. A failed accept (no descriptors left) is told and tried again; it never ends the
/// server.
async fn next(listener: &TcpListener, strangers: &Strangers) -> (TcpStream, Place) {
    let place = strangers.place().await;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                tracing::warn!(%error, "a stream's connection could not be accepted");
                tokio::time::sleep(limits::ACCEPT_RETRY).await;
            }
        }
    }
}

/// What was agreed on with a client.
struct Work {
    upgrade: OnUpgrade,
    spoken: Spoken,
    ask: Ask,
    seat: Seat,
}

async fn connection<B: Backend>(stream: TcpStream, place: Place, house: Arc<House<B>>) {
    // A terminal's single characters must not wait for each other.
    drop(stream.set_nodelay(true));
    let asked = tokio::select! {
        asked = timeout(limits::STREAM_REQUEST, request(stream, &house)) => asked,
        () = place.full.notified() => return,
    };
    drop(place);
    let Ok(Some((upgraded, work))) = asked else { return };
    let Work { spoken, ask, seat, upgrade: _ } = work;
    let (kind, object) = (ask.path(), ask.object().get(..12).unwrap_or(ask.object()));
    tracing::debug!(kind, object, "a stream begins");
    let left = Box::pin(talk(&house, upgraded, spoken, &ask)).await;
    drop(seat);
    match left {
        Left::Bad(why) => tracing::info!(kind, object, why, "a client's stream was not understood"),
        Left::Idle => tracing::info!(kind, object, "a stream was idle for too long"),
        Left::Broken(error) => tracing::debug!(kind, object, %error, "a client's stream broke"),
        Left::Finished => tracing::debug!(kind, object, "a stream ended"),
        Left::Closed => tracing::debug!(kind, object, "a client left its stream"),
    }
}

/// Reads one request, answers it, and gives the connection back if something was agreed on.
async fn request<B: Backend>(
    stream: TcpStream,
    house: &House<B>,
) -> Option<(TokioIo<hyper::upgrade::Upgraded>, Work)> {
    let io: Box<dyn Duplex> = match &house.tls {
        None => Box::new(stream),
        Some(tls) => Box::new(tls.acceptor().accept(stream).await.ok()?),
    };
    let agreed = Mutex::new(None);
    let service = service_fn(|request| {
        let response = match house.agree(request) {
            Ok((response, work)) => {
                *locked(&agreed) = Some(work);
                response
            }
            Err(refusal) => refusal.response(),
        };
        async move { Ok::<_, Infallible>(response) }
    });
    // Without keep-alive the library would add "close" to what an upgrade says, and Go's clients would
    // take the upgrade for refused.
    let served = http1::Builder::new()
        .max_headers(limits::STREAM_REQUEST_HEADERS)
        .max_buf_size(limits::STREAM_REQUEST_BYTES)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades()
        .await;
    // What is no request has had its answer from the library.
    served.ok()?;
    let mut work = agreed.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    let upgraded = (&mut work.upgrade).await.ok()?;
    Some((TokioIo::new(upgraded), work))
}

impl<B: Backend> House<B> {
    fn agree(&self, request: Request<Incoming>) -> Result<(Response<String>, Work), Refusal> {
        if ![Method::GET, Method::POST].contains(request.method()) {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "GET and POST are served"));
        }
        // What follows the path was said in the RPC already.
        let mut parts = request.uri().path().split('/').skip(1);
        let ask = match (parts.next(), parts.next(), parts.next()) {
            (Some(path), Some(token), None) => {
                locked(&self.tokens).take(path, token, Instant::now())
            }
            _ => None,
        };
        let Some(ask) = ask else {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "no such stream, or not any more"));
        };
        let purpose = match &ask {
            Ask::Exec { .. } | Ask::Attach { .. } => Purpose::Command,
            Ask::Forward { .. } => Purpose::Forward,
        };
        let agreed: Agreed = negotiate::negotiate(purpose, request.headers())?;
        if let (Spoken::SocketForward { .. }, Ask::Forward { ports, .. }) = (agreed.spoken, &ask)
            && ports.is_empty()
        {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "the request names no port"));
        }
        let seat = self.seat(ask.object())?;
        let response = agreed.response();
        Ok((response, Work { upgrade: on(request), spoken: agreed.spoken, ask, seat }))
    }

    fn seat(&self, object: &str) -> Result<Seat, Refusal> {
        let full = |text| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text);
        let seat = Arc::clone(&self.seats).try_acquire_owned();
        let seat = seat.map_err(|_none| full("the node has too many streams"))?;
        let mut taken = locked(&self.taken);
        let count = taken.entry(object.to_owned()).or_default();
        if *count >= limits::STREAM_SESSIONS_EACH {
            return Err(full("this container or pod has too many streams"));
        }
        *count = count.saturating_add(1);
        Ok(Seat { _place: seat, taken: Arc::clone(&self.taken), object: object.to_owned() })
    }
}

async fn talk<B: Backend>(
    house: &House<B>,
    io: TokioIo<hyper::upgrade::Upgraded>,
    spoken: Spoken,
    ask: &Ask,
) -> Left {
    let (backend, idle) = (&house.backend, house.idle);
    let command = command::Client { backend, ask, idle };
    let forward = portforward::Client { backend, sandbox: ask.object(), idle };
    match spoken {
        Spoken::SpdyCommand { resizes, form } => command.spdy(io, resizes, form).await,
        Spoken::SocketCommand { framing, form } => command.websocket(io, framing, form).await,
        Spoken::SpdyForward => forward.spdy(io).await,
        Spoken::TunnelForward => {
            forward.spdy(super::websocket::tunnel::Tunnel::open(io).await).await
        }
        Spoken::SocketForward { framing } => {
            let ports = match ask {
                Ask::Forward { ports, .. } => ports.as_slice(),
                Ask::Exec { .. } | Ask::Attach { .. } => &[],
            };
            forward.websocket(io, framing, ports).await
        }
    }
}
