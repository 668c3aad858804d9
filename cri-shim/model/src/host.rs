//! Facts about the node as one value. The runtime probes them once at start (`runtime/host.rs`);
//! every decision takes them as a parameter, so a plan can be made and tested for any host.

use crate::labels::selinux::Support;
use crate::plan::Rlimit;
use serde::{Deserialize, Serialize};

/// Which cgroup layout the node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupLayout {
    /// Every controller in a v1 hierarchy, no v2 mount.
    V1,
    /// v1 controllers and a v2 mount beside them.
    Hybrid,
    /// `/sys/fs/cgroup` is cgroup2.
    V2,
}

/// One v1 hierarchy, as a container sees it below `/sys/fs/cgroup`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// Folder name: `cpu,cpuacct`.
    pub folder: String,
    /// Mount options that name it: `cpu`, `cpuacct`; `none` and `name=systemd`.
    pub options: Vec<String>,
}

/// What the node can do and how it is set up.
#[expect(clippy::struct_excessive_bools, reason = "each is one independent fact")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Kernel version, major and minor.
    pub kernel: (u32, u32),
    /// Machine name of uname(2): `x86_64`, `aarch64`.
    pub machine: String,
    /// The node's host name.
    pub hostname: String,
    /// Cgroup layout.
    pub cgroup: CgroupLayout,
    /// v1 hierarchies; empty on v2.
    pub hierarchies: Vec<Hierarchy>,
    /// Capabilities that the runtime itself may give away: its bounding set.
    pub bounding: u64,
    /// AppArmor is in the kernel and on.
    pub apparmor: bool,
    /// Whether SELinux is on, and what its policy says of containers.
    pub selinux: Support,
    /// `mount_setattr(AT_RECURSIVE)` works.
    pub recursive_readonly: bool,
    /// Why pods can have no user namespace of their own here; `None` = they can.
    pub no_user_namespaces: Option<String>,
    /// Give pods `net.ipv4.ip_unprivileged_port_start=0`.
    pub unprivileged_ports: bool,
    /// Give pods a `net.ipv4.ping_group_range` that holds everybody.
    pub unprivileged_icmp: bool,
    /// Make a folder where a mount's host path does not exist.
    pub create_missing_host_paths: bool,
    /// Resource limits of every container's processes.
    pub rlimits: Vec<Rlimit>,
}

impl Host {
    /// A host for tests: v1 and v2 hybrid, kernel 6.18, everything allowed.
    pub fn example() -> Self {
        let hierarchy = |folder: &str| Hierarchy {
            folder: folder.to_owned(),
            options: folder.split(',').map(str::to_owned).collect(),
        };
        Self {
            kernel: (6, 18),
            machine: "x86_64".to_owned(),
            hostname: "node-1".to_owned(),
            cgroup: CgroupLayout::Hybrid,
            hierarchies: vec![hierarchy("cpu,cpuacct"), hierarchy("memory")],
            bounding: (1 << 41) - 1,
            apparmor: false,
            selinux: Support::Off,
            recursive_readonly: true,
            no_user_namespaces: None,
            unprivileged_ports: true,
            unprivileged_icmp: true,
            create_missing_host_paths: true,
            rlimits: vec![Rlimit { resource: 7, soft: 1_024, hard: 524_288 }],
        }
    }
}
