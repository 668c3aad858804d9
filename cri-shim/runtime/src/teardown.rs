//! Taking away whatever a record names: the one way back, for failed starts, stops, removals and
//! recovery. Idempotent; goes on after a failure and tells them all.

use crate::error::{RuntimeError, chain};
use crate::events::Happened;
use crate::monitors::{self, Monitor};
use crate::nri::What;
use crate::runtime::{Runtime, blocking};
use crate::sandbox::run::pod_init_group;
use crate::store::container::{Container, ContainerState};
use crate::store::ledger::Entry;
use crate::store::pod::{Pod, PodFacts, PodState};
use shim_model::container::life::{Event, Reason, State as ContainerLife};
use shim_model::limits;
use shim_model::sandbox::life::{Event as PodEvent, State};
use shim_model::wire::ToMonitor;
use shim_sys::{clock, process};
use std::sync::Arc;

impl Runtime {
    /// Ends everything that runs for a pod and takes its network away. Call with the pod's lock held.
    pub(crate) async fn teardown_pod(
        &self,
        pod: &Arc<Pod>,
        reason: &str,
    ) -> Result<(), RuntimeError> {
        let state = pod.state();
        if state.facts.torn_down {
            return Ok(());
        }
        let mut failures = Vec::new();
        let monitor = pod.monitor.lock().clone();
        self.end_containers(pod, monitor.as_deref(), reason).await;
        if let State::Ready { .. } = state.life {
            self.nri_stop_pod(pod).await;
        }
        // From here on its end is no news to whoever watches it.
        *pod.monitor.lock() = None;
        if let Some(monitor) = monitor {
            // A monitor that is gone already has nothing left to do.
            let _gone = monitor.order(ToMonitor::Quit, &[]).await;
        }
        if let Some(known) = state.facts.monitor.filter(|known| monitors::alive(*known)) {
            end_process(known.pid).await;
        }
        self.remove_leaf(pod_init_group(pod), &mut failures).await;
        failures.extend(self.0.cgroups.stop_scope(&pod.record.cgroup).await.err());
        if let Some(attachment) = &pod.record.attachment {
            match self.0.network.del(attachment).await {
                Ok(()) => {
                    self.0.store.ledger.append(&Entry::Detached { id: pod.record.id.clone() });
                }
                Err(error) => failures.push(error),
            }
            let unpinned = self.0.network.remove_namespace(&attachment.id).await;
            failures.extend(unpinned.err());
        }
        let life = match &state.life {
            // Never shown, so there is nobody to tell: only its parts are gone.
            State::Starting {} => State::Starting {},
            shown @ (State::Ready { .. } | State::NotReady { .. }) => {
                let ended = PodEvent::Ended { at: clock::now(), reason: reason.to_owned() };
                shown.clone().after(ended).unwrap_or_else(|_| shown.clone())
            }
        };
        let facts = PodFacts {
            monitor: None,
            pod_init: None,
            torn_down: failures.is_empty(),
            ..state.facts.clone()
        };
        pod.settle(PodState { life, facts });
        if let State::Ready { .. } = state.life {
            self.tell_pod(Happened::Stopped, pod);
        }
        several(format!("take sandbox {} away", pod.record.id.short()), failures)
    }

    /// Kills the containers of a pod and waits until their ends are recorded.
    pub(crate) async fn end_containers(
        &self,
        pod: &Arc<Pod>,
        monitor: Option<&Monitor>,
        reason: &str,
    ) {
        let mut obeyed = Vec::new();
        for container in self.0.store.containers_of(&pod.record.id) {
            let Some(monitor) = monitor else {
                self.end_unwatched(&container, reason).await;
                continue;
            };
            let order = ToMonitor::Kill { container: container.record.id.clone() };
            if !container.is_running() {
                continue;
            }
            match monitor.order(order, &[]).await {
                Ok(()) => obeyed.push(container),
                Err(_) => self.end_unwatched(&container, reason).await,
            }
        }
        for container in obeyed {
            let told = tokio::time::timeout(limits::KILL_WAIT, container.ended()).await;
            if told.is_err() || container.is_running() {
                self.lost(&container, &format!("its end was not told while {reason}")).await;
            }
        }
    }

    /// Ends a container without its monitor: nobody will tell how, and one that was being started may
    /// run without a record of it.
    async fn end_unwatched(&self, container: &Arc<Container>, reason: &str) {
        if container.is_running() {
            return self.lost(container, reason).await;
        }
        let mut failures = Vec::new();
        self.remove_leaf(container.record.cgroup.clone(), &mut failures).await;
        failures.extend(self.let_handler_forget(container).await.err());
        tell(container, &failures);
    }

