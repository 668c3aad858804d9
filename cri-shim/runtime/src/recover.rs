//! After a restart: read the records, reach every monitor, find out what is true, finish or remove what
//! was half made. After a reboot: the ledger tells what had been there. When this is done, lists tell
//! the truth; work that may take long (network, files) goes on beside it.

use crate::error::{RuntimeError, chain};
use crate::events::Happened;
use crate::monitors::{self, Monitor, Told};
use crate::runtime::Runtime;
use crate::store::container::{self, Container, ContainerRecord};
use crate::store::ledger::{Entry, Past, PastPod};
use crate::store::pod::{Pod, PodFacts, PodRecord, PodState};
use shim_model::container::life::{Event, Reason, State as ContainerLife};
use shim_model::id::{ContainerId, SandboxId};
use shim_model::limits;
use shim_model::phases::Phases;
use shim_model::record::Read;
use shim_model::sandbox::life::State;
use shim_model::wire::{self, ContainerState, FromMonitor, Nanos, ToMonitor};
use shim_sys::clock;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What a container that a reboot ended is told to be, where its code is not known.
const REBOOTED: &str = "the node was rebooted";

impl Runtime {
    /// Recovers everything; afterwards reads tell the truth.
    pub(crate) async fn recover(&self, past: Past) -> Result<(), RuntimeError> {
        let mut work = Vec::new();
        for name in self.0.store.disk.pod_names()? {
            match self.load(&name) {
                Ok(Some((pod, same_boot))) => work.push((pod, same_boot)),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(
                        name,
                        error = chain(&error),
                        "a pod's record cannot be read; it is set aside"
                    );
                    drop(self.0.store.disk.set_aside(&name));
                }
            }
        }
        for (_, remembered) in past {
            work.extend(self.remember(remembered)?.map(|pod| (pod, false)));
        }
        let reached = work.into_iter().map(|(pod, same_boot)| async move {
            if same_boot {
                self.reach(&pod).await;
            }
            pod
        });
        let pods = futures_util::future::join_all(reached).await;
        self.sweep_later(pods);
        Ok(())
    }

    /// Reads one pod and its containers from the state folder.
    fn load(&self, name: &str) -> Result<Option<(Arc<Pod>, bool)>, RuntimeError> {
        let Ok(id) = SandboxId::parse(name) else {
            return self.0.store.disk.set_aside(name).map(|_where| None);
        };
        let store = &self.0.store;
        let folder = store.disk.pod(&id);
        let Some(config) = store.disk.read::<PodRecord>(&folder.join("config"))? else {
            // The record comes before anything that it names, so there is nothing.
            store.disk.remove_pod(&id)?;
            return Ok(None);
        };
        let starting = PodState { life: State::Starting {}, facts: PodFacts::default() };
        let state =
            store.disk.read::<PodState>(&folder.join("state"))?.map_or(starting, |read| read.value);
        let same_boot = config.boot == store.disk.boot();
        let pod = Arc::new(Pod::new(&store.disk, config.value, state));
        store.sandbox_names.restore(pod.record.name(), id.clone());
        store.insert_pod(Arc::clone(&pod));
        for name in store.disk.container_names(&id)? {
            if let Err(error) = self.load_container(&id, &name) {
                tracing::error!(
                    name,
                    error = chain(&error),
                    "a container's record cannot be read; it is left out"
                );
            }
        }
        if !same_boot {
            self.ended_by_reboot(&pod);
        }
        Ok(Some((pod, same_boot)))
    }

    fn load_container(&self, pod: &SandboxId, name: &str) -> Result<(), RuntimeError> {
        let Ok(id) = ContainerId::parse(name) else { return Ok(()) };
        let store = &self.0.store;
        let folder = store.disk.container(pod, &id);
        let record: Option<Read<ContainerRecord>> = store.disk.read(&folder.join("config"))?;
        let state: Option<Read<container::ContainerState>> =
            store.disk.read(&folder.join("state"))?;
        let (Some(record), Some(state)) = (record, state) else {
            // Its making was interrupted before anybody heard of it.
            return store.disk.remove_container(pod, &id);
        };
        self.publish_container(record.value, state.value);
        Ok(())
    }

    fn publish_container(&self, record: ContainerRecord, state: container::ContainerState) {
        let store = &self.0.store;
        store.container_names.restore(record.name(), record.id.clone());
        let image = self.0.images.find(&record.image_id).ok().flatten();
        let container = Container::new(&store.disk, record, state);
        *container.lease.lock() = image.map(|image| self.0.images.lease(&image));
        store.insert_container(Arc::new(container));
    }

    /// A pod that only the ledger remembers: its state folder went with the boot.
    fn remember(&self, past: PastPod) -> Result<Option<Arc<Pod>>, RuntimeError> {
        let store = &self.0.store;
        let id = past.record.id.clone();
        if store.pod(id.as_str()).is_ok() {
            return Ok(None);
        }
        let folder = store.disk.make_pod(&id)?;
        store.disk.replace(&folder.join("config"), &past.record)?;
        let facts = PodFacts { torn_down: !past.attached, ..PodFacts::default() };
        let life = State::NotReady { since: clock::now(), reason: REBOOTED.to_owned() };
        let pod = Arc::new(Pod::new(
            &store.disk,
            past.record,
            PodState { life: life.clone(), facts: facts.clone() },
        ));
        pod.set(PodState { life, facts })?;
        store.sandbox_names.restore(pod.record.name(), id.clone());
        store.insert_pod(Arc::clone(&pod));
        for (container, (record, life)) in past.containers {
            let folder = store.disk.make_container(&id, &container)?;
            store.disk.replace(&folder.join("config"), &record)?;
            let state = container::ContainerState {
                life: after_reboot(life),
                resources: record.config.resources.clone(),
                log_lost: 0,
                timing: Phases::default(),
            };
            store.disk.replace(&folder.join("state"), &state)?;
            self.publish_container(record, state);
        }
        Ok(Some(pod))
    }

    /// A pod of an earlier boot whose state folder is still there.
    fn ended_by_reboot(&self, pod: &Arc<Pod>) {
        for container in self.0.store.containers_of(&pod.record.id) {
            let known = container.state();
            container.set(container::ContainerState {
                life: after_reboot(Some(known.life.clone())),
                ..(*known).clone()
            });
        }
        let known = pod.state();
        if let State::Ready { .. } = known.life {
            let life = State::NotReady { since: clock::now(), reason: REBOOTED.to_owned() };
            let facts = PodFacts { monitor: None, pod_init: None, ..known.facts.clone() };
            pod.settle(PodState { life, facts });
        }
    }

    /// Finds out what is true of a pod of this boot.
    async fn reach(&self, pod: &Arc<Pod>) {
        let alive = pod.state().facts.monitor.is_some_and(monitors::alive);
        if pod.is_ready() && alive && self.talk(pod).await {
            return;
        }
        // What happened while nobody listened.
        self.read_journal(pod).await;
        if pod.is_ready() {
            tracing::error!(
                id = pod.record.id.short(),
                "a monitor died while the daemon was away; its pod ends"
            );
            self.end_containers(pod, None, "its monitor died").await;
            let known = pod.state();
            let life =
                State::NotReady { since: clock::now(), reason: "its monitor died".to_owned() };
            pod.settle(PodState {
                life,
                facts: PodFacts { pod_init: None, ..known.facts.clone() },
            });
        }
    }

    /// Connects to a pod's monitor and takes over what it knows. False if it does not answer.
    async fn talk(&self, pod: &Arc<Pod>) -> bool {
        let folder = self.0.store.disk.pod(&pod.record.id);
        let Some((monitor, events, containers)) = greet(&pod.record.id, &folder).await else {
            return false;
        };
        *pod.monitor.lock() = Some(Arc::new(monitor));
        self.attend(pod, events);
        let mut known = BTreeSet::new();
        for state in containers {
            known.insert(state.container.clone());
            self.started_meanwhile(&state.container, state.process, state.started);
            if let Some(exit) = state.exit {
                self.exited(&state.container, exit).await;
            }
        }
        for container in self.0.store.containers_of(&pod.record.id) {
            if container.is_running() && !known.contains(&container.record.id) {
                self.lost(&container, "its monitor does not know it").await;
            }
        }
        true
    }

    /// The daemon died between a start and its record.
    pub(crate) fn started_meanwhile(
        &self,
        id: &ContainerId,
        process: shim_model::wire::Process,
        at: Nanos,
    ) {
        // Zero: its program is not executed yet, an event will tell.
        let Some(container) = self.0.store.container(id.as_str()).ok().filter(|_| at > 0) else {
            return;
        };
        let next = |known: &container::ContainerState| {
            let life = known.life.clone().after(Event::Started { process, at }).ok()?;
            self.0.store.ledger.append(&Entry::Life { id: id.clone(), life: life.clone() });
            Some(container::ContainerState { life, ..known.clone() })
        };
        container.change(next, || self.tell_container(Happened::Started, &container));
    }

    /// Takes away what was half made or belongs to an earlier boot, beside the first lists.
    fn sweep_later(&self, pods: Vec<Arc<Pod>>) {
        let runtime = self.clone();
        tokio::spawn(async move {
            for pod in pods {
                runtime.remove_what_ended(&pod);
                let unfinished = matches!(pod.state().life, State::Starting {});
                let dead = !pod.is_ready() && !pod.state().facts.torn_down;
                if !unfinished && !dead {
                    continue;
                }
                let _lock = pod.lock.lock().await;
                if unfinished {
                    // Its monitor may have been forked before anybody wrote that down.
                    let _none_is_fine = runtime.talk(&pod).await;
                }
                if let Err(error) = runtime.teardown_pod(&pod, REBOOTED).await {
                    tracing::warn!(
                        id = pod.record.id.short(),
                        error = chain(&error),
                        "something of a dead pod stays; stopping it tries again"
                    );
                    continue;
                }
                if unfinished {
                    drop(runtime.0.store.forget_pod(&pod));
                }
            }
            runtime.sweep_orphans().await;
        });
    }

    /// What no record names is garbage: writable layers, namespaces, leases.
    async fn sweep_orphans(&self) {
        let known: BTreeSet<ContainerId> =
            self.0.store.containers().iter().map(|c| c.record.id.clone()).collect();
        let writable = self.0.images.writable().clone();
        let orphans: Vec<_> =
            writable.list().into_iter().filter(|id| !known.contains(id)).collect();
        for id in orphans {
            // A container that is being made right now has its folder before its record is published.
            if self.0.store.disk.pod_names().is_ok() && !self.is_being_made(&id) {
                let writable = writable.clone();
                drop(
                    crate::runtime::blocking(move || {
                        writable.remove(&id).map_err(RuntimeError::image("remove an orphan"))
                    })
                    .await,
                );
            }
        }
        let inner = Arc::downgrade(&self.0);
        let pods = move || {
            let inner = inner.upgrade()?;
            Some(inner.store.pods().iter().map(|pod| pod.record.id.clone()).collect())
        };
        self.0.network.tend(Arc::new(pods)).await;
        self.check_networks().await;
        self.tend_images();
    }

    /// Deletes image data that nothing needs: now, after every failed pull, and once in a while.
    fn tend_images(&self) {
        let (images, inner) = (self.0.images.clone(), Arc::downgrade(&self.0));
        self.0.images.collect(self.layers_in_use());
        tokio::spawn(async move {
            loop {
                images.untidy(limits::IMAGE_TIDY_EVERY).await;
                let Some(inner) = inner.upgrade() else { return };
                images.collect(Self(inner).layers_in_use());
            }
        });
    }

    /// Tells the log which pods lost their network meanwhile. Nothing is repaired: only the kubelet may
    /// decide to make a pod again.
    async fn check_networks(&self) {
        for pod in self.0.store.pods().iter().filter(|pod| pod.is_ready()) {
            let Some(attachment) = &pod.record.attachment else { continue };
            if let Err(error) = self.0.network.check(attachment).await
                && pod.is_ready()
            {
                let id = pod.record.id.short();
                tracing::warn!(id, error = chain(&error), "a pod's network is not as it was made");
            }
        }
    }

    fn is_being_made(&self, id: &ContainerId) -> bool {
        self.0
            .store
            .pods()
            .iter()
            .any(|pod| self.0.store.disk.container(&pod.record.id, id).exists())
    }
}

