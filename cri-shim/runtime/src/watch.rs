//! What monitors tell without being asked: ends of containers, the end of pod-init, their own end.
//! One task per pod; it holds no lock while it waits.

use crate::error::chain;
use crate::monitors::Told;
use crate::runtime::Runtime;
use crate::store::pod::Pod;
use shim_model::container::life::{Event, Reason, State};
use shim_model::id::ContainerId;
use shim_model::wire::{self, Exit, FromMonitor, Journal};
use std::sync::Arc;
use tokio::sync::mpsc;

impl Runtime {
    /// Follows a pod's monitor until it is gone.
    pub(crate) fn attend(&self, pod: &Arc<Pod>, mut events: mpsc::UnboundedReceiver<Told>) {
        let (inner, pod) = (Arc::downgrade(&self.0), Arc::downgrade(pod));
        tokio::spawn(async move {
            while let Some(told) = events.recv().await {
                let (Some(inner), Some(pod)) = (inner.upgrade(), pod.upgrade()) else { break };
                let runtime = Self(inner);
                match told {
                    Told::Event(event) => runtime.heard(&pod, event).await,
                    Told::Gone => {
                        runtime.monitor_gone(&pod).await;
                        break;
                    }
                }
            }
        });
    }

    async fn heard(&self, pod: &Arc<Pod>, event: FromMonitor) {
        match event {
            FromMonitor::Exited { container, exit } => self.exited(&container, exit).await,
            FromMonitor::Runs { container, process, at } => {
                self.started_meanwhile(&container, process, at);
            }
            FromMonitor::PodInitExited { .. } => self.end_pod(pod, "its first process ended"),
            FromMonitor::Done
            | FromMonitor::Failed(_)
            | FromMonitor::Unknown
            | FromMonitor::Ready { .. }
            | FromMonitor::Started { .. }
            | FromMonitor::Launched { .. }
            | FromMonitor::ExecEnded(_)
            | FromMonitor::ExecBegan
            | FromMonitor::ExecOver { .. }
            | FromMonitor::AttachLost { .. }
            | FromMonitor::State { .. } => {
                tracing::warn!(id = pod.record.id.short(), "a monitor tells what nobody asked");
            }
        }
    }

    /// Records how a container ended. A journal also tells how it ended before it was started again; a
    /// monitor never dates an end before its start.
    pub(crate) async fn exited(&self, container: &ContainerId, exit: Exit) {
        let Ok(found) = self.0.store.container(container.as_str()) else { return };
        // Its start was answered before its end was told, but may not be written down yet: another task
        // does that. Without it, a short life would have no beginning.
        let starting = matches!(found.state().life, State::Created {});
        let _start_is_recorded = if starting { Some(found.lock.lock().await) } else { None };
        if matches!(found.state().life, State::Running { started, .. } if exit.at < started) {
            return;
        }
        let reason = Reason::of(exit.code, exit.oom);
        let message = String::new();
        if exit.log_lost > 0 {
            tracing::warn!(
                id = container.short(),
                lost = exit.log_lost,
                "output of a container could not be written to its log"
            );
        }
        self.container_ended(
            &found,
            Event::Ended { at: exit.at, code: exit.code, reason, message },
            exit.log_lost,
        )
        .await;
    }

    /// Ends a pod that cannot go on, beside the caller.
    fn end_pod(&self, pod: &Arc<Pod>, reason: &'static str) {
        let (runtime, pod) = (self.clone(), Arc::clone(pod));
        tokio::spawn(async move {
            let _lock = pod.lock.lock().await;
            if let Err(error) = runtime.teardown_pod(&pod, reason).await {
                tracing::error!(
                    id = pod.record.id.short(),
                    error = chain(&error),
                    "a dead pod could not be taken away whole"
                );
            }
        });
    }

    /// A monitor that died while its pod was still being made was not missed then: nothing was ready. So
    /// it is asked for again once the pod is.
    pub(crate) async fn see_monitor(&self, pod: &Arc<Pod>) {
        let gone = pod.monitor.lock().as_ref().is_some_and(|monitor| monitor.is_gone());
        if gone {
            self.monitor_gone(pod).await;
        }
    }

    /// The monitor is gone: after a stop that is right; else its pod ends, and ends truthfully.
    async fn monitor_gone(&self, pod: &Arc<Pod>) {
        let expected = pod.monitor.lock().is_none() || !pod.is_ready();
        if expected {
            return;
        }
        self.0.counts.monitors_lost.more(1);
        tracing::error!(id = pod.record.id.short(), "a monitor died; its pod ends");
        *pod.monitor.lock() = None;
        self.read_journal(pod).await;
        self.end_pod(pod, "its monitor died");
    }

    /// Ends that the journal knows, of containers that still count as running.
    pub(crate) async fn read_journal(&self, pod: &Arc<Pod>) {
        let path = self.0.store.disk.pod(&pod.record.id).join("journal");
        let bytes = std::fs::read(path).unwrap_or_default();
        for entry in wire::decode_journal(&bytes).0 {
            if let Journal::Exited { container, exit } = entry {
                self.exited(&container, exit).await;
            }
        }
    }
}
