//! Containers of a RuntimeClass handler: the bundle that its program finds (written when the container is
//! made, so that all that can be refused is), the message that lets the pod's monitor run the program, and
//! the process of a further command. Cgroup, log, root and volumes are made as for every container.

use super::log::open_log;
use super::start::more;
use crate::error::RuntimeError;
use crate::filters;
use crate::handlers::{known, program};
use crate::idmap::Mapped;
use crate::rootfs::{self, Finder};
use crate::runtime::Runtime;
use crate::sandbox::run::leaf_fds;
use crate::store::container::{Container, ContainerRecord};
use crate::store::disk;
use crate::store::pod::Pod;
use crate::timing::Timing;
use serde_json::Value;
use shim_model::cgroup::devices::DeviceRules;
use shim_model::handler::choice::Handler;
use shim_model::handler::order::StartBy;
use shim_model::id::ContainerId;
use shim_model::kind::Refused;
use shim_model::phases::Phase;
use shim_model::plan::{self, PidNamespace};
use shim_model::sandbox::plan::PodSetup;
use shim_model::spec::foreign::{self, Facts, Foreign, Launch};
use shim_model::spec::{Built, SpecInput, security};
use shim_model::wire::ToMonitor;
use shim_sys::namespace::{self, Namespace};
use shim_sys::{mount, path};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Refuses a pod that its handler cannot run.
pub(crate) fn check(handler: Option<&Handler>, setup: &PodSetup) -> Result<(), Refused> {
    match handler {
        Some(handler) if setup.user.is_some() && !handler.features.user_namespaces => {
            let field = "config.linux.security_context.namespace_options.userns_options.mode";
            let allowed = format!("NODE: the handler \"{}\" has no user namespaces", handler.name);
            Err(Refused::new(field, "POD", allowed))
        }
        Some(_) | None => Ok(()),
    }
}

impl Runtime {
    /// The spec of a container for its handler's program.
    pub(super) fn foreign(
        &self,
        (pod, handler): (&Pod, &Handler),
        record: &ContainerRecord,
        (input, built): (&SpecInput<'_>, &Built),
        target: Option<&ContainerId>,
    ) -> Result<Foreign, RuntimeError> {
        let mounts = record.config.mounts.iter().enumerate();
        for (index, _) in mounts.filter(|(_, mount)| mount.recursive_read_only) {
            if !handler.features.recursive_read_only_mounts {
                let allowed = format!("false: the handler \"{}\" cannot do it", handler.name);
                let field = format!("config.mounts[{index}].recursive_read_only");
                return Err(Refused::new(field, "RROUnsupported", allowed).into());
            }
        }
        let disk = &self.0.store.disk;
        let sets = security::sets(&record.config, security::may(&self.0.host, &pod.record.setup))?;
        let choice = security::seccomp(&record.config);
        let seccomp = filters::said(&choice, sets.effective, &self.0.host)?;
        let spec = foreign::spec(
            input,
            built,
            &Facts {
                handler,
                bundle: &bundle(&disk.container(&record.sandbox, &record.id)).to_string_lossy(),
                files: &disk.pod(&record.sandbox).join("files").to_string_lossy(),
                pid: &self::pid(record, target)?,
                seccomp: seccomp.as_ref(),
                forbidden: &forbidden(built),
                bounds: known::bounds(&self.0.host).as_ref(),
            },
        );
        Ok(spec?)
    }

    /// Makes what a start needs, and the message that carries it.
    pub(super) fn start_by(
        &self,
        container: &Container,
        handler: &Handler,
        mapped: Option<&Mapped>,
        timing: &Timing,
    ) -> Result<(ToMonitor, Vec<OwnedFd>), RuntimeError> {
        let record = &container.record;
        let disk = &self.0.store.disk;
        let folder = disk.container(&record.sandbox, &record.id);
        let launch = timing.of(Phase::Plan, || read(&folder))?;
        for place in &launch.folders {
            let path = text(place);
            if !path.exists() {
                let failed = RuntimeError::file("make the host path", &path);
                std::fs::create_dir_all(&path).map_err(failed)?;
            }
        }
        let log = timing.of(Phase::Log, || open_log(&record.log_path))?;
        let rules = DeviceRules::of(record.config.privileged, &record.devices);
        let limits = container.state().resources.clone();
        let made = || self.0.cgroups.create(&record.cgroup, &limits, &rules);
        let leaf = timing.of(Phase::Cgroup, made)?;
        let (cgroup, leaf) = leaf_fds(leaf);
        let begun = Timing::now();
        let root = self.root_of(container, mapped)?;
        let (images, label) = (&self.0.images, record.labels.files.as_deref());
        let finder = Finder { images, disk, pod: &record.sandbox, mapped, label };
        let bundle = bundle(&folder);
        let mut fds = vec![OwnedFd::from(log)];
        fds.extend(leaf);
        for kind in [Namespace::Mount, Namespace::Network, Namespace::Uts, Namespace::Ipc] {
            let own =
                namespace::own(kind).map_err(RuntimeError::system("open the node's namespaces"))?;
            fds.push(own);
        }
        fds.push(path::open_folder(&bundle).map_err(RuntimeError::system("open the bundle"))?);
        fds.extend(rootfs::open(&launch.sources, root, &finder)?);
        timing.since(begun, Phase::Sources);
        let start = StartBy {
            container: record.id.clone(),
            program: known::program(handler, self.0.host.cgroup, &bundle)?,
            bundle: CString::new(bundle.as_os_str().as_bytes()).unwrap_or_default(),
            trees: launch.trees,
            stdin: record.config.stdin,
            stdin_once: record.config.stdin_once,
            tty: record.config.tty,
            size: *container.size.lock(),
            cgroup,
            more: more(&fds),
        };
        Ok((ToMonitor::StartBy(Box::new(start)), fds))
    }

    /// What the program that runs a container says of it, or why nothing; none of one that is our own.
    pub async fn handler_state(&self, container: &Container) -> Option<Result<Value, String>> {
        let pod = self.0.store.pod(container.record.sandbox.as_str()).ok()?;
        Some(program::state(pod.record.handler.as_ref()?, &container.record.id).await)
    }

    /// Lets a container's handler forget it, once nothing of it runs.
    pub(crate) async fn let_handler_forget(
        &self,
        container: &Container,
    ) -> Result<(), RuntimeError> {
        let Ok(pod) = self.0.store.pod(container.record.sandbox.as_str()) else { return Ok(()) };
        match &pod.record.handler {
            Some(handler) => program::forget(handler, &container.record.id).await,
            None => Ok(()),
        }
    }
}

/// What the node's mounts forbid that the container's are made of. A path that is not there yet is on the
/// mount of the folder that it will be made in.
fn forbidden(built: &Built) -> BTreeMap<String, Vec<&'static str>> {
    let binds = built.spec.mounts().iter().flatten();
    let binds = binds.filter(|mount| mount.typ().as_deref() == Some("bind"));
    let sources = binds.filter_map(|mount| mount.source().as_ref());
    let absolute = sources.filter(|path| path.is_absolute());
    let words = absolute.filter_map(|path| {
        let there = path.ancestors().find(|path| path.exists())?;
        Some((path.to_string_lossy().into_owned(), mount::forbidden(there).ok()?))
    });
    words.collect()
}

