//! The resources chapter: refusals, and limits as the OCI spec shows them. What is written to which
//! file is `cgroup/{v1,v2}`.

use super::SpecInput;
use crate::container::config::ContainerConfig;
use crate::host::{CgroupLayout, Host};
use crate::kind::Refused;
use crate::resources::Resources;
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

/// What can be refused without the image.
pub fn check(container: &ContainerConfig, host: &Host) -> Result<(), Refused> {
    resources("config.linux.resources", &container.resources, host)
}

/// Refuses limits that no host can mean.
pub fn resources(field: &str, found: &Resources, host: &Host) -> Result<(), Refused> {
    let bounded = |name: &str, value: i64, low: i64, high: i64, allowed: &str| {
        if (low..=high).contains(&value) {
            Ok(())
        } else {
            Err(Refused::new(format!("{field}.{name}"), value.to_string(), allowed))
        }
    };
    let least = if found.cpu_period == 0 { 0 } else { 1_000 };
    let period = "0, or 1000 to 1000000 microseconds";
    bounded("cpu_period", found.cpu_period, least, 1_000_000, period)?;
    bounded("cpu_quota", found.cpu_quota, -1, i64::MAX, "-1, 0 or a number of microseconds")?;
    bounded("cpu_shares", found.cpu_shares, 0, i64::MAX, "0 or more")?;
    bounded("memory_limit_in_bytes", found.memory_limit, 0, i64::MAX, "0 or a number of bytes")?;
    bounded(
        "memory_swap_limit_in_bytes",
        found.memory_swap_limit,
        -1,
        i64::MAX,
        "-1, 0 or a number of bytes",
    )?;
    bounded("oom_score_adj", found.oom_score_adj, -1_000, 1_000, "-1000 to 1000")?;
    bounded("pids_limit", found.pids_limit, 0, i64::MAX, "0 or a number of tasks")?;
    let swap = found.memory_swap_limit;
    if swap > 0 && found.memory_limit > 0 && swap < found.memory_limit {
        return Err(Refused::new(
            format!("{field}.memory_swap_limit_in_bytes"),
            swap.to_string(),
            "at least memory_limit_in_bytes: it is memory and swap together",
        ));
    }
    for (name, list) in [("cpuset_cpus", &found.cpuset_cpus), ("cpuset_mems", &found.cpuset_mems)] {
        if !list.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b',')) {
            return Err(Refused::new(format!("{field}.{name}"), list, "a list such as 0-3,7"));
        }
    }
    for size in found.hugepages.keys() {
        if size.is_empty() || !size.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Refused::new(
                format!("{field}.hugepage_limits.page_size"),
                size,
                "a page size such as 2MB",
            ));
        }
    }
    for key in found.unified.keys() {
        // Files of the group itself move or end processes; they limit nothing.
        let legal = key.contains('.')
            && (!key.starts_with("cgroup.") || key.starts_with("cgroup.max."))
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'));
        if !legal || host.cgroup != CgroupLayout::V2 {
            return Err(Refused::new(
                format!("{field}.unified[{key}]"),
                key,
                "the name of a controller's file, on a node with cgroup v2 only",
            ));
        }
    }
    Ok(())
}

/// The resources of the spec.
pub(super) fn build(input: &SpecInput<'_>) -> LinuxResources {
    let found = &input.container.resources;
    let set = |value: i64| (value != 0).then_some(value);
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value != 0);
    let text = |value: &String| (!value.is_empty()).then(|| value.clone());
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(positive(found.cpu_shares))
        .set_quota(set(found.cpu_quota))
        .set_period(positive(found.cpu_period))
        .set_cpus(text(&found.cpuset_cpus))
        .set_mems(text(&found.cpuset_mems));
    let mut memory = LinuxMemory::default();
    memory.set_limit(set(found.memory_limit)).set_swap(set(found.memory_swap_limit));
    let mut oci = LinuxResources::default();
    oci.set_cpu(Some(cpu)).set_memory(Some(memory));
    if found.pids_limit > 0 {
        let mut pids = LinuxPids::default();
        pids.set_limit(found.pids_limit);
        oci.set_pids(Some(pids));
    }
    if !found.unified.is_empty() {
        oci.set_unified(Some(found.unified.clone().into_iter().collect()));
    }
    oci
}
