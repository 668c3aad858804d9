//! Requests to begin with: a small pod, a small container. Tests change what they are about.

use crate::images;
use shim_proto::runtime_v1 as cri;
use std::path::Path;

/// Which network a pod has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The node's: the cheapest, for tests that are about something else.
    Node,
    /// A namespace of its own with an address.
    Pod,
}

/// A pod as a kubelet asks for it; logs are below `logs`.
pub fn pod(name: &str, network: Network, logs: &Path) -> cri::PodSandboxConfig {
    let mode = match network {
        Network::Node => cri::NamespaceMode::Node,
        Network::Pod => cri::NamespaceMode::Pod,
    };
    let options = cri::NamespaceOption {
        network: mode.into(),
        pid: cri::NamespaceMode::Container.into(),
        ..cri::NamespaceOption::default()
    };
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-of-{name}"),
            namespace: "tests".to_owned(),
            attempt: 0,
        }),
        hostname: if network == Network::Pod { name.to_owned() } else { String::new() },
        log_directory: logs.join(name).to_string_lossy().into_owned(),
        linux: Some(cri::LinuxPodSandboxConfig {
            security_context: Some(cri::LinuxSandboxSecurityContext {
                namespace_options: Some(options),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The namespaces that a pod asked for; its containers ask for the same.
pub fn namespaces(pod: &cri::PodSandboxConfig) -> cri::NamespaceOption {
    let security = pod.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    security.and_then(|security| security.namespace_options.clone()).unwrap_or_default()
}

/// A container of the test image in such a pod; its log is `NAME.log`.
pub fn container(
    name: &str,
    command: &[&str],
    pod: &cri::PodSandboxConfig,
) -> cri::ContainerConfig {
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: images::NAME.to_owned(), ..Default::default() }),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(cri::LinuxContainerConfig {
            security_context: Some(cri::LinuxContainerSecurityContext {
                namespace_options: Some(namespaces(pod)),
                seccomp: Some(cri::SecurityProfile::default()),
                ..Default::default()
            }),
            resources: Some(cri::LinuxContainerResources::default()),
        }),
        ..Default::default()
    }
}

/// The security context of a container, to be changed.
pub fn security(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// The limits of a container, to be changed.
pub fn resources(config: &mut cri::ContainerConfig) -> &mut cri::LinuxContainerResources {
    config.linux.get_or_insert_default().resources.get_or_insert_default()
}
