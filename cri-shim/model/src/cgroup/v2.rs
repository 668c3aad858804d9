//! Cgroup v2: file names, from limits to writes and from files to statistics (kernel documentation,
//! admin-guide/cgroup-v2). Performs nothing; devices are a program of their own.

use super::counters::{self, Counters};
use super::stats::{PRESSURE_FILES, Pressure};
use super::{Stats, Version, Write, keyed};
use crate::resources::Resources;

/// Cgroup v2.
#[derive(Clone, Copy, Debug)]
pub struct V2;

/// v1 shares (2 to 262144) to a v2 weight (1 to 10000), by the quadratic formula that runc and crun
/// use since 2025: 2 becomes 1, 1024 becomes 100, 262144 becomes 10000.
pub fn weight(shares: i64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    if shares == 2 {
        return 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "shares are at most 262144")]
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and 10000 by the clamp"
    )]
    let weight = 10f64.powf(exponent).ceil() as u64;
    weight.clamp(1, 10_000)
}

impl Version for V2 {
    fn limits(&self, limits: &Resources) -> Vec<Write> {
        let mut writes = Vec::new();
        if limits.cpu_shares > 0 {
            writes.push(Write::new("cpu", "cpu.weight", weight(limits.cpu_shares)));
        }
        if limits.cpu_quota != 0 || limits.cpu_period > 0 {
            let period = if limits.cpu_period > 0 { limits.cpu_period } else { 100_000 };
            let quota = if limits.cpu_quota > 0 {
                limits.cpu_quota.max(1_000).to_string()
            } else {
                "max".to_owned()
            };
            writes.push(Write::new("cpu", "cpu.max", format!("{quota} {period}")));
        }
        memory(limits, &mut writes);
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
            let write = Write::new("hugetlb", format!("hugetlb.{size}.max"), limit);
            writes.push(if *limit == 0 { write.optional() } else { write });
            // Reservations are counted since Linux 5.7.
            let reserved = format!("hugetlb.{size}.rsvd.max");
            writes.push(Write::new("hugetlb", reserved, limit).optional());
        }
        for (file, value) in &limits.unified {
            let write = Write::new("unified", file, value);
            let neutral = matches!(
                (file.as_str(), value.as_str()),
                ("memory.min" | "memory.low", "0") | ("memory.high", "max")
            );
            writes.push(if neutral { write.optional() } else { write });
        }
        writes
    }

    fn update(&self, limits: &Resources, _memory_limit: Option<u64>) -> Vec<Write> {
        // No file of v2 bounds another one.
        self.limits(limits)
    }

    fn files(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("cpu", "cpu.stat"),
            ("memory", "memory.current"),
            ("memory", "memory.stat"),
            ("memory", "memory.max"),
            ("pids", "pids.current"),
            ("memory", "memory.swap.current"),
            ("memory", "memory.events"),
            ("memory", "memory.swap.max"),
            ("cpu", PRESSURE_FILES[0]),
            ("memory", PRESSURE_FILES[1]),
            ("io", PRESSURE_FILES[2]),
        ]
    }

    fn stats(&self, files: &[String]) -> Stats {
        let text = |index: usize| files.get(index).map_or("", String::as_str);
        let number = |index: usize| text(index).trim().parse::<u64>().ok();
        let stat = text(2);
        Stats {
            cpu_nanos: keyed(text(0), "usage_usec").map(|micros| micros.saturating_mul(1_000)),
            memory: number(1),
            inactive_file: keyed(stat, "inactive_file"),
            anonymous: keyed(stat, "anon"),
            faults: keyed(stat, "pgfault"),
            major_faults: keyed(stat, "pgmajfault"),
            swap: number(5),
            memory_limit: number(3),
            tasks: number(4),
            oom_kills: keyed(text(6), "oom_kill"),
            swap_limit: number(7),
            cpu_pressure: Pressure::parse(text(8)),
            memory_pressure: Pressure::parse(text(9)),
            io_pressure: Pressure::parse(text(10)),
        }
    }

    fn counter_files(&self) -> &'static [(&'static str, &'static str)] {
        &[
            ("cpu", "cpu.stat"),
            ("memory", "memory.stat"),
            ("memory", "memory.peak"),
            ("memory", "memory.events"),
            ("memory", "memory.low"),
            ("pids", "pids.max"),
            ("io", "io.stat"),
        ]
    }

    fn counters(&self, files: &[String]) -> Counters {
        let text = |index: usize| files.get(index).map_or("", String::as_str);
        let number = |index: usize| text(index).trim().parse::<u64>().ok();
        let (cpu, memory) = (text(0), text(1));
        let nanos = |key| keyed(cpu, key).map(|micros| micros.saturating_mul(1_000));
        Counters {
            user_nanos: nanos("user_usec"),
            system_nanos: nanos("system_usec"),
            periods: keyed(cpu, "nr_periods"),
            throttled_periods: keyed(cpu, "nr_throttled"),
            throttled_nanos: nanos("throttled_usec"),
            cache: keyed(memory, "file"),
            kernel: keyed(memory, "kernel"),
            mapped_file: keyed(memory, "file_mapped"),
            limit_hits: keyed(text(3), "max"),
            most_memory: number(2),
            reserved_memory: number(4).filter(|bytes| *bytes > 0),
            most_tasks: number(5),
            devices: counters::devices_v2(text(6)),
            ..Counters::default()
        }
    }

    fn huge_page_files(&self, size: &str) -> (String, Option<String>) {
        (format!("hugetlb.{size}.current"), None)
    }
}

