//! Pods of the command line that go when their container has ended (`run --rm`). It is the daemon that
//! removes them, so it happens also if nobody is there to see the end; whoever wants to see it holds the
//! container until it has. A mark of ours on any other client's pod means nothing.

use crate::error::{RuntimeError, chain};
use crate::runtime::Runtime;
use crate::store::container::Container;
use crate::store::pod::Pod;
use shim_model::container::life::State;
use shim_model::limits;
use std::sync::Arc;
use std::time::Duration;

/// The annotation of such a pod; its value is `true`.
const REMOVE: &str = "wherry.dev/remove";

/// A container that is not removed of itself before this is dropped.
#[derive(Debug)]
pub struct Hold(Arc<Container>);

impl Hold {
    /// Waits for its end; its code.
    pub async fn ended(&self) -> i32 {
        let mut states = self.0.watch();
        let ended = |life: &State| match life {
            State::Exited { code, .. } => Some(*code),
            State::Creating {} | State::Created {} | State::Running { .. } => None,
        };
        let seen = states.wait_for(|state| ended(&state.life).is_some()).await;
        seen.ok().and_then(|state| ended(&state.life)).unwrap_or(255)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holds.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Runtime {
    /// Holds a container.
    pub fn hold(&self, id: &str) -> Result<Hold, RuntimeError> {
        let container = self.0.store.container(id)?;
        container.holds.send_modify(|count| *count = count.saturating_add(1));
        Ok(Hold(container))
    }

    /// Removes the pod of an ended container, beside the caller, if that was asked for. Just after a restart
    /// a command line that waits for the end may not be back yet.
    pub(crate) fn remove_at_end(&self, container: &Arc<Container>) {
        let Ok(pod) = self.0.store.pod(container.record.sandbox.as_str()) else { return };
        if goes_at_end(&pod) {
            let (runtime, container) = (self.clone(), Arc::clone(container));
            let patience = limits::HOLD_AGAIN.saturating_sub(self.0.since.elapsed());
            tokio::spawn(async move { runtime.remove_unheld(&container, patience).await });
        }
    }

    /// Likewise where an earlier daemon saw the end, or nobody did. A command line that waited for it has
    /// a moment to come back.
    pub(crate) fn remove_what_ended(&self, pod: &Arc<Pod>) {
        let containers = self.0.store.containers_of(&pod.record.id);
        let ended = containers
            .into_iter()
            .find(|container| matches!(container.state().life, State::Exited { .. }));
        if let Some(container) = ended.filter(|_| goes_at_end(pod)) {
            let runtime = self.clone();
            tokio::spawn(async move {
                runtime.remove_unheld(&container, limits::HOLD_AGAIN).await;
            });
        }
    }

    async fn remove_unheld(&self, container: &Arc<Container>, patience: Duration) {
        tokio::time::sleep(patience).await;
        let mut holds = container.holds.subscribe();
        // Their sender lives as long as the container, which is here.
        drop(holds.wait_for(|count| *count == 0).await);
        let pod = &container.record.sandbox;
        if let Err(error) = self.remove_sandbox(pod.as_str()).await {
            let id = pod.short();
            tracing::warn!(id, error = chain(&error), "a pod that was to go at its end stays");
        }
    }
}

fn goes_at_end(pod: &Pod) -> bool {
    let config = &pod.record.config;
    config.own && config.annotations.get(REMOVE).is_some_and(|value| value == "true")
}
