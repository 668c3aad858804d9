//! Networks of pods: the configured CNI list, in process where that gives the same result, and a bridge of
//! our own for the command line on a node that has none. An attachment is recorded (the pod's record,
//! libcni's cache) before it is made, and its removal can be repeated until it worked. Which chains are
//! understood, and what results look like, is decided by `shim-model`.

pub mod attachment;
pub mod builtin;
pub mod cache;
pub mod chain;
pub mod conf;
pub mod dial;
pub mod gc;
pub mod native;
pub mod netns;
pub mod plugin;
pub mod routes;
pub mod status;
#[cfg(test)]
mod tests;
pub mod told;

use crate::error::RuntimeError;
use crate::runtime::blocking;
use crate::timing::Timing;
pub use attachment::Attachment;
use builtin::BuiltinConfig;
use chain::Chains;
use conf::Configured;
use netns::{Inside, Pool};
use parking_lot::{Mutex, MutexGuard};
use shim_model::cni::capability;
use shim_model::id::SandboxId;
use shim_model::limits;
use shim_model::phases::{Phase, Step};
use shim_model::sandbox::config::SandboxConfig;
use status::Condition;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{Notify, RwLock, Semaphore};

/// Settings of the network.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Folder of CNI configurations.
    pub conf_dir: PathBuf,
    /// Folders of CNI plugins, searched in order.
    pub bin_dirs: Vec<PathBuf>,
    /// Where results are kept, in libcni's layout (`/var/lib/cni`).
    pub cache_dir: PathBuf,
    /// Do the usual chains in process.
    pub native: bool,
    /// Where namespaces are pinned.
    pub netns_dir: PathBuf,
    /// The bridge of our own.
    pub builtin: BuiltinConfig,
}

/// What an attached pod has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Addresses, the pod's own first; none with loopback only.
    pub ips: Vec<IpAddr>,
    /// How long it waited, and each plugin took.
    pub steps: Vec<Step>,
}

/// Whether pods can have a network, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// True with a usable configuration, whose plugins are ready.
    pub ready: bool,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// The network of this node; clones share everything.
#[derive(Clone, Debug)]
pub struct Network {
    chains: Chains,
    configured: Configured,
    condition: Condition,
    pool: Pool,
    /// Hands in namespaces that were just made, until their pods are attached.
    inside: Arc<Mutex<BTreeMap<SandboxId, Inside>>>,
    adding: Arc<Semaphore>,
    /// Held by each ADD for reading, by GC for writing.
    gate: Arc<RwLock<()>>,
    /// An ADD waits for GC.
    hurry: Arc<Notify>,
    publishing: Arc<Mutex<()>>,
}

impl Network {
    /// Reads the configuration and watches its folder; makes namespaces ahead.
    pub fn start(config: NetworkConfig) -> Result<Self, RuntimeError> {
        crate::store::disk::make(&config.netns_dir)?;
        cache::sweep(&config.cache_dir);
        let configured = Configured::watch(config.conf_dir.clone());
        let chains = Chains { config: Arc::new(config), hands: Arc::default() };
        Ok(Self {
            condition: Condition::watch(configured.clone(), chains.clone()),
            chains,
            configured,
            pool: Pool::start(),
            inside: Arc::default(),
            adding: Arc::new(Semaphore::new(limits::NETWORK_OPERATIONS)),
            gate: Arc::default(),
            hurry: Arc::default(),
            publishing: Arc::default(),
        })
    }

    /// Whether pods can have a network. No I/O with a usable configuration.
    pub fn ready(&self) -> Readiness {
        let found = self.configured.get();
        match found.and_then(|list| self.condition.of(&list, &self.chains)) {
            Ok(()) => Readiness { ready: true, reason: String::new(), message: String::new() },
            Err(message) => {
                Readiness { ready: false, reason: "NetworkPluginNotReady".to_owned(), message }
            }
        }
    }

