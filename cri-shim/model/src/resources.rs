//! Limits of a container, as the CRI names them (`LinuxContainerResources`). Zero, empty and `None`
//! mean "not set"; `unified` values are always real values. Conversion to cgroup files is
//! `cgroup/{v1,v2}`.

use crate::cgroup::stats::Stats;
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

impl Resources {
    /// These limits after a change: what the change does not set stays, one page size and one `unified`
    /// file at a time. If memory changes and the sum with swap does not, swap alone keeps its size. The
    /// out-of-memory score is a process's own, given at its birth: no change of limits reaches it.
    #[must_use]
    pub fn changed(&self, change: &Self) -> Self {
        let number = |old: i64, new: i64| if new == 0 { old } else { new };
        let text = |old: &String, new: &String| if new.is_empty() { old } else { new }.clone();
        let mut hugepages = self.hugepages.clone();
        hugepages.extend(change.hugepages.clone());
        let mut unified = self.unified.clone();
        unified.extend(change.unified.clone());
        let swap_stays = change.memory_swap_limit == 0 && self.memory_swap_limit > 0;
        let memory_swap_limit = if swap_stays && change.memory_limit > 0 && self.memory_limit > 0 {
            let grown = change.memory_limit.saturating_sub(self.memory_limit);
            self.memory_swap_limit.saturating_add(grown)
        } else {
            number(self.memory_swap_limit, change.memory_swap_limit)
        };
        Self {
            cpu_period: number(self.cpu_period, change.cpu_period),
            cpu_quota: number(self.cpu_quota, change.cpu_quota),
            cpu_shares: number(self.cpu_shares, change.cpu_shares),
            memory_limit: number(self.memory_limit, change.memory_limit),
            memory_swap_limit,
            oom_score_adj: self.oom_score_adj,
            cpuset_cpus: text(&self.cpuset_cpus, &change.cpuset_cpus),
            cpuset_mems: text(&self.cpuset_mems, &change.cpuset_mems),
            hugepages,
            unified,
            pids_limit: number(self.pids_limit, change.pids_limit),
        }
    }
}

impl Resources {
    /// The memory in use that cannot be taken back at once, if it is more than a limit that is lower than
    /// the one in force.
    pub fn below_use(&self, now: &Stats) -> Option<u64> {
        let limit = u64::try_from(self.memory_limit).ok().filter(|limit| *limit > 0)?;
        let lower = now.memory_limit.is_none_or(|in_force| limit < in_force);
        now.working_set().filter(|used| lower && *used > limit)
    }
}

#[cfg(test)]
mod tests {
    use super::Resources;
    use crate::cgroup::stats::Stats;

    #[test]
    fn what_a_change_does_not_set_stays() {
        let old = Resources {
            cpu_shares: 512,
            cpuset_cpus: "0".into(),
            unified: [("memory.low".into(), "5".into()), ("pids.max".into(), "9".into())].into(),
            ..Resources::default()
        };
        let change = Resources {
            cpu_quota: -1,
            unified: [("memory.low".into(), "0".into())].into(),
            ..Resources::default()
        };
        let new = old.changed(&change);
        assert_eq!((new.cpu_shares, new.cpu_quota, new.cpuset_cpus.as_str()), (512, -1, "0"));
        assert_eq!(new.unified["memory.low"], "0");
        assert_eq!(new.unified["pids.max"], "9");
        assert_eq!(old.changed(&Resources::default()), old);
    }

    #[test]
    fn only_a_lower_limit_can_be_below_what_is_in_use() {
        let asked = |memory_limit| Resources { memory_limit, ..Resources::default() };
        let now = |memory_limit| Stats {
            memory: Some(100),
            inactive_file: Some(20),
            memory_limit,
            ..Stats::default()
        };
        assert_eq!(asked(70).below_use(&now(Some(90))), Some(80));
        assert_eq!(asked(70).below_use(&now(None)), Some(80));
        assert_eq!(asked(80).below_use(&now(Some(90))), None);
        // Already more than is allowed: as it is, or better.
        assert_eq!(asked(70).below_use(&now(Some(70))), None);
        assert_eq!(asked(75).below_use(&now(Some(70))), None);
        assert_eq!(asked(0).below_use(&now(Some(70))), None);
    }

    #[test]
    fn swap_keeps_its_size_while_memory_changes() {
        let sum = |old: (i64, i64), change: (i64, i64)| {
            let of = |(memory_limit, memory_swap_limit)| Resources {
                memory_limit,
                memory_swap_limit,
                ..Resources::default()
            };
            of(old).changed(&of(change)).memory_swap_limit
        };
        assert_eq!(sum((64, 64), (128, 0)), 128);
        assert_eq!(sum((64, 100), (32, 0)), 68);
        assert_eq!(sum((64, 64), (128, 200)), 200);
        assert_eq!(sum((64, -1), (128, 0)), -1);
        assert_eq!(sum((64, 0), (128, 0)), 0);
    }
}
