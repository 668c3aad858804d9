//! CreateContainer: decides and prepares, makes no process. Everything that can be refused is refused
//! here: image, user, profile, mounts, limits.

use super::{devices, handled, propagation};
use crate::error::{RuntimeError, chain};
use crate::events::Happened;
use crate::idmap::Mapped;
use crate::nri::view::ContainerView;
use crate::nri::{Era, What};
use crate::rootfs::{self, Finder};
use crate::runtime::{Runtime, blocking};
use crate::selinux;
use crate::store::container::{Container, ContainerRecord, ContainerState};
use crate::store::ledger::Entry;
use crate::store::pod::Pod;
use crate::store::{Begun, begin, disk};
use crate::timing::Timing;
use shim_image::index::{Image, Lease};
use shim_model::cdi;
use shim_model::container::config::ContainerConfig;
use shim_model::container::life::State;
use shim_model::edits;
use shim_model::id::{ContainerId, SandboxId};
use shim_model::image::ImageConfig;
use shim_model::kind::Refused;
use shim_model::labels::Labels;
use shim_model::limits;
use shim_model::nri::Adjustment;
use shim_model::phases::{Phase, Phases};
use shim_model::plan::{self, InitPlan, PlanFacts, Source, hooks};
use shim_model::sandbox::config::NamespaceMode;
use shim_model::spec::foreign::Foreign;
use shim_model::spec::{self, Built, SpecInput, process, security};
use shim_model::users::{self, User};
use shim_sys::{clock, fd, rooted};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A container with its root mounted.
struct Prepared {
    record: ContainerRecord,
    state: ContainerState,
    root: OwnedFd,
    lease: Lease,
}

/// What was decided for a container.
enum Decided {
    /// The plan that Wherry carries out.
    Own(Box<InitPlan>),
    /// The spec that its handler's program gets.
    By(Box<Foreign>),
}

impl Decided {
    fn sources(&self) -> &[Source] {
        match self {
            Self::Own(plan) => &plan.sources,
            Self::By(foreign) => &foreign.launch.sources,
        }
    }

    fn write(&self, folder: &Path) -> Result<(), RuntimeError> {
        match self {
            Self::Own(plan) => write_plan(folder, plan),
            Self::By(foreign) => handled::write(folder, foreign),
        }
    }
}

/// What a container is to be made from. The image stays while this does.
struct Wanted {
    timing: Timing,
    pod: Arc<Pod>,
    id: ContainerId,
    config: ContainerConfig,
    labels: Labels,
    image: Arc<Image>,
    lease: Lease,
    mapped: Option<Mapped>,
    log_directory: String,
}

/// The same with its root mounted, and the user that the image's files give.
struct Ground {
    wanted: Wanted,
    layers: Vec<PathBuf>,
    root: OwnedFd,
    user: User,
}