    /// Held while a pod's ports are compared with those of all others and recorded.
    pub fn publishing(&self) -> MutexGuard<'_, ()> {
        self.publishing.lock()
    }

    /// A fresh network namespace with loopback up, pinned under the pod's id.
    pub async fn namespace(&self, id: &SandboxId) -> Result<OwnedFd, RuntimeError> {
        let (pool, pin) = (self.pool.clone(), self.pin(id));
        let (namespace, inside) = blocking(move || pool.pinned(&pin)).await?;
        self.inside.lock().insert(id.clone(), inside);
        Ok(namespace)
    }

    /// Takes over a namespace that the pod's monitor made; loopback is up and it is pinned afterwards.
    pub async fn adopt(&self, id: &SandboxId, namespace: OwnedFd) -> Result<(), RuntimeError> {
        let pin = self.pin(id);
        let inside = blocking(move || netns::adopt(namespace, &pin)).await?;
        self.inside.lock().insert(id.clone(), inside);
        Ok(())
    }

    /// Attaches a pod's namespace; its addresses are in use when this returns.
    pub async fn add(
        &self,
        attachment: &Attachment,
        pod: &SandboxConfig,
    ) -> Result<Added, RuntimeError> {
        let inside = self.inside.lock().remove(&attachment.id);
        if attachment.none {
            return Ok(Added { ips: Vec::new(), steps: Vec::new() });
        }
        let timing = Timing::begin();
        let _no_gc = match self.gate.try_read() {
            Ok(free) => free,
            Err(_collecting) => {
                self.hurry.notify_one();
                self.gate.read().await
            }
        };
        let _slot = self.adding.acquire().await;
        timing.since_begin(Phase::NetworkWait);
        let ips = match self.configured.get() {
            Ok(list) => {
                let given = capability::arguments(&list, pod)?;
                self.chains.add(&list, attachment, (given, inside), &timing).await?
            }
            Err(_) if attachment.own => {
                let (chains, attachment) = (self.chains.clone(), attachment.clone());
                let pin = self.pin(&attachment.id);
                let made = blocking(move || {
                    let mut inside = inside.map_or_else(|| Inside::enter(&pin), Ok)?;
                    builtin::add(&chains.config.builtin, &chains.hands, &attachment, &mut inside)
                });
                timing.during(Phase::Plugin("wherry".to_owned()), made).await?
            }
            Err(why) => {
                return Err(RuntimeError::Network { doing: "attach a pod".to_owned(), why });
            }
        };
        Ok(Added { ips, steps: timing.steps() })
    }

    /// Takes a pod's attachment away with what ADD was given. Safe to repeat, and without a namespace.
    /// Its namespace must be given up next ([`Self::remove_namespace`]): links go with it.
    pub async fn del(&self, attachment: &Attachment) -> Result<(), RuntimeError> {
        drop(self.inside.lock().remove(&attachment.id));
        let network = self.configured.get().ok().map(|list| list.name.clone());
        let (chains, own) = (self.chains.clone(), attachment.clone());
        let kept = blocking(move || {
            if own.own {
                builtin::del(&chains.config.builtin, &own)?;
            }
            Ok(cache::find(&chains.config.cache_dir, &own.id, network.as_deref()))
        })
        .await?;
        match kept {
            Some(kept) => self.chains.del(kept).await,
            None => Ok(()),
        }
    }

    /// CHECK of a pod's attachment by the plugins; one of our own bridge has none.
    pub async fn check(&self, attachment: &Attachment) -> Result<(), RuntimeError> {
        let (cache_dir, id) = (self.chains.config.cache_dir.clone(), attachment.id.clone());
        match blocking(move || Ok(cache::find(&cache_dir, &id, None))).await? {
            Some(kept) => self.chains.check(kept).await,
            None => Ok(()),
        }
    }

    /// Unpins a pod's namespace; a missing one is done.
    pub async fn remove_namespace(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        drop(self.inside.lock().remove(id));
        let pin = self.pin(id);
        blocking(move || netns::remove(&pin)).await
    }

    /// Where a pod's namespace is pinned.
    pub fn namespace_path(&self, id: &SandboxId) -> PathBuf {
        self.pin(id)
    }

    fn pin(&self, id: &SandboxId) -> PathBuf {
        self.chains.config.netns_dir.join(id.as_str())
    }
}
