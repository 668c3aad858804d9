//! The InitPlan: what a container's first process does between clone and exec, as a flat list of
//! steps with every path, id and filter resolved. The planner (`plan/*.rs`) writes it, the daemon
//! opens the descriptors its [`Source`]s name, the monitor's child walks it (`shim-child`, `walk.rs`)
//! without allocating and without a choice left. Plain data; carried by postcard.

pub mod exec;
pub mod hooks;
pub mod mounts;
pub mod process;
pub mod security;

use crate::id::ContainerId;
use crate::kind::Refused;
use crate::sandbox::config::NamespaceMode;
use crate::seccomp::compile::Filter;
use crate::spec::{Built, SpecInput};
use serde::{Deserialize, Serialize};
use std::ffi::CString;

/// Index into the descriptors that travel with a plan: the n-th entry of [`InitPlan::sources`].
pub type Slot = u16;

/// A descriptor that the daemon opens for the plan, where the host's mounts are visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The detached root file system of the container.
    Root,
    /// A detached copy of the mount tree at this host path (`open_tree(OPEN_TREE_CLONE)`, symlinks
    /// followed, everything mounted below comes along). `create` = make a folder if nothing is there.
    HostTree { path: CString, create: bool },
    /// A detached copy of one file that the runtime wrote for the pod: `hosts`, `resolv.conf`, `hostname`.
    PodFile(String),
    /// A detached, read-only mount of this image's root, or of a folder in it.
    ImageVolume { image: String, sub_path: String },
    /// A folder of the container's own writable layer, for a volume that the image declares.
    AnonymousVolume(String),
    /// As [`Source::HostTree`], every mount of it with ids as the pod's user namespace maps them.
    MappedHostTree { path: CString, create: bool },
    /// A detached tmpfs for `/dev` with these nodes, for a container that may make none itself. It and
    /// folders in it belong to `owner`; ids are the node's.
    DeviceFolder { nodes: Vec<DeviceNode>, owner: (u32, u32) },
    /// A detached mount of one such node.
    Device(DeviceNode),
    /// The node's mount namespace.
    NodeMounts,
}

/// A device node that the daemon makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Where in the container.
    pub path: CString,
    /// Block device, else character device.
    pub block: bool,
    /// Major and minor number.
    pub number: (u32, u32),
    /// Permission bits.
    pub mode: u32,
    /// User and group, as the node counts them.
    pub owner: (u32, u32),
}

/// What a bind target must be; it is made beneath the root if it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetKind {
    /// As the source is: the walker asks the descriptor.
    Like,
    /// A folder.
    Folder,
    /// An empty file.
    File,
}

/// Propagation type for `mount_setattr(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spread {
    /// `MS_PRIVATE`.
    Private,
    /// `MS_SLAVE`.
    Slave,
    /// `MS_SHARED`.
    Shared,
}

/// Mount attributes to set (never cleared: a source's own locks stay).
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of mount_setattr(2)")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// `MOUNT_ATTR_RDONLY` on the top mount.
    pub readonly: bool,
    /// `MOUNT_ATTR_RDONLY` on everything below as well (`AT_RECURSIVE`, Linux 5.12).
    pub recursive_readonly: bool,
    /// `MOUNT_ATTR_NOSUID`.
    pub nosuid: bool,
    /// `MOUNT_ATTR_NODEV`.
    pub nodev: bool,
    /// `MOUNT_ATTR_NOEXEC`.
    pub noexec: bool,
}

/// Resource of `setrlimit(2)`, the kernel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_*` number.
    pub resource: u32,
    /// Soft limit; `u64::MAX` = unlimited.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// The five capability sets as bit masks (bit n = capability number n).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitySets {
    /// What may ever be gained again.
    pub bounding: u64,
    /// In force.
    pub effective: u64,
    /// May be put in force.
    pub permitted: u64,
    /// Kept over exec of a file with inheritable capabilities.
    pub inheritable: u64,
    /// Kept over exec of any file.
    pub ambient: u64,
}

