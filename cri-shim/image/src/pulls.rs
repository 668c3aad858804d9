//! The daemon's half of pulling: one worker process for a burst of pulls, one pull of an image however
//! many ask, a cancel when the last of them left, one repeat in a new worker when the first one died.

use crate::auth::Auth;
use crate::config::ImageConfig;
use crate::error::ImageError;
use crate::progress::Progress;
use crate::pull::Pulled;
use crate::worker::{Ask, Tell};
use parking_lot::Mutex;
use shim_model::kind::Kind;
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{broadcast, mpsc, watch};

/// An idle worker leaves after so long.
const IDLE: Duration = Duration::from_secs(20);

/// How the worker is started: its program and arguments, and who places it once it runs.
#[derive(Clone)]
pub struct Launch {
    /// Program, usually the daemon's own.
    pub program: PathBuf,
    /// Arguments.
    pub args: Vec<String>,
    /// Called with the process id.
    pub place: Arc<dyn Fn(u32) + Send + Sync>,
}

impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launch").field("program", &self.program).finish_non_exhaustive()
    }
}

type Outcome = Option<Result<Pulled, (String, Kind)>>;

/// A pull that others may join.
#[derive(Clone, Debug)]
struct Job {
    number: u64,
    outcome: watch::Receiver<Outcome>,
    progress: broadcast::Sender<Progress>,
    /// Lives as long as somebody waits.
    waiting: Arc<()>,
}

#[derive(Debug)]
struct Running {
    input: mpsc::UnboundedSender<Ask>,
}

#[derive(Debug, Default)]
struct State {
    worker: Option<Running>,
    jobs: HashMap<(String, Auth), Job>,
    listeners: HashMap<u64, (watch::Sender<Outcome>, broadcast::Sender<Progress>)>,
}

/// All pulls of this daemon.
#[derive(Clone, Debug)]
pub struct Pulls {
    config: ImageConfig,
    launch: Launch,
    state: Arc<Mutex<State>>,
    next: Arc<AtomicU64>,
}

impl Pulls {
    /// Nothing is started yet.
    pub fn new(config: ImageConfig, launch: Launch) -> Self {
        Self { config, launch, state: Arc::default(), next: Arc::new(AtomicU64::new(1)) }
    }