/// The process of a further command, as text.
pub(super) fn process(
    folder: &Path,
    command: &[String],
    tty: Option<(u16, u16)>,
) -> Result<Vec<u8>, RuntimeError> {
    plan::exec::bounded(command)?;
    let path = bundle(folder).join("config.json");
    let spec = std::fs::read(&path).map_err(RuntimeError::file("read the spec", &path))?;
    let process = foreign::command(&spec, command, tty.is_some(), tty.unwrap_or_default());
    process.ok_or_else(|| RuntimeError::Unsupported(format!("use the spec {}", path.display())))
}

/// The spec that the program was given.
pub(super) fn spec(folder: &Path) -> Result<Value, RuntimeError> {
    let path = bundle(folder).join("config.json");
    let text = std::fs::read(&path).map_err(RuntimeError::file("read the spec", &path))?;
    serde_json::from_slice(&text)
        .map_err(|source| RuntimeError::Json { doing: "read the OCI spec", source })
}

/// Writes the bundle, with a place for everything that will be attached to it.
pub(super) fn write(folder: &Path, foreign: &Foreign) -> Result<(), RuntimeError> {
    let Launch { trees, files, .. } = &foreign.launch;
    disk::make(&bundle(folder))?;
    for (place, _) in trees {
        let path = text(place);
        if files.contains(place) { disk::write_file(&path, b"")? } else { disk::make(&path)? }
    }
    disk::write_file(&bundle(folder).join("config.json"), foreign.text.as_bytes())?;
    let path = folder.join("launch");
    let bytes = postcard::to_stdvec(&foreign.launch)
        .map_err(|source| RuntimeError::Plan { path: path.clone(), source })?;
    disk::write_file(&path, &shim_model::record::frame(&bytes))
}

fn read(folder: &Path) -> Result<Launch, RuntimeError> {
    let path = folder.join("launch");
    let bytes = std::fs::read(&path).map_err(RuntimeError::file("read the launch", &path))?;
    let (payloads, _) = shim_model::record::frames(&bytes);
    let payload = payloads.first().copied().unwrap_or_default();
    postcard::from_bytes(payload).map_err(|source| RuntimeError::Plan { path, source })
}

fn bundle(folder: &Path) -> PathBuf {
    folder.join("bundle")
}

fn text(place: &CStr) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(place.to_bytes()))
}

fn pid(
    record: &ContainerRecord,
    target: Option<&ContainerId>,
) -> Result<PidNamespace, RuntimeError> {
    Ok(plan::pid(record.config.namespaces.pid, target)?)
}