impl Runtime {
    /// Makes a container in a ready sandbox. `log_directory` is the sandbox's, as this request has it.
    /// The same request twice is one container. Goes on if the caller leaves.
    pub async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        log_directory: &str,
    ) -> Result<ContainerId, RuntimeError> {
        let timing = Timing::begin();
        let pod = self.0.store.pod(sandbox)?;
        pod.monitor("create a container in it")?;
        spec::check(&config, &pod.record.config, &self.0.host)?;
        let name = (pod.record.id.clone(), config.metadata.clone());
        let request = serde_json::to_vec(&config).unwrap_or_default();
        let names = &self.0.store.container_names;
        let id = match begin(names, name.clone(), &request, "container").await? {
            Begun::Answered(id) => id,
            Begun::New(ticket) => {
                let (runtime, log_directory) = (self.clone(), log_directory.to_owned());
                let name = name.clone();
                let work = tokio::spawn(async move {
                    let made = runtime
                        .make_container(&pod, config, (&log_directory, &timing))
                        .await
                        .map_err(Arc::new);
                    if made.is_err() {
                        runtime.0.store.container_names.release(&name);
                    }
                    ticket.answer(made.clone());
                    made
                });
                let made =
                    work.await.map_err(|_panic| RuntimeError::Lost("the making of a container"))?;
                made.map_err(RuntimeError::Shared)?
            }
        };
        names.delivered(&name);
        Ok(id)
    }

    async fn make_container(
        &self,
        pod: &Arc<Pod>,
        config: ContainerConfig,
        (log_directory, timing): (&str, &Timing),
    ) -> Result<ContainerId, RuntimeError> {
        timing.waited();
        let begun = Timing::now();
        let found = self
            .0
            .images
            .find(&config.image.image)
            .map_err(RuntimeError::image("find the image"))?;
        let image = found.ok_or_else(|| RuntimeError::NoImage(config.image.image.clone()))?;
        let lease = self.0.images.lease(&image);
        timing.since(begun, Phase::Image);
        timing.add(self.0.pulled.take(&pod.record.config.metadata, &image.id));
        let monitor = pod.monitor("create a container in it")?;
        let mapped = self.mapped(pod, &monitor, timing).await?;
        let labels = self.container_labels(pod, &config).await?;
        let id = ContainerId::from_random(rand::random());
        let wanted = Wanted {
            timing: timing.clone(),
            pod: Arc::clone(pod),
            id: id.clone(),
            log_directory: log_directory.to_owned(),
            config,
            labels,
            image,
            lease,
            mapped,
        };
        // Left when everybody can see the container: whoever connects meanwhile waits for that.
        let era = self.0.nri.enter();
        let mut shown = None;
        let prepared = match self.prepared(&era, wanted, &mut shown).await {
            Ok(prepared) => prepared,
            Err(cause) => {
                if let Some(view) = shown {
                    self.nri_undo_create(&era, pod, view).await;
                }
                self.undo_create(&pod.record.id, &id).await;
                return Err(cause);
            }
        };
        let store = &self.0.store;
        store.ledger.append(&Entry::Container { record: Box::new(prepared.record.clone()) });
        let container = Container::new(&store.disk, prepared.record, prepared.state);
        *container.root.lock() = Some(prepared.root);
        *container.lease.lock() = Some(prepared.lease);
        let container = Arc::new(container);
        store.insert_container(Arc::clone(&container));
        self.0.disks.begin(id.clone());
        self.tell_container(Happened::Created, &container);
        tracing::info!(id = id.short(), sandbox = pod.record.id.short(), "container made");
        self.nri_container_did(&era, &container, What::PostCreate).await;
        Ok(id)
    }

    /// Everything about a container, as plugins want it where there are any. `shown` is what they were shown.
    async fn prepared(
        &self,
        era: &Era,
        wanted: Wanted,
        shown: &mut Option<Arc<ContainerView>>,
    ) -> Result<Prepared, RuntimeError> {
        let runtime = self.clone();
        let asked = Timing::now();
        if era.is_quiet() {
            let nothing = Adjustment::default();
            return blocking(move || {
                wanted.timing.since(asked, Phase::Wait);
                runtime.prepare(runtime.ground(wanted)?, &nothing)
            })
            .await;
        }
        let (pod, timing) = (Arc::clone(&wanted.pod), wanted.timing.clone());
        let grounded = blocking(move || {
            wanted.timing.since(asked, Phase::Wait);
            let ground = runtime.ground(wanted)?;
            Ok((Arc::new(runtime.view(&ground)?), ground))
        });
        let (view, ground) = grounded.await?;
        let asked = Timing::now();
        let adjustment = self.nri_create(era, &pod, shown.insert(view)).await?;
        era.answered(&timing, asked);
        let runtime = self.clone();
        blocking(move || runtime.prepare(ground, &adjustment)).await
    }

    /// Mounts the root.
    fn ground(&self, wanted: Wanted) -> Result<Ground, RuntimeError> {
        let begun = Timing::now();
        let Wanted { pod, id, config, image, mapped, labels, .. } = &wanted;
        self.0.store.disk.make_container(&pod.record.id, id)?;
        let layers = self.0.images.root_folders(image);
        let owner = pod.record.setup.user.map_or((0, 0), |maps| maps.root());
        let writable = self
            .0
            .images
            .writable()
            .prepare(id, owner)
            .map_err(RuntimeError::image("prepare a writable layer"))?;
        let root = rootfs::overlay(&layers, &writable, mapped.as_ref(), labels.files.as_deref())?;
        wanted.timing.since(begun, Phase::Root);
        let user = user_of(config, &image.config.user, &root)?;
        Ok(Ground { wanted, layers, root, user })
    }

    /// What the container is, with what plugins changed.
    fn decide(
        &self,
        ground: &Ground,
        adjustment: &Adjustment,
    ) -> Result<ContainerRecord, RuntimeError> {
        let Wanted { pod, id, image, labels, .. } = &ground.wanted;
        let mut config = ground.wanted.config.clone();
        if *adjustment != Adjustment::default() {
            adjustment.apply(&mut config);
            spec::check(&config, &pod.record.config, &self.0.host)?;
        }
        let mut user = ground.user.clone();
        let names = cdi::names(&config.cdi_devices, &config.annotations)?;
        let mut edits = self.0.cdi.edits(&names, &user)?;
        edits.extend(adjustment.edits.clone());
        edits.join(&mut user)?;
        pod.record.setup.user.map_or(Ok(()), |maps| maps.check(&user))?;
        let record = ContainerRecord {
            log_path: self.log_path(id, &ground.wanted.log_directory, &config.log_path),
            stop_signal: process::stop_signal(&config.stop_signal, &image.config.stop_signal)?,
            cgroup: pod.record.cgroup.leaf(id),
            image_id: image.id.to_string(),
            image_ref: image.digests.first().cloned().unwrap_or_else(|| image.id.to_string()),
            image_name: shown_name(image, &config.image.image),
            sandbox: pod.record.id.clone(),
            created_at: clock::now(),
            chain: image.chain.clone(),
            devices: devices::all(&config, &edits)?,
            layers: ground.layers.clone(),
            labels: labels.clone(),
            id: id.clone(),
            user,
            config,
            edits,
        };
        propagation::check(&record.config)?;
        Ok(record)
    }

    /// The container as it would be without plugins, which is what they are shown.
    fn view(&self, ground: &Ground) -> Result<ContainerView, RuntimeError> {
        let record = self.decide(ground, &Adjustment::default())?;
        let image = &ground.wanted.image.config;
        let mut built = self.built(&ground.wanted.pod, &record, (&record.config, image))?;
        edits::apply(&mut built, &record.edits)?;
        let resources = record.config.resources.clone();
        let (life, timing) = (State::Creating {}, Phases::default());
        let state = ContainerState { life, resources, log_lost: 0, timing };
        Ok(ContainerView { record, state, built })
    }

    /// Decides everything, writes record and plan.
    fn prepare(&self, ground: Ground, adjustment: &Adjustment) -> Result<Prepared, RuntimeError> {
        let begun = Timing::now();
        let record = self.decide(&ground, adjustment)?;
        let Wanted { pod, image, lease, mapped, timing, .. } = ground.wanted;
        let decided = self.plan(&pod, &record, &image.config)?;
        let finder = Finder {
            images: &self.0.images,
            disk: &self.0.store.disk,
            pod: &record.sandbox,
            mapped: mapped.as_ref(),
            label: record.labels.files.as_deref(),
        };
        rootfs::try_images(decided.sources(), &finder)?;
        selinux::relabel(&record, self.0.host.create_missing_host_paths)?;
        timing.since(begun, Phase::Plan);
        let begun = Timing::now();
        let folder = self.0.store.disk.container(&record.sandbox, &record.id);
        self.0.store.disk.replace(&folder.join("config"), &record)?;
        decided.write(&folder)?;
        timing.since(begun, Phase::Record);
        // Last: a folder without it is one whose making was interrupted.
        let state = ContainerState {
            life: State::Created {},
            resources: record.config.resources.clone(),
            log_lost: 0,
            timing: Phases::of(timing.steps()),
        };
        self.0.store.disk.replace(&folder.join("state"), &state)?;
        Ok(Prepared { record, state, root: ground.root, lease })
    }

    fn plan(
        &self,
        pod: &Pod,
        record: &ContainerRecord,
        image: &ImageConfig,
    ) -> Result<Decided, RuntimeError> {
        let cgroup_path = record.cgroup.to_string();
        let input = SpecInput {
            sandbox: &pod.record.config,
            setup: &pod.record.setup,
            container: &record.config,
            image,
            user: &record.user,
            host: &self.0.host,
            cgroup_path: &cgroup_path,
            devices: &record.devices,
            labels: &record.labels,
        };
        let target = self.target(pod, record)?;
        let mut built = spec::build(&input)?;
        edits::apply(&mut built, &record.edits)?;
        if let Some(handler) = &pod.record.handler {
            let spec = (&input, &built);
            let foreign = self.foreign((pod, handler), record, spec, target.as_ref())?;
            return Ok(Decided::By(Box::new(foreign)));
        }
        let may = security::may(&self.0.host, &pod.record.setup);
        let sets = security::sets(&record.config, may)?;
        let choice = security::seccomp(&record.config);
        let filter = self.0.filters.get(&choice, sets.effective, &self.0.host)?;
        let bundle = self.0.store.disk.container(&record.sandbox, &record.id).join("bundle");
        if !built.hooks.is_empty() {
            write_bundle(&bundle, &mut built, pod.record.setup.user.is_some())?;
        }
        let facts = PlanFacts {
            seccomp: filter.as_deref(),
            target: target.as_ref(),
            id: &record.id,
            bundle: &bundle.to_string_lossy(),
        };
        Ok(Decided::Own(Box::new(plan::init(&input, &built, &facts)?)))
    }

    /// The container whose PID namespace is joined; it must run in the same pod.
    fn target(
        &self,
        pod: &Pod,
        record: &ContainerRecord,
    ) -> Result<Option<ContainerId>, RuntimeError> {
        if record.config.namespaces.pid != NamespaceMode::Target {
            return Ok(None);
        }
        let target = self.0.store.container(&record.config.namespaces.target_id)?;
        if target.record.sandbox != pod.record.id || !target.is_running() {
            let field = "config.linux.security_context.namespace_options.target_id";
            return Err(Refused::new(
                field,
                target.record.id.as_str(),
                "a running container of the same sandbox",
            )
            .into());
        }
        Ok(Some(target.record.id.clone()))
    }

    /// Absolute and never empty: the kubelet globs it (`cri-contract.md` §1.4.2).
    fn log_path(&self, id: &ContainerId, directory: &str, path: &str) -> PathBuf {
        if directory.is_empty() || path.is_empty() {
            return self.0.config.logs().join(format!("{id}.log"));
        }
        Path::new(directory).join(path)
    }

    async fn undo_create(&self, pod: &SandboxId, id: &ContainerId) {
        let (runtime, pod, id) = (self.clone(), pod.clone(), id.clone());
        let undone = blocking(move || {
            runtime
                .0
                .images
                .writable()
                .remove(&id)
                .map_err(RuntimeError::image("remove a writable layer"))?;
            runtime.0.store.disk.remove_container(&pod, &id)
        });
        if let Err(error) = undone.await {
            tracing::warn!(
                error = chain(&error),
                "something of a refused container stays until the next start"
            );
        }
    }
}

