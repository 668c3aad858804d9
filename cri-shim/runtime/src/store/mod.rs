//! The store: every pod and container that exists, the only writer of their records. Readers look at
//! published values and never wait; a change is written to disk first and published then. Lock order:
//! a pod's lock before a container's; the tables' lock is held for look-ups only, never across a wait.

pub mod container;
pub mod disk;
pub mod ledger;
pub mod names;
pub mod pod;

use crate::error::RuntimeError;
use container::Container;
use disk::StateDir;
use ledger::Ledger;
use names::{Begin, ContainerName, Names, SandboxName};
use parking_lot::RwLock;
use pod::Pod;
use shim_model::id::{ContainerId, SandboxId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Pods and containers of this node.
#[derive(Debug)]
pub struct Store {
    /// The state folder.
    pub disk: StateDir,
    /// What a reboot must not lose.
    pub ledger: Ledger,
    /// Names of sandboxes, reserved while they exist.
    pub sandbox_names: Names<SandboxName, SandboxId>,
    /// Names of containers within their sandbox.
    pub container_names: Names<ContainerName, ContainerId>,
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    pods: BTreeMap<SandboxId, Arc<Pod>>,
    containers: BTreeMap<ContainerId, Arc<Container>>,
}

impl Store {
    /// An empty store over these folders; recovery fills it.
    pub fn new(disk: StateDir, ledger: Ledger) -> Self {
        Self {
            disk,
            ledger,
            sandbox_names: Names::default(),
            container_names: Names::default(),
            tables: RwLock::default(),
        }
    }

    /// Makes a pod known.
    pub fn insert_pod(&self, pod: Arc<Pod>) {
        self.tables.write().pods.insert(pod.record.id.clone(), pod);
    }

    /// Makes a container known.
    pub fn insert_container(&self, container: Arc<Container>) {
        self.tables.write().containers.insert(container.record.id.clone(), container);
    }

    /// Forgets a pod, last step of its removal: its folder, its ledger lines, its name.
    pub fn forget_pod(&self, pod: &Pod) -> Result<(), RuntimeError> {
        self.disk.remove_pod(&pod.record.id)?;
        self.ledger.append(&ledger::Entry::PodGone { id: pod.record.id.clone() });
        self.tables.write().pods.remove(&pod.record.id);
        self.sandbox_names.release(&pod.record.name());
        Ok(())
    }

    /// Forgets a container, last step of its removal.
    pub fn forget_container(&self, container: &Container) -> Result<(), RuntimeError> {
        let record = &container.record;
        self.disk.remove_container(&record.sandbox, &record.id)?;
        self.ledger.append(&ledger::Entry::ContainerGone { id: record.id.clone() });
        self.tables.write().containers.remove(&record.id);
        self.container_names.release(&record.name());
        Ok(())
    }

    /// Every pod, also those in the making.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.tables.read().pods.values().cloned().collect()
    }

    /// Every container, also those in the making.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.tables.read().containers.values().cloned().collect()
    }

    /// The containers of one pod.
    pub fn containers_of(&self, pod: &SandboxId) -> Vec<Arc<Container>> {
        let tables = self.tables.read();
        tables.containers.values().filter(|c| c.record.sandbox == *pod).cloned().collect()
    }

    /// The pod with this id or unambiguous prefix.
    pub fn pod(&self, id: &str) -> Result<Arc<Pod>, RuntimeError> {
        let tables = self.tables.read();
        pick("sandbox", id, tables.pods.iter().filter(|(key, _)| key.as_str().starts_with(id)))
    }

    /// The container with this id or unambiguous prefix.
    pub fn container(&self, id: &str) -> Result<Arc<Container>, RuntimeError> {
        let tables = self.tables.read();
        pick(
            "container",
            id,
            tables.containers.iter().filter(|(key, _)| key.as_str().starts_with(id)),
        )
    }
}

/// The one that fits, where exactly one does.
fn pick<'a, K: 'a, T: 'a>(
    what: &'static str,
    id: &str,
    mut fitting: impl Iterator<Item = (K, &'a Arc<T>)>,
) -> Result<Arc<T>, RuntimeError> {
    let missing = || RuntimeError::NotFound { what, id: id.chars().take(80).collect() };
    if id.is_empty() {
        return Err(missing());
    }
    let (_, first) = fitting.next().ok_or_else(missing)?;
    match fitting.count() {
        0 => Ok(Arc::clone(first)),
        more => {
            Err(RuntimeError::Ambiguous { what, id: id.to_owned(), count: more.saturating_add(1) })
        }
    }
}

/// What a stop or remove makes of an object that is not known: nothing to do, and that is success.
pub fn missing_is_done<T>(found: Result<T, RuntimeError>) -> Result<Option<T>, RuntimeError> {
    match found {
        Ok(value) => Ok(Some(value)),
        Err(RuntimeError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What [`Names::begin`] found, with the wait for somebody else's work done.
pub async fn begin<N: Ord + Clone + std::fmt::Debug, I: Clone + std::fmt::Display>(
    names: &Names<N, I>,
    name: N,
    request: &[u8],
    what: &'static str,
) -> Result<Begun<I>, RuntimeError> {
    match names.begin(name.clone(), request) {
        Begin::New(ticket) => Ok(Begun::New(ticket)),
        Begin::Joined(mut answer) => {
            let seen = answer.wait_for(Option::is_some).await;
            match seen.ok().and_then(|value| value.clone()) {
                Some(Ok(id)) => Ok(Begun::Answered(id)),
                Some(Err(cause)) => Err(RuntimeError::Shared(cause)),
                None => Err(RuntimeError::Lost("the first call for this name")),
            }
        }
        Begin::Taken(owner) => {
            let owner = owner.map_or_else(|| "a call at work".to_owned(), |id| id.to_string());
            Err(RuntimeError::Taken { what, name: format!("{name:?}"), owner })
        }
    }
}

/// The caller's part after [`begin`].
#[derive(Debug)]
pub enum Begun<I> {
    /// Do the work, then answer through the ticket.
    New(names::Ticket<I>),
    /// It was done already.
    Answered(I),
}
