//! Probes the node once at start: features, not version numbers, where a feature can be tried.

use crate::cgroup::Cgroups;
use crate::config::RuntimeConfig;
use crate::error::{RuntimeError, chain};
use crate::idmap::Mapped;
use crate::rootfs;
use crate::selinux;
use shim_image::writable::Prepared;
use shim_model::host::Host;
use shim_model::idmaps::UserMaps;
use shim_model::limits;
use shim_model::sandbox::config::IdMapping;
use shim_sys::mount::{self, Change, Flags};
use shim_sys::userns::{self, IdMap};
use std::fs;
use std::path::Path;

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
        selinux: selinux::probe(),
        recursive_readonly: recursive_readonly(),
        no_user_namespaces: no_user_namespaces(config),
        unprivileged_ports: config.unprivileged_ports,
        unprivileged_icmp: config.unprivileged_icmp,
        create_missing_host_paths: config.create_missing_host_paths,
        rlimits: config.rlimits.clone(),
    })
}

/// Sets up this process's memory for a daemon that idles most of the time. Before any thread exists.
pub fn share_heaps() {
    shim_sys::process::share_heaps(limits::HEAPS);
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

/// Why a pod can have no user namespace of its own here; `None` = it can. Does what a container needs: a
/// root of mapped layers on the file system of the data folder, and a mapped file of the state folder.
fn no_user_namespaces(config: &RuntimeConfig) -> Option<String> {
    let folder = config.root.join("probe");
    let tried = try_to_map(config, &folder);
    // Not there where the first step failed; what stays is taken away before the next attempt.
    let _gone = fs::remove_dir_all(&folder);
    tried.err().map(|error| chain(&error))
}

fn try_to_map(config: &RuntimeConfig, folder: &Path) -> Result<(), RuntimeError> {
    let ids = IdMapping { host_id: 65_536, container_id: 0, length: 65_536 };
    let line = IdMap { inside: 0, outside: ids.host_id, count: ids.length };
    let namespace = userns::make(line, line)
        .map_err(RuntimeError::system("make a user namespace with 65536 ids"))?;
    let mapped = Mapped::new(namespace, UserMaps { uids: ids, gids: ids });
    let _left_by_a_crash = fs::remove_dir_all(folder);
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| folder.join(name));
    for path in [&lower, &upper, &work] {
        fs::create_dir_all(path).map_err(RuntimeError::file("make the folder", path))?;
    }
    rootfs::overlay(&[lower], &Prepared { upper, work }, Some(&mapped), None)?;
    let state = rootfs::clone_tree(&config.state, false)?;
    mapped.show(&state, &format!("the state folder {}", config.state.display()))
}

/// The wall clock, nanoseconds since the epoch.
pub fn now() -> i64 {
    shim_sys::clock::now()
}
