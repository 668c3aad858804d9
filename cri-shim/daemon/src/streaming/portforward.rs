//! The story of a port-forward: any number of connections to a pod's ports over one connection of a client,
//! each a pair of streams, one for bytes and one for a sentence if it fails (`cri-contract.md` 4.6). Which
//! streams belong together is decided purely; a port's connection ends with its client's stream, and a
//! pair that fails leaves the others alone. How a pod is reached is the backend's.

use super::channels::{Gone, Inbound, Outbound};
use super::pump::Appetite;
use super::session::{Backend, Duplex};
use super::spdy::connection::{self as spdy, Admit, Opened};
use super::spdy::headers::Headers;
use super::websocket::channels::Framing;
use super::websocket::connection::{self as websocket, Direction};
use super::wire::{self, Left};
use crate::error::DaemonError;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use shim_model::limits;
use shim_runtime::error::chain;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::Instant;

/// A client that reaches a pod's ports.
#[derive(Debug)]
pub(crate) struct Client<'a, B> {
    pub(crate) backend: &'a B,
    pub(crate) sandbox: &'a str,
    pub(crate) idle: Duration,
}

/// One connection to a port, with its two streams.
#[derive(Debug)]
struct Pair {
    port: u16,
    inbound: Inbound,
    data: Outbound,
    error: Outbound,
}

impl<B: Backend> Client<'_, B> {
    /// Pairs of streams over SPDY, until the client leaves.
    pub(crate) async fn spdy<S: AsyncRead + AsyncWrite + Send>(&self, io: S) -> Left {
        let (connection, ends) = spdy::open(io, Halves, self.idle);
        let queue = ends.queue.clone();
        wire::over(connection.run(), self.pairs(ends), queue).await
    }

    async fn pairs(&self, mut ends: spdy::Ends<Half>) {
        let mut waiting = Waiting::default();
        let mut forwards = FuturesUnordered::new();
        loop {
            let until = waiting.until();
            tokio::select! {
                opened = ends.opened.recv() => {
                    let Some(opened) = opened else { return };
                    match waiting.add(opened, Instant::now()) {
                        Added::Complete(pair) => forwards.push(self.forward(pair)),
                        Added::Waits => {}
                        Added::Twice(stream) => drop(stream.reset().await),
                    }
                }
                Some(()) = forwards.next() => {}
                () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                    for lone in waiting.take_late(Instant::now()) {
                        drop(lone.give_up().await);
                    }
                }
            }
        }
    }

    /// Two channels of a WebSocket for each port, until all of them ended or the client leaves.
    pub(crate) async fn websocket<S>(&self, io: S, framing: Framing, ports: &[u16]) -> Left
    where
        S: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let channels: Vec<Direction> =
            ports.iter().flat_map(|_| [Direction::Both, Direction::Server]).collect();
        let (connection, ends) = websocket::open(io, framing, &channels, self.idle).await;
        let queue = ends.queue.clone();
        let session = async {
            let mut inbound = ends.inbound.into_iter().flatten();
            let mut outbound = ends.outbound.into_iter();
            let forwards = FuturesUnordered::new();
            for port in ports {
                let (Some(inbound), Some(data), Some(error)) =
                    (inbound.next(), outbound.next(), outbound.next())
                else {
                    return;
                };
                let number = Bytes::copy_from_slice(&port.to_le_bytes());
                for channel in [&data, &error] {
                    if channel.send(number.clone()).await.is_err() {
                        return;
                    }
                }
                forwards.push(self.forward(Pair { port: *port, inbound, data, error }));
            }
            forwards.collect::<()>().await;
        };
        wire::over(connection.run(), session, queue).await
    }

    async fn forward(&self, pair: Pair) {
        let Pair { port, mut inbound, data, error } = pair;
        let given_up = inbound.reset.clone();
        let whole = async {
            match self.dial(port).await {
                Ok(pod) => shuttle(pod, &mut inbound, &data).await,
                Err(failure) => {
                    let text =
                        format!("forward port {port} to pod {}: {}", self.sandbox, chain(&failure));
                    drop(error.send(text.into()).await);
                }
            }
        };
        tokio::select! {
            () = whole => {}
            () = given_up.cancelled() => {}
        }
        drop(finished(&data, &error).await);
    }

    async fn dial(&self, port: u16) -> Result<Box<dyn Duplex>, DaemonError> {
        let dialing = self.backend.dial(self.sandbox, port);
        let dialed = tokio::time::timeout(limits::FORWARD_DIAL, dialing).await;
        dialed.unwrap_or(Err(DaemonError::DialLate))
    }
}

