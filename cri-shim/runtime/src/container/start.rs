//! StartContainer: cgroup with limits, log file, trees; then the monitor clones the first process and
//! answers once its program is executed. A failed start leaves the container EXITED with code 128.

use super::create::read_plan;
use super::log::open_log;
use crate::error::RuntimeError;
use crate::events::Happened;
use crate::idmap::Mapped;
use crate::monitors::{Monitor, unexpected};
use crate::nri::What;
use crate::rootfs::{self, Finder};
use crate::runtime::{Runtime, blocking};
use crate::sandbox::run::leaf_fds;
use crate::store::container::{Container, ContainerState};
use crate::store::ledger::Entry;
use crate::timing::Timing;
use shim_model::cgroup::devices::DeviceRules;
use shim_model::container::life::{Event, Reason, State};
use shim_model::limits;
use shim_model::phases::Phase;
use shim_model::plan::Step;
use shim_model::wire::{CgroupFds, FromMonitor, Nanos, Process, Start, ToMonitor};
use shim_sys::clock;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The version of the wire that has terminals.
const TERMINALS: u8 = 2;

impl Runtime {
    /// Starts a created container. Goes on if the caller leaves.
    pub async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let container = self.0.store.container(id)?;
        let runtime = self.clone();
        let timing = Timing::begin();
        let work = tokio::spawn(async move { runtime.start_one(&container, &timing).await });
        work.await.map_err(|_panic| RuntimeError::Lost("the start of a container"))?
    }

    async fn start_one(
        &self,
        container: &Arc<Container>,
        timing: &Timing,
    ) -> Result<(), RuntimeError> {
        let _lock = container.lock.lock().await;
        timing.waited();
        self.start_locked(container, timing).await
    }

    /// Starts a container whose lock is held.
    pub(crate) async fn start_locked(
        &self,
        container: &Arc<Container>,
        timing: &Timing,
    ) -> Result<(), RuntimeError> {
        if !matches!(container.state().life, State::Created {}) {
            return Err(container.wrong_state("created", "start"));
        }
        let pod = self.0.store.pod(container.record.sandbox.as_str())?;
        let monitor = pod.monitor("start a container in it")?;
        let era = self.0.nri.enter();
        let asked = Timing::now();
        let allowed = self.nri_container(&era, container, What::Start).await;
        era.answered(timing, asked);
        let launched = match allowed {
            Ok(()) => self.launch(container, &monitor, timing).await,
            Err(refused) => Err(refused),
        };
        match launched {
            Ok((process, at)) => {
                let started = Event::Started { process, at };
                // The end may have been told already: a life of less than a millisecond.
                let next = |known: &ContainerState| {
                    let life = known.life.clone().after(started).ok()?;
                    self.0.store.ledger.append(&Entry::Life {
                        id: container.record.id.clone(),
                        life: life.clone(),
                    });
                    let timing = known.timing.and(timing.steps());
                    Some(ContainerState { life, timing, ..known.clone() })
                };
                container.change(next, || self.tell_container(Happened::Started, container));
                self.0.counts.starts.more(1);
                tracing::info!(
                    id = container.record.id.short(),
                    pid = process.pid,
                    "container runs"
                );
                self.nri_container_did(&era, container, What::PostStart).await;
                Ok(())
            }
            Err(error) => {
                // Its end begins an era of its own.
                drop(era);
                let message = crate::error::chain(&error);
                let end = Event::Ended {
                    at: clock::now(),
                    code: 128,
                    reason: Reason::StartError,
                    message,
                };
                self.container_ended(container, end, 0).await;
                Err(error)
            }
        }
    }

    async fn launch(
        &self,
        container: &Arc<Container>,
        monitor: &Monitor,
        timing: &Timing,
    ) -> Result<(Process, Nanos), RuntimeError> {
        if container.record.config.tty && !monitor.knows(TERMINALS) {
            let text = "the pod was made by an earlier version of wherry, whose monitor has no \
                        terminals; make the pod again";
            return Err(RuntimeError::Unsupported(text.to_owned()));
        }
        let (runtime, own, watch) = (self.clone(), Arc::clone(container), timing.clone());
        let pod = self.0.store.pod(container.record.sandbox.as_str())?;
        let mapped = self.mapped(&pod, monitor, timing).await?;
        let asked = Timing::now();
        let is_handled = pod.record.handler.is_some();
        let prepared = blocking(move || {
            watch.since(asked, Phase::Wait);
            match &pod.record.handler {
                Some(handler) => runtime.start_by(&own, handler, mapped.as_ref(), &watch),
                None => runtime.start_message(&own, mapped.as_ref(), &watch),
            }
        });
        let (start, fds) = prepared.await?;
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let handed = Timing::now();
        let answer = monitor.call(start, &borrowed, Some(limits::CONTAINER_START)).await?;
        match answer {
            FromMonitor::Launched { process, at, times } if is_handled => {
                timing.started_by(handed, &times);
                Ok((process, at))
            }
            FromMonitor::Launched { process, at, times } => {
                timing.started(handed, &times);
                Ok((process, at))
            }
            // A monitor of the version before.
            FromMonitor::Started { process, at } => Ok((process, at)),
            FromMonitor::Failed(failure) => Err(RuntimeError::Start {
                container: container.record.id.short().to_owned(),
                failure,
            }),
            other => Err(unexpected("start a container".to_owned(), other)),
        }
    }

    /// Makes what the first process needs, and the message that carries it.
    fn start_message(
        &self,
        container: &Container,
        mapped: Option<&Mapped>,
        timing: &Timing,
    ) -> Result<(ToMonitor, Vec<OwnedFd>), RuntimeError> {
        let record = &container.record;
        let disk = &self.0.store.disk;
        let kept = || read_plan(&disk.container(&record.sandbox, &record.id));
        let mut plan = timing.of(Phase::Plan, kept)?;
        for step in &mut plan.mounts {
            if let Step::Terminal { columns, rows } = step {
                (*columns, *rows) = *container.size.lock();
            }
        }
        let log = timing.of(Phase::Log, || open_log(&record.log_path))?;
        let begun = Timing::now();
        let rules = DeviceRules::of(record.config.privileged, &record.devices);
        let leaf = self.0.cgroups.create(&record.cgroup, &container.state().resources, &rules)?;
        if let Some(mapped) = mapped {
            self.0.cgroups.delegate(&record.cgroup, mapped.maps.root())?;
        }
        timing.since(begun, Phase::Cgroup);
        let (cgroup, leaf): (CgroupFds, Vec<OwnedFd>) = leaf_fds(leaf);
        let begun = Timing::now();
        let root = self.root_of(container, mapped)?;
        let (images, label) = (&self.0.images, record.labels.files.as_deref());
        let finder = Finder { images, disk, pod: &record.sandbox, mapped, label };
        let mut fds = vec![OwnedFd::from(log)];
        fds.extend(leaf);
        fds.extend(rootfs::open(&plan.sources, root, &finder)?);
        timing.since(begun, Phase::Sources);
        let start = Start {
            container: record.id.clone(),
            log: true,
            stdin: record.config.stdin,
            stdin_once: record.config.stdin_once,
            tty: record.config.tty,
            cgroup,
            plan,
            more: more(&fds),
        };
        Ok((ToMonitor::Start(Box::new(start)), fds))
    }

    /// The mounted root; made again if the daemon was restarted since the container was made.
    pub(super) fn root_of(
        &self,
        container: &Container,
        mapped: Option<&Mapped>,
    ) -> Result<OwnedFd, RuntimeError> {
        if let Some(root) = container.root.lock().take() {
            return Ok(root);
        }
        let record = &container.record;
        let owner = mapped.map_or((0, 0), |mapped| mapped.maps.root());
        let writable = self.0.images.writable().prepare(&record.id, owner);
        let writable = writable.map_err(RuntimeError::image("prepare a writable layer"))?;
        rootfs::overlay(&record.layers, &writable, mapped, record.labels.files.as_deref())
    }
}

/// How many descriptors do not fit the first message.
pub(super) fn more(fds: &[OwnedFd]) -> u16 {
    u16::try_from(fds.len().saturating_sub(limits::WIRE_DESCRIPTORS)).unwrap_or(u16::MAX)
}
