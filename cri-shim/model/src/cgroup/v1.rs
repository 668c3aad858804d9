//! Cgroup v1: file names and arithmetic, from limits in v2 units to writes and from files to v2 statistics
//! (kernel documentation, admin-guide/cgroup-v1). Performs nothing.

use super::counters::{self, Counters};
use super::{Stats, Version, Write, keyed};
use crate::resources::Resources;

/// Limits of this size and above mean "none" (page-rounded i64 maximum).
const UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;

/// Cgroup v1.
#[derive(Clone, Copy, Debug)]
pub struct V1;

impl Version for V1 {
    fn limits(&self, limits: &Resources) -> Vec<Write> {
        let mut writes = memory(limits);
        writes.extend(cpu(limits));
        writes.extend(others(limits));
        writes
    }

    /// The sum of memory and swap may never be below memory: what grows, grows from the sum down. And a
    /// period with the old quota can be more than the parent has: without a quota, it has the parent's.
    fn update(&self, limits: &Resources, memory_limit: Option<u64>) -> Vec<Write> {
        let mut writes = memory(limits);
        let grows = |now: u64| u64::try_from(limits.memory_limit).is_ok_and(|new| new > now);
        if memory_limit.is_some_and(grows) {
            writes.reverse();
        }
        if limits.cpu_period > 0 && limits.cpu_quota != 0 {
            writes.push(Write::new("cpu", "cpu.cfs_quota_us", -1));
        }
        writes.extend(cpu(limits));
        writes.extend(others(limits));
        writes
    }

    fn files(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("cpuacct", "cpuacct.usage"),
            ("memory", "memory.usage_in_bytes"),
            ("memory", "memory.stat"),
            ("memory", "memory.limit_in_bytes"),
            ("pids", "pids.current"),
            ("memory", "memory.oom_control"),
            ("memory", "memory.memsw.limit_in_bytes"),
        ]
    }

    fn stats(&self, files: &[String]) -> Stats {
        let text = |index: usize| files.get(index).map_or("", String::as_str);
        let number = |index: usize| text(index).trim().parse::<u64>().ok();
        let stat = text(2);
        let limited = |index: usize| number(index).filter(|limit| *limit < UNLIMITED);
        Stats {
            cpu_nanos: number(0),
            memory: number(1),
            inactive_file: keyed(stat, "total_inactive_file"),
            anonymous: keyed(stat, "total_rss"),
            faults: keyed(stat, "total_pgfault"),
            major_faults: keyed(stat, "total_pgmajfault"),
            swap: keyed(stat, "total_swap"),
            memory_limit: limited(3),
            tasks: number(4),
            oom_kills: keyed(text(5), "oom_kill"),
            // The limit is on the sum.
            swap_limit: limited(6).zip(limited(3)).map(|(sum, memory)| sum.saturating_sub(memory)),
            ..Stats::default()
        }
    }

    fn counter_files(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("cpuacct", "cpuacct.usage_user"),
            ("cpuacct", "cpuacct.usage_sys"),
            ("cpu", "cpu.stat"),
            ("memory", "memory.stat"),
            ("memory", "memory.kmem.usage_in_bytes"),
            ("memory", "memory.failcnt"),
            ("memory", "memory.max_usage_in_bytes"),
            ("memory", "memory.soft_limit_in_bytes"),
            ("pids", "pids.max"),
            ("blkio", "blkio.throttle.io_service_bytes_recursive"),
            ("blkio", "blkio.throttle.io_serviced_recursive"),
        ]
    }

    fn counters(&self, files: &[String]) -> Counters {
        let text = |index: usize| files.get(index).map_or("", String::as_str);
        let number = |index: usize| text(index).trim().parse::<u64>().ok();
        let (cpu, memory) = (text(2), text(3));
        Counters {
            user_nanos: number(0),
            system_nanos: number(1),
            periods: keyed(cpu, "nr_periods"),
            throttled_periods: keyed(cpu, "nr_throttled"),
            throttled_nanos: keyed(cpu, "throttled_time"),
            cache: keyed(memory, "total_cache"),
            kernel: number(4),
            mapped_file: keyed(memory, "total_mapped_file"),
            limit_hits: number(5),
            most_memory: number(6),
            reserved_memory: number(7).filter(|limit| *limit < UNLIMITED),
            own_faults: keyed(memory, "pgfault"),
            own_major_faults: keyed(memory, "pgmajfault"),
            most_tasks: number(8),
            devices: counters::devices_v1(text(9), text(10)),
            ..Counters::default()
        }
    }

    fn huge_page_files(&self, size: &str) -> (String, Option<String>) {
        let most = format!("hugetlb.{size}.max_usage_in_bytes");
        (format!("hugetlb.{size}.usage_in_bytes"), Some(most))
    }
}

