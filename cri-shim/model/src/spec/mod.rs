//! CRI request, image and host facts to an OCI runtime spec: a pure function, chapter by chapter.
//! Everything that can be refused is refused here or in `plan/`, before the first write. The spec is
//! what `crictl inspect` shows, what edits change and what a foreign OCI runtime would be given.

pub mod devices;
pub mod foreign;
pub mod mounts;
pub mod namespaces;
pub mod process;
pub mod resources;
pub mod security;

use crate::container::config::ContainerConfig;
use crate::edits::Hook;
use crate::host::Host;
use crate::image::ImageConfig;
use crate::kind::Refused;
use crate::labels::Labels;
use crate::plan::{Rlimit, Source};
use crate::sandbox::config::SandboxConfig;
use crate::sandbox::plan::PodSetup;
use crate::users::User;
use devices::HostDevice;
use oci_spec::runtime::{Linux, Root, Spec};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Everything a container is decided from.
#[derive(Clone, Copy, Debug)]
pub struct SpecInput<'a> {
    /// The pod's request.
    pub sandbox: &'a SandboxConfig,
    /// What was decided for the pod.
    pub setup: &'a PodSetup,
    /// The container's request.
    pub container: &'a ContainerConfig,
    /// The image's configuration.
    pub image: &'a ImageConfig,
    /// The resolved user.
    pub user: &'a User,
    /// The node.
    pub host: &'a Host,
    /// The container's cgroup, as shown.
    pub cgroup_path: &'a str,
    /// Nodes that the request's devices turned out to be.
    pub devices: &'a [HostDevice],
    /// What the kernel's security modules are told.
    pub labels: &'a Labels,
}

/// Where the tree of a mount comes from, if not from a new file system or a host path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Special {
    /// A descriptor that the runtime opens.
    Source(Source),
    /// The pod's shared memory.
    PodShm,
}

/// An environment in order; values are bytes.
pub type Environment = Vec<(String, Vec<u8>)>;

/// A spec, and what it cannot say.
#[derive(Clone, Debug)]
pub struct Built {
    /// The OCI runtime spec.
    pub spec: Spec,
    /// By destination: mounts whose source is not a host path.
    pub special: BTreeMap<String, Special>,
    /// The environment as bytes: the spec can show text only.
    pub env: Environment,
    /// Programs of the node to run before the root is changed.
    pub hooks: Vec<Hook>,
    /// Limits of its processes.
    pub rlimits: Vec<Rlimit>,
}

/// What can be refused without the image.
pub fn check(
    container: &ContainerConfig,
    sandbox: &SandboxConfig,
    host: &Host,
) -> Result<(), Refused> {
    crate::sandbox::plan::name("config.metadata.name", &container.metadata.name, true)?;
    crate::sandbox::plan::bounded_text(&container.labels, &container.annotations)?;
    log_path(&container.log_path)?;
    namespaces::check(container, sandbox)?;
    mounts::check(container, sandbox, host)?;
    devices::check(container)?;
    security::check(container, sandbox, host)?;
    resources::check(container, host)?;
    process::check(container)?;
    crate::cdi::names(&container.cdi_devices, &container.annotations)?;
    Ok(())
}

fn log_path(path: &str) -> Result<(), Refused> {
    let inside = !path.starts_with('/') && !path.split('/').any(|part| part == ".." || part == ".");
    if inside && !path.contains('\0') && path.len() < 4_096 {
        return Ok(());
    }
    Err(Refused::new(
        "config.log_path",
        path,
        "a path below the sandbox's log directory, or nothing",
    ))
}

/// Builds the spec.
pub fn build(input: &SpecInput<'_>) -> Result<Built, Refused> {
    let (oci_mounts, special) = mounts::build(input);
    let (oci_process, env) = process::build(input)?;
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces::build(input)))
        .set_resources(Some(resources::build(input)))
        .set_devices(Some(devices::build(input)))
        .set_cgroups_path(Some(input.cgroup_path.into()))
        .set_masked_paths(Some(security::masked(input.container)))
        .set_readonly_paths(Some(security::readonly(input.container)))
        .set_mount_label(input.labels.files.clone())
        .set_sysctl(Some(sysctls(input.setup)));
    if let Some(maps) = input.setup.user {
        linux
            .set_uid_mappings(Some(namespaces::oci_map(maps.uids)))
            .set_gid_mappings(Some(namespaces::oci_map(maps.gids)));
    }
    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(input.container.readonly_rootfs));
    let mut spec = Spec::default();
    spec.set_version("1.2.1".to_owned())
        .set_root(Some(root))
        .set_mounts(Some(oci_mounts))
        .set_process(Some(oci_process))
        .set_hostname(Some(input.setup.hostname.clone()))
        .set_linux(Some(linux))
        .set_annotations(Some(input.container.annotations.clone().into_iter().collect()));
    Ok(Built { spec, special, env, hooks: Vec::new(), rlimits: input.host.rlimits.clone() })
}

fn sysctls(setup: &PodSetup) -> HashMap<String, String> {
    setup.sysctls.iter().map(|(path, value)| (path.replace('/', "."), value.clone())).collect()
}

/// A spec as JSON, the same text for the same spec: its sets have no order of their own.
pub fn json(spec: &Spec) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(spec)?;
    let sets = value.pointer_mut("/process/capabilities").and_then(Value::as_object_mut);
    for set in sets.into_iter().flatten().filter_map(|(_, set)| set.as_array_mut()) {
        set.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Spec;

    #[test]
    fn a_spec_is_the_same_text_every_time() {
        let texts = (0..20).map(|_| super::json(&Spec::default()).unwrap().to_string());
        assert_eq!(texts.collect::<std::collections::BTreeSet<_>>().len(), 1);
        let names = super::json(&Spec::default()).unwrap()["process"]["capabilities"]["bounding"]
            .as_array()
            .unwrap()
            .len();
        assert!(names > 1, "the default has sets");
    }
}