/// One step of the child. A plan is kept on disk and sent to monitors of an earlier build: new steps come
/// last, and are sent to no monitor that does not know them. All paths are absolute inside the container's root and are looked up
/// beneath it (`openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`), never outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// `unshare(CLONE_NEWCGROUP)`: after joining the group, so that the namespace's root is the leaf.
    CgroupNamespace,
    /// Attach the detached root; everything below looks paths up in it.
    AttachRoot { slot: Slot, spread: Spread },
    /// Set attributes and propagation on a detached tree, then attach it.
    Bind { slot: Slot, target: CString, kind: TargetKind, attributes: Attributes, spread: Spread },
    /// Make a file system in the container's own namespaces (`fsopen`, `fsconfig`, `fsmount`) and attach it.
    /// An option without value is a flag.
    NewFs {
        fstype: CString,
        source: CString,
        options: Vec<(CString, Option<CString>)>,
        attributes: Attributes,
        target: CString,
    },
    /// Attach a copy of the pod's shared memory, which the monitor mounted.
    PodShm { target: CString },
    /// `mkdir -p` beneath the root; existing folders keep their mode. Owner root.
    Folder { path: CString, mode: u32 },
    /// A symbolic link; an existing one is left.
    Link { path: CString, to: CString },
    /// A device node with this owner; an existing node of the same device is left.
    Device { path: CString, block: bool, major: u32, minor: u32, mode: u32, uid: u32, gid: u32 },
    /// Hide a path: files by /dev/null, folders by an empty read-only tmpfs; a missing path is skipped.
    Mask { path: CString },
    /// Make a path read-only, keeping its other flags; a missing path is skipped.
    ReadonlyPath { path: CString },
    /// Make the root mount read-only.
    ReadonlyRoot,
    /// `pivot_root(".", ".")` into the root and detach the old one.
    Pivot,
    /// Write `/proc/self/oom_score_adj`; a value below the current one that the kernel refuses
    /// (no `CAP_SYS_RESOURCE`) is tolerated.
    OomScoreAdj(i32),
    /// `setrlimit(2)`; raising a hard limit without `CAP_SYS_RESOURCE` is clamped to the present one.
    Rlimit(Rlimit),
    /// `setsid(2)`.
    Session,
    /// Join a new anonymous session keyring (`keyctl(KEYCTL_JOIN_SESSION_KEYRING)`).
    Keyring,
    /// `umask(2)`.
    Umask(u32),
    /// `prctl(PR_SET_NO_NEW_PRIVS)`.
    NoNewPrivs,
    /// Drop everything else from the bounding set. Before the user changes.
    Bounding(u64),
    /// `setgroups`, `setresgid`, `setresuid`, keeping capabilities over the change.
    User { uid: u32, gid: u32, groups: Vec<u32> },
    /// `capset` and the ambient set. After the user changed.
    Capabilities(CapabilitySets),
    /// `chdir` in the container, after the user changed; the walker then verifies that the current
    /// folder is reachable from the root.
    Chdir(CString),
    /// Install this classic BPF filter. Last step, or before [`Step::Bounding`] without `no_new_privs`
    /// (it needs `CAP_SYS_ADMIN` then).
    Seccomp { filter: Vec<u8>, log: bool },
    /// Read back uid, gid, effective and bounding capabilities, `no_new_privs`; a mismatch aborts.
    Verify { uid: u32, gid: u32, capabilities: CapabilitySets, no_new_privs: bool },
    /// Make a pseudo-terminal in the container's devpts, hand its master to the monitor, make its peer the
    /// controlling terminal and all three standard streams; [`Step::User`] then gives it to the user. A
    /// size of zero is not known. Since version 2 of the wire.
    Terminal { columns: u16, rows: u16 },
    /// Bind that terminal at `/dev/console`. Since version 2 of the wire.
    Console,
    /// Leave the tiny mount namespace for a private copy of the node's (for hooks), and take along what the
    /// monitor mounted. Since version 2 of the wire, as the two that follow.
    NodeMounts { slot: Slot },
    /// As [`Step::AttachRoot`], at this folder of the node.
    AttachRootAt { slot: Slot, spread: Spread, path: CString },
    /// Run a program of the node, with this text as its input, and wait for its success.
    Hook { path: CString, argv: Vec<CString>, env: Vec<CString>, state: Vec<u8>, seconds: u32 },
    /// Tell a security module what the program is to be labelled as: an AppArmor profile, an SELinux context.
    Label { module: Module, label: CString },
}

/// A security module of the kernel that labels processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Module {
    /// By the name of a profile.
    AppArmor,
    /// By a context; also of the keyring that the process makes.
    Selinux,
}

/// The program to become: each candidate is tried in order until one exists and may be executed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Absolute paths, or paths relative to the working folder; from `PATH` where argv\[0\] has no slash.
    pub candidates: Vec<CString>,
    /// Arguments, the first is the name.
    pub argv: Vec<CString>,
    /// `KEY=value`.
    pub env: Vec<CString>,
}

/// Which PID namespace the process is cloned into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidNamespace {
    /// A new one.
    Own,
    /// The pod's, held by pod-init.
    Pod,
    /// The node's.
    Node,
    /// Another container's.
    Target(ContainerId),
}

/// A container's first process, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitPlan {
    /// What the descriptors are, in slot order.
    pub sources: Vec<Source>,
    /// PID namespace.
    pub pid: PidNamespace,
    /// Namespaces, mounts, files: up to and including the pivot.
    pub mounts: Vec<Step>,
    /// Limits, credentials, filter: also what every exec in this container walks.
    pub process: Vec<Step>,
    /// The program.
    pub program: Program,
}

/// A further process in a running container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecPlan {
    /// As in the container's [`InitPlan::process`].
    pub process: Vec<Step>,
    /// The command.
    pub program: Program,
}

/// What the planner needs besides the spec.
#[derive(Clone, Copy, Debug)]
pub struct PlanFacts<'a> {
    /// The compiled seccomp filter, if the container gets one.
    pub seccomp: Option<&'a Filter>,
    /// The container whose PID namespace is joined in mode Target.
    pub target: Option<&'a ContainerId>,
    /// The container, as its hooks are told.
    pub id: &'a ContainerId,
    /// The folder of the node that its hooks are told.
    pub bundle: &'a str,
}

/// Turns a spec into the plan of its first process.
pub fn init(
    input: &SpecInput<'_>,
    built: &Built,
    facts: &PlanFacts<'_>,
) -> Result<InitPlan, Refused> {
    let (sources, mounts) = mounts::steps(input, built, facts)?;
    let process = process::steps(input, built, facts)?;
    Ok(InitPlan {
        sources,
        pid: pid(input.container.namespaces.pid, facts.target)?,
        mounts,
        process,
        program: process::program(built)?,
    })
}

/// Which PID namespace a mode means; `target` is the container of mode Target.
pub fn pid(mode: NamespaceMode, target: Option<&ContainerId>) -> Result<PidNamespace, Refused> {
    match (mode, target) {
        (NamespaceMode::Pod, _) => Ok(PidNamespace::Pod),
        (NamespaceMode::Container, _) => Ok(PidNamespace::Own),
        (NamespaceMode::Node, _) => Ok(PidNamespace::Node),
        (NamespaceMode::Target, Some(id)) => Ok(PidNamespace::Target(id.clone())),
        (NamespaceMode::Target, None) => Err(Refused::new(
            "config.linux.security_context.namespace_options.target_id",
            "no running container",
            "a running container of the same pod",
        )),
    }
}
