//! The mounts of a spec to steps: first the root, then parents before children, device nodes right
//! after `/dev`, then what is hidden or made read-only, last the pivot. After the pivot nothing of the
//! host is in reach.

use super::{Attributes, DeviceNode, PlanFacts, Slot, Source, Spread, Step, TargetKind, hooks};
use crate::kind::Refused;
use crate::spec::mounts::c_string;
use crate::spec::{Built, SpecInput, Special, devices, namespaces};
use oci_spec::runtime::Mount;
use std::ffi::CString;

/// Options of a mount, sorted by what they are.
#[derive(Debug, Default)]
struct Options {
    attributes: Attributes,
    spread: Option<Spread>,
    /// For the file system itself.
    data: Vec<(String, Option<String>)>,
}

/// Sources in slot order, and the steps up to and including the pivot.
pub(super) fn steps(
    input: &SpecInput<'_>,
    built: &Built,
    facts: &PlanFacts<'_>,
) -> Result<(Vec<Source>, Vec<Step>), Refused> {
    let mut sources = vec![Source::Root];
    let mut steps = Vec::new();
    let score = i32::try_from(input.container.resources.oom_score_adj).unwrap_or_default();
    steps.push(Step::OomScoreAdj(score));
    if namespaces::own_cgroup(input) {
        steps.push(Step::CgroupNamespace);
    }
    if built.hooks.is_empty() {
        steps.push(Step::AttachRoot { slot: 0, spread: Spread::Slave });
    } else {
        let slot = slot_of(&mut sources, Source::NodeMounts)?;
        hooks::prepare(slot, facts, &mut steps)?;
    }
    for mount in built.spec.mounts().iter().flatten() {
        one(input, built, mount, &mut sources, &mut steps)?;
    }
    hooks::run(built, facts, &mut steps)?;
    let cwd =
        built.spec.process().as_ref().map(|process| process.cwd().to_string_lossy().into_owned());
    steps.push(Step::Folder {
        path: c_string("config.working_dir", cwd.as_deref().unwrap_or("/"))?,
        mode: 0o755,
    });
    let linux = built.spec.linux().as_ref();
    for path in linux.and_then(|linux| linux.readonly_paths().as_ref()).into_iter().flatten() {
        steps.push(Step::ReadonlyPath { path: c_string("readonly_paths", path)? });
    }
    for path in linux.and_then(|linux| linux.masked_paths().as_ref()).into_iter().flatten() {
        steps.push(Step::Mask { path: c_string("masked_paths", path)? });
    }
    if input.container.readonly_rootfs {
        steps.push(Step::ReadonlyRoot);
    }
    if input.container.tty {
        terminal_steps(built, &mut steps);
    }
    steps.push(Step::Pivot);
    Ok((sources, steps))
}

fn one(
    input: &SpecInput<'_>,
    built: &Built,
    mount: &Mount,
    sources: &mut Vec<Source>,
    steps: &mut Vec<Step>,
) -> Result<(), Refused> {
    let path = mount.destination().to_string_lossy();
    let target = c_string("config.mounts.container_path", &path)?;
    let options = options(mount);
    let typ = mount.typ().as_deref().unwrap_or("bind");
    let from = mount
        .source()
        .as_ref()
        .map(|source| source.to_string_lossy().into_owned())
        .unwrap_or_default();
    match (built.special.get(path.as_ref()), typ) {
        (Some(Special::PodShm), _) => steps.push(Step::PodShm { target }),
        (Some(Special::Source(source)), _) => {
            let slot = slot_of(sources, source.clone())?;
            let kind = match source {
                Source::PodFile(_) => TargetKind::File,
                Source::HostTree { .. } => TargetKind::Like,
                _ => TargetKind::Folder,
            };
            steps.push(bind(slot, target, kind, &options));
        }
        (None, "bind") => {
            let create = input.host.create_missing_host_paths;
            let path = c_string("config.mounts.host_path", &from)?;
            let source = if mount.uid_mappings().is_some() {
                Source::MappedHostTree { path, create }
            } else {
                Source::HostTree { path, create }
            };
            let slot = slot_of(sources, source)?;
            steps.push(bind(slot, target, TargetKind::Like, &options));
        }
        (None, "tmpfs") if path == "/dev" && input.setup.user.is_some() => {
            return given_devices(input, (target, &options), sources, steps);
        }
        (None, fstype) => {
            let options = labelled(built, fstype, options);
            steps.push(new_fs(fstype, &from, target, &options)?);
        }
    }
    if path == "/dev" && typ == "tmpfs" {
        device_steps(input, steps)?;
    }
    if path == "/sys/fs/cgroup" && typ == "tmpfs" {
        controller_links(input, steps)?;
    }
    Ok(())
}

/// What a file system that shows nothing of the node's is labelled as, whole. One of the IPC namespace is there
/// before it is mounted, and takes no option: the walk labels its root.
fn labelled(built: &Built, fstype: &str, mut options: Options) -> Options {
    let linux = built.spec.linux().as_ref();
    let label = linux.and_then(|linux| linux.mount_label().as_ref());
    if let Some(label) = label.filter(|_| matches!(fstype, "tmpfs" | "devpts" | "mqueue")) {
        options.data.push(("context".to_owned(), Some(label.clone())));
    }
    options
}