/// Nothing follows on either stream. What the client had ended is gone with our end; what it had not is
/// reset, because clients do not end what they do not use.
async fn finished(data: &Outbound, error: &Outbound) -> Result<(), Gone> {
    for stream in [error, data] {
        stream.end().await?;
    }
    for stream in [error, data] {
        stream.reset().await?;
    }
    Ok(())
}

/// Moves bytes both ways until it is over: when the pod ended, the client has a moment; when the client
/// ended, the pod may answer as long as it says something.
async fn shuttle(pod: Box<dyn Duplex>, inbound: &mut Inbound, data: &Outbound) {
    let (read, write) = tokio::io::split(pod);
    let heard = std::sync::atomic::AtomicU64::new(0);
    let to_pod = to_pod(inbound, write);
    let to_client = to_client(read, data, &heard);
    tokio::pin!(to_pod, to_client);
    tokio::select! {
        () = &mut to_client => {
            if data.end().await.is_ok() {
                drop(tokio::time::timeout(limits::FORWARD_CLOSING, to_pod).await);
            }
        }
        () = &mut to_pod => {
            tokio::select! {
                () = to_client => {}
                () = silence(&heard) => {}
            }
        }
    }
}

/// Returns when nothing came from the pod for as long as an answer may take.
async fn silence(heard: &std::sync::atomic::AtomicU64) {
    use std::sync::atomic::Ordering::Relaxed;
    loop {
        let before = heard.load(Relaxed);
        tokio::time::sleep(limits::FORWARD_ANSWER).await;
        if heard.load(Relaxed) == before {
            return;
        }
    }
}

async fn to_pod(inbound: &mut Inbound, mut pod: WriteHalf<Box<dyn Duplex>>) {
    while let Some(chunk) = inbound.next().await {
        if pod.write_all(chunk.as_ref()).await.is_err() {
            return;
        }
    }
    // The pod may have closed already.
    drop(pod.shutdown().await);
}

async fn to_client(
    mut pod: ReadHalf<Box<dyn Duplex>>,
    data: &Outbound,
    heard: &std::sync::atomic::AtomicU64,
) {
    let mut buffer = BytesMut::new();
    let mut appetite = Appetite::default();
    loop {
        appetite.prepare(&mut buffer);
        // A connection that broke in the pod ends like one that was closed.
        let read = pod.read_buf(&mut buffer).await.unwrap_or_default();
        if read == 0 || data.send(buffer.split().freeze()).await.is_err() {
            return;
        }
        heard.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        appetite.learn(read);
    }
}

// === which streams belong together ===

/// One stream of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Half {
    kind: Kind,
    port: u16,
    /// What both streams of a pair have in common.
    request: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

/// Every stream with legal headers is wanted.
#[derive(Debug)]
struct Halves;

impl Admit for Halves {
    type Stream = Half;

    fn admit(&mut self, stream: u32, headers: &Headers) -> Option<Half> {
        let kind = match headers.get("streamtype")? {
            "data" => Kind::Data,
            "error" => Kind::Error,
            _ => return None,
        };
        let port: u16 = headers.get("port")?.parse().ok().filter(|port| *port > 0)?;
        let request = match (headers.get("requestid"), kind) {
            (Some(request), _) if request.len() > 64 => return None,
            (Some(request), _) if !request.is_empty() => request.to_owned(),
            // Old clients name none, and make the stream for bytes right after the one for errors.
            (_, Kind::Error) => stream.to_string(),
            (_, Kind::Data) => stream.checked_sub(2)?.to_string(),
        };
        Some(Half { kind, port, request })
    }
}

/// Streams whose other half is missing.
#[derive(Debug, Default)]
struct Waiting(BTreeMap<String, (Instant, Opened<Half>)>);

enum Added {
    Complete(Pair),
    Waits,
    /// There is one of its kind already.
    Twice(Outbound),
}

