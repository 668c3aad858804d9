//! The namespaces chapter: which of them a container shares, and with whom (`cri-contract.md` §2.9).

use super::SpecInput;
use crate::container::config::ContainerConfig;
use crate::kind::Refused;
use crate::sandbox::config::{NamespaceMode, SandboxConfig};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

/// What can be refused without the image: a container must agree with its pod.
pub fn check(container: &ContainerConfig, sandbox: &SandboxConfig) -> Result<(), Refused> {
    let field = "config.linux.security_context.namespace_options";
    let (own, pod) = (&container.namespaces, &sandbox.namespaces);
    for (name, own, pod) in [("network", own.network, pod.network), ("ipc", own.ipc, pod.ipc)] {
        if own != pod {
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
    let user_mode = own.user.as_ref().map_or(NamespaceMode::Node, |user| user.mode);
    if user_mode != NamespaceMode::Node {
        return Err(Refused::new(
            format!("{field}.userns_options.mode"),
            format!("{user_mode:?}"),
            "NODE, as its sandbox has",
        ));
    }
    Ok(())
}

/// The namespaces of the spec: one entry for each that is not the node's.
pub(super) fn build(input: &SpecInput<'_>) -> Vec<LinuxNamespace> {
    let mut types = vec![LinuxNamespaceType::Mount];
    if !input.container.privileged {
        types.push(LinuxNamespaceType::Cgroup);
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
