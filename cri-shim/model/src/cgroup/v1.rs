//! Cgroup v1: file names and arithmetic (kernel documentation, admin-guide/cgroup-v1).

use super::{Stats, Version, Write, keyed};
use crate::resources::Resources;

/// Limits of this size and above mean "none" (page-rounded i64 maximum).
const UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;

/// Cgroup v1.
#[derive(Clone, Copy, Debug)]
pub struct V1;

impl Version for V1 {
    fn limits(&self, limits: &Resources) -> Vec<Write> {
        let mut writes = Vec::new();
        if limits.memory_limit > 0 {
            writes.push(Write::new("memory", "memory.limit_in_bytes", limits.memory_limit));
        }
        let swap = match limits.memory_swap_limit {
            0 => limits.memory_limit,
            other => other,
        };
        if swap != 0 {
            // Missing where the kernel does not account swap: there is none to use then.
            writes.push(Write::new("memory", "memory.memsw.limit_in_bytes", swap).optional());
        }
        if limits.cpu_shares > 0 {
            writes.push(Write::new("cpu", "cpu.shares", limits.cpu_shares.clamp(2, 262_144)));
        }
        if limits.cpu_period > 0 {
            writes.push(Write::new("cpu", "cpu.cfs_period_us", limits.cpu_period));
        }
        if limits.cpu_quota != 0 {
            let quota = if limits.cpu_quota < 0 { -1 } else { limits.cpu_quota.max(1_000) };
            writes.push(Write::new("cpu", "cpu.cfs_quota_us", quota));
        }
        for (file, list) in
            [("cpuset.cpus", &limits.cpuset_cpus), ("cpuset.mems", &limits.cpuset_mems)]
        {
            if !list.is_empty() {
                writes.push(Write::new("cpuset", file, list));
            }
        }
        if limits.pids_limit > 0 {
            writes.push(Write::new("pids", "pids.max", limits.pids_limit));
        }
        for (size, limit) in &limits.hugepages {
            let write = Write::new("hugetlb", format!("hugetlb.{size}.limit_in_bytes"), limit);
            writes.push(if *limit == 0 { write.optional() } else { write });
        }
        writes
    }

    fn files(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("cpuacct", "cpuacct.usage"),
            ("memory", "memory.usage_in_bytes"),
            ("memory", "memory.stat"),
            ("memory", "memory.limit_in_bytes"),
            ("pids", "pids.current"),
        ]
    }

    fn stats(&self, files: &[String]) -> Stats {
        let text = |index: usize| files.get(index).map_or("", String::as_str);
        let number = |index: usize| text(index).trim().parse::<u64>().ok();
        let stat = text(2);
        Stats {
            cpu_nanos: number(0),
            memory: number(1),
            inactive_file: keyed(stat, "total_inactive_file"),
            anonymous: keyed(stat, "total_rss"),
            faults: keyed(stat, "total_pgfault"),
            major_faults: keyed(stat, "total_pgmajfault"),
            swap: keyed(stat, "total_swap"),
            memory_limit: number(3).filter(|limit| *limit < UNLIMITED),
            tasks: number(4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{V1, Version};
    use crate::resources::Resources;

    fn lines(limits: &Resources) -> Vec<String> {
        V1.limits(limits).iter().map(|w| format!("{}={}", w.file, w.text)).collect()
    }

    #[test]
    fn swap_is_the_sum_and_comes_after_memory() {
        let limits = Resources { memory_limit: 15 << 20, ..Resources::default() };
        assert_eq!(
            lines(&limits),
            ["memory.limit_in_bytes=15728640", "memory.memsw.limit_in_bytes=15728640"]
        );
    }

    #[test]
    fn nothing_asked_is_nothing_written() {
        assert!(lines(&Resources::default()).is_empty());
    }

    #[test]
    fn cpu_values_are_kept_within_what_the_kernel_takes() {
        let limits =
            Resources { cpu_shares: 1, cpu_quota: 10, cpu_period: 100_000, ..Resources::default() };
        assert_eq!(
            lines(&limits),
            ["cpu.shares=2", "cpu.cfs_period_us=100000", "cpu.cfs_quota_us=1000"]
        );
    }
}