/// `memory.max`, and swap alone: the request's swap limit is the sum of both.
fn memory(limits: &Resources, writes: &mut Vec<Write>) {
    let memory = limits.memory_limit;
    if memory > 0 {
        writes.push(Write::new("memory", "memory.max", memory));
    }
    let swap = match limits.memory_swap_limit {
        0 if memory > 0 => Some("0".to_owned()),
        0 => None,
        sum if sum < 0 => Some("max".to_owned()),
        sum => Some(sum.saturating_sub(memory).max(0).to_string()),
    };
    if let Some(swap) = swap {
        writes.push(Write::new("memory", "memory.swap.max", swap).optional());
    }
}

#[cfg(test)]
mod tests {
    use super::{V2, Version, weight};
    use crate::resources::Resources;

    fn lines(limits: &Resources) -> Vec<String> {
        V2.limits(limits).iter().map(|w| format!("{}={}", w.file, w.text)).collect()
    }

    #[test]
    fn the_default_share_is_the_default_weight() {
        assert_eq!([weight(2), weight(1024), weight(262_144)], [1, 100, 10_000]);
    }

    #[test]
    fn swap_is_the_rest_of_the_sum() {
        let limits =
            Resources { memory_limit: 100, memory_swap_limit: 150, ..Resources::default() };
        assert_eq!(lines(&limits), ["memory.max=100", "memory.swap.max=50"]);
        let equal = Resources { memory_limit: 100, memory_swap_limit: 100, ..Resources::default() };
        assert_eq!(lines(&equal), ["memory.max=100", "memory.swap.max=0"]);
    }

    #[test]
    fn quota_and_period_are_written_together() {
        let limits = Resources { cpu_quota: 20_000, ..Resources::default() };
        assert_eq!(lines(&limits), ["cpu.max=20000 100000"]);
        let none = Resources { cpu_quota: -1, cpu_period: 50_000, ..Resources::default() };
        assert_eq!(lines(&none), ["cpu.max=max 50000"]);
    }

    #[test]
    fn unified_comes_last_and_wins() {
        let mut limits = Resources { memory_limit: 100, ..Resources::default() };
        limits.unified.insert("memory.max".into(), "50".into());
        assert_eq!(lines(&limits).last().unwrap(), "memory.max=50");
    }

    #[test]
    fn counters_are_read_from_the_files() {
        let files = [
            "user_usec 3\nsystem_usec 2\nnr_periods 7\nnr_throttled 1\nthrottled_usec 9\n",
            "file 10\nkernel 11\nfile_mapped 12\n",
            "900\n",
            "high 0\nmax 4\noom 0\n",
            "0\n",
            "max\n",
            "8:0 rbytes=1 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n",
        ]
        .map(str::to_owned);
        let found = V2.counters(&files);
        assert_eq!((found.user_nanos, found.throttled_nanos), (Some(3_000), Some(9_000)));
        assert_eq!((found.cache, found.kernel, found.mapped_file), (Some(10), Some(11), Some(12)));
        assert_eq!((found.limit_hits, found.most_memory), (Some(4), Some(900)));
        assert_eq!((found.reserved_memory, found.most_tasks), (None, None));
        assert_eq!(found.devices[&(8, 0)].read_bytes, 1);
    }

    #[test]
    fn numbers_are_read_from_the_files() {
        let files = [
            "usage_usec 5\n",
            "900\n",
            "anon 1\ninactive_file 100\n",
            "max\n",
            "3\n",
            "0\n",
            "low 0\noom 3\noom_kill 2\n",
            "4096\n",
            "",
            "some avg10=0.10 avg60=0.00 avg300=0.00 total=7\n",
        ]
        .map(str::to_owned);
        let stats = V2.stats(&files);
        assert_eq!((stats.oom_kills, stats.swap_limit), (Some(2), Some(4096)));
        assert_eq!(stats.memory_pressure.unwrap().some.total_nanos, 7_000);
        assert_eq!((stats.cpu_pressure, stats.io_pressure), (None, None));
        assert_eq!(
            (stats.cpu_nanos, stats.working_set(), stats.memory_limit),
            (Some(5_000), Some(800), None)
        );
    }
}
