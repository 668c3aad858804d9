//! Which device nodes of the node a container gets: those that its request names, all of them where it is
//! privileged, and those of vendors' devices. Looks at the node; what a container has anyway is the spec's.

use shim_model::container::config::{ContainerConfig, Device};
use shim_model::edits::Edits;
use shim_model::kind::Refused;
use shim_model::spec::devices::HostDevice;
use std::path::Path;

/// Every node; of two at one path, the vendor's counts.
pub(crate) fn all(config: &ContainerConfig, edits: &Edits) -> Result<Vec<HostDevice>, Refused> {
    let mut nodes = asked(config)?;
    let edited = |path: &String| edits.devices.iter().any(|edit| edit.path == *path);
    nodes.retain(|node| !edited(&node.path) && !edits.no_devices.contains(&node.path));
    nodes.extend(edits.devices.iter().cloned());
    Ok(nodes)
}

/// The nodes behind the request's devices.
fn asked(config: &ContainerConfig) -> Result<Vec<HostDevice>, Refused> {
    let mut nodes = Vec::new();
    for (index, device) in config.devices.iter().enumerate() {
        let before = nodes.len();
        collect(
            Path::new(&device.host_path),
            container_path(device),
            &device.permissions,
            &mut nodes,
        );
        if nodes.len() == before {
            let field = format!("config.devices[{index}].host_path");
            return Err(Refused::new(
                field,
                &device.host_path,
                "a device, or a folder with devices",
            ));
        }
    }
    if config.privileged {
        let mut all = Vec::new();
        collect(Path::new("/dev"), "/dev".to_owned(), "rwm", &mut all);
        let skipped = ["/dev/pts/", "/dev/shm/", "/dev/mqueue/", "/dev/fd/", "/dev/console"];
        nodes.extend(
            all.into_iter()
                .filter(|node| !skipped.iter().any(|prefix| node.path.starts_with(prefix))),
        );
    }
    Ok(nodes)
}

fn container_path(device: &Device) -> String {
    if device.container_path.is_empty() {
        device.host_path.clone()
    } else {
        device.container_path.clone()
    }
}

fn collect(host: &Path, path: String, access: &str, nodes: &mut Vec<HostDevice>) {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let Ok(meta) = std::fs::metadata(host) else { return };
    let kind = meta.file_type();
    if kind.is_dir() {
        for entry in std::fs::read_dir(host).into_iter().flatten().flatten() {
            // Links inside /dev lead to nodes that are listed themselves.
            if !entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                collect(
                    &entry.path(),
                    format!("{path}/{}", entry.file_name().to_string_lossy()),
                    access,
                    nodes,
                );
            }
        }
        return;
    }
    if kind.is_char_device() || kind.is_block_device() {
        let device = meta.rdev();
        let (major, minor) = numbers(device);
        nodes.push(HostDevice {
            path,
            block: kind.is_block_device(),
            major,
            minor,
            mode: meta.mode() & 0o777,
            uid: meta.uid(),
            gid: meta.gid(),
            access: if access.is_empty() { "rwm".to_owned() } else { access.to_owned() },
        });
    }
}

/// Major and minor number, out of the kernel's encoding (makedev(3)).
pub(crate) fn numbers(device: u64) -> (u32, u32) {
    let major = ((device >> 8) & 0xfff) | ((device >> 32) & !0xfff);
    let minor = (device & 0xff) | ((device >> 12) & !0xff);
    let number = |n: u64| u32::try_from(n & 0xffff_ffff).unwrap_or_default();
    (number(major), number(minor))
}
