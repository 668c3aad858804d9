//! The daemon's half of pulling: one worker process for a burst of pulls, one pull of an image however
//! many ask, a cancel when the last of them left, one repeat in a new worker when the first one died.

use crate::config::ImageConfig;
use crate::error::ImageError;
use crate::layers::dir::Layers;
use crate::progress::{Event, Progress};
use crate::steps::Moment;
use crate::worker::{Ask, Brought, Tell, Work};
use parking_lot::Mutex;
use shim_model::gc::Holder;
use shim_model::kind::Kind;
use shim_model::limits;
use shim_model::phases::{Phase, Step};
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{broadcast, mpsc, watch};

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

/// Images whose layers and blobs are here, and stay here while this lives.
#[derive(Clone, Debug)]
pub struct Held {
    /// The images.
    pub brought: Vec<Brought>,
    /// How long each step took.
    pub steps: Vec<Step>,
    _holder: Arc<Mutex<Holder>>,
}

type Outcome = Option<Result<Vec<Brought>, (String, Kind)>>;

/// Work that others may join.
#[derive(Clone, Debug)]
struct Job {
    number: u64,
    outcome: watch::Receiver<Outcome>,
    progress: broadcast::Sender<Progress>,
    /// Lives as long as somebody waits.
    waiting: Arc<()>,
    /// Shared with whoever names the images.
    holder: Arc<Mutex<Holder>>,
    /// Those that are over.
    steps: Arc<Mutex<Vec<Step>>>,
}

#[derive(Debug)]
struct Running {
    input: mpsc::UnboundedSender<Ask>,
}

/// Where a job's news go.
#[derive(Debug)]
struct Listener {
    outcome: watch::Sender<Outcome>,
    progress: broadcast::Sender<Progress>,
    holder: Arc<Mutex<Holder>>,
    asked: Moment,
    steps: Arc<Mutex<Vec<Step>>>,
}

#[derive(Debug, Default)]
struct State {
    worker: Option<Running>,
    jobs: HashMap<Work, Job>,
    listeners: HashMap<u64, Listener>,
    /// Of all work that is under way or not named yet.
    holders: Vec<Weak<Mutex<Holder>>>,
}

