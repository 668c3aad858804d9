//! One container in memory: the record that never changes, the published state, and what only its
//! start needs (its mounted root). The same rules as for a pod.

use super::disk::StateDir;
use super::names::ContainerName;
use crate::error::{RuntimeError, chain};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use shim_image::index::Lease;
use shim_model::cgroup::driver::GroupPath;
use shim_model::cgroup::stats::CpuSample;
use shim_model::container::config::ContainerConfig;
use shim_model::container::life::State;
use shim_model::digest::ChainId;
use shim_model::edits::Edits;
use shim_model::id::{ContainerId, SandboxId};
use shim_model::labels::Labels;
use shim_model::phases::Phases;
use shim_model::resources::Resources;
use shim_model::signal::Signal;
use shim_model::spec::devices::HostDevice;
use shim_model::users::User;
use shim_model::wire::Nanos;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// What is about to exist, written before it does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// The container's id.
    pub id: ContainerId,
    /// Its pod.
    pub sandbox: SandboxId,
    /// What was asked for, as given.
    pub config: ContainerConfig,
    /// The image's id.
    pub image_id: String,
    /// A repository digest of the image, or its id.
    pub image_ref: String,
    /// A tag of the image, or what the request named.
    pub image_name: String,
    /// Absolute path of its log file; never empty.
    pub log_path: PathBuf,
    /// When it was asked for.
    pub created_at: Nanos,
    /// Who it runs as.
    pub user: User,
    /// What stops it.
    pub stop_signal: Signal,
    /// Its cgroup.
    pub cgroup: GroupPath,
    /// Layers of its root, bottom first.
    pub chain: Vec<ChainId>,
    /// Folders of those layers, top first.
    pub layers: Vec<PathBuf>,
    /// Device nodes beside those that every container has, as they were when it was made.
    #[serde(default)]
    pub devices: Vec<HostDevice>,
    /// What others than its request changed.
    #[serde(default, skip_serializing_if = "Edits::is_empty")]
    pub edits: Edits,
    /// What the kernel's security modules are told about it.
    #[serde(default)]
    pub labels: Labels,
}

impl ContainerRecord {
    /// The name that is reserved for it.
    pub fn name(&self) -> ContainerName {
        (self.sandbox.clone(), self.config.metadata.clone())
    }
}

/// What changes about a container; the file `state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// Where it is in its life.
    pub life: State,
    /// Limits in force, in the units of the request.
    pub resources: Resources,
    /// Bytes of output that the log could not take.
    pub log_lost: u64,
    /// How long each step of its making and its start took.
    #[serde(default)]
    pub timing: Phases,
}

/// One container.
#[derive(Debug)]
pub struct Container {
    /// Never changes.
    pub record: ContainerRecord,
    /// One change of its life at a time. Taken after its pod's lock.
    pub lock: tokio::sync::Mutex<()>,
    /// Held while its end is recorded, until its cgroup is gone: its next life must not begin in the
    /// group of the last one. Taken after `lock`.
    pub ending: tokio::sync::Mutex<()>,
    /// How many wait to see it end: it is not removed of itself before they have.
    pub holds: watch::Sender<usize>,
    /// Its mounted, not yet attached root; made again if a restart of the daemon lost it.
    pub root: Mutex<Option<OwnedFd>>,
    /// The size that its terminal begins with, as far as who starts it knows one.
    pub size: Mutex<(u16, u16)>,
    /// When a stop at work will kill; a later call may only bring it nearer.
    pub stop_at: watch::Sender<Option<Instant>>,
    /// Keeps the image's layers.
    pub lease: Mutex<Option<Lease>>,
    /// Its CPU time when somebody asked last.
    pub cpu: Mutex<Option<CpuSample>>,
    state: watch::Sender<Arc<ContainerState>>,
    /// Held for one write to a file in memory, never across an await.
    changing: Mutex<()>,
    file: PathBuf,
    disk: StateDir,
}

impl Container {
    /// A container in this state; nothing is written.
    pub fn new(disk: &StateDir, record: ContainerRecord, state: ContainerState) -> Self {
        Self {
            file: disk.container(&record.sandbox, &record.id).join("state"),
            disk: disk.clone(),
            lock: tokio::sync::Mutex::new(()),
            ending: tokio::sync::Mutex::new(()),
            holds: watch::Sender::new(0),
            root: Mutex::new(None),
            size: Mutex::new((0, 0)),
            stop_at: watch::Sender::new(None),
            lease: Mutex::new(None),
            cpu: Mutex::new(None),
            state: watch::Sender::new(Arc::new(state)),
            changing: Mutex::new(()),
            record,
        }
    }

    /// The published state.
    pub fn state(&self) -> Arc<ContainerState> {
        self.state.borrow().clone()
    }

    /// Follows the published state.
    pub fn watch(&self) -> watch::Receiver<Arc<ContainerState>> {
        self.state.subscribe()
    }

    /// Writes a state, then publishes it.
    pub fn set(&self, next: ContainerState) {
        self.change(|_whatever_was| Some(next), || ());
    }

    /// Makes the next state out of the present one, writes it, then publishes it, then tells of it;
    /// `None` changes nothing. Nobody else changes the state meanwhile: a start, an end and an update may
    /// meet, and are told in the order in which they were. What happened is true also if a full disk does
    /// not take it; a later daemon asks the monitor.
    pub fn change(
        &self,
        next: impl FnOnce(&ContainerState) -> Option<ContainerState>,
        tell: impl FnOnce(),
    ) {
        let _one_at_a_time = self.changing.lock();
        let known = self.state();
        let Some(next) = next(&known) else { return };
        if let Err(error) = self.disk.replace(&self.file, &next) {
            let id = self.record.id.short();
            tracing::error!(id, error = chain(&error), "the state of a container is not on disk");
        }
        self.state.send_replace(Arc::new(next));
        tell();
    }

    /// True once callers may see it.
    pub fn is_shown(&self) -> bool {
        !matches!(self.state.borrow().life, State::Creating { .. })
    }

    /// True while its first process runs.
    pub fn is_running(&self) -> bool {
        matches!(self.state.borrow().life, State::Running { .. })
    }

    /// True once it has ended.
    pub fn has_ended(&self) -> bool {
        matches!(self.state.borrow().life, State::Exited { .. })
    }

    /// Waits until it does not run.
    pub async fn ended(&self) {
        let mut states = self.watch();
        let ended = states.wait_for(|state| !matches!(state.life, State::Running { .. })).await;
        drop(ended);
    }

    /// Waits until it ended, whether or not it runs yet; its code.
    pub async fn code(&self) -> i32 {
        let mut states = self.watch();
        let ended = states.wait_for(|state| matches!(state.life, State::Exited { .. })).await;
        match ended.as_ref().map(|state| &state.life) {
            Ok(State::Exited { code, .. }) => *code,
            // This value holds the sender.
            Ok(State::Creating {} | State::Created {} | State::Running { .. }) | Err(_) => 255,
        }
    }

    /// The refusal of `verb` in the present state.
    pub fn wrong_state(&self, wanted: &'static str, verb: &'static str) -> RuntimeError {
        RuntimeError::State {
            what: "container",
            id: self.record.id.to_string(),
            found: self.state.borrow().life.word().to_owned(),
            wanted,
            verb,
        }
    }
}
