//! The mounts chapter: what every container has, what the image and the request add, parents first.
//! Rules of `cri-contract.md` §2.5 and §2.6. A mount of the request replaces ours at the same path.

use super::namespaces::oci_map;
use super::{SpecInput, Special};
use crate::container::config::{ContainerConfig, Mount, Propagation};
use crate::host::{CgroupLayout, Host};
use crate::kind::Refused;
use crate::labels::selinux::{self, Support};
use crate::limits;
use crate::plan::Source;
use crate::sandbox::config::{NamespaceMode, SandboxConfig};
use oci_spec::runtime::Mount as OciMount;
use std::collections::BTreeMap;
use std::ffi::CString;

/// Files that the runtime writes for a pod, and where they go.
pub const POD_FILES: [(&str, &str); 3] =
    [("/etc/hosts", "hosts"), ("/etc/hostname", "hostname"), ("/etc/resolv.conf", "resolv.conf")];

/// The group of terminals, as Debian and Red Hat number it.
const TTY: u32 = 5;

/// What can be refused without the image.
pub fn check(
    container: &ContainerConfig,
    sandbox: &SandboxConfig,
    host: &Host,
) -> Result<(), Refused> {
    if container.mounts.len() > limits::MOUNTS {
        return Err(Refused::new(
            "config.mounts",
            container.mounts.len().to_string(),
            "up to 4096 mounts",
        ));
    }
    let each = |(index, mount): (usize, &Mount)| {
        let field = format!("config.mounts[{index}]");
        check_one(&field, mount, container.privileged, host)?;
        check_maps(&field, mount, sandbox)
    };
    container.mounts.iter().enumerate().try_for_each(each)
}

fn check_one(field: &str, mount: &Mount, privileged: bool, host: &Host) -> Result<(), Refused> {
    let refuse = |name: &str, found: &str, allowed: &str| {
        Err(Refused::new(format!("{field}.{name}"), found, allowed))
    };
    if mount.container_path.is_empty()
        || normal(&mount.container_path) == "/"
        || mount.container_path.contains('\0')
    {
        return refuse(
            "container_path",
            &mount.container_path,
            "a path below the container's root",
        );
    }
    check_source(field, mount)?;
    if mount.recursive_read_only {
        if !mount.readonly || mount.propagation != Propagation::Private {
            return refuse(
                "recursive_read_only",
                "true",
                "true only with readonly and PROPAGATION_PRIVATE",
            );
        }
        if !host.recursive_readonly {
            return refuse(
                "recursive_read_only",
                "RROUnsupported",
                "false: this kernel lacks mount_setattr(AT_RECURSIVE)",
            );
        }
    }
    if mount.propagation == Propagation::Bidirectional && !privileged {
        return refuse(
            "propagation",
            "PROPAGATION_BIDIRECTIONAL",
            "it only for a privileged container",
        );
    }
    if mount.selinux_relabel
        && matches!(host.selinux, Support::On(_))
        && !selinux::may_relabel(&mount.host_path)
    {
        let allowed = format!("false: {} is the node's own", mount.host_path);
        return refuse("selinux_relabel", "true", &allowed);
    }
    if let Some(option) =
        mount.mount_options.iter().find(|o| !matches!(o.as_str(), "noexec" | "nodev" | "nosuid"))
    {
        return refuse("mount_options", option, "noexec, nodev and nosuid");
    }
    Ok(())
}

/// Where a mount comes from: a path of the host, or an image and a folder of it.
fn check_source(field: &str, mount: &Mount) -> Result<(), Refused> {
    let refuse = |name: &str, found: &str, allowed: &str| {
        Err(Refused::new(format!("{field}.{name}"), found, allowed))
    };
    match &mount.image {
        None if !mount.host_path.starts_with('/') || mount.host_path.contains('\0') => {
            return refuse("host_path", &mount.host_path, "an absolute path");
        }
        Some(_) if !mount.host_path.is_empty() => {
            return refuse("host_path", &mount.host_path, "nothing, because the mount is an image");
        }
        Some(_) if !mount.readonly => {
            return refuse("readonly", "false", "true, because the mount is an image");
        }
        None | Some(_) => {}
    }
    let below = mount.image_sub_path.split('/').all(|part| !matches!(part, "." | ".."))
        && !mount.image_sub_path.starts_with('/')
        && !mount.image_sub_path.contains('\0');
    // A kubelet says it of every mount of a pod that has an image volume (1.37: `makeMounts`), and has
    // made `host_path` of it where there is no image.
    if mount.image.is_some() && !below {
        let allowed = "a relative path without ..";
        return refuse("image_sub_path", &mount.image_sub_path, allowed);
    }
    Ok(())
}

/// Id maps of a mount are the pod's: the mount is shown through the pod's own user namespace.
fn check_maps(field: &str, mount: &Mount, sandbox: &SandboxConfig) -> Result<(), Refused> {
    if mount.uid_mappings.is_empty() && mount.gid_mappings.is_empty() {
        return Ok(());
    }
    let user = sandbox.namespaces.user.as_ref().filter(|user| user.mode == NamespaceMode::Pod);
    let (uids, gids) = user.map_or((&[][..], &[][..]), |user| (&user.uids, &user.gids));
    for (name, own, pod) in
        [("uidMappings", &mount.uid_mappings, uids), ("gidMappings", &mount.gid_mappings, gids)]
    {
        if own != pod {
            let allowed = "none, or the maps of the pod's user namespace";
            return Err(Refused::new(format!("{field}.{name}"), format!("{own:?}"), allowed));
        }
    }
    Ok(())
}