/// Connects to a monitor and hears what it knows. One of the build before ends a connection that speaks our
/// version, and is spoken to in its own.
async fn greet(
    id: &SandboxId,
    folder: &Path,
) -> Option<(Monitor, mpsc::UnboundedReceiver<Told>, Vec<ContainerState>)> {
    for version in [wire::VERSION, wire::oldest()] {
        let (told, events) = mpsc::unbounded_channel();
        let monitor = Monitor::connect(id, folder, told, version).ok()?;
        match monitor.call(ToMonitor::State, &[], Some(limits::MONITOR_REPLY)).await {
            Ok(FromMonitor::State { containers, .. }) => {
                return Some((monitor, events, containers));
            }
            Err(RuntimeError::RoleGone { .. }) => {}
            Ok(_) | Err(_) => return None,
        }
    }
    None
}

/// A container's life as a reboot leaves it.
fn after_reboot(known: Option<ContainerLife>) -> ContainerLife {
    let known = known.unwrap_or(ContainerLife::Created {});
    let end = Event::Ended {
        at: clock::now(),
        code: 255,
        reason: Reason::Unknown,
        message: REBOOTED.to_owned(),
    };
    known.clone().after(end).unwrap_or(known)
}

#[cfg(test)]
mod tests {
    use super::greet;
    use shim_model::id::SandboxId;
    use shim_model::wire::{FromMonitor, ToMonitor, decode, encode_as};
    use shim_sys::socket::{self, Bounds};
    use std::os::fd::OwnedFd;

