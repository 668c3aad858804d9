//! One plugin's socket: requests to it with their answers, requests of it to us. A task reads; whoever asks
//! writes. Everything has a bound and a deadline: bytes that are no message, more requests than may wait, or a
//! peer that does not take what is written end the connection, and with it every wait. What is said is not
//! known here.

use super::mux;
use super::ttrpc::{self, Assembler, Came, Request, Response, Status};
use parking_lot::Mutex;
use shim_model::limits;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// The service that plugins serve.
const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
/// The service that we serve.
const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    /// The plugin says no.
    #[error("{message}")]
    Refused { code: i32, message: String },
    /// It says nothing.
    #[error("it did not answer within {0:?}")]
    Late(Duration),
    /// It is gone, or broke the protocol and was sent away.
    #[error("it is not connected any more")]
    Gone,
}

/// A request of a plugin.
#[derive(Debug)]
pub(super) struct Asked {
    /// Where the answer goes.
    pub(super) stream: u32,
    /// What.
    pub(super) method: String,
    /// With what.
    pub(super) payload: Vec<u8>,
}

/// A connection; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Connection(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Streams are numbered upwards in the order in which they are sent: numbered under this lock.
    writer: tokio::sync::Mutex<Writer>,
    waiting: Mutex<BTreeMap<u32, oneshot::Sender<Response>>>,
    closed: CancellationToken,
}

#[derive(Debug)]
struct Writer {
    socket: OwnedWriteHalf,
    next: u32,
}

