//! What is made for a pod sandbox: every refusal and every decision of RunPodSandbox, before the
//! first thing is changed. Sources: `cri-contract.md` §2.1 to §2.3 and §2.9.

use super::config::{IdMapping, NamespaceMode, SandboxConfig, UserNamespace};
use super::files;
use crate::host::Host;
use crate::kind::Refused;
use crate::limits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Size of a pod's /dev/shm, as Docker and containerd have it.
const SHM_BYTES: u64 = 64 << 20;

/// What a pod gets.
#[expect(clippy::struct_excessive_bools, reason = "each is one independent decision")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSetup {
    /// The name in the pod; the node's with the node's network.
    pub hostname: String,
    /// The pod shares the node's network (and so its UTS namespace).
    pub host_network: bool,
    /// The pod shares the node's IPC namespace and /dev/shm.
    pub host_ipc: bool,
    /// Containers may share a PID namespace, so pod-init is made for it.
    pub pod_init: bool,
    /// Size of the pod's /dev/shm; `None` with the node's IPC.
    pub shm_bytes: Option<u64>,
    /// File below /proc/sys and value, in order.
    pub sysctls: Vec<(String, String)>,
    /// Some port is to be published on the node.
    pub publishes: bool,
}

/// Decides what a pod gets, or refuses.
pub fn plan(config: &SandboxConfig, host: &Host) -> Result<PodSetup, Refused> {
    metadata(config)?;
    files::hostname("config.hostname", &config.hostname)?;
    bounded_text(&config.labels, &config.annotations)?;
    handler(&config.runtime_handler)?;
    log_directory(&config.log_directory)?;
    namespaces(config)?;
    ports(config)?;
    files::resolv_conf(config.dns.as_ref(), "")?;
    if config.run_as_group.is_some() && config.run_as_user.is_none() {
        return Err(Refused::new(
            "config.linux.security_context.run_as_group",
            "a group",
            "a group only together with run_as_user",
        ));
    }
    let host_network = config.namespaces.network == NamespaceMode::Node;
    let host_ipc = config.namespaces.ipc == NamespaceMode::Node;
    let own_name = !host_network && !config.hostname.is_empty();
    Ok(PodSetup {
        hostname: if own_name { config.hostname.clone() } else { host.hostname.clone() },
        host_network,
        host_ipc,
        pod_init: config.namespaces.pid == NamespaceMode::Pod,
        shm_bytes: (!host_ipc).then_some(SHM_BYTES),
        sysctls: sysctls(config, host)?,
        publishes: !host_network && config.ports.iter().any(|port| port.host_port > 0),
    })
}

fn metadata(config: &SandboxConfig) -> Result<(), Refused> {
    let meta = &config.metadata;
    for (field, value, required) in [
        ("config.metadata.name", &meta.name, true),
        ("config.metadata.uid", &meta.uid, true),
        ("config.metadata.namespace", &meta.namespace, true),
    ] {
        name(field, value, required)?;
    }
    Ok(())
}

/// A name of the CRI: it becomes part of messages and keys, never of a path.
pub fn name(field: &str, value: &str, required: bool) -> Result<(), Refused> {
    let legal = value.len() <= 253 && !value.contains(|c: char| c.is_control() || c == '/');
    if legal && !(required && value.is_empty()) && value != ".." && value != "." {
        return Ok(());
    }
    Err(Refused::new(field, value, "1 to 253 characters without slashes or control characters"))
}