    const BOUNDS: Bounds = Bounds { inline: 1 << 16, memory: 1 << 16 };

    /// A monitor of version 1: what it does not understand ends the connection.
    fn old_monitor(listener: &OwnedFd) {
        loop {
            shim_sys::fd::wait_readable(listener).unwrap();
            let client = socket::accept(listener).unwrap();
            shim_sys::fd::wait_readable(&client).unwrap();
            let packet = socket::recv(&client, BOUNDS).unwrap().unwrap();
            if packet.bytes.first() != Some(&1) {
                continue;
            }
            let frame = decode::<ToMonitor>(&packet.bytes).unwrap();
            assert_eq!(frame.body, ToMonitor::State);
            let state = FromMonitor::State { pod_init: None, containers: Vec::new() };
            let answer = encode_as(1, frame.number, &state).unwrap();
            return socket::send(&client, &answer, &[], BOUNDS.inline).unwrap();
        }
    }

    #[tokio::test]
    async fn a_monitor_of_the_version_before_is_spoken_to_in_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let opened = std::fs::File::open(folder.path()).unwrap();
        let listener = socket::listen(&opened, "monitor.sock", 4).unwrap();
        let old = std::thread::spawn(move || old_monitor(&listener));
        let id = SandboxId::from_random([7; 32]);
        let (monitor, _events, containers) = greet(&id, folder.path()).await.unwrap();
        assert!(containers.is_empty() && monitor.knows(1) && !monitor.knows(2));
        old.join().unwrap();
    }
}