/// A tag of the image, or what the request named.
fn shown_name(image: &Image, asked: &str) -> String {
    let asked_is_id = asked.starts_with("sha256:") || image.id.hex().starts_with(asked);
    if asked_is_id {
        image.tags.first().cloned().unwrap_or_else(|| asked.to_owned())
    } else {
        asked.to_owned()
    }
}

/// Resolves the user with the files of the image, looked up inside its root.
fn user_of(
    config: &ContainerConfig,
    image_user: &str,
    root: &OwnedFd,
) -> Result<User, RuntimeError> {
    let passwd = image_file(root, c"/etc/passwd")?;
    let group = image_file(root, c"/etc/group")?;
    Ok(users::resolve(&config.run_as, image_user, passwd.as_deref(), group.as_deref())?)
}

/// A file of the image; anything but a regular file of sane size counts as missing.
fn image_file(root: &OwnedFd, path: &CStr) -> Result<Option<Vec<u8>>, RuntimeError> {
    let Ok(found) = rooted::open(root, path) else { return Ok(None) };
    let regular = matches!(fd::kind(&found), Ok(fd::FileKind::File));
    if !regular || fd::size(&found).unwrap_or(u64::MAX) > limits::PASSWD_BYTES as u64 {
        return Ok(None);
    }
    let doing = || RuntimeError::system(format!("read {} of the image", path.to_string_lossy()));
    let file = rooted::open_for_reading(root, path).map_err(doing())?;
    fd::read_to_end(file.as_fd(), limits::PASSWD_BYTES).map(Some).map_err(doing())
}

