//! The devices chapter: nodes that every container has, and those that were asked for. The nodes
//! behind a request's host paths are found by the caller, because a pure function has no file system.

use super::SpecInput;
use crate::cgroup::devices::{DeviceRules, Rule};
use crate::container::config::ContainerConfig;
use crate::kind::Refused;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};
use serde::{Deserialize, Serialize};

/// A device node on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDevice {
    /// Where it goes in the container.
    pub path: String,
    /// Block device, else character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits of the node.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Any of `r`, `w`, `m`.
    pub access: String,
}

/// Nodes of every container: path, major, minor.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Links of every container.
pub const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// What can be refused without looking at the host.
pub fn check(container: &ContainerConfig) -> Result<(), Refused> {
    for (index, device) in container.devices.iter().enumerate() {
        let field = |name: &str| format!("config.devices[{index}].{name}");
        let absolute = |path: &str| {
            path.starts_with('/')
                && !path.contains('\0')
                && !path.split('/').any(|part| part == "..")
        };
        if !absolute(&device.host_path) {
            return Err(Refused::new(
                field("host_path"),
                &device.host_path,
                "an absolute path without ..",
            ));
        }
        if !device.container_path.is_empty() && !absolute(&device.container_path) {
            return Err(Refused::new(
                field("container_path"),
                &device.container_path,
                "an absolute path without ..",
            ));
        }
        if !device.permissions.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) {
            return Err(Refused::new(
                field("permissions"),
                &device.permissions,
                "any of r, w and m",
            ));
        }
    }
    Ok(())
}

/// Every node of the container.
pub fn nodes(input: &SpecInput<'_>) -> Vec<HostDevice> {
    let default = DEFAULT.iter().map(|(path, major, minor)| HostDevice {
        path: (*path).to_owned(),
        block: false,
        major: *major,
        minor: *minor,
        mode: 0o666,
        uid: 0,
        gid: if *path == "/dev/tty" { 5 } else { 0 },
        access: "rwm".to_owned(),
    });
    let asked = |path: &str| input.devices.iter().any(|device| device.path == path);
    let mut nodes: Vec<_> = default.filter(|node| !asked(&node.path)).collect();
    nodes.extend(input.devices.iter().cloned());
    nodes
}

/// The devices of the spec.
pub(super) fn build(input: &SpecInput<'_>) -> Vec<LinuxDevice> {
    let entry = |node: HostDevice| {
        let mut device = LinuxDevice::default();
        device
            .set_path(node.path.into())
            .set_typ(if node.block { LinuxDeviceType::B } else { LinuxDeviceType::C })
            .set_major(node.major.into())
            .set_minor(node.minor.into())
            .set_file_mode(Some(node.mode))
            .set_uid(Some(node.uid))
            .set_gid(Some(node.gid));
        device
    };
    nodes(input).into_iter().map(entry).collect()
}

/// The rules of devices as our groups have them: some programs write their own whatever they are given.
pub(super) fn rules(input: &SpecInput<'_>) -> LinuxResources {
    let rule = |rule: Option<&Rule>| {
        let mut oci = LinuxDeviceCgroup::default();
        let number = |number: Option<u32>| number.map(i64::from);
        match rule {
            None => oci.set_access(Some("rwm".to_owned())),
            Some(rule) => oci
                .set_typ(Some(if rule.block { LinuxDeviceType::B } else { LinuxDeviceType::C }))
                .set_major(number(rule.major))
                .set_minor(number(rule.minor))
                .set_access(Some(rule.access.clone())),
        };
        oci.clone()
    };
    let allow = |mut oci: LinuxDeviceCgroup, allowed: bool| {
        oci.set_allow(allowed);
        oci
    };
    let rules = match DeviceRules::of(input.container.privileged, input.devices) {
        DeviceRules::All => vec![allow(rule(None), true)],
        DeviceRules::Only(rules) => {
            let mut all = vec![allow(rule(None), false)];
            all.extend(rules.iter().map(|known| allow(rule(Some(known)), true)));
            all
        }
    };
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(rules));
    resources
}
