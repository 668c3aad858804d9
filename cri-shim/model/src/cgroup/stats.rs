//! Usage of a cgroup in v2 units: what the CRI's statistics are made of (`cri-contract.md` §3.3).

/// Numbers of one group at one moment; `None` = the kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time of the group since it was made, nanoseconds.
    pub cpu_nanos: Option<u64>,
    /// Memory charged, bytes.
    pub memory: Option<u64>,
    /// File cache that could be taken back at once, bytes.
    pub inactive_file: Option<u64>,
    /// Anonymous memory, bytes.
    pub anonymous: Option<u64>,
    /// Page faults.
    pub faults: Option<u64>,
    /// Page faults that needed the disk.
    pub major_faults: Option<u64>,
    /// Swap in use, bytes.
    pub swap: Option<u64>,
    /// Limit of memory, bytes; `None` = none.
    pub memory_limit: Option<u64>,
    /// Tasks.
    pub tasks: Option<u64>,
    /// Processes that were killed because memory ran out (Linux 4.13).
    pub oom_kills: Option<u64>,
}

impl Stats {
    /// Memory that cannot be taken back at once; never below zero.
    pub fn working_set(&self) -> Option<u64> {
        Some(self.memory?.saturating_sub(self.inactive_file.unwrap_or_default()))
    }

    /// What is left below the limit.
    pub fn available(&self) -> Option<u64> {
        Some(self.memory_limit?.saturating_sub(self.working_set()?))
    }
}
