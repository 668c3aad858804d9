//! The namespaces chapter: which of them a container shares, and with whom (`cri-contract.md` §2.9).

use super::SpecInput;
use crate::container::config::ContainerConfig;
use crate::idmaps::UserMaps;
use crate::kind::Refused;
use crate::sandbox::config::{IdMapping, NamespaceMode, Namespaces, SandboxConfig};
use oci_spec::runtime::{
    LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType,
};

/// What can be refused without the image: a container must agree with its pod.
pub fn check(container: &ContainerConfig, sandbox: &SandboxConfig) -> Result<(), Refused> {
    let field = "config.linux.security_context.namespace_options";
    let (own, pod) = (&container.namespaces, &sandbox.namespaces);
    for (name, own, pod) in [("network", own.network, pod.network), ("ipc", own.ipc, pod.ipc)] {
        // POD is the zero value, so it also says nothing: clients leave it out in a pod of the node's network.
        if own != pod && own != NamespaceMode::Pod {
            return Err(Refused::new(
                format!("{field}.{name}"),
                format!("{own:?}"),
                format!("{pod:?}, as its sandbox has"),
            ));
        }
    }
    if own.pid == NamespaceMode::Pod && pod.pid != NamespaceMode::Pod {
        return Err(Refused::new(
            format!("{field}.pid"),
            "POD",
            "another mode: the sandbox was made without a shared PID namespace",
        ));
    }
    if own.pid == NamespaceMode::Target && own.target_id.is_empty() {
        return Err(Refused::new(
            format!("{field}.target_id"),
            "",
            "the id of a running container of the same pod",
        ));
    }
    let user = |found: &Namespaces| {
        let field = format!("{field}.userns_options");
        found.user.as_ref().map_or(Ok(None), |user| UserMaps::of(&field, user))
    };
    let (own, pod) = (user(own)?, user(pod)?);
    if own != pod {
        let shown = |maps: Option<UserMaps>| match maps {
            None => "NODE".to_owned(),
            Some(maps) => format!("POD with uids {:?} and gids {:?}", maps.uids, maps.gids),
        };
        return Err(Refused::new(
            format!("{field}.userns_options"),
            shown(own),
            format!("{}, as its sandbox has", shown(pod)),
        ));
    }
    Ok(())
}

/// A privileged container keeps the node's view of cgroups, unless it has a user namespace: from inside
/// one, the node's tree cannot be mounted.
pub(crate) fn own_cgroup(input: &SpecInput<'_>) -> bool {
    !input.container.privileged || input.setup.user.is_some()
}

/// A line of a map as the OCI spec shows it.
pub(super) fn oci_map(map: IdMapping) -> Vec<LinuxIdMapping> {
    let line = LinuxIdMappingBuilder::default()
        .container_id(map.container_id)
        .host_id(map.host_id)
        .size(map.length);
    // Every field has a value, so it is always built.
    line.build().into_iter().collect()
}

/// The namespaces of the spec: one entry for each that is not the node's.
pub(super) fn build(input: &SpecInput<'_>) -> Vec<LinuxNamespace> {
    let mut types = vec![LinuxNamespaceType::Mount];
    if own_cgroup(input) {
        types.push(LinuxNamespaceType::Cgroup);
    }
    if input.setup.user.is_some() {
        types.push(LinuxNamespaceType::User);
    }
    if !input.setup.host_network {
        types.extend([LinuxNamespaceType::Network, LinuxNamespaceType::Uts]);
    }
    if !input.setup.host_ipc {
        types.push(LinuxNamespaceType::Ipc);
    }
    if input.container.namespaces.pid != NamespaceMode::Node {
        types.push(LinuxNamespaceType::Pid);
    }
    let entry = |typ| {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(typ);
        namespace
    };
    types.into_iter().map(entry).collect()
}
