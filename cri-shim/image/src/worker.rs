//! The pull worker: a process beside the daemon, so that a crash or an out-of-memory kill of a pull
//! takes nothing with it, and so that TLS, decoders and their buffers never count in the daemon. It
//! reads requests and writes answers, one JSON line each, and ends when its standard input does.

use crate::auth::Auth;
use crate::config::ImageConfig;
use crate::error::ImageError;
use crate::progress::Event;
use crate::pull::{Pulled, Puller};
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use shim_model::kind::Kind;
use shim_sys::credentials;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

/// What a worker brings; equal work is done once however many ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Work {
    /// An image from its registry, with what may be presented there.
    Pull { name: String, auth: Auth },
    /// The images of an archive or layout.
    Import { from: PathBuf },
}

/// Daemon to worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// First line: the settings.
    Config(ImageConfig),
    /// Bring something.
    Begin { number: u64, work: Work },
    /// Nobody waits for it any more.
    Cancel { number: u64 },
}

/// Worker to daemon.
#[derive(Debug, Serialize, Deserialize)]
pub enum Tell {
    /// Something happened on the way.
    Progress { number: u64, event: Event },
    /// The work is done.
    Done { number: u64, brought: Vec<Brought> },
    /// The work failed.
    Failed { number: u64, text: String, kind: Kind },
}

/// One image that is here now, without a name yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    /// The image.
    pub image: Pulled,
    /// Names that an archive gives it; a pull's name is known to who asked.
    pub names: Vec<String>,
}

/// The worker's whole life.
pub fn main() -> ExitCode {
    // The one TLS provider of the process; a second call would fail, and there is none.
    let _first = rustls::crypto::ring::default_provider().install_default();
    // A look through hundreds of layers at once holds a descriptor of each.
    let _fewer_then = credentials::raise_descriptors();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map(|runtime| runtime.block_on(serve())) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(_)) | Err(_) => ExitCode::FAILURE,
    }
}

async fn serve() -> std::io::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let (sender, mut answers) = mpsc::unbounded_channel::<Tell>();
    let writer = tokio::spawn(async move {
        let mut out = tokio::io::stdout();
        while let Some(tell) = answers.recv().await {
            let mut line = serde_json::to_vec(&tell).unwrap_or_default();
            line.push(b'\n');
            if out.write_all(&line).await.is_err() || out.flush().await.is_err() {
                break;
            }
        }
    });
    let mut puller: Option<Arc<Puller>> = None;
    let mut running: HashMap<u64, tokio::task::JoinHandle<()>> = HashMap::new();
    while let Some(line) = lines.next_line().await? {
        running.retain(|_, task| !task.is_finished());
        match (serde_json::from_str::<Ask>(&line)?, &puller) {
            (Ask::Config(config), _) => puller = Puller::open(config).ok().map(Arc::new),
            (Ask::Cancel { number }, _) => {
                if let Some(task) = running.remove(&number) {
                    task.abort();
                }
            }
            (Ask::Begin { number, work }, Some(puller)) => {
                let task = tokio::spawn(one(Arc::clone(puller), number, work, sender.clone()));
                running.insert(number, task);
            }
            (Ask::Begin { number, .. }, None) => {
                let text = "the data folder cannot be used".to_owned();
                let _the_daemon_left =
                    sender.send(Tell::Failed { number, text, kind: Kind::Internal });
            }
        }
    }
    drop(sender);
    for (_, task) in running {
        task.abort();
    }
    writer.abort();
    Ok(())
}

async fn one(puller: Arc<Puller>, number: u64, work: Work, to: mpsc::UnboundedSender<Tell>) {
    let (events, mut heard) = mpsc::unbounded_channel();
    let forward = to.clone();
    let forwarding = tokio::spawn(async move {
        while let Some(event) = heard.recv().await {
            let _the_daemon_left = forward.send(Tell::Progress { number, event });
        }
    });
    // A panic is a failure of this work alone, and somebody waits to hear of it.
    let done = AssertUnwindSafe(bring(&puller, work, events)).catch_unwind().await;
    drop(forwarding.await);
    let tell = match done {
        Ok(Ok(brought)) => Tell::Done { number, brought },
        Ok(Err(error)) => Tell::Failed { number, text: error.chain(), kind: error.kind() },
        Err(_) => {
            let text = "the pull worker met a state that must not be".to_owned();
            Tell::Failed { number, text, kind: Kind::Internal }
        }
    };
    let _the_daemon_left = to.send(tell);
}

async fn bring(
    puller: &Puller,
    work: Work,
    events: mpsc::UnboundedSender<Event>,
) -> Result<Vec<Brought>, ImageError> {
    match work {
        Work::Pull { name, auth } => {
            let image = puller.pull(&name, &auth, events).await?;
            Ok(vec![Brought { image, names: Vec::new() }])
        }
        Work::Import { from } => crate::archive::import::import(puller, &from, &events).await,
    }
}