    /// Pulls, or joins the same pull. `heard` gets the layers' progress.
    pub async fn pull(
        &self,
        name: &str,
        auth: &Auth,
        heard: Option<mpsc::UnboundedSender<Progress>>,
    ) -> Result<Pulled, ImageError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.once(name, auth, heard.clone()).await {
                Err(ImageError::Worker(_)) if tries < 2 => {
                    tracing::warn!(
                        name,
                        "the pull worker died; the pull begins again in a new one"
                    );
                }
                result => return result,
            }
        }
    }

    async fn once(
        &self,
        name: &str,
        auth: &Auth,
        heard: Option<mpsc::UnboundedSender<Progress>>,
    ) -> Result<Pulled, ImageError> {
        let job = self.join(name, auth)?;
        let _leaving = Leaving {
            pulls: self.clone(),
            key: (name.to_owned(), auth.clone()),
            waiting: Some(Arc::clone(&job.waiting)),
        };
        let mut events = job.progress.subscribe();
        let mut outcome = job.outcome.clone();
        drop(job);
        loop {
            tokio::select! {
                event = events.recv(), if heard.is_some() => match (event, &heard) {
                    (Ok(event), Some(heard)) => { let _the_listener_left = heard.send(event); }
                    (Err(broadcast::error::RecvError::Lagged(_)), _) => {}
                    (Err(broadcast::error::RecvError::Closed) | Ok(_), _) => break,
                },
                changed = outcome.wait_for(Option::is_some) => {
                    return match changed.ok().and_then(|seen| seen.clone()) {
                        Some(Ok(pulled)) => Ok(pulled),
                        Some(Err((text, kind))) => Err(ImageError::Told { text, kind }),
                        None => Err(ImageError::Worker(name.to_owned())),
                    };
                }
            }
        }
        match outcome.wait_for(Option::is_some).await.ok().and_then(|seen| seen.clone()) {
            Some(Ok(pulled)) => Ok(pulled),
            Some(Err((text, kind))) => Err(ImageError::Told { text, kind }),
            None => Err(ImageError::Worker(name.to_owned())),
        }
    }

    fn join(&self, name: &str, auth: &Auth) -> Result<Job, ImageError> {
        let mut state = self.state.lock();
        let key = (name.to_owned(), auth.clone());
        if let Some(job) = state.jobs.get(&key) {
            return Ok(job.clone());
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (result, outcome) = watch::channel(None);
        let (progress, _) = broadcast::channel(256);
        let job = Job { number, outcome, progress: progress.clone(), waiting: Arc::new(()) };
        let ask = Ask::Pull { number, name: name.to_owned(), auth: auth.clone() };
        self.ask(&mut state, ask)?;
        state.listeners.insert(number, (result, progress));
        state.jobs.insert(key, job.clone());
        Ok(job)
    }

    /// Sends to the worker, starting one if none runs.
    fn ask(&self, state: &mut State, ask: Ask) -> Result<(), ImageError> {
        let ask = match &state.worker {
            Some(worker) => match worker.input.send(ask) {
                Ok(()) => return Ok(()),
                Err(unsent) => unsent.0,
            },
            None => ask,
        };
        let input = self.start()?;
        let _it_just_started = input.send(Ask::Config(self.config.clone()));
        let _it_just_started = input.send(ask);
        state.worker = Some(Running { input });
        Ok(())
    }

    fn start(&self) -> Result<mpsc::UnboundedSender<Ask>, ImageError> {
        let mut child = Command::new(&self.launch.program)
            .args(&self.launch.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(ImageError::file("start the pull worker", &self.launch.program))?;
        if let Some(pid) = child.id() {
            (self.launch.place)(pid);
        }
        let (sender, asks) = mpsc::unbounded_channel();
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(ImageError::Worker("its pipes".to_owned()));
        };
        let pulls = self.clone();
        let own = sender.clone();
        tokio::spawn(async move { pulls.attend(child, (input, output), asks, own).await });
        Ok(sender)
    }

    /// One worker's life, seen from here.
    async fn attend(
        self,
        mut child: Child,
        (mut input, output): (ChildStdin, ChildStdout),
        mut asks: mpsc::UnboundedReceiver<Ask>,
        own: mpsc::UnboundedSender<Ask>,
    ) {
        let mut lines = BufReader::new(output).lines();
        loop {
            tokio::select! {
                ask = asks.recv() => {
                    let Some(ask) = ask else { break };
                    let mut line = serde_json::to_vec(&ask).unwrap_or_default();
                    line.push(b'\n');
                    if input.write_all(&line).await.is_err() { break; }
                }
                line = lines.next_line() => match line {
                    Ok(Some(line)) => self.hear(&line),
                    Ok(None) | Err(_) => break,
                },
                () = tokio::time::sleep(IDLE) => {
                    let mut state = self.state.lock();
                    if state.listeners.is_empty() {
                        if state.worker.as_ref().is_some_and(|worker| worker.input.same_channel(&own)) {
                            state.worker = None;
                        }
                        break;
                    }
                }
            }
        }
        drop(input);
        let gone = tokio::time::timeout(Duration::from_secs(2), child.wait()).await;
        if gone.is_err() {
            drop(child.kill().await);
        }
        self.worker_gone(&own);
    }

    fn hear(&self, line: &str) {
        let Ok(tell) = serde_json::from_str::<Tell>(line) else {
            tracing::warn!("a line of the pull worker cannot be understood");
            return;
        };
        match tell {
            Tell::Progress { number, event } => {
                let listener =
                    self.state.lock().listeners.get(&number).map(|(_, progress)| progress.clone());
                if let Some(progress) = listener {
                    let _nobody_listens = progress.send(event);
                }
            }
            Tell::Done { number, pulled } => self.end(number, Some(Ok(*pulled))),
            Tell::Failed { number, text, kind } => self.end(number, Some(Err((text, kind)))),
        }
    }

    /// Tells everybody who waits; `None` = nobody knows how it went.
    fn end(&self, number: u64, outcome: Outcome) {
        let mut state = self.state.lock();
        state.jobs.retain(|_, job| job.number != number);
        if let (Some((result, _)), Some(outcome)) = (state.listeners.remove(&number), outcome) {
            result.send_replace(Some(outcome));
        }
    }

    fn worker_gone(&self, own: &mpsc::UnboundedSender<Ask>) {
        let mut state = self.state.lock();
        if state.worker.as_ref().is_none_or(|worker| worker.input.same_channel(own)) {
            state.worker = None;
            state.jobs.clear();
            state.listeners.clear();
        }
    }

    fn left(&self, key: &(String, Auth)) {
        let mut state = self.state.lock();
        let unwanted = state
            .jobs
            .get(key)
            .filter(|job| Arc::strong_count(&job.waiting) == 1)
            .map(|job| job.number);
        let Some(number) = unwanted else { return };
        state.jobs.remove(key);
        state.listeners.remove(&number);
        if let Some(worker) = &state.worker {
            let _the_worker_left = worker.input.send(Ask::Cancel { number });
        }
    }
}

/// Tells that a caller does not wait any more.
struct Leaving {
    pulls: Pulls,
    key: (String, Auth),
    waiting: Option<Arc<()>>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        drop(self.waiting.take());
        self.pulls.left(&self.key);
    }
}