/// Bounds of labels and annotations.
pub fn bounded_text(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Result<(), Refused> {
    for (key, value) in labels {
        let bytes = key.len().saturating_add(value.len());
        if bytes > limits::LABEL_BYTES {
            return Err(Refused::new(
                format!("config.labels[{key}]"),
                format!("{bytes} bytes"),
                "up to 4096 bytes, key and value together",
            ));
        }
    }
    let bytes: usize =
        annotations.iter().map(|(key, value)| key.len().saturating_add(value.len())).sum();
    if bytes > limits::ANNOTATIONS_BYTES {
        return Err(Refused::new(
            "config.annotations",
            format!("{bytes} bytes"),
            "up to 524288 bytes together",
        ));
    }
    Ok(())
}

fn handler(name: &str) -> Result<(), Refused> {
    if matches!(name, "" | "wherry") {
        Ok(())
    } else {
        Err(Refused::new("runtime_handler", name, "\"\" or \"wherry\""))
    }
}

fn log_directory(path: &str) -> Result<(), Refused> {
    let legal = path.is_empty()
        || (path.starts_with('/')
            && path != "/"
            && !path.contains('\0')
            && !path.split('/').any(|part| part == ".."));
    if legal {
        Ok(())
    } else {
        Err(Refused::new("config.log_directory", path, "an absolute path without .., or nothing"))
    }
}

fn namespaces(config: &SandboxConfig) -> Result<(), Refused> {
    let field = "config.linux.security_context.namespace_options";
    let found = &config.namespaces;
    for (name, mode) in [("network", found.network), ("ipc", found.ipc)] {
        if !matches!(mode, NamespaceMode::Pod | NamespaceMode::Node) {
            return Err(Refused::new(
                format!("{field}.{name}"),
                format!("{mode:?}"),
                "POD or NODE",
            ));
        }
    }
    if found.pid == NamespaceMode::Target {
        return Err(Refused::new(
            format!("{field}.pid"),
            "TARGET",
            "POD, CONTAINER or NODE for a sandbox",
        ));
    }
    found.user.as_ref().map_or(Ok(()), user_namespace)
}

fn user_namespace(user: &UserNamespace) -> Result<(), Refused> {
    let field = "config.linux.security_context.namespace_options.userns_options";
    let whole =
        |maps: &[IdMapping]| matches!(maps, [only] if only.container_id == 0 && only.length > 0);
    match user.mode {
        NamespaceMode::Node => Ok(()),
        NamespaceMode::Container | NamespaceMode::Target => {
            Err(Refused::new(format!("{field}.mode"), format!("{:?}", user.mode), "POD or NODE"))
        }
        NamespaceMode::Pod if !whole(&user.uids) || !whole(&user.gids) => Err(Refused::new(
            field,
            "other maps",
            "exactly one uid and one gid map that start at container id 0",
        )),
        NamespaceMode::Pod => Err(Refused::new(
            format!("{field}.mode"),
            "POD",
            "NODE: this release has no user namespaces per pod yet",
        )),
    }
}

fn ports(config: &SandboxConfig) -> Result<(), Refused> {
    for (index, port) in config.ports.iter().enumerate() {
        let field = |name: &str| format!("config.port_mappings[{index}].{name}");
        if !(0..=65_535).contains(&port.host_port) {
            return Err(Refused::new(field("host_port"), port.host_port.to_string(), "0 to 65535"));
        }
        if port.host_port > 0 && !(1..=65_535).contains(&port.container_port) {
            return Err(Refused::new(
                field("container_port"),
                port.container_port.to_string(),
                "1 to 65535",
            ));
        }
        if !port.host_ip.is_empty() && port.host_ip.parse::<std::net::IpAddr>().is_err() {
            return Err(Refused::new(
                field("host_ip"),
                &port.host_ip,
                "an IP address, or nothing for all",
            ));
        }
    }
    Ok(())
}

/// The namespace that a sysctl belongs to; `None` = the node's own, never a pod's.
fn sysctl_home(path: &str) -> Option<&'static str> {
    const IPC: [&str; 7] = [
        "kernel/shmmax",
        "kernel/shmall",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
    ];
    match path {
        _ if path.starts_with("net/") => Some("network"),
        _ if path.starts_with("fs/mqueue/") || path == "kernel/sem" || IPC.contains(&path) => {
            Some("ipc")
        }
        "kernel/domainname" => Some("uts"),
        _ => None,
    }
}

fn sysctls(config: &SandboxConfig, host: &Host) -> Result<Vec<(String, String)>, Refused> {
    let host_network = config.namespaces.network == NamespaceMode::Node;
    let host_ipc = config.namespaces.ipc == NamespaceMode::Node;
    let mut wanted = BTreeMap::new();
    if !host_network && host.unprivileged_ports {
        wanted.insert("net/ipv4/ip_unprivileged_port_start".to_owned(), "0".to_owned());
    }
    if !host_network && host.unprivileged_icmp {
        wanted.insert("net/ipv4/ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    for (name, value) in &config.sysctls {
        let field = format!("config.linux.sysctls[{name}]");
        let path = sysctl_path(name);
        let clean = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_control());
        if !clean(&path)
            || path.split('/').any(|part| matches!(part, "" | "." | ".."))
            || value.contains(|c: char| c.is_control() && c != '\t')
        {
            return Err(Refused::new(
                field,
                format!("{name}={value}"),
                "a name with dots or slashes and a value of one line",
            ));
        }
        match (sysctl_home(&path), host_network, host_ipc) {
            (Some("network" | "uts"), true, _) => {
                return Err(Refused::new(
                    field,
                    name,
                    "no network or UTS sysctl with the node's network",
                ));
            }
            (Some("ipc"), _, true) => {
                return Err(Refused::new(
                    field,
                    name,
                    "no IPC sysctl with the node's IPC namespace",
                ));
            }
            (None, _, _) => {
                return Err(Refused::new(
                    field,
                    name,
                    "a sysctl of the pod's own namespaces: net.*, fs.mqueue.*, kernel.shm*, kernel.msg*, kernel.sem, kernel.domainname",
                ));
            }
            (Some(_), _, _) => wanted.insert(path, value.clone()),
        };
    }
    Ok(wanted.into_iter().collect())
}

