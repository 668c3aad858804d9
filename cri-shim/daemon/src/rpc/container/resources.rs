//! Limits of a request as plain data, and back. Units stay the protocol's; what they mean for a cgroup is
//! the model's business.

use shim_model::resources::Resources;
use shim_proto::runtime_v1 as cri;

/// Limits as plain data.
pub(crate) fn model(found: cri::LinuxContainerResources) -> Resources {
    Resources {
        cpu_period: found.cpu_period,
        cpu_quota: found.cpu_quota,
        cpu_shares: found.cpu_shares,
        memory_limit: found.memory_limit_in_bytes,
        memory_swap_limit: found.memory_swap_limit_in_bytes,
        oom_score_adj: found.oom_score_adj,
        cpuset_cpus: found.cpuset_cpus,
        cpuset_mems: found.cpuset_mems,
        hugepages: found
            .hugepage_limits
            .into_iter()
            .map(|limit| (limit.page_size, limit.limit))
            .collect(),
        unified: found.unified,
        pids_limit: 0,
    }
}

/// Limits as a message.
pub(crate) fn shown(known: &Resources) -> cri::LinuxContainerResources {
    cri::LinuxContainerResources {
        cpu_period: known.cpu_period,
        cpu_quota: known.cpu_quota,
        cpu_shares: known.cpu_shares,
        memory_limit_in_bytes: known.memory_limit,
        oom_score_adj: known.oom_score_adj,
        cpuset_cpus: known.cpuset_cpus.clone(),
        cpuset_mems: known.cpuset_mems.clone(),
        hugepage_limits: known
            .hugepages
            .iter()
            .map(|(page_size, limit)| cri::HugepageLimit {
                page_size: page_size.clone(),
                limit: *limit,
            })
            .collect(),
        unified: known.unified.clone(),
        memory_swap_limit_in_bytes: known.memory_swap_limit,
    }
}
