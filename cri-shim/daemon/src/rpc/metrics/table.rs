//! Every metric that there is: its name, what it says, its labels beside those that all have, and where its
//! value comes from. Kubelets show exactly these names (`cri-contract.md` §5.6).

use super::values::{
    Seen, Share, Values, alone, device_bytes, faults, labelled, limit, or, received, sent,
    whole_seconds,
};
use shim_model::cgroup::stats::Stats;
use shim_proto::runtime_v1::MetricType;

/// One metric.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) kind: MetricType,
    /// Labels that only this metric has.
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
    /// Its values for what was seen; none where that does not have it.
    pub(super) values: fn(&Seen<'_>) -> Values,
}

/// A row of the table.
const fn metric(
    name: &'static str,
    kind: MetricType,
    labels: &'static [&'static str],
    help: &'static str,
    values: fn(&Seen<'_>) -> Values,
) -> Metric {
    Metric { name, kind, labels, help, values }
}

const COUNTER: MetricType = MetricType::Counter;
const GAUGE: MetricType = MetricType::Gauge;

/// All of them.
pub(super) static ALL: [Metric; 56] = [
    metric(
        "container_blkio_device_usage_total",
        COUNTER,
        &["device", "major", "minor", "operation"],
        "Bytes that a block device read or wrote for the container.",
        device_bytes,
    ),
    metric(
        "container_cpu_cfs_periods_total",
        COUNTER,
        &[],
        "Periods of the CPU quota that began.",
        |s| s.counted(|c| c.periods),
    ),
    metric(
        "container_cpu_cfs_throttled_periods_total",
        COUNTER,
        &[],
        "Periods in which the CPU quota was used up.",
        |s| s.counted(|c| c.throttled_periods),
    ),
    metric(
        "container_cpu_cfs_throttled_seconds_total",
        COUNTER,
        &[],
        "Time without CPU because the quota was used up, in seconds.",
        |s| s.counted(|c| whole_seconds(c.throttled_nanos)),
    ),
    metric(
        "container_cpu_system_seconds_total",
        COUNTER,
        &[],
        "CPU time in the kernel, in seconds.",
        |s| s.counted(|c| whole_seconds(c.system_nanos)),
    ),
    metric("container_cpu_usage_seconds_total", COUNTER, &["cpu"], "CPU time, in seconds.", |s| {
        labelled("total", s.stats.and_then(|u| whole_seconds(u.cpu_nanos)))
    }),
    metric(
        "container_cpu_user_seconds_total",
        COUNTER,
        &[],
        "CPU time in programs, in seconds.",
        |s| s.counted(|c| whole_seconds(c.user_nanos)),
    ),
    metric("container_file_descriptors", GAUGE, &[], "Open descriptors of all processes.", |s| {
        s.own(|o| o.processes.descriptors)
    }),
    metric(
        "container_fs_inodes_free",
        GAUGE,
        &["device"],
        "Inodes that are free on the file system of writable layers.",
        |s| s.on_disk(|_, n| Some(n.space.free_inodes)),
    ),
    metric(
        "container_fs_inodes_total",
        GAUGE,
        &["device"],
        "Inodes of the file system of writable layers.",
        |s| s.on_disk(|_, n| Some(n.space.inodes)),
    ),
    metric(
        "container_fs_limit_bytes",
        GAUGE,
        &["device"],
        "Bytes that the container may write: the size of the file system of writable layers.",
        |s| s.on_disk(|_, n| Some(n.space.bytes)),
    ),
    metric(
        "container_fs_reads_bytes_total",
        COUNTER,
        &["device"],
        "Bytes read from a block device.",
        |s| s.of_devices(|d| d.read_bytes),
    ),
    metric(
        "container_fs_reads_total",
        COUNTER,
        &["device"],
        "Requests to read from a block device.",
        |s| s.of_devices(|d| d.reads),
    ),
    metric(
        "container_fs_usage_bytes",
        GAUGE,
        &["device"],
        "Bytes on disk of the writable layer.",
        |s| s.on_disk(|o, _| o.disk.map(|d| d.bytes)),
    ),
    metric(
        "container_fs_writes_bytes_total",
        COUNTER,
        &["device"],
        "Bytes written to a block device.",
        |s| s.of_devices(|d| d.written_bytes),
    ),
    metric(
        "container_fs_writes_total",
        COUNTER,
        &["device"],
        "Requests to write to a block device.",
        |s| s.of_devices(|d| d.writes),
    ),
    metric(
        "container_hugetlb_max_usage_bytes",
        GAUGE,
        &["pagesize"],
        "Most bytes of huge pages that were ever in use.",
        |s| s.huge_pages(|(_, most)| most),
    ),
    metric(
        "container_hugetlb_usage_bytes",
        GAUGE,
        &["pagesize"],
        "Bytes of huge pages in use.",
        |s| s.huge_pages(|(used, _)| Some(used)),
    ),
    metric(
        "container_last_seen",
        GAUGE,
        &[],
        "When the container was seen last, in seconds since the epoch.",
        |s| alone(s.started.map(|(_, seen)| seen)),
    ),
    metric("container_memory_cache", GAUGE, &[], "Bytes of file cache.", |s| {
        s.counted(|c| c.cache)
    }),
    metric(
        "container_memory_failcnt",
        COUNTER,
        &[],
        "How often the limit of memory was hit.",
        |s| s.counted(|c| c.limit_hits),
    ),
    metric(
        "container_memory_failures_total",
        COUNTER,
        &["failure_type", "scope"],
        "Page faults, those that needed the disk apart.",
        faults,
    ),
    metric("container_memory_kernel_usage", GAUGE, &[], "Bytes of the kernel's own memory.", |s| {
        s.counted(|c| c.kernel)
    }),
    metric("container_memory_mapped_file", GAUGE, &[], "Bytes of mapped files.", |s| {
        s.counted(|c| c.mapped_file)
    }),
    metric(
        "container_memory_max_usage_bytes",
        GAUGE,
        &[],
        "Most bytes of memory that were ever in use.",
        |s| s.counted(|c| c.most_memory),
    ),
    metric("container_memory_rss", GAUGE, &[], "Bytes of anonymous memory.", |s| {
        s.used(|u| u.anonymous)
    }),
    metric("container_memory_swap", GAUGE, &[], "Bytes of swap in use.", |s| {
        s.used(|u| u.swap.or(Some(0)))
    }),
    metric(
        "container_memory_usage_bytes",
        GAUGE,
        &[],
        "Bytes of memory in use, file cache among them.",
        |s| s.used(|u| u.memory),
    ),
    metric(
        "container_memory_working_set_bytes",
        GAUGE,
        &[],
        "Bytes of memory that cannot be taken back at once.",
        |s| s.used(Stats::working_set),
    ),
    metric(
        "container_network_receive_bytes_total",
        COUNTER,
        &["interface"],
        "Bytes received.",
        |s| s.carried(received(|t| t.bytes)),
    ),
    metric(
        "container_network_receive_errors_total",
        COUNTER,
        &["interface"],
        "Damaged packets received.",
        |s| s.carried(received(|t| t.errors)),
    ),
    metric(
        "container_network_receive_packets_dropped_total",
        COUNTER,
        &["interface"],
        "Received packets that were thrown away.",
        |s| s.carried(received(|t| t.dropped)),
    ),
    metric(
        "container_network_receive_packets_total",
        COUNTER,
        &["interface"],
        "Packets received.",
        |s| s.carried(received(|t| t.packets)),
    ),
    metric("container_network_transmit_bytes_total", COUNTER, &["interface"], "Bytes sent.", |s| {
        s.carried(sent(|t| t.bytes))
    }),
    metric(
        "container_network_transmit_errors_total",
        COUNTER,
        &["interface"],
        "Packets that could not be sent.",
        |s| s.carried(sent(|t| t.errors)),
    ),
    metric(
        "container_network_transmit_packets_dropped_total",
        COUNTER,
        &["interface"],
        "Packets that were thrown away instead of being sent.",
        |s| s.carried(sent(|t| t.dropped)),
    ),
    metric(
        "container_network_transmit_packets_total",
        COUNTER,
        &["interface"],
        "Packets sent.",
        |s| s.carried(sent(|t| t.packets)),
    ),
    metric(
        "container_oom_events_total",
        COUNTER,
        &[],
        "Processes that were killed because memory ran out.",
        |s| s.used(|u| u.oom_kills),
    ),
    metric(
        "container_pressure_cpu_stalled_seconds_total",
        COUNTER,
        &[],
        "Time in which all tasks waited for CPU, in seconds.",
        |s| s.stalled(|u| u.cpu_pressure, Share::All),
    ),
    metric(
        "container_pressure_cpu_waiting_seconds_total",
        COUNTER,
        &[],
        "Time in which a task waited for CPU, in seconds.",
        |s| s.stalled(|u| u.cpu_pressure, Share::Some),
    ),
    metric(
        "container_pressure_io_stalled_seconds_total",
        COUNTER,
        &[],
        "Time in which all tasks waited for disks, in seconds.",
        |s| s.stalled(|u| u.io_pressure, Share::All),
    ),
    metric(
        "container_pressure_io_waiting_seconds_total",
        COUNTER,
        &[],
        "Time in which a task waited for disks, in seconds.",
        |s| s.stalled(|u| u.io_pressure, Share::Some),
    ),
    metric(
        "container_pressure_memory_stalled_seconds_total",
        COUNTER,
        &[],
        "Time in which all tasks waited for memory, in seconds.",
        |s| s.stalled(|u| u.memory_pressure, Share::All),
    ),
    metric(
        "container_pressure_memory_waiting_seconds_total",
        COUNTER,
        &[],
        "Time in which a task waited for memory, in seconds.",
        |s| s.stalled(|u| u.memory_pressure, Share::Some),
    ),
    metric("container_processes", GAUGE, &[], "Processes, those of execs among them.", |s| {
        s.own(|o| Some(o.processes.count))
    }),
    metric("container_sockets", GAUGE, &[], "Open sockets of all processes.", |s| {
        s.own(|o| o.processes.sockets)
    }),
    metric(
        "container_spec_cpu_period",
        GAUGE,
        &[],
        "Period of the CPU quota, in microseconds.",
        |s| s.own(|o| Some(or(o.limits.cpu_period, 100_000))),
    ),
    metric(
        "container_spec_cpu_quota",
        GAUGE,
        &[],
        "CPU time in each period, in microseconds.",
        |s| s.own(|o| Some(limit(o.limits.cpu_quota)).filter(|quota| *quota > 0)),
    ),
    metric(
        "container_spec_cpu_shares",
        GAUGE,
        &[],
        "Share of CPU time where there is not enough for all.",
        |s| s.own(|o| Some(or(o.limits.cpu_shares, 1_024))),
    ),
    metric(
        "container_spec_memory_limit_bytes",
        GAUGE,
        &[],
        "Limit of memory in bytes; 0 is none.",
        |s| s.own(|o| Some(limit(o.limits.memory_limit))),
    ),
    metric(
        "container_spec_memory_reservation_limit_bytes",
        GAUGE,
        &[],
        "Bytes of memory that are taken back last; 0 is none.",
        |s| s.counted(|c| c.reserved_memory.or(Some(0))),
    ),
    metric(
        "container_spec_memory_swap_limit_bytes",
        GAUGE,
        &[],
        "Limit of memory and swap together in bytes; 0 is none.",
        |s| s.own(|o| Some(limit(o.limits.memory_swap_limit))),
    ),
    metric(
        "container_start_time_seconds",
        GAUGE,
        &[],
        "When the container began, in seconds since the epoch.",
        |s| alone(s.started.map(|(began, _)| began)),
    ),
    metric("container_threads", GAUGE, &[], "Threads of all processes.", |s| s.used(|u| u.tasks)),
    metric(
        "container_threads_max",
        GAUGE,
        &[],
        "Most threads that may be; 0 is any number.",
        |s| s.counted(|c| c.most_tasks.or(Some(0))),
    ),
    metric(
        "container_ulimits_soft",
        GAUGE,
        &["ulimit"],
        "Soft resource limits of the first process.",
        |s| labelled("max_open_files", s.container.as_ref().and_then(|o| o.processes.open_files)),
    ),
];
