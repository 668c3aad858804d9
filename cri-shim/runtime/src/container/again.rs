//! Starting an ended container again, for the command line: the same container with its id, files, limits,
//! address and log. A kubelet never asks for it; it makes a new container.

use crate::error::RuntimeError;
use crate::events::Happened;
use crate::runtime::Runtime;
use crate::store::container::{Container, ContainerState};
use crate::store::ledger::Entry;
use crate::timing::Timing;
use shim_model::container::life::{Event, State};
use shim_model::phases::Phases;
use shim_model::wire::ToMonitor;
use std::sync::Arc;

impl Runtime {
    /// Starts a container whatever it did before; one that runs is left alone. A start that fails leaves it
    /// ended, with the reason. Goes on if the caller leaves.
    pub async fn start_again(&self, id: &str) -> Result<(), RuntimeError> {
        let container = self.0.store.container(id)?;
        let runtime = self.clone();
        let timing = Timing::begin();
        let work = tokio::spawn(async move {
            let _lock = container.lock.lock().await;
            timing.waited();
            match container.state().life {
                State::Running { .. } => Ok(()),
                State::Creating {} | State::Created {} => {
                    runtime.start_locked(&container, &timing).await
                }
                State::Exited { .. } => {
                    runtime.renew(&container).await?;
                    runtime.start_locked(&container, &timing).await
                }
            }
        });
        work.await.map_err(|_panic| RuntimeError::Lost("the start of a container"))?
    }

    /// Makes an ended container one that may be started. Its monitor forgets the earlier life first: a
    /// daemon that dies in between finds an ended container that nobody knows, and that is true.
    async fn renew(&self, container: &Arc<Container>) -> Result<(), RuntimeError> {
        let record = &container.record;
        let _last_life_is_over = container.ending.lock().await;
        let pod = self.0.store.pod(record.sandbox.as_str())?;
        let monitor = pod.monitor("start a container in it")?;
        monitor.order(ToMonitor::Forget { container: record.id.clone() }, &[]).await?;
        let next = |known: &ContainerState| {
            let life = known.life.clone().after(Event::Again).ok()?;
            let entry = Entry::Life { id: record.id.clone(), life: life.clone() };
            self.0.store.ledger.append(&entry);
            // Its steps are those of its last start.
            Some(ContainerState { life, log_lost: 0, timing: Phases::default(), ..known.clone() })
        };
        container.change(next, || self.tell_container(Happened::Created, container));
        Ok(())
    }
}
