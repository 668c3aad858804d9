//! RunPodSandbox: decide, record, then network and monitor side by side, then tell. Any failure ends in
//! the one teardown.

use crate::container::handled;
use crate::error::{RuntimeError, chain};
use crate::events::Happened;
use crate::monitors::{Monitor, unexpected};
use crate::network::Attachment;
use crate::runtime::{Runtime, blocking};
use crate::selinux;
use crate::store::ledger::Entry;
use crate::store::pod::{Pod, PodFacts, PodRecord, PodState};
use crate::store::{Begun, begin, disk};
use crate::timing::Timing;
use shim_model::cgroup::devices::DeviceRules;
use shim_model::cgroup::driver::GroupPath;
use shim_model::cni::capability;
use shim_model::handler::choice::Handler;
use shim_model::id::SandboxId;
use shim_model::limits;
use shim_model::phases::{Phase, Phases};
use shim_model::resources::Resources;
use shim_model::sandbox::config::SandboxConfig;
use shim_model::sandbox::files;
use shim_model::sandbox::life::State;
use shim_model::sandbox::plan::{self, PodSetup};
use shim_model::wire::{self, CgroupFds, FromMonitor, PodPlan, ToMonitor, UserPlan};
use shim_sys::{clock, path, socket};
use std::ffi::CString;
use std::fs::OpenOptions;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use tokio::sync::mpsc;

impl Runtime {
    /// Makes a pod sandbox; when it returns, containers can be started in it. The same request twice
    /// is one sandbox. Goes on if the caller leaves.
    pub async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxId, RuntimeError> {
        let handler = self.0.handlers.of_pod(&config.runtime_handler).await?;
        let timing = Timing::begin();
        let mut setup = plan::plan(&config, &self.0.host)?;
        setup.labels = self.pod_labels(&config).await?;
        handled::check(handler.as_ref(), &setup)?;
        let cgroup = self.0.cgroups.driver().parent(&config.cgroup_parent)?;
        let name = config.metadata.clone();
        let request = serde_json::to_vec(&config).unwrap_or_default();
        let names = &self.0.store.sandbox_names;
        let id = match begin(names, name.clone(), &request, "sandbox").await? {
            Begun::Answered(id) => id,
            Begun::New(ticket) => {
                let runtime = self.clone();
                let work = tokio::spawn(async move {
                    let decided = (setup, handler);
                    let made = runtime.make_sandbox(config, decided, cgroup, &timing).await;
                    let made = made.map_err(Arc::new);
                    if made.is_err() {
                        runtime.0.store.sandbox_names.release(&name);
                    }
                    ticket.answer(made.clone());
                    made
                });
                let made =
                    work.await.map_err(|_panic| RuntimeError::Lost("the making of a sandbox"))?;
                made.map_err(RuntimeError::Shared)?
            }
        };
        if let Ok(pod) = self.0.store.pod(id.as_str()) {
            names.delivered(&pod.record.name());
        }
        Ok(id)
    }

    async fn make_sandbox(
        &self,
        config: SandboxConfig,
        decided: (PodSetup, Option<Handler>),
        cgroup: GroupPath,
        timing: &Timing,
    ) -> Result<SandboxId, RuntimeError> {
        timing.waited();
        let pod = timing.of(Phase::Record, || self.record_sandbox(config, decided, cgroup))?;
        let id = pod.record.id.clone();
        let lock = pod.lock.lock().await;
        let after = limits::SANDBOX_RUN;
        let made = match tokio::time::timeout(after, self.make(&pod, timing)).await {
            Ok(made) => made,
            Err(_) => {
                Err(RuntimeError::Deadline { doing: format!("make sandbox {}", id.short()), after })
            }
        };
        let ready = match made {
            Ok(facts) => self.show(&pod, facts, timing).await,
            Err(cause) => Err(cause),
        };
        if let Err(cause) = ready {
            tracing::warn!(
                id = id.short(),
                error = chain(&cause),
                "a sandbox could not be made and is taken away"
            );
            let undone = self.teardown_pod(&pod, "it could not be made").await;
            drop(lock);
            return match undone.and_then(|()| self.0.store.forget_pod(&pod)) {
                Ok(()) => Err(cause),
                Err(undo) => Err(RuntimeError::Several {
                    doing: "make a sandbox".to_owned(),
                    causes: vec![cause, undo],
                }),
            };
        }
        self.tell_pod(Happened::Created, &pod);
        self.tell_pod(Happened::Started, &pod);
        tracing::info!(id = id.short(), ips = ?pod.state().facts.ips, "sandbox runs");
        self.see_monitor(&pod).await;
        Ok(id)
    }

