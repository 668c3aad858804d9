//! StopContainer: the stop signal once, then patience, then SIGKILL to the whole cgroup. A later call
//! may only shorten the patience. Returns when the end is visible. And any other signal, for whoever has
//! one to send.

use crate::error::{RuntimeError, chain};
use crate::runtime::{Runtime, blocking};
use crate::store::container::Container;
use crate::store::missing_is_done;
use shim_model::kind::Refused;
use shim_model::limits;
use shim_model::wire::ToMonitor;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// `SIGRTMAX` (signal(7)).
const LAST_SIGNAL: i32 = 64;
/// Longest grace that is counted; more means "for ever" and would overflow the clock.
const LONGEST: Duration = Duration::from_hours(10 * 365 * 24);

impl Runtime {
    /// Stops a container within `grace`; zero = kill at once. An unknown or ended one is done. The kill
    /// stays scheduled if the caller leaves.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let Some(container) = missing_is_done(self.0.store.container(id))? else { return Ok(()) };
        if !container.is_running() {
            return Ok(());
        }
        let until = Instant::now() + grace.min(LONGEST);
        let first = container.stop_at.send_if_modified(|at| {
            let first = at.is_none();
            *at = Some(at.map_or(until, |known| known.min(until)));
            first
        });
        // `send_if_modified` tells watchers only of the first; a shorter grace must be told too.
        container.stop_at.send_modify(|_| {});
        if first {
            let (runtime, own) = (self.clone(), Arc::clone(&container));
            tokio::spawn(async move { runtime.see_it_end(&own, grace.is_zero()).await });
        }
        self.wait_for_end(&container).await?;
        if !self.0.nri.enter().is_quiet() {
            // Plugins hear of the end before whoever asked for it.
            drop(container.ending.lock().await);
        }
        Ok(())
    }

    /// Sends a signal, by the kernel's number, to a running container's first process.
    pub async fn signal_container(&self, id: &str, signal: i32) -> Result<(), RuntimeError> {
        if !(1..=LAST_SIGNAL).contains(&signal) {
            return Err(Refused::new("signal", signal.to_string(), "1 to 64").into());
        }
        let container = self.0.store.container(id)?;
        if !container.is_running() {
            return Err(container.wrong_state("running", "send it a signal"));
        }
        let pod = self.0.store.pod(container.record.sandbox.as_str())?;
        let monitor = pod.monitor("send a signal to a container in it")?;
        let order = ToMonitor::Signal { container: container.record.id.clone(), signal };
        monitor.order(order, &[]).await
    }

    async fn wait_for_end(&self, container: &Arc<Container>) -> Result<(), RuntimeError> {
        let mut deadline = container.stop_at.subscribe();
        loop {
            let until =
                deadline.borrow_and_update().unwrap_or_else(Instant::now) + limits::KILL_WAIT;
            tokio::select! {
                () = container.ended() => return Ok(()),
                changed = deadline.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep_until(until) => {
                    let group = container.record.cgroup.clone();
                    let cgroups = self.0.cgroups.clone();
                    let left = blocking(move || Ok(cgroups.processes(&group))).await.unwrap_or_default();
                    let doing = format!("stop container {}: the kernel does not let processes {left:?} die", container.record.id.short());
                    return Err(RuntimeError::Deadline { doing, after: limits::KILL_WAIT });
                }
            }
        }
    }

    /// Signal, wait, kill; once per stop, whoever asked.
    async fn see_it_end(&self, container: &Arc<Container>, at_once: bool) {
        if !at_once {
            let signal = container.record.stop_signal.number();
            let order = ToMonitor::Signal { container: container.record.id.clone(), signal };
            self.order(container, order).await;
        }
        let mut deadline = container.stop_at.subscribe();
        loop {
            let until = deadline.borrow_and_update().unwrap_or_else(Instant::now);
            tokio::select! {
                () = container.ended() => break,
                changed = deadline.changed() => if changed.is_err() { break },
                () = tokio::time::sleep_until(until) => {
                    self.kill(container).await;
                    drop(tokio::time::timeout(limits::KILL_WAIT, container.ended()).await);
                    break;
                }
            }
        }
        container.stop_at.send_replace(None);
    }

    /// SIGKILL to everything in a container.
    pub(crate) async fn kill(&self, container: &Arc<Container>) {
        self.order(container, ToMonitor::Kill { container: container.record.id.clone() }).await;
        let (cgroups, group) = (self.0.cgroups.clone(), container.record.cgroup.clone());
        if container.is_running() {
            // A frozen group must be thawed before it can die; the monitor does not do that.
            drop(
                blocking(move || {
                    cgroups.kill(&group);
                    Ok(())
                })
                .await,
            );
        }
    }

    async fn order(&self, container: &Arc<Container>, order: ToMonitor) {
        let pod = self.0.store.pod(container.record.sandbox.as_str());
        let monitor = pod.ok().and_then(|pod| pod.monitor.lock().clone());
        let Some(monitor) = monitor else { return };
        if let Err(error) = monitor.order(order, &[]).await {
            tracing::warn!(
                id = container.record.id.short(),
                error = chain(&error),
                "a monitor did not obey"
            );
        }
    }
}
