//! What is made for a pod sandbox: every refusal and every decision of RunPodSandbox, before the
//! first thing is changed. Sources: `cri-contract.md` §2.1 to §2.3 and §2.9.

use super::config::{NamespaceMode, SandboxConfig};
use super::files;
use crate::host::Host;
use crate::idmaps::UserMaps;
use crate::kind::Refused;
use crate::labels::{Labels, apparmor, selinux};
use crate::limits;
use crate::spec::security::APPARMOR;
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
    /// The pod's own user namespace; `None` = the node's.
    #[serde(default)]
    pub user: Option<UserMaps>,
    /// The labels of pod-init and of what the pod's containers share.
    #[serde(default)]
    pub labels: Labels,
}

/// Decides what a pod gets, or refuses.
pub fn plan(config: &SandboxConfig, host: &Host) -> Result<PodSetup, Refused> {
    metadata(config)?;
    files::hostname("config.hostname", &config.hostname)?;
    bounded_text(&config.labels, &config.annotations)?;
    log_directory(&config.log_directory)?;
    namespaces(config)?;
    let user = user_namespace(config, host)?;
    apparmor::choose(APPARMOR, config.apparmor.as_ref(), config.privileged, host)?;
    selinux::choose(config.selinux.as_ref(), config.privileged, "s0", host)?;
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
        sysctls: sysctls(config, host, user)?,
        publishes: !host_network && config.ports.iter().any(|port| port.host_port > 0),
        user,
        // What the node has loaded is looked up later.
        labels: Labels::default(),
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
    Ok(())
}

/// The pod's own user namespace. The node's processes and IPC objects are not in it: no file system that
/// shows them can be mounted from inside (`mount_capable` of Linux).
fn user_namespace(config: &SandboxConfig, host: &Host) -> Result<Option<UserMaps>, Refused> {
    let field = "config.linux.security_context.namespace_options";
    let found = &config.namespaces;
    let Some(user) = &found.user else { return Ok(None) };
    let Some(maps) = UserMaps::of(&format!("{field}.userns_options"), user)? else {
        return Ok(None);
    };
    for (name, mode) in [("pid", found.pid), ("ipc", found.ipc)] {
        if mode == NamespaceMode::Node {
            return Err(Refused::new(
                format!("{field}.{name}"),
                "NODE",
                "another mode, because the pod has a user namespace of its own",
            ));
        }
    }
    match &host.no_user_namespaces {
        None => Ok(Some(maps)),
        Some(reason) => Err(Refused::new(
            format!("{field}.userns_options.mode"),
            "POD",
            format!("NODE: this node cannot map ids: {reason}"),
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
        _ if path.starts_with("user/") => Some("user"),
        _ => None,
    }
}

fn sysctls(
    config: &SandboxConfig,
    host: &Host,
    user: Option<UserMaps>,
) -> Result<Vec<(String, String)>, Refused> {
    let host_network = config.namespaces.network == NamespaceMode::Node;
    let host_ipc = config.namespaces.ipc == NamespaceMode::Node;
    let mut wanted = BTreeMap::new();
    if !host_network && host.unprivileged_ports {
        wanted.insert("net/ipv4/ip_unprivileged_port_start".to_owned(), "0".to_owned());
    }
    if !host_network && host.unprivileged_icmp {
        // Every group that there is; the kernel reads the numbers as the pod's.
        let last = user.map_or(i32::MAX.unsigned_abs(), |maps| maps.gids.length.saturating_sub(1));
        let range = format!("0 {}", last.min(i32::MAX.unsigned_abs()));
        wanted.insert("net/ipv4/ping_group_range".to_owned(), range);
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
        let home = sysctl_home(&path);
        let allowed = match home {
            Some("network" | "uts") if host_network => {
                "no network or UTS sysctl with the node's network"
            }
            Some("ipc") if host_ipc => "no IPC sysctl with the node's IPC namespace",
            Some("user") if user.is_none() => {
                "no user.* sysctl without a user namespace of the pod's own"
            }
            None => {
                "a sysctl of the pod's own namespaces: net.*, fs.mqueue.*, kernel.shm*, kernel.msg*, kernel.sem, kernel.domainname, user.*"
            }
            Some(_) => {
                wanted.insert(path, value.clone());
                continue;
            }
        };
        return Err(Refused::new(field, name, allowed));
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
        IdMapping, Metadata, NamespaceMode, PortMapping, SandboxConfig, UserNamespace,
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
    }

    fn user(mode: NamespaceMode) -> UserNamespace {
        let ids = vec![IdMapping { host_id: 70_000, container_id: 0, length: 1_000 }];
        UserNamespace { mode, uids: ids.clone(), gids: ids }
    }

    #[test]
    fn a_user_namespace_is_the_pods_or_the_nodes() {
        let field = "config.linux.security_context.namespace_options";
        for mode in [NamespaceMode::Container, NamespaceMode::Target] {
            let refused = decide(|c| c.namespaces.user = Some(user(mode))).unwrap_err();
            assert_eq!(refused, format!("{field}.userns_options.mode"));
        }
        let nodes = decide(|c| c.namespaces.user = Some(user(NamespaceMode::Node))).unwrap();
        assert_eq!(nodes.user, None);
        let own = decide(|c| {
            c.namespaces.user = Some(user(NamespaceMode::Pod));
            c.sysctls.insert("user.max_user_namespaces".into(), "5".into());
        })
        .unwrap();
        assert_eq!(own.user.unwrap().root(), (70_000, 70_000));
        let sysctl = |name: &str| own.sysctls.iter().find(|(known, _)| known == name).unwrap();
        assert_eq!(sysctl("net/ipv4/ping_group_range").1, "0 999");
        assert_eq!(sysctl("user/max_user_namespaces").1, "5");
        let without = decide(|c| {
            c.sysctls.insert("user.max_user_namespaces".into(), "5".into());
        });
        assert!(without.is_err());
    }

    #[test]
    fn what_a_user_namespace_cannot_show_is_refused() {
        let field = "config.linux.security_context.namespace_options";
        let with = |change: fn(&mut SandboxConfig)| {
            decide(|c| {
                c.namespaces.user = Some(user(NamespaceMode::Pod));
                change(c);
            })
        };
        let pid = with(|c| c.namespaces.pid = NamespaceMode::Node);
        assert_eq!(pid, Err(format!("{field}.pid")));
        let ipc = with(|c| c.namespaces.ipc = NamespaceMode::Node);
        assert_eq!(ipc, Err(format!("{field}.ipc")));
        assert!(with(|c| c.namespaces.network = NamespaceMode::Node).is_ok());
        let mut config = config();
        config.namespaces.user = Some(user(NamespaceMode::Pod));
        let host = Host { no_user_namespaces: Some("old".into()), ..Host::example() };
        let refused = plan(&config, &host).unwrap_err();
        assert!(refused.allowed.contains("old"), "{refused}");
    }
}
