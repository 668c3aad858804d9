//! Probes the node once at start: features, not version numbers, where a feature can be tried.

use crate::cgroup::Cgroups;
use crate::config::RuntimeConfig;
use crate::error::RuntimeError;
use shim_model::host::Host;
use shim_sys::mount::{self, Change, Flags};
use std::fs;

/// The facts of this node.
pub fn probe(config: &RuntimeConfig, cgroups: &Cgroups) -> Result<Host, RuntimeError> {
    let text = |path: &'static str| {
        fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .map_err(RuntimeError::file("read", path))
    };
    let release = text("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or_default());
    let kernel = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    Ok(Host {
        kernel,
        machine: std::env::consts::ARCH.to_owned(),
        hostname: text("/proc/sys/kernel/hostname")?,
        cgroup: cgroups.layout(),
        hierarchies: cgroups.hierarchies(),
        bounding: bounding(&text("/proc/self/status")?),
        apparmor: text("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on == "Y"),
        selinux: fs::exists("/sys/fs/selinux/enforce").unwrap_or_default(),
        recursive_readonly: recursive_readonly(),
        unprivileged_ports: config.unprivileged_ports,
        unprivileged_icmp: config.unprivileged_icmp,
        create_missing_host_paths: config.create_missing_host_paths,
    })
}

/// `CapBnd` of `proc_pid_status(5)`.
fn bounding(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default()
}

/// `mount_setattr(AT_RECURSIVE)` on a mount that nobody sees.
fn recursive_readonly() -> bool {
    let change = Change { set: Flags::READONLY, recursive: true, ..Change::default() };
    mount::tmpfs(&[], Flags::NONE).and_then(|tmpfs| mount::change(tmpfs, change)).is_ok()
}

/// The wall clock, nanoseconds since the epoch.
pub fn now() -> i64 {
    shim_sys::clock::now()
}