    /// Lets everybody see a pod, if no plugin minds.
    async fn show(
        &self,
        pod: &Arc<Pod>,
        facts: PodFacts,
        timing: &Timing,
    ) -> Result<(), RuntimeError> {
        let era = self.0.nri.enter();
        let asked = Timing::now();
        self.nri_run_pod(&era, pod, &facts).await?;
        era.answered(timing, asked);
        let facts = PodFacts { timing: Phases::of(timing.steps()), ..facts };
        let shown = pod.set(PodState { life: State::Ready { since: clock::now() }, facts });
        if shown.is_err() {
            self.nri_undo_run_pod(&era, pod).await;
        }
        shown
    }

    /// Writes down what is about to exist.
    fn record_sandbox(
        &self,
        config: SandboxConfig,
        (setup, handler): (PodSetup, Option<Handler>),
        cgroup: GroupPath,
    ) -> Result<Arc<Pod>, RuntimeError> {
        let id = SandboxId::from_random(rand::random());
        let cgroup = self.0.cgroups.driver().pod(cgroup, &id);
        let attachment = (!setup.host_network).then(|| Attachment::of(&id, &config)).transpose()?;
        let _one_at_a_time = self.0.network.publishing();
        self.refuse_taken_ports(attachment.as_ref())?;
        let created_at = clock::now();
        let record = PodRecord { id, config, setup, created_at, cgroup, attachment, handler };
        let store = &self.0.store;
        let folder = store.disk.pod(&record.id);
        let recorded = store
            .disk
            .make_pod(&record.id)
            .and_then(|_made| store.disk.replace(&folder.join("config"), &record));
        if let Err(cause) = recorded {
            let _the_first_error_counts = store.disk.remove_pod(&record.id);
            return Err(cause);
        }
        let entry =
            Entry::Pod { boot: store.disk.boot().to_owned(), record: Box::new(record.clone()) };
        store.ledger.append(&entry);
        let state = PodState { life: State::Starting {}, facts: PodFacts::default() };
        let pod = Arc::new(Pod::new(&store.disk, record, state));
        store.insert_pod(Arc::clone(&pod));
        Ok(pod)
    }

    /// Two pods cannot publish the same port: the rules of the first would win in silence.
    fn refuse_taken_ports(&self, wanted: Option<&Attachment>) -> Result<(), RuntimeError> {
        let Some(wanted) = wanted else { return Ok(()) };
        for pod in self.0.store.pods().iter().filter(|pod| !pod.state().facts.torn_down) {
            let Some(known) = &pod.record.attachment else { continue };
            if let Some(port) = capability::clash(&wanted.ports, &known.ports) {
                return Err(RuntimeError::Network {
                    doing: format!("publish port {}", port.host_port),
                    why: format!(
                        "the pod \"{}\" ({}) has it already; take another port, or remove that first",
                        known.metadata.name,
                        known.id.short()
                    ),
                });
            }
        }
        Ok(())
    }

