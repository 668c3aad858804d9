//! Sessions of the command line: a command or an attached container with the client's own streams, over one
//! call that streams both ways. Input and output go on side by side, so that neither waits for the other.
//! A client that leaves is noticed by the end of either direction; what that means for the process is the
//! runtime's. Decides nothing.

use crate::error::DaemonError;
use crate::rpc::call;
use shim_model::kind::Refused;
use shim_model::limits;
use shim_proto::wherry_v1 as own;
use shim_proto::wherry_v1::session_input::What as Said;
use shim_proto::wherry_v1::session_output::What as Told;
use shim_runtime::container::attach::AttachStream;
use shim_runtime::container::exec::ExecStream;
use shim_runtime::container::session::{Resize, Session};
use shim_runtime::container::stream::{Input, Output};
use shim_runtime::runtime::Runtime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{self, Sender};
use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;
use tonic::{Status, Streaming};
use tracing::Instrument;

type Message = Result<own::SessionOutput, Status>;

/// `Session`: begins what the first message asks for, then goes on beside the caller. When the daemon stops
/// (`ending`), who is attached to a container that runs on is sent away; a command has the daemon's grace.
pub(crate) async fn session(
    runtime: Runtime,
    mut inputs: Streaming<own::SessionInput>,
    ending: CancellationToken,
) -> Result<BoxStream<own::SessionOutput>, DaemonError> {
    let first = inputs.message().await.ok().flatten().and_then(|first| first.what);
    let ((session, began), ending) = match first {
        Some(Said::Exec(begin)) => (exec(&runtime, begin).await?, CancellationToken::new()),
        Some(Said::Attach(begin)) => (attach(&runtime, begin).await?, ending),
        _ => return Err(Refused::new("what", "something else", "exec or attach first").into()),
    };
    let (tell, told) = mpsc::channel(limits::SESSION_QUEUE);
    let begun = tell.send(Ok(output(Told::Began(began)))).await;
    if begun.is_ok() {
        tokio::spawn(serve(session, inputs, tell, ending).in_current_span());
    }
    let next = |mut told: mpsc::Receiver<Message>| async move {
        told.recv().await.map(|message| (message, told))
    };
    Ok(Box::pin(futures_util::stream::unfold(told, next)))
}

async fn exec(
    runtime: &Runtime,
    begin: own::ExecBegin,
) -> Result<(Session, own::Began), DaemonError> {
    let own::ExecBegin { container_id, command, stdin, stdout, stderr, tty, size } = begin;
    let request = ExecStream { command, stdin, stdout, stderr, tty };
    let session = runtime.exec_sized(&container_id, request, window(size)).await?;
    Ok((session, own::Began { tty, stdin }))
}

async fn attach(
    runtime: &Runtime,
    begin: own::AttachBegin,
) -> Result<(Session, own::Began), DaemonError> {
    let container = runtime.container(&begin.container_id)?;
    let (id, config) = (container.record.id.as_str(), &container.record.config);
    let tty = config.tty;
    let (stdin, stdout) = (begin.stdin && config.stdin, begin.stdout);
    let request = AttachStream { stdin, stdout, stderr: begin.stderr && !tty, tty };
    let session = if begin.start {
        runtime.start_attached(id, request, window(begin.size)).await?
    } else {
        runtime.attach(id, request).await?
    };
    Ok((session, own::Began { tty, stdin }))
}

fn window(size: Option<own::WindowSize>) -> (u16, u16) {
    let size = size.unwrap_or_default();
    let shorten = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    (shorten(size.columns), shorten(size.rows))
}

const fn output(what: Told) -> own::SessionOutput {
    own::SessionOutput { what: Some(what) }
}

/// How a session is over.
enum Over {
    /// The process ended, or the daemon stops.
    Ended(Message),
    /// The client leaves an attached container as it is.
    Detached,
    /// The client is gone.
    Gone,
}

async fn serve(
    session: Session,
    mut inputs: Streaming<own::SessionInput>,
    tell: Sender<Message>,
    ending: CancellationToken,
) {
    let Session { mut stdin, stdout, stderr, resize, mut ended } = session;
    let over = {
        let listening = listen(&mut inputs, &mut stdin, &resize);
        let printing = async {
            tokio::join!(print(stdout, &tell, Told::Stdout), print(stderr, &tell, Told::Stderr));
            match (&mut ended).await {
                Ok(end) => Ok(output(Told::Ended(own::SessionEnded { exit_code: end.code }))),
                Err(error) => Err(call::failed("Session", &error.into())),
            }
        };
        tokio::select! {
            ended = printing => Over::Ended(ended),
            over = listening => over,
            () = tell.closed() => Over::Gone,
            () = ending.cancelled() => Over::Ended(Err(Status::unavailable("the daemon stops"))),
        }
    };
    match over {
        Over::Ended(message) => {
            let _the_client_left = tell.send(message).await;
        }
        Over::Detached => {
            if let Err(error) = ended.detach().await {
                call::failed("Session", &error.into());
            }
        }
        // Dropping what is left says it.
        Over::Gone => {}
    }
}

/// Passes on what the client says, until it leaves.
async fn listen(
    inputs: &mut Streaming<own::SessionInput>,
    stdin: &mut Option<Input>,
    resize: &Resize,
) -> Over {
    loop {
        let said = match inputs.message().await {
            Ok(Some(message)) => message.what,
            // It says no more, but may still listen.
            Ok(None) => {
                *stdin = None;
                return std::future::pending().await;
            }
            Err(_gone) => return Over::Gone,
        };
        match said {
            Some(Said::Stdin(bytes)) => {
                if let Some(input) = stdin
                    && input.write_all(&bytes).await.is_err()
                {
                    // The process closed its end: what follows is for nobody.
                    *stdin = None;
                }
            }
            Some(Said::StdinEnded(_)) => *stdin = None,
            Some(Said::Size(size)) => {
                let (columns, rows) = window(Some(size));
                if let Err(error) = resize.to(columns, rows).await {
                    tracing::debug!(%error, "a terminal keeps its size");
                }
            }
            Some(Said::Detach(_)) => return Over::Detached,
            Some(Said::Exec(_) | Said::Attach(_)) | None => return Over::Gone,
        }
    }
}

/// Tells what an output says, until its end or the client's.
async fn print(from: Option<Output>, tell: &Sender<Message>, what: fn(Vec<u8>) -> Told) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; limits::SESSION_CHUNK_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = buffer.get(..count).unwrap_or_default().to_vec();
        if tell.send(Ok(output(what(bytes)))).await.is_err() {
            return;
        }
    }
}

/// `Signal`.
pub(crate) async fn signal(
    runtime: Runtime,
    request: own::SignalRequest,
) -> Result<own::SignalResponse, DaemonError> {
    runtime.signal_container(&request.container_id, request.signal).await?;
    Ok(own::SignalResponse {})
}
