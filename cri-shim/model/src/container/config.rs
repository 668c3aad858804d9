//! What a container is asked to be: the CRI's `ContainerConfig` without protobuf. Plain data, stored
//! and echoed as given; refusals are `spec/` and `plan/`.

use crate::resources::Resources;
use crate::sandbox::config::{IdMapping, Namespaces, Profile, Selinux};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name and restart count; unique within a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Metadata {
    /// Container name.
    pub name: String,
    /// How often the kubelet has made it again.
    pub attempt: u32,
}

/// The image as the request names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// Id, tag or digest to resolve locally.
    pub image: String,
    /// What the pod's author wrote.
    pub user_specified_image: String,
    /// Echoed.
    pub runtime_handler: String,
    /// Echoed.
    pub annotations: BTreeMap<String, String>,
    /// Echoed.
    pub image_ref: String,
}

/// Propagation of a mount (`MountPropagation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Nothing crosses.
    #[default]
    Private,
    /// The host's later mounts appear in the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// One mount of the request.
#[expect(clippy::struct_excessive_bools, reason = "the protocol's own fields")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where in the container.
    pub container_path: String,
    /// Where on the host; unresolved, as status must show it.
    pub host_path: String,
    /// Read-only top mount.
    pub readonly: bool,
    /// Relabel for SELinux.
    pub selinux_relabel: bool,
    /// Propagation.
    pub propagation: Propagation,
    /// Id-mapped mount.
    pub uid_mappings: Vec<IdMapping>,
    /// Id-mapped mount.
    pub gid_mappings: Vec<IdMapping>,
    /// Read-only with everything below it.
    pub recursive_read_only: bool,
    /// Image volume instead of a host path.
    pub image: Option<ImageSpec>,
    /// Folder inside the image volume.
    pub image_sub_path: String,
    /// `noexec`, `nodev`, `nosuid` (CRI 1.37).
    pub mount_options: Vec<String>,
}

/// One device of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Node in the container.
    pub container_path: String,
    /// Node or folder of nodes on the host.
    pub host_path: String,
    /// Any of `r`, `w`, `m`.
    pub permissions: String,
}

/// How the user is given; at most one of the first two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// Numeric user.
    pub user: Option<i64>,
    /// User by name; must exist in the image.
    pub username: String,
    /// Primary group; refused without a user.
    pub group: Option<i64>,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
    /// True = the policy `Strict`: groups of the image's files are not added.
    pub strict_groups: bool,
}

/// Capability changes; names without `CAP_`, any case, `ALL` allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Added to the defaults.
    pub add: Vec<String>,
    /// Taken from them.
    pub drop: Vec<String>,
    /// Added to all five sets.
    pub ambient: Vec<String>,
}

/// Everything a container is asked to be.
#[expect(clippy::struct_excessive_bools, reason = "the protocol's own fields")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Name and attempt.
    pub metadata: Metadata,
    /// Image.
    pub image: ImageSpec,
    /// Replaces the image's entrypoint, and drops its arguments.
    pub command: Vec<String>,
    /// Replaces the image's arguments.
    pub args: Vec<String>,
    /// Working directory; empty = the image's.
    pub working_dir: String,
    /// Environment in order; values are bytes.
    pub envs: Vec<(String, Vec<u8>)>,
    /// Mounts in the request's order.
    pub mounts: Vec<Mount>,
    /// Devices.
    pub devices: Vec<Device>,
    /// CDI device names.
    pub cdi_devices: Vec<String>,
    /// Echoed unchanged.
    pub labels: BTreeMap<String, String>,
    /// Echoed unchanged.
    pub annotations: BTreeMap<String, String>,
    /// Relative to the sandbox's log directory; may be empty.
    pub log_path: String,
    /// Keep standard input open.
    pub stdin: bool,
    /// Close it when the first attached client closes its own.
    pub stdin_once: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// Limits.
    pub resources: Resources,
    /// Capabilities.
    pub capabilities: Capabilities,
    /// All of the host's power.
    pub privileged: bool,
    /// Namespaces.
    pub namespaces: Namespaces,
    /// SELinux label.
    pub selinux: Option<Selinux>,
    /// User and groups.
    pub run_as: RunAs,
    /// Read-only root file system.
    pub readonly_rootfs: bool,
    /// `prctl(PR_SET_NO_NEW_PRIVS)`.
    pub no_new_privs: bool,
    /// Paths hidden from the container.
    pub masked_paths: Vec<String>,
    /// Paths made read-only.
    pub readonly_paths: Vec<String>,
    /// Seccomp; `None` = unconfined, as the protocol says.
    pub seccomp: Option<Profile>,
    /// AppArmor; `None` = the runtime's default where the kernel has it.
    pub apparmor: Option<Profile>,
    /// Stop signal by name (`SIGTERM`); empty = the image's.
    pub stop_signal: String,
}