/// Memory, then memory and swap together.
fn memory(limits: &Resources) -> Vec<Write> {
    let mut writes = Vec::new();
    if limits.memory_limit > 0 {
        writes.push(Write::new("memory", "memory.limit_in_bytes", limits.memory_limit));
    }
    let sum = match limits.memory_swap_limit {
        0 => limits.memory_limit,
        other => other,
    };
    if sum != 0 {
        // Missing where the kernel does not account swap: there is none to use then.
        writes.push(Write::new("memory", "memory.memsw.limit_in_bytes", sum).optional());
    }
    writes
}

fn cpu(limits: &Resources) -> Vec<Write> {
    let mut writes = Vec::new();
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
    writes
}

fn others(limits: &Resources) -> Vec<Write> {
    let mut writes = Vec::new();
    for (file, list) in [("cpuset.cpus", &limits.cpuset_cpus), ("cpuset.mems", &limits.cpuset_mems)]
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
        // Reservations are counted since Linux 5.7.
        let reserved = format!("hugetlb.{size}.rsvd.limit_in_bytes");
        writes.push(Write::new("hugetlb", reserved, limit).optional());
    }
    writes
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

    #[test]
    fn memory_grows_from_the_sum_down_and_shrinks_from_memory_up() {
        let limits = Resources { memory_limit: 100, ..Resources::default() };
        let order = |now| V1.update(&limits, now).into_iter().map(|w| w.file).collect::<Vec<_>>();
        let (memory, sum) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
        assert_eq!(order(Some(50)), [sum, memory]);
        assert_eq!(order(Some(200)), [memory, sum]);
        assert_eq!(order(None), [memory, sum]);
    }

    #[test]
    fn a_quota_is_lifted_while_its_period_changes() {
        let limits = Resources { cpu_quota: 50, cpu_period: 100_000, ..Resources::default() };
        let texts: Vec<_> = V1.update(&limits, None).into_iter().map(|w| w.text).collect();
        assert_eq!(texts, ["-1", "100000", "1000"]);
    }

    #[test]
    fn huge_pages_are_limited_twice() {
        let limits =
            Resources { hugepages: [("2MB".to_owned(), 4)].into(), ..Resources::default() };
        assert_eq!(
            lines(&limits),
            ["hugetlb.2MB.limit_in_bytes=4", "hugetlb.2MB.rsvd.limit_in_bytes=4"]
        );
        let optional: Vec<_> = V1.limits(&limits).iter().map(|w| w.optional).collect();
        assert_eq!(optional, [false, true]);
    }

    #[test]
    fn numbers_are_read_from_the_files() {
        let files = [
            "5000\n",
            "900\n",
            "cache 1\ntotal_rss 7\ntotal_inactive_file 100\ntotal_pgfault 3\n",
            "9223372036854771712\n",
            "3\n",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            "9223372036854771712\n",
        ]
        .map(str::to_owned);
        let stats = V1.stats(&files);
        assert_eq!(
            (stats.cpu_nanos, stats.working_set(), stats.memory_limit),
            (Some(5_000), Some(800), None)
        );
        assert_eq!((stats.anonymous, stats.tasks, stats.oom_kills), (Some(7), Some(3), Some(2)));
        assert_eq!(stats.swap_limit, None);
        let limited = ["", "", "", "100\n", "", "", "150\n"].map(str::to_owned);
        assert_eq!(V1.stats(&limited).swap_limit, Some(50));
    }

    #[test]
    fn counters_are_read_from_the_files() {
        let files = [
            "3\n",
            "2\n",
            "nr_periods 7\nnr_throttled 1\nthrottled_time 9\n",
            "pgfault 5\ntotal_cache 10\ntotal_mapped_file 12\n",
            "11\n",
            "4\n",
            "900\n",
            "9223372036854771712\n",
            "max\n",
            "8:0 Read 1\nTotal 1\n",
            "8:0 Read 1\nTotal 1\n",
        ]
        .map(str::to_owned);
        let found = V1.counters(&files);
        assert_eq!((found.user_nanos, found.throttled_nanos), (Some(3), Some(9)));
        assert_eq!((found.cache, found.kernel, found.mapped_file), (Some(10), Some(11), Some(12)));
        assert_eq!((found.limit_hits, found.most_memory), (Some(4), Some(900)));
        assert_eq!((found.reserved_memory, found.most_tasks), (None, None));
        assert_eq!((found.own_faults, found.devices[&(8, 0)].reads), (Some(5), 1));
    }
}