    /// A container whose end nobody told: 255, unknown.
    pub(crate) async fn lost(&self, container: &Arc<Container>, message: &str) {
        let end = Event::Ended {
            at: clock::now(),
            code: 255,
            reason: Reason::Unknown,
            message: message.to_owned(),
        };
        self.container_ended(container, end, 0).await;
    }

    /// Records the end of a container, tells everybody, and takes its cgroup away.
    pub(crate) async fn container_ended(
        &self,
        container: &Arc<Container>,
        end: Event,
        log_lost: u64,
    ) {
        let _until_its_group_is_gone = container.ending.lock().await;
        let (era, mut news) = (self.0.nri.enter(), false);
        let next = |known: &ContainerState| {
            let life = known.life.clone().after(end).ok().filter(|life| *life != known.life)?;
            self.0
                .store
                .ledger
                .append(&Entry::Life { id: container.record.id.clone(), life: life.clone() });
            if let ContainerLife::Exited { code, reason, .. } = &life {
                self.0.counts.ends.more(1);
                self.0.counts.log_lost.more(log_lost);
                self.0.counts.out_of_memory.more(u64::from(*reason == Reason::OomKilled));
                tracing::info!(
                    id = container.record.id.short(),
                    code,
                    reason = reason.word(),
                    "container ended"
                );
            }
            Some(ContainerState { life, log_lost, ..known.clone() })
        };
        container.change(next, || {
            self.tell_container(Happened::Stopped, container);
            news = true;
        });
        let mut failures = Vec::new();
        self.remove_leaf(container.record.cgroup.clone(), &mut failures).await;
        failures.extend(self.let_handler_forget(container).await.err());
        tell(container, &failures);
        if news {
            self.nri_container_did(&era, container, What::Stop).await;
        }
        self.remove_at_end(container);
    }

    /// Takes everything of a container away but its record. It must not run.
    pub(crate) async fn teardown_container(
        &self,
        container: &Arc<Container>,
    ) -> Result<(), RuntimeError> {
        let record = &container.record;
        let mut failures = Vec::new();
        let monitor = self
            .0
            .store
            .pod(record.sandbox.as_str())
            .ok()
            .and_then(|pod| pod.monitor.lock().clone());
        if let Some(monitor) = monitor {
            let _gone =
                monitor.order(ToMonitor::Forget { container: record.id.clone() }, &[]).await;
        }
        drop(container.root.lock().take());
        self.remove_leaf(record.cgroup.clone(), &mut failures).await;
        {
            let _its_end_is_recorded = container.ending.lock().await;
            failures.extend(self.let_handler_forget(container).await.err());
        }
        let (writable, id) = (self.0.images.writable().clone(), record.id.clone());
        let removed = blocking(move || {
            writable.remove(&id).map_err(RuntimeError::image("remove a writable layer"))
        })
        .await;
        failures.extend(removed.err());
        if self.is_its_own_log(container) {
            let _missing_is_done = std::fs::remove_file(&record.log_path);
        }
        drop(container.lease.lock().take());
        several(format!("take container {} away", record.id.short()), failures)
    }

    /// True for a log in our own folder, which nobody else cleans.
    fn is_its_own_log(&self, container: &Container) -> bool {
        container.record.log_path.starts_with(self.0.config.logs())
    }

    async fn remove_leaf(
        &self,
        group: shim_model::cgroup::driver::GroupPath,
        failures: &mut Vec<RuntimeError>,
    ) {
        let cgroups = self.0.cgroups.clone();
        failures.extend(blocking(move || cgroups.remove(&group)).await.err());
    }
}

fn tell(container: &Container, failures: &[RuntimeError]) {
    for error in failures {
        let id = container.record.id.short();
        tracing::warn!(id, error = chain(error), "something of an ended container stays");
    }
}

/// Kills a process of ours that did not leave by itself, and waits for its end.
async fn end_process(pid: i32) {
    if let Ok(pidfd) = process::pidfd_open(pid) {
        let _gone = process::pidfd_send_signal(&pidfd, shim_model::signal::Signal::KILL.number());
        drop(tokio::time::timeout(limits::KILL_WAIT, monitors::ended(pidfd)).await);
    }
}

/// One failure as it is, several as one.
fn several(doing: String, mut causes: Vec<RuntimeError>) -> Result<(), RuntimeError> {
    match causes.len() {
        0 => Ok(()),
        1 => Err(causes.remove(0)),
        _ => Err(RuntimeError::Several { doing, causes }),
    }
}