/// `net.ipv4.conf.eth0/1.x` style names: the first separator decides which one separates (sysctl(8)).
fn sysctl_path(name: &str) -> String {
    match name.find(['.', '/']).and_then(|at| name.get(at..=at)) {
        Some("/") => name.to_owned(),
        _ => name
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{PodSetup, plan};
    use crate::host::Host;
    use crate::sandbox::config::{
        Metadata, NamespaceMode, PortMapping, SandboxConfig, UserNamespace,
    };

    fn config() -> SandboxConfig {
        let metadata =
            Metadata { name: "web".into(), uid: "u".into(), namespace: "ns".into(), attempt: 2 };
        SandboxConfig { metadata, hostname: "web".into(), ..SandboxConfig::default() }
    }

    fn decide(change: impl FnOnce(&mut SandboxConfig)) -> Result<PodSetup, String> {
        let mut config = config();
        change(&mut config);
        plan(&config, &Host::example()).map_err(|refused| refused.field)
    }

    #[test]
    fn the_protocols_zero_values_are_a_shared_pid_namespace_and_a_network_of_its_own() {
        let setup = decide(|_| {}).unwrap();
        assert!(setup.pod_init && !setup.host_network && setup.shm_bytes.is_some());
        assert_eq!(setup.sysctls.len(), 2);
    }

    #[test]
    fn the_nodes_network_keeps_the_nodes_name() {
        let setup = decide(|c| c.namespaces.network = NamespaceMode::Node).unwrap();
        assert_eq!((setup.hostname.as_str(), setup.sysctls.len()), ("node-1", 0));
    }

    #[test]
    fn sysctls_go_only_where_the_pod_has_its_own_namespace() {
        let ok = decide(|c| {
            c.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
        })
        .unwrap();
        assert!(ok.sysctls.contains(&("kernel/shm_rmid_forced".into(), "1".into())));
        for name in
            ["kernel.panic", "vm.swappiness", "net/../../kernel/panic", "net..x", "kernel.hostname"]
        {
            assert!(
                decide(|c| {
                    c.sysctls.insert(name.into(), "1".into());
                })
                .is_err(),
                "{name}"
            );
        }
        assert!(
            decide(|c| {
                c.namespaces.network = NamespaceMode::Node;
                c.sysctls.insert("net.core.somaxconn".into(), "1".into());
            })
            .is_err()
        );
    }

    #[test]
    fn refusals_name_the_field() {
        assert_eq!(decide(|c| c.metadata.name.clear()), Err("config.metadata.name".into()));
        assert_eq!(decide(|c| c.hostname = "a b".into()), Err("config.hostname".into()));
        assert_eq!(decide(|c| c.runtime_handler = "kata".into()), Err("runtime_handler".into()));
        assert_eq!(
            decide(|c| c.log_directory = "/a/../b".into()),
            Err("config.log_directory".into())
        );
        assert_eq!(
            decide(|c| c.namespaces.network = NamespaceMode::Container),
            Err("config.linux.security_context.namespace_options.network".into())
        );
        assert_eq!(
            decide(|c| c.ports = vec![PortMapping { host_port: 70_000, ..PortMapping::default() }]),
            Err("config.port_mappings[0].host_port".into())
        );
        for mode in [NamespaceMode::Container, NamespaceMode::Target, NamespaceMode::Pod] {
            assert!(
                decide(|c| c.namespaces.user =
                    Some(UserNamespace { mode, ..UserNamespace::default() }))
                .is_err()
            );
        }
    }
}
