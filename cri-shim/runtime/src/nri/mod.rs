//! The seam where plugins of the Node Resource Interface come in: what they are told and may answer, as plain
//! values, and who is there to be told. The daemon's `nri/` room speaks with the plugins; the verbs of this
//! crate tell through [`hooks`]; [`view`] makes what is told; [`changes`] does what plugins ask for. With
//! nobody connected a verb pays for a look at the era and nothing else.

pub mod changes;
pub mod hooks;
pub mod view;

use crate::error::RuntimeError;
use crate::nri::view::{ContainerView, PodView};
use crate::timing::Timing;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use shim_model::nri::Adjustment;
use shim_model::phases::Phase;
use shim_model::resources::Resources;
use std::fmt;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What happens, or just did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A pod is made; nobody sees it yet.
    RunPod,
    /// A pod's limits are about to change.
    UpdatePod {
        /// What it costs beside its containers.
        overhead: Option<Resources>,
        /// The limits of the whole.
        resources: Option<Resources>,
    },
    /// They changed.
    PostUpdatePod,
    /// A pod's containers have ended; its network is still there.
    StopPod,
    /// A pod is about to be forgotten.
    RemovePod,
    /// A container is being decided; nobody sees it yet.
    Create,
    /// It is there.
    PostCreate,
    /// A container is about to be started.
    Start,
    /// It runs.
    PostStart,
    /// A container's limits are about to change.
    Update(Resources),
    /// They changed.
    PostUpdate,
    /// A container has ended.
    Stop,
    /// A container is about to be forgotten.
    Remove,
}

/// One thing that plugins are told.
#[derive(Clone, Debug)]
pub struct Occasion {
    /// What.
    pub what: What,
    /// The pod.
    pub pod: PodView,
    /// The container, if it is about one.
    pub container: Option<Arc<ContainerView>>,
}

/// New limits of a container that a plugin asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The container.
    pub container: String,
    /// What is to be changed.
    pub resources: Resources,
    /// Nobody minds if that fails.
    pub may_fail: bool,
}

/// What all plugins together answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// About the container that is being made.
    pub adjustment: Adjustment,
    /// The limits that a container gets instead of those that were asked for.
    pub resources: Option<Resources>,
    /// About other containers.
    pub changes: Vec<Change>,
    /// Containers that are to be stopped, and why.
    pub evict: Vec<(String, String)>,
}

/// Those who are connected, in their order.
pub trait Plugins: fmt::Debug + Send + Sync {
    /// Tells them one after the other. An error is a plugin's refusal; one that does not answer in time
    /// refuses nothing, unless it asked for that.
    fn tell(&self, occasion: Occasion) -> BoxFuture<'_, Result<Reply, RuntimeError>>;
}

/// Who is told, and how the interface does.
#[derive(Debug)]
pub struct Nri {
    era: RwLock<(Arc<Era>, Over)>,
    condition: Mutex<Condition>,
}

/// The time between two changes of who is connected. A verb stays in the era in which it told, until what it
/// told can be seen in the store: so whoever waits for the end of an era finds in the store all that newcomers
/// were not told.
#[derive(Debug)]
pub struct Era {
    plugins: Option<Arc<dyn Plugins>>,
    _open: mpsc::Sender<()>,
}

/// The end of an era.
#[derive(Debug)]
pub struct Over(mpsc::Receiver<()>);

/// How the interface does, for `Status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Where plugins connect; empty if they cannot.
    pub socket: String,
    /// Why they cannot.
    pub why_not: String,
    /// Those who are connected, in the order in which they are told.
    pub plugins: Vec<String>,
}

impl Default for Nri {
    fn default() -> Self {
        Self { era: RwLock::new(begin(None)), condition: Mutex::default() }
    }
}

fn begin(plugins: Option<Arc<dyn Plugins>>) -> (Arc<Era>, Over) {
    let (open, over) = mpsc::channel(1);
    (Arc::new(Era { plugins, _open: open }), Over(over))
}

impl Nri {
    /// The present era, for as long as the caller keeps it.
    pub fn enter(&self) -> Arc<Era> {
        Arc::clone(&self.era.read().0)
    }

    /// Begins an era with these plugins; what is given back ends with the one before.
    pub fn change(&self, plugins: Option<Arc<dyn Plugins>>) -> Over {
        let (_era, over) = std::mem::replace(&mut *self.era.write(), begin(plugins));
        over
    }

    /// How the interface does.
    pub fn condition(&self) -> Condition {
        self.condition.lock().clone()
    }

    /// Says how the interface does.
    pub fn tell_condition(&self, change: impl FnOnce(&mut Condition)) {
        change(&mut self.condition.lock());
    }
}

impl Over {
    /// Waits until no verb is in that era any more.
    pub async fn wait(mut self) {
        // Nothing is ever sent: this is `None`, when the last sender went with the era.
        let _none = self.0.recv().await;
    }
}

impl Era {
    /// Plugins have answered what they were asked at that moment; nobody was where there are none.
    pub(crate) fn answered(&self, timing: &Timing, asked: u64) {
        if !self.is_quiet() {
            timing.since(asked, Phase::Nri);
        }
    }

    /// Nobody is connected.
    pub fn is_quiet(&self) -> bool {
        self.plugins.is_none()
    }

    /// Tells whoever is connected.
    pub async fn tell(&self, occasion: Occasion) -> Result<Reply, RuntimeError> {
        match &self.plugins {
            Some(plugins) => plugins.tell(occasion).await,
            None => Ok(Reply::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Nri;
    use std::time::Duration;

    #[tokio::test]
    async fn an_era_is_over_when_the_last_verb_left_it() {
        let nri = Nri::default();
        let (first, second) = (nri.enter(), nri.enter());
        assert!(first.is_quiet());
        let over = nri.change(None);
        let waiting = tokio::spawn(over.wait());
        // One who comes now is in the next era, and is not waited for.
        let later = nri.enter();
        drop(first);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished());
        drop(second);
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
        drop(later);
    }
}
