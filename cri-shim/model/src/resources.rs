//! Limits of a container, as the CRI names them (`LinuxContainerResources`). Zero, empty and `None`
//! mean "not set"; `unified` values are always real values. Conversion to cgroup files is
//! `cgroup/{v1,v2}`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Resource limits of one container or pod, in CRI units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CFS period in microseconds; 0 = keep (100,000).
    pub cpu_period: i64,
    /// CFS quota in microseconds per period; 0 or negative = unlimited.
    pub cpu_quota: i64,
    /// Relative weight, v1 scale (2 to 262,144); 0 = unset.
    pub cpu_shares: i64,
    /// Memory limit in bytes; 0 = unset.
    pub memory_limit: i64,
    /// Memory plus swap in bytes (v1 meaning); 0 = unset, -1 = unlimited.
    pub memory_swap_limit: i64,
    /// Written to the first process; -1000 to 1000.
    pub oom_score_adj: i64,
    /// CPU list such as `0-3,7`; empty = unset.
    pub cpuset_cpus: String,
    /// Memory node list; empty = unset.
    pub cpuset_mems: String,
    /// Page size (`2MB`) to limit in bytes.
    pub hugepages: BTreeMap<String, u64>,
    /// cgroup v2 file to value, applied last.
    pub unified: BTreeMap<String, String>,
    /// Largest number of tasks; 0 = unset. Not in the CRI: set by the command line and by configuration.
    pub pids_limit: i64,
}
