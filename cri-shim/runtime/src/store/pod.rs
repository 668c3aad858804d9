//! One pod in memory: the record that never changes, and the published state. A change of state goes
//! through [`Pod::set`]: decided purely, written to disk, then everybody sees it.

use super::disk::StateDir;
use super::names::SandboxName;
use crate::error::{RuntimeError, chain};
use crate::monitors::Monitor;
use crate::network::Attachment;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use shim_model::cgroup::driver::GroupPath;
use shim_model::cgroup::stats::CpuSample;
use shim_model::handler::choice::Handler;
use shim_model::id::SandboxId;
use shim_model::phases::Phases;
use shim_model::resources::Resources;
use shim_model::sandbox::config::SandboxConfig;
use shim_model::sandbox::life::State;
use shim_model::sandbox::plan::PodSetup;
use shim_model::wire::{Nanos, Process};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// What is about to exist, written before it does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PodRecord {
    /// The pod's id.
    pub id: SandboxId,
    /// What was asked for, as given.
    pub config: SandboxConfig,
    /// What was decided.
    pub setup: PodSetup,
    /// When it was asked for.
    pub created_at: Nanos,
    /// Its cgroup: the kubelet's, or our own default.
    pub cgroup: GroupPath,
    /// The network attachment that will be made; `None` with the node's network.
    pub attachment: Option<Attachment>,
    /// The OCI runtime that runs its containers; `None` = Wherry itself.
    #[serde(default)]
    pub handler: Option<Handler>,
}

impl PodRecord {
    /// The name that is reserved for it.
    pub fn name(&self) -> SandboxName {
        self.config.metadata.clone()
    }
}

/// What is known of a pod that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodFacts {
    /// Its monitor.
    pub monitor: Option<Process>,
    /// Its first process in a shared PID namespace.
    pub pod_init: Option<Process>,
    /// Addresses, the first is the pod's own.
    pub ips: Vec<IpAddr>,
    /// Everything that was made for it is gone.
    pub torn_down: bool,
    /// Limits of the whole pod since they were changed; before that they are the request's.
    #[serde(default)]
    pub resources: Option<Resources>,
    /// What the pod costs beside its containers, likewise.
    #[serde(default)]
    pub overhead: Option<Resources>,
    /// How long each step of its making took.
    #[serde(default)]
    pub timing: Phases,
}

/// What changes about a pod; the file `state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodState {
    /// Where it is in its life.
    pub life: State,
    /// What is known of it.
    pub facts: PodFacts,
}

/// One pod.
#[derive(Debug)]
pub struct Pod {
    /// Never changes.
    pub record: PodRecord,
    /// One change of its life at a time. Taken before any of its containers' locks.
    pub lock: tokio::sync::Mutex<()>,
    /// The way to its monitor, while there is one.
    pub monitor: Mutex<Option<Arc<Monitor>>>,
    /// Its CPU time when somebody asked last.
    pub cpu: Mutex<Option<CpuSample>>,
    state: watch::Sender<Arc<PodState>>,
    file: PathBuf,
    disk: StateDir,
}

impl Pod {
    /// A pod in this state; nothing is written.
    pub fn new(disk: &StateDir, record: PodRecord, state: PodState) -> Self {
        Self {
            file: disk.pod(&record.id).join("state"),
            disk: disk.clone(),
            lock: tokio::sync::Mutex::new(()),
            monitor: Mutex::new(None),
            cpu: Mutex::new(None),
            state: watch::Sender::new(Arc::new(state)),
            record,
        }
    }

    /// The published state.
    pub fn state(&self) -> Arc<PodState> {
        self.state.borrow().clone()
    }

    /// Follows the published state.
    pub fn watch(&self) -> watch::Receiver<Arc<PodState>> {
        self.state.subscribe()
    }

    /// Writes a state, then publishes it.
    pub fn set(&self, next: PodState) -> Result<(), RuntimeError> {
        self.disk.replace(&self.file, &next)?;
        self.state.send_replace(Arc::new(next));
        Ok(())
    }

    /// Publishes a state that is true whether or not a full disk takes it: an end, a teardown. A later
    /// daemon finds out the same again.
    pub fn settle(&self, next: PodState) {
        if let Err(error) = self.disk.replace(&self.file, &next) {
            let id = self.record.id.short();
            tracing::error!(id, error = chain(&error), "the state of a sandbox is not on disk");
        }
        self.state.send_replace(Arc::new(next));
    }

    /// True while containers may be made and started in it.
    pub fn is_ready(&self) -> bool {
        matches!(self.state.borrow().life, State::Ready { .. })
    }

    /// True once callers may see it.
    pub fn is_shown(&self) -> bool {
        !matches!(self.state.borrow().life, State::Starting { .. })
    }

    /// The way to its monitor, or a refusal that names the state.
    pub fn monitor(&self, verb: &'static str) -> Result<Arc<Monitor>, RuntimeError> {
        let known = self.monitor.lock().clone();
        known.filter(|_| self.is_ready()).ok_or_else(|| self.not_ready(verb))
    }

    /// The refusal of `verb` because the pod is not ready.
    pub fn not_ready(&self, verb: &'static str) -> RuntimeError {
        RuntimeError::State {
            what: "sandbox",
            id: self.record.id.to_string(),
            found: self.state.borrow().life.word().to_owned(),
            wanted: "ready",
            verb,
        }
    }
}
