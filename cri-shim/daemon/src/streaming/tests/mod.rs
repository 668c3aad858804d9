//! Connections with clients of our own and programs that are values of this process; what a client needs
//! is written here once more, so that a mistake is not made twice. Over pipes in memory, where the clock
//! stands still until everybody waits; what needs real sockets is in `listening`.

mod channels;
mod client;
mod commands;
mod forwards;
mod hostile;
mod listening;
mod many;
mod peers;
mod programs;

use self::client::{Client, Said};
use self::programs::Programs;
use super::session::Streams;
use super::status::Form;
use super::token::Ask;
use super::wire::Left;
use super::{command, portforward};
use shim_model::limits;
use std::sync::Arc;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

/// What the kernel would hold of a connection.
const PIPE: usize = 64 << 10;

pub(crate) const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };
pub(crate) const TERMINAL: Streams =
    Streams { stdin: true, stdout: true, stderr: false, tty: true };

fn exec(command: &str, streams: Streams) -> Ask {
    let command = command.split(' ').map(str::to_owned).collect();
    Ask::Exec { container: "c".to_owned(), command, streams }
}

/// A server's end of a connection, running.
struct Served {
    programs: Arc<Programs>,
    task: JoinHandle<Left>,
}

impl Served {
    /// How the connection ended; nothing that it started is left.
    async fn left(self) -> Left {
        let left = self.task.await.expect("no bug");
        assert_eq!(self.programs.running(), 0, "a program outlived its client");
        left
    }
}

/// A client whose command's streams go over SPDY.
fn spdy(ask: Ask, resizes: bool, form: Form) -> (Client<DuplexStream>, Served) {
    serve(Arc::default(), ask, resizes, form)
}

/// The same, of a container that others use too.
fn spdy_with(programs: Arc<Programs>, ask: Ask) -> (Client<DuplexStream>, Served) {
    serve(programs, ask, true, Form::Json)
}

fn serve(
    programs: Arc<Programs>,
    ask: Ask,
    resizes: bool,
    form: Form,
) -> (Client<DuplexStream>, Served) {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let backend = Arc::clone(&programs);
    let task = tokio::spawn(async move {
        let client = command::Client { backend: &*backend, ask: &ask, idle: limits::STREAM_IDLE };
        client.spdy(ours, resizes, form).await
    });
    (Client::new(theirs), Served { programs, task })
}

/// A client that reaches a pod's ports over SPDY.
fn forward() -> (Client<DuplexStream>, Served) {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let programs = Arc::new(Programs::default());
    let backend = Arc::clone(&programs);
    let task = tokio::spawn(async move {
        let idle = limits::STREAM_IDLE;
        portforward::Client { backend: &*backend, sandbox: "pod", idle }.spdy(ours).await
    });
    (Client::new(theirs), Served { programs, task })
}

/// A command's client in version 4 that has made all its streams.
async fn started(command: &str, streams: Streams) -> (Client<DuplexStream>, Served) {
    let (mut client, served) = spdy(exec(command, streams), true, Form::Json);
    client.make(streams).await;
    (client, served)
}

fn code(code: u8) -> String {
    format!(
        "{{\"details\":{{\"causes\":[{{\"message\":\"{code}\",\"reason\":\"ExitCode\"}}]}},\
         \"message\":\"command terminated with non-zero exit code: {code}\",\"metadata\":{{}},\
         \"reason\":\"NonZeroExitCode\",\"status\":\"Failure\"}}"
    )
}

const SUCCESS: &str = "{\"metadata\":{},\"status\":\"Success\"}";