impl Connection {
    /// A connection over a socket, and what the plugin asks.
    pub(super) fn open(socket: UnixStream) -> (Self, mpsc::Receiver<Asked>) {
        let (reader, socket) = socket.into_split();
        let (asked, asks) = mpsc::channel(limits::NRI_REQUESTS);
        let connection = Self(Arc::new(Shared {
            writer: tokio::sync::Mutex::new(Writer { socket, next: 1 }),
            waiting: Mutex::default(),
            closed: CancellationToken::new(),
        }));
        let own = connection.clone();
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = own.read(reader, asked) => ended,
                () = own.0.closed.cancelled() => Ok(()),
            };
            if let Err(why) = ended {
                tracing::warn!(why, "a plugin breaks the protocol and is sent away");
            }
            own.close();
            // Whoever writes to a peer that reads nothing has a deadline, and the lock.
            let _gone_already = own.0.writer.lock().await.socket.shutdown().await;
        });
        (connection, asks)
    }

    /// Ends it.
    pub(super) fn close(&self) {
        self.0.closed.cancel();
        self.0.waiting.lock().clear();
    }

    /// True once it has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.0.closed.is_cancelled()
    }

    /// Waits for its end.
    pub(super) async fn closed(&self) {
        self.0.closed.cancelled().await;
    }

    /// Asks the plugin.
    pub(super) async fn call(
        &self,
        method: &str,
        payload: Vec<u8>,
        within: Duration,
    ) -> Result<Vec<u8>, NoAnswer> {
        let request = Request {
            service: PLUGIN_SERVICE.to_owned(),
            method: method.to_owned(),
            payload,
            timeout_nano: i64::try_from(within.as_nanos()).unwrap_or(i64::MAX),
        };
        let until = tokio::time::Instant::now() + within;
        let sent = tokio::time::timeout_at(until, self.ask(&request)).await;
        let (number, answer) = sent.unwrap_or_else(|_late| {
            // A message that is sent by half cannot be followed by another.
            self.close();
            Err(NoAnswer::Late(within))
        })?;
        let answered = tokio::time::timeout_at(until, answer).await;
        self.0.waiting.lock().remove(&number);
        match answered {
            Ok(Ok(Response { status: Some(Status { code, message }), .. })) if code != 0 => {
                Err(NoAnswer::Refused { code, message })
            }
            Ok(Ok(response)) => Ok(response.payload),
            Ok(Err(_closed)) => Err(NoAnswer::Gone),
            Err(_) => Err(NoAnswer::Late(within)),
        }
    }

    async fn ask(&self, request: &Request) -> Result<(u32, oneshot::Receiver<Response>), NoAnswer> {
        let mut writer = self.0.writer.lock().await;
        if self.is_closed() {
            return Err(NoAnswer::Gone);
        }
        let number = writer.next;
        let bytes = ttrpc::request(number, request)
            .map_err(|message| NoAnswer::Refused { code: ttrpc::INVALID_ARGUMENT, message })?;
        // Streams of whoever connects are odd.
        writer.next = number.checked_add(2).ok_or(NoAnswer::Gone)?;
        let (tell, answer) = oneshot::channel();
        self.0.waiting.lock().insert(number, tell);
        if self.is_closed() {
            self.0.waiting.lock().remove(&number);
            return Err(NoAnswer::Gone);
        }
        if writer.socket.write_all(&mux::frames(mux::PLUGIN, &bytes)).await.is_err() {
            self.close();
            return Err(NoAnswer::Gone);
        }
        Ok((number, answer))
    }

    /// Answers the plugin; an error is a code and a sentence.
    pub(super) async fn answer(&self, stream: u32, result: Result<Vec<u8>, (i32, String)>) {
        let response = match result {
            Ok(payload) => Response { status: None, payload },
            Err((code, message)) => {
                Response { status: Some(Status { code, message }), payload: Vec::new() }
            }
        };
        let Ok(bytes) = ttrpc::response(stream, &response) else { return self.close() };
        let sent = async {
            let mut writer = self.0.writer.lock().await;
            writer.socket.write_all(&mux::frames(mux::RUNTIME, &bytes)).await
        };
        if !matches!(tokio::time::timeout(limits::NRI_REQUEST, sent).await, Ok(Ok(()))) {
            self.close();
        }
    }

    /// Reads until the end; an error is a breach of the protocol.
    async fn read(
        &self,
        mut socket: OwnedReadHalf,
        asked: mpsc::Sender<Asked>,
    ) -> Result<(), String> {
        let (mut answers, mut requests) = (Assembler::default(), Assembler::default());
        let mut header = [0; mux::HEADER];
        let mut frame = Vec::new();
        loop {
            if socket.read_exact(&mut header).await.is_err() {
                return Ok(());
            }
            let (connection, length) = mux::header(header)?;
            frame.clear();
            let most = u64::try_from(length).unwrap_or(u64::MAX);
            let read = (&mut socket).take(most).read_to_end(&mut frame).await;
            if !read.is_ok_and(|read| read == length) {
                return Ok(());
            }
            let assembler = match connection {
                mux::PLUGIN => &mut answers,
                mux::RUNTIME => &mut requests,
                // Nobody listens there.
                _ => continue,
            };
            assembler.feed(&frame);
            frame.shrink_to(64 << 10);
            while let Some(came) = assembler.take()? {
                self.came(connection, came, &asked)?;
            }
        }
    }

    fn came(&self, connection: u32, came: Came, asked: &mpsc::Sender<Asked>) -> Result<(), String> {
        match (connection, came) {
            (mux::PLUGIN, Came::Response { stream, response }) => {
                if let Some(waits) = self.0.waiting.lock().remove(&stream) {
                    // Whoever asked may have left.
                    drop(waits.send(response));
                }
                Ok(())
            }
            (mux::RUNTIME, Came::Request { stream, request }) => {
                let Request { service, method, payload, .. } = request;
                if service != RUNTIME_SERVICE {
                    return Err(format!("it asks for the service {}", service.escape_default()));
                }
                let full = |_| format!("more than {} of its requests wait", limits::NRI_REQUESTS);
                asked.try_send(Asked { stream, method, payload }).map_err(full)
            }
            (connection, _) => Err(format!("a message that does not belong on {connection}")),
        }
    }
}