fn slot_of(sources: &mut Vec<Source>, source: Source) -> Result<Slot, Refused> {
    let slot = Slot::try_from(sources.len()).map_err(|_many| {
        Refused::new("config.mounts", sources.len().to_string(), "up to 4096 mounts")
    })?;
    sources.push(source);
    Ok(slot)
}

fn bind(slot: Slot, target: CString, kind: TargetKind, options: &Options) -> Step {
    let spread = options.spread.unwrap_or(Spread::Private);
    Step::Bind { slot, target, kind, attributes: options.attributes, spread }
}

fn new_fs(fstype: &str, source: &str, target: CString, options: &Options) -> Result<Step, Refused> {
    let pair =
        |(key, value): &(String, Option<String>)| -> Result<(CString, Option<CString>), Refused> {
            let value =
                value.as_deref().map(|value| c_string("mount option", value)).transpose()?;
            Ok((c_string("mount option", key)?, value))
        };
    Ok(Step::NewFs {
        fstype: c_string("mount type", fstype)?,
        source: c_string("mount source", source)?,
        options: options.data.iter().map(pair).collect::<Result<_, _>>()?,
        attributes: options.attributes,
        target,
    })
}

/// Sorts fstab-style options (mount(8)): flags of the mount, its propagation, data of the file system.
fn options(mount: &Mount) -> Options {
    let mut found = Options::default();
    for option in mount.options().iter().flatten() {
        let attributes = &mut found.attributes;
        match option.as_str() {
            "ro" => attributes.readonly = true,
            "rro" => (attributes.readonly, attributes.recursive_readonly) = (true, true),
            "nosuid" => attributes.nosuid = true,
            "nodev" => attributes.nodev = true,
            "noexec" => attributes.noexec = true,
            "rw" | "bind" | "rbind" | "strictatime" => {}
            "private" | "rprivate" => found.spread = Some(Spread::Private),
            "slave" | "rslave" => found.spread = Some(Spread::Slave),
            "shared" | "rshared" => found.spread = Some(Spread::Shared),
            data => found.data.push(match data.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (data.to_owned(), None),
            }),
        }
    }
    found
}

fn device_steps(input: &SpecInput<'_>, steps: &mut Vec<Step>) -> Result<(), Refused> {
    for node in devices::nodes(input) {
        steps.push(Step::Device {
            path: c_string("config.devices.container_path", &node.path)?,
            block: node.block,
            major: node.major,
            minor: node.minor,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
        });
    }
    device_links(steps)
}

fn device_links(steps: &mut Vec<Step>) -> Result<(), Refused> {
    for (path, to) in devices::LINKS {
        steps.push(Step::Link { path: c_string("link", path)?, to: c_string("link", to)? });
    }
    Ok(())
}

/// The terminal, after everything that could be mounted over it. The console is bound only where `/dev` is
/// ours: a `/dev` of the request may be the node's, and shared with it.
fn terminal_steps(built: &Built, steps: &mut Vec<Step>) {
    steps.push(Step::Terminal { columns: 0, rows: 0 });
    let mounts = || built.spec.mounts().iter().flatten();
    let is_at = |mount: &Mount, path: &str| mount.destination().to_str() == Some(path);
    let own = mounts().any(|m| is_at(m, "/dev") && m.typ().as_deref() == Some("tmpfs"));
    if own && !mounts().any(|mount| is_at(mount, "/dev/console")) {
        steps.push(Step::Console);
    }
}

/// In a user namespace the kernel makes no device node and opens none of a tmpfs made there: `/dev` comes
/// with its nodes, those elsewhere come one by one. Who may use them has not changed: ids are the same
/// inside. But what a privileged container gets without having named it keeps the node's owners, whom the
/// pod does not have: else it would own the node's disks.
fn given_devices(
    input: &SpecInput<'_>,
    (target, options): (CString, &Options),
    sources: &mut Vec<Source>,
    steps: &mut Vec<Step>,
) -> Result<(), Refused> {
    let Some(maps) = input.setup.user else { return Ok(()) };
    let (mut inside, mut elsewhere) = (Vec::new(), Vec::new());
    for node in devices::nodes(input) {
        let owner = if input.container.privileged {
            (node.uid, node.gid)
        } else {
            maps.owner(node.uid, node.gid)
        };
        let path = c_string("config.devices.container_path", &node.path)?;
        let (number, mode) = ((node.major, node.minor), node.mode);
        let below = node.path.starts_with("/dev/");
        let node = DeviceNode { path, block: node.block, number, mode, owner };
        if below { inside.push(node) } else { elsewhere.push(node) }
    }
    let slot = slot_of(sources, Source::DeviceFolder { nodes: inside, owner: maps.root() })?;
    steps.push(bind(slot, target, TargetKind::Folder, options));
    for node in elsewhere {
        let target = node.path.clone();
        let slot = slot_of(sources, Source::Device(node))?;
        steps.push(bind(slot, target, TargetKind::File, &Options::default()));
    }
    device_links(steps)
}

/// `cpu` beside `cpu,cpuacct`: programs look for either.
fn controller_links(input: &SpecInput<'_>, steps: &mut Vec<Step>) -> Result<(), Refused> {
    for hierarchy in input.host.hierarchies.iter().filter(|h| h.folder.contains(',')) {
        for controller in hierarchy.folder.split(',') {
            steps.push(Step::Link {
                path: c_string("link", &format!("/sys/fs/cgroup/{controller}"))?,
                to: c_string("link", &hierarchy.folder)?,
            });
        }
    }
    Ok(())
}