/// An absolute path without doubled or trailing slashes; `..` stays and is resolved beneath the root.
pub fn normal(path: &str) -> String {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

/// The mounts of the spec in the order in which they are made, and the sources it cannot say.
pub(super) fn build(input: &SpecInput<'_>) -> (Vec<OciMount>, BTreeMap<String, Special>) {
    let mut mounts = defaults(input);
    let mut special = BTreeMap::new();
    if input.setup.host_ipc {
        mounts.push(entry(
            "/dev/shm",
            "bind",
            "/dev/shm",
            &["rbind", "nosuid", "nodev", "noexec", "rprivate"],
        ));
    } else {
        mounts.push(entry("/dev/shm", "tmpfs", "shm", &["nosuid", "nodev", "noexec", "mode=1777"]));
        special.insert("/dev/shm".to_owned(), Special::PodShm);
    }
    for (path, file) in POD_FILES {
        let readonly = if input.container.readonly_rootfs { "ro" } else { "rw" };
        mounts.push(entry(
            path,
            "bind",
            file,
            &["bind", "rprivate", readonly, "nosuid", "nodev", "noexec"],
        ));
        special.insert(path.to_owned(), Special::Source(Source::PodFile(file.to_owned())));
    }
    for volume in &input.image.volumes {
        let path = normal(volume);
        if path != "/" && !path.split('/').any(|part| part == "..") && !volume.contains('\0') {
            mounts.push(entry(&path, "bind", "anonymous", &["rbind", "rprivate"]));
            special.insert(path.clone(), Special::Source(Source::AnonymousVolume(path)));
        }
    }
    for mount in &input.container.mounts {
        let path = normal(&mount.container_path);
        special.remove(&path);
        if let Some(image) = &mount.image {
            let source = Source::ImageVolume {
                image: image.image.clone(),
                sub_path: mount.image_sub_path.clone(),
            };
            special.insert(path, Special::Source(source));
        }
        mounts.push(requested(mount));
    }
    (ordered(mounts), special)
}

/// The last of a path wins; then parents before children, otherwise as given.
fn ordered(mounts: Vec<OciMount>) -> Vec<OciMount> {
    let mut kept: Vec<OciMount> = Vec::with_capacity(mounts.len());
    for mount in mounts {
        kept.retain(|known| known.destination() != mount.destination());
        kept.push(mount);
    }
    kept.sort_by_key(|mount| mount.destination().components().count());
    kept
}

fn requested(mount: &Mount) -> OciMount {
    let spread = match mount.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    let readonly = match (mount.readonly, mount.recursive_read_only) {
        (_, true) => "rro",
        (true, false) => "ro",
        (false, false) => "rw",
    };
    let mut options = vec!["rbind", spread, readonly];
    options.extend(mount.mount_options.iter().map(String::as_str));
    let mut oci = entry(&normal(&mount.container_path), "bind", &mount.host_path, &options);
    if let (Some(uids), Some(gids)) = (mount.uid_mappings.first(), mount.gid_mappings.first()) {
        oci.set_uid_mappings(Some(oci_map(*uids))).set_gid_mappings(Some(oci_map(*gids)));
    }
    oci
}

fn defaults(input: &SpecInput<'_>) -> Vec<OciMount> {
    let privileged = input.container.privileged;
    let sys_mode = if privileged { "rw" } else { "ro" };
    let guarded = ["nosuid", "noexec", "nodev"];
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if input.setup.user.is_none_or(|maps| maps.gid(TTY).is_some()) {
        pts.push("gid=5");
    }
    let mut mounts = vec![
        entry("/proc", "proc", "proc", &guarded),
        entry("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        entry("/dev/pts", "devpts", "devpts", &pts),
        entry("/dev/mqueue", "mqueue", "mqueue", &guarded),
    ];
    // A sysfs shows a network namespace; from inside a user namespace only one that belongs to it.
    mounts.push(if input.setup.user.is_some() && input.setup.host_network {
        entry("/sys", "bind", "/sys", &["rbind", "rro", "rprivate", "nosuid", "noexec", "nodev"])
    } else {
        entry("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sys_mode])
    });
    let flags = ["nosuid", "noexec", "nodev", sys_mode];
    if input.host.cgroup == CgroupLayout::V2 {
        mounts.push(entry("/sys/fs/cgroup", "cgroup2", "cgroup", &flags));
        return mounts;
    }
    mounts.push(entry(
        "/sys/fs/cgroup",
        "tmpfs",
        "tmpfs",
        &["nosuid", "noexec", "nodev", "mode=755", "size=1024k"],
    ));
    for hierarchy in &input.host.hierarchies {
        let mut options: Vec<&str> = flags.to_vec();
        options.extend(hierarchy.options.iter().map(String::as_str));
        mounts.push(entry(
            &format!("/sys/fs/cgroup/{}", hierarchy.folder),
            "cgroup",
            "cgroup",
            &options,
        ));
    }
    // A v2 hierarchy beside them has no part in the container's limits, and no other runtime shows it: where
    // programs find one they look for their limits there (so does Kubernetes's own suite).
    mounts
}

pub(crate) fn entry(path: &str, typ: &str, source: &str, options: &[&str]) -> OciMount {
    let mut mount = OciMount::default();
    mount
        .set_destination(path.into())
        .set_typ(Some(typ.to_owned()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}

/// A path or option as the kernel takes it.
pub fn c_string(field: &str, text: &str) -> Result<CString, Refused> {
    CString::new(text).map_err(|_nul| Refused::new(field, text, "text without NUL"))
}