/// The folder that hooks are told: the spec, and where the root will be.
fn write_bundle(folder: &Path, built: &mut Built, inside: bool) -> Result<(), RuntimeError> {
    if inside {
        // They are the node's programs, and its root's; in there they are neither.
        return Err(RuntimeError::Unsupported(
            "run hooks of CDI devices in a pod with a user namespace of its own".to_owned(),
        ));
    }
    let root = folder.join(hooks::ROOT);
    disk::make(&root)?;
    if let Some(known) = built.spec.root_mut() {
        known.set_path(root);
    }
    let json = serde_json::to_vec(&built.spec)
        .map_err(|source| RuntimeError::Json { doing: "write the OCI spec", source })?;
    disk::write_file(&folder.join("config.json"), &json)
}

/// Keeps a plan for the start and for every exec.
fn write_plan(folder: &Path, plan: &InitPlan) -> Result<(), RuntimeError> {
    let path = folder.join("plan");
    let bytes = postcard::to_stdvec(plan)
        .map_err(|source| RuntimeError::Plan { path: path.clone(), source })?;
    crate::store::disk::write_file(&path, &shim_model::record::frame(&bytes))
}

/// Reads a kept plan.
pub(crate) fn read_plan(folder: &Path) -> Result<InitPlan, RuntimeError> {
    let path = folder.join("plan");
    let bytes = std::fs::read(&path).map_err(RuntimeError::file("read the plan", &path))?;
    let (payloads, _) = shim_model::record::frames(&bytes);
    let payload = payloads.first().copied().unwrap_or_default();
    postcard::from_bytes(payload).map_err(|source| RuntimeError::Plan { path, source })
}
