//! What a pod sandbox is asked to be: the CRI's `PodSandboxConfig` without protobuf. Plain data,
//! stored as given and echoed as given; nothing is checked here (`sandbox/plan.rs` refuses).

use crate::resources::Resources;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Who the pod is. (name, namespace, uid, attempt) together are unique on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Metadata {
    /// Pod name.
    pub name: String,
    /// Pod uid; for static pods a hash, so any text.
    pub uid: String,
    /// Pod namespace.
    pub namespace: String,
    /// How often the kubelet has made this pod again.
    pub attempt: u32,
}

/// Which namespace a process gets (`NamespaceMode`, same numbers).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// The pod's; the protocol's zero value.
    #[default]
    Pod,
    /// Its own.
    Container,
    /// The node's.
    Node,
    /// Another container's.
    Target,
}

/// One line of a user-namespace map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id on the host.
    pub host_id: u32,
    /// First id in the container.
    pub container_id: u32,
    /// How many.
    pub length: u32,
}

/// User namespace of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    /// Pod or Node; anything else is refused.
    pub mode: NamespaceMode,
    /// User id maps.
    pub uids: Vec<IdMapping>,
    /// Group id maps.
    pub gids: Vec<IdMapping>,
}

/// The namespaces of a pod or container (`NamespaceOption`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Network: Pod or Node.
    pub network: NamespaceMode,
    /// Process ids: all four modes.
    pub pid: NamespaceMode,
    /// System V IPC and /dev/shm: Pod or Node.
    pub ipc: NamespaceMode,
    /// Whose PID namespace to join in mode Target.
    pub target_id: String,
    /// Unset = the node's user namespace.
    pub user: Option<UserNamespace>,
}

/// Name servers for the pod. `None` in [`SandboxConfig::dns`] = the node's own file; an empty value = an empty file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The `search` line.
    pub searches: Vec<String>,
    /// The `options` line.
    pub options: Vec<String>,
}

/// Transport of a published port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// One port; published only if `host_port` is above 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Transport.
    pub protocol: Protocol,
    /// Port in the pod, 1 to 65,535.
    pub container_port: i32,
    /// Port on the node; 0 = not published.
    pub host_port: i32,
    /// Address on the node; empty = all.
    pub host_ip: String,
}

/// A security profile (`SecurityProfile`). `None` where this stands in an `Option` = field unset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// The runtime's own default.
    RuntimeDefault,
    /// None at all.
    Unconfined,
    /// A file (seccomp) or a loaded profile (AppArmor).
    Localhost(String),
}

/// SELinux label parts; empty = unset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selinux {
    /// User part.
    pub user: String,
    /// Role part.
    pub role: String,
    /// Type part.
    pub kind: String,
    /// Level part.
    pub level: String,
}

/// Everything a pod sandbox is asked to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// Identity.
    pub metadata: Metadata,
    /// Host name in the pod; empty = the node's.
    pub hostname: String,
    /// Folder for the containers' log files; may be empty.
    pub log_directory: String,
    /// Name servers.
    pub dns: Option<Dns>,
    /// Declared ports.
    pub ports: Vec<PortMapping>,
    /// Echoed unchanged.
    pub labels: BTreeMap<String, String>,
    /// Echoed unchanged.
    pub annotations: BTreeMap<String, String>,
    /// Absolute path of the pod's cgroup in cgroupfs form, or a slice; empty = our own default.
    pub cgroup_parent: String,
    /// Namespaces of the pod.
    pub namespaces: Namespaces,
    /// Sysctls by name, with dots or slashes.
    pub sysctls: BTreeMap<String, String>,
    /// True if any container of the pod will be privileged.
    pub privileged: bool,
    /// User of pod-init; echoed only.
    pub run_as_user: Option<i64>,
    /// Group of pod-init; without a user it is refused.
    pub run_as_group: Option<i64>,
    /// SELinux label of the pod.
    pub selinux: Option<Selinux>,
    /// AppArmor profile of pod-init, never of a container; `None` = the runtime's default.
    #[serde(default)]
    pub apparmor: Option<Profile>,
    /// RuntimeClass overhead; informational.
    pub overhead: Option<Resources>,
    /// Sum over containers; informational.
    pub resources: Option<Resources>,
    /// RuntimeClass handler; empty = default.
    pub runtime_handler: String,
    /// True for pods made through our own API (the command line), false for a CRI client's.
    pub own: bool,
}