    /// Network and monitor side by side.
    async fn make(&self, pod: &Arc<Pod>, timing: &Timing) -> Result<PodFacts, RuntimeError> {
        if pod.record.setup.user.is_some() {
            return self.make_inside(pod, timing).await;
        }
        let netns = match &pod.record.attachment {
            Some(attachment) => {
                let made = self.0.network.namespace(&attachment.id);
                Some(timing.during(Phase::Namespace, made).await?)
            }
            None => None,
        };
        let network = async {
            match &pod.record.attachment {
                Some(attachment) => self.attach_to_network(pod, attachment, timing).await,
                None => Ok(Vec::new()),
            }
        };
        let monitor = self.make_monitor(pod, netns.as_ref().map(AsFd::as_fd), timing);
        // Both are waited for even if one fails: nothing may still be at work when it is torn down.
        let (network, monitor) = tokio::join!(network, monitor);
        let (ips, (mut facts, _no_descriptor)) = (network?, monitor?);
        timing.of(Phase::Files, || self.write_files(pod, &ips))?;
        facts.ips = ips;
        Ok(facts)
    }

    /// In a user namespace of its own: the monitor makes the network namespace too, because it must belong
    /// to it, and the network follows.
    async fn make_inside(&self, pod: &Arc<Pod>, timing: &Timing) -> Result<PodFacts, RuntimeError> {
        let (mut facts, made) = self.make_monitor(pod, None, timing).await?;
        if let Some(attachment) = &pod.record.attachment {
            let none = || RuntimeError::Network {
                doing: format!("attach sandbox {}", pod.record.id.short()),
                why: "its monitor made no network namespace".to_owned(),
            };
            let namespace = made.ok_or_else(none)?;
            let adopted = self.0.network.adopt(&attachment.id, namespace);
            timing.during(Phase::Namespace, adopted).await?;
            facts.ips = self.attach_to_network(pod, attachment, timing).await?;
        }
        timing.of(Phase::Files, || self.write_files(pod, &facts.ips))?;
        Ok(facts)
    }

    async fn attach_to_network(
        &self,
        pod: &Pod,
        attachment: &Attachment,
        timing: &Timing,
    ) -> Result<Vec<IpAddr>, RuntimeError> {
        let added = self.0.network.add(attachment, &pod.record.config).await?;
        timing.add(added.steps);
        Ok(added.ips)
    }

    /// Forks the monitor and lets it make its namespaces; the network namespace, if it made one.
    async fn make_monitor(
        &self,
        pod: &Arc<Pod>,
        netns: Option<BorrowedFd<'_>>,
        timing: &Timing,
    ) -> Result<(PodFacts, Option<OwnedFd>), RuntimeError> {
        let folder = self.0.store.disk.pod(&pod.record.id);
        let dir =
            path::open_folder(&folder).map_err(RuntimeError::system("open the pod's folder"))?;
        let listener = socket::listen(&dir, "monitor.sock", 8)
            .map_err(RuntimeError::system("make the monitor's socket"))?;
        let journal = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(folder.join("journal"))
            .map_err(RuntimeError::file("make the journal in", &folder))?;
        let forking = self.0.zygote.fork(&pod.record.id, listener.as_fd(), journal.as_fd());
        let forked = timing.during(Phase::Fork, forking).await?;
        drop(listener);
        let (told, events) = mpsc::unbounded_channel();
        let monitor = Monitor::connect(&pod.record.id, &folder, told, wire::VERSION)?;
        let monitor = Arc::new(monitor);
        *pod.monitor.lock() = Some(Arc::clone(&monitor));
        self.attend(pod, events);
        // A scope needs a process before there are any: the monitor lends itself, and leaves once pod-init
        // is there.
        let is_scope = pod.record.cgroup.scope().is_some();
        self.0.cgroups.start_scope(&pod.record.cgroup, forked.process.pid).await?;
        let (body, fds) = self.pod_plan(pod, netns, timing).await?;
        let mut all: Vec<BorrowedFd<'_>> = netns.into_iter().collect();
        all.extend(fds.iter().map(AsFd::as_fd));
        let setup = monitor.call_whole(ToMonitor::Setup(body), &all, limits::MONITOR_REPLY);
        let answer = timing.during(Phase::Setup, setup).await?;
        if is_scope {
            self.0.cgroups.place(&self.0.cgroups.driver().own(), forked.process.pid)?;
        }
        match answer.body {
            FromMonitor::Ready { monitor, pod_init } => {
                let facts = PodFacts { monitor: Some(monitor), pod_init, ..PodFacts::default() };
                Ok((facts, answer.descriptor))
            }
            other => Err(unexpected(format!("set up the monitor {}", forked.process.pid), other)),
        }
    }