/// All pulls of this daemon. Lock order: `state`, then a holder.
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

    /// What work under way, or done and not named yet, needs on disk.
    pub fn holders(&self) -> Vec<Holder> {
        let state = self.state.lock();
        state.holders.iter().filter_map(Weak::upgrade).map(|held| held.lock().clone()).collect()
    }

    /// Does the work, or joins the same. `heard` gets the layers' progress. A worker that dies costs one
    /// repeat.
    pub async fn bring(
        &self,
        work: &Work,
        heard: Option<mpsc::UnboundedSender<Progress>>,
    ) -> Result<Held, ImageError> {
        match self.once(work, heard.clone()).await {
            Err(ImageError::Worker(what)) => {
                tracing::warn!(what, "the pull worker died; its work begins again in a new one");
                self.once(work, heard).await
            }
            result => result,
        }
    }

    async fn once(
        &self,
        work: &Work,
        heard: Option<mpsc::UnboundedSender<Progress>>,
    ) -> Result<Held, ImageError> {
        let Job { mut outcome, progress, waiting, holder, steps, number: _ } = self.join(work)?;
        let _leaving = Leaving { pulls: self.clone(), work: work.clone(), waiting: Some(waiting) };
        let mut events = progress.subscribe();
        // The worker's end ends the progress too; that is only seen if nobody here sends.
        drop(progress);
        let forward = async move {
            let Some(heard) = heard else { return };
            loop {
                match events.recv().await {
                    Ok(event) => {
                        let _the_listener_left = heard.send(event);
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        };
        let ended =
            async { outcome.wait_for(Option::is_some).await.ok().and_then(|seen| (*seen).clone()) };
        let ended = tokio::select! {
            ended = ended => ended,
            never = async { forward.await; std::future::pending().await } => never,
        };
        match ended {
            Some(Ok(brought)) => {
                let steps = steps.lock().clone();
                Ok(Held { brought, steps, _holder: holder })
            }
            Some(Err((text, kind))) => Err(ImageError::Told { text, kind }),
            None => Err(ImageError::Worker(shown(work))),
        }
    }

    fn join(&self, work: &Work) -> Result<Job, ImageError> {
        let mut state = self.state.lock();
        if let Some(job) = state.jobs.get(work) {
            return Ok(job.clone());
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let asked = Moment::now();
        self.ask(&mut state, Ask::Begin { number, work: work.clone() })?;
        let (result, outcome) = watch::channel(None);
        let (progress, _) = broadcast::channel(256);
        let holder: Arc<Mutex<Holder>> = Arc::default();
        let steps: Arc<Mutex<Vec<Step>>> = Arc::default();
        state.holders.retain(|held| held.strong_count() > 0);
        state.holders.push(Arc::downgrade(&holder));
        let listener = Listener {
            outcome: result,
            progress: progress.clone(),
            holder: Arc::clone(&holder),
            asked,
            steps: Arc::clone(&steps),
        };
        state.listeners.insert(number, listener);
        let job = Job { number, outcome, progress, waiting: Arc::new(()), holder, steps };
        state.jobs.insert(work.clone(), job.clone());
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
                () = tokio::time::sleep(limits::WORKER_IDLE) => {
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
        let pid = child.id();
        let gone = tokio::time::timeout(Duration::from_secs(2), child.wait()).await;
        if gone.is_err() {
            drop(child.kill().await);
        }
        self.worker_gone(&own);
        if let Some(pid) = pid {
            // Killed, it left half a layer; nobody waits for that to be deleted.
            let root = self.config.root.clone();
            let sweep = move || Layers::open(&root).map(|layers| layers.sweep_after(pid));
            drop(tokio::task::spawn_blocking(sweep).await);
        }
    }

    fn hear(&self, line: &str) {
        let Ok(tell) = serde_json::from_str::<Tell>(line) else {
            tracing::warn!("a line of the pull worker cannot be understood");
            return;
        };
        match tell {
            Tell::Progress { number, event } => {
                let state = self.state.lock();
                let Some(listener) = state.listeners.get(&number) else { return };
                match event {
                    Event::Layer(event) => {
                        let _nobody_listens = listener.progress.send(event);
                    }
                    Event::Holds { chain, blobs } => {
                        *listener.holder.lock() = Holder { chain, blobs };
                    }
                    Event::Turn(at) => {
                        listener.steps.lock().push(listener.asked.until(at, Phase::PullWait));
                    }
                    Event::Step(step) => listener.steps.lock().push(step),
                }
            }
            Tell::Done { number, brought } => self.end(number, Ok(brought)),
            Tell::Failed { number, text, kind } => self.end(number, Err((text, kind))),
        }
    }

    /// Tells everybody who waits.
    fn end(&self, number: u64, outcome: Result<Vec<Brought>, (String, Kind)>) {
        let mut state = self.state.lock();
        state.jobs.retain(|_, job| job.number != number);
        if let Some(listener) = state.listeners.remove(&number) {
            listener.outcome.send_replace(Some(outcome));
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

    fn left(&self, work: &Work) {
        let mut state = self.state.lock();
        let unwanted = state
            .jobs
            .get(work)
            .filter(|job| Arc::strong_count(&job.waiting) == 1)
            .map(|job| job.number);
        let Some(number) = unwanted else { return };
        state.jobs.remove(work);
        state.listeners.remove(&number);
        if let Some(worker) = &state.worker {
            let _the_worker_left = worker.input.send(Ask::Cancel { number });
        }
    }
}

fn shown(work: &Work) -> String {
    match work {
        Work::Pull { name, .. } => name.clone(),
        Work::Import { from } => from.display().to_string(),
    }
}

/// Tells that a caller does not wait any more.
struct Leaving {
    pulls: Pulls,
    work: Work,
    waiting: Option<Arc<()>>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        drop(self.waiting.take());
        self.pulls.left(&self.work);
    }
}