impl Waiting {
    fn add(&mut self, new: Opened<Half>, now: Instant) -> Added {
        let Some((since, first)) = self.0.remove(&new.what.request) else {
            self.0.insert(new.what.request.clone(), (now, new));
            return Added::Waits;
        };
        let (data, error) = match (first.what.kind, new.what.kind) {
            (Kind::Error, Kind::Data) => (new, first),
            (Kind::Data, Kind::Error) => (first, new),
            (Kind::Error, Kind::Error) | (Kind::Data, Kind::Data) => {
                self.0.insert(first.what.request.clone(), (since, first));
                return Added::Twice(new.outbound);
            }
        };
        Added::Complete(Pair {
            port: data.what.port,
            inbound: data.inbound,
            data: data.outbound,
            error: error.outbound,
        })
    }

    /// When the first of them is late.
    fn until(&self) -> Option<Instant> {
        self.0.values().map(|(since, _)| *since).min()?.checked_add(limits::STREAM_CREATION)
    }

    fn take_late(&mut self, now: Instant) -> Vec<Opened<Half>> {
        let late = |since: &Instant| now.duration_since(*since) >= limits::STREAM_CREATION;
        self.0.extract_if(.., |_, (since, _)| late(since)).map(|(_, (_, half))| half).collect()
    }
}

impl Opened<Half> {
    /// The other half did not come.
    async fn give_up(self) -> Result<(), Gone> {
        if self.what.kind == Kind::Error {
            let text = format!("the stream for the bytes of port {} did not come", self.what.port);
            self.outbound.send(text.into()).await?;
            self.outbound.end().await?;
        }
        self.outbound.reset().await
    }
}

#[cfg(test)]
mod tests {
    use super::{Added, Half, Halves, Kind, Waiting};
    use crate::streaming::channels::{Outbound, inbound, outgoing};
    use crate::streaming::spdy::connection::{Admit, Opened};
    use crate::streaming::spdy::headers::Inflater;
    use crate::streaming::spdy::headers::tests::Deflater;
    use shim_model::limits;
    use tokio::time::Instant;

    fn half(stream: u32, headers: &[(&str, &str)]) -> Option<Half> {
        let headers = Inflater::default().block(&Deflater::new().block(headers)).unwrap();
        Halves.admit(stream, &headers)
    }

    #[test]
    fn only_legal_headers_are_wanted() {
        let data = ("streamtype", "data");
        let wanted = half(3, &[data, ("port", "80"), ("requestid", "7")]).unwrap();
        assert_eq!(wanted, Half { kind: Kind::Data, port: 80, request: "7".to_owned() });
        let long = "x".repeat(65);
        for headers in [
            &[][..],
            &[data],
            &[("port", "80")],
            &[data, ("port", "0")],
            &[data, ("port", "65536")],
            &[data, ("port", "-1")],
            &[data, ("port", "http")],
            &[("streamtype", "stdin"), ("port", "80")],
            &[data, ("port", "80"), ("requestid", &long)],
        ] {
            assert_eq!(half(3, headers), None, "{headers:?}");
        }
    }

    #[test]
    fn old_clients_streams_belong_together_by_their_numbers() {
        let named = |stream, kind| half(stream, &[("streamtype", kind), ("port", "1")]);
        assert_eq!(named(5, "error").unwrap().request, named(7, "data").unwrap().request);
        assert_ne!(named(5, "error").unwrap().request, named(9, "data").unwrap().request);
        assert_eq!(named(1, "data"), None, "no stream stands before the first");
    }

    fn opened(kind: Kind, request: &str) -> Opened<Half> {
        let what = Half { kind, port: 80, request: request.to_owned() };
        Opened { what, inbound: inbound().1, outbound: Outbound::new(1, outgoing().0) }
    }

    #[test]
    fn a_pair_is_one_of_each_kind() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        assert!(matches!(waiting.add(opened(Kind::Error, "1"), now), Added::Waits));
        assert!(matches!(waiting.add(opened(Kind::Data, "2"), now), Added::Waits));
        assert!(matches!(waiting.add(opened(Kind::Data, "2"), now), Added::Twice(_)));
        let pair = waiting.add(opened(Kind::Data, "1"), now);
        assert!(matches!(pair, Added::Complete(pair) if pair.port == 80));
        let late = now + limits::STREAM_CREATION;
        assert_eq!(waiting.until(), Some(late));
        assert!(waiting.take_late(now).is_empty());
        assert_eq!(waiting.take_late(late).len(), 1);
        assert_eq!(waiting.until(), None);
    }
}