    /// What the monitor makes of itself, and the cgroup descriptors of pod-init.
    async fn pod_plan(
        &self,
        pod: &Arc<Pod>,
        netns: Option<BorrowedFd<'_>>,
        timing: &Timing,
    ) -> Result<(PodPlan, Vec<OwnedFd>), RuntimeError> {
        let setup = &pod.record.setup;
        let text = |text: &str| CString::new(text).unwrap_or_default();
        let mut fds = Vec::new();
        // A pod's scope would go with its last process, between two containers: pod-init holds it.
        let pod_init = if setup.pod_init || pod.record.cgroup.scope().is_some() {
            let (cgroups, group) = (self.0.cgroups.clone(), pod_init_group(pod));
            let made = blocking(move || {
                cgroups.create(&group, &Resources::default(), &DeviceRules::of(false, &[]))
            });
            let leaf = timing.during(Phase::Cgroup, made).await?;
            let (counts, descriptors) = leaf_fds(leaf);
            fds = descriptors;
            Some(counts)
        } else {
            None
        };
        let plan = PodPlan {
            join_network: netns.is_some(),
            hostname: (!setup.host_network).then(|| text(&setup.hostname)),
            shm_bytes: setup.shm_bytes,
            sysctls: setup.sysctls.iter().map(|(path, value)| (text(path), text(value))).collect(),
            pod_init,
            user: setup.user.map(|maps| UserPlan { maps, network: !setup.host_network }),
            profile: setup.labels.apparmor.as_deref().map(text),
            files: setup.labels.files.as_deref().map(text),
        };
        Ok((plan, fds))
    }

    fn write_files(&self, pod: &Pod, ips: &[IpAddr]) -> Result<(), RuntimeError> {
        let folder = self.0.store.disk.pod(&pod.record.id).join("files");
        let setup = &pod.record.setup;
        let host = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let hosts = if setup.host_network {
            host("/etc/hosts")
        } else {
            files::hosts(&setup.hostname, ips)
        };
        let resolv = files::resolv_conf(pod.record.config.dns.as_ref(), &host("/etc/resolv.conf"))?;
        let hostname = format!("{}\n", setup.hostname);
        for (name, text) in [("hosts", hosts), ("resolv.conf", resolv), ("hostname", hostname)] {
            let file = folder.join(name);
            disk::write_file(&file, text.as_bytes())?;
            // Every user of the pod reads them.
            std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644))
                .map_err(RuntimeError::file("change the mode of", &file))?;
            selinux::label(&file, setup.labels.files.as_deref())?;
        }
        Ok(())
    }
}

/// The leaf of a pod's first process.
pub(crate) fn pod_init_group(pod: &Pod) -> GroupPath {
    pod.record.cgroup.named(pod.record.id.as_str())
}

/// A leaf as the wire counts it.
pub(crate) fn leaf_fds(leaf: crate::cgroup::Leaf) -> (CgroupFds, Vec<OwnedFd>) {
    let counts = CgroupFds {
        join: u8::try_from(leaf.join.len()).unwrap_or(u8::MAX),
        into: leaf.into.is_some(),
        kill: leaf.kill.is_some(),
        oom: leaf.oom.is_some(),
    };
    let mut fds = leaf.join;
    fds.extend([leaf.into, leaf.kill, leaf.oom].into_iter().flatten());
    (counts, fds)
}
