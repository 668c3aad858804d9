//! What a series is made from, and the small conversions of its value: metrics are unsigned whole numbers,
//! so seconds lose their fractions. Pure.

use shim_model::cgroup::counters::{Counters, DeviceUse};
use shim_model::cgroup::stats::{Pressure, Stats};
use shim_model::container::life::State;
use shim_model::interfaces::{Interface, Traffic};
use shim_model::resources::Resources;
use shim_runtime::stats::ContainerUse;
use shim_runtime::stats::detail::{ContainerDetail, Details, PodDetail};
use shim_runtime::stats::disk::DiskUse;
use shim_runtime::stats::processes::Processes;
use std::sync::Arc;

/// Values of one metric, each with the labels that only this metric has.
pub(super) type Values = Vec<(Vec<String>, u64)>;

/// What was seen of one thing. What is not there has no series.
#[derive(Clone, Debug)]
pub(super) struct Seen<'a> {
    /// What its group uses.
    pub(super) stats: Option<&'a Stats>,
    /// What its group counted.
    pub(super) counters: Option<&'a Counters>,
    /// What only a container has.
    pub(super) container: Option<Own>,
    /// Its interfaces.
    pub(super) interfaces: &'a [Interface],
    /// The node's disks.
    pub(super) node: Option<&'a Details>,
    /// When it began, and when it was seen: seconds since the epoch.
    pub(super) started: Option<(u64, u64)>,
}

/// What only a container has.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) disk: Option<DiskUse>,
    pub(super) processes: Processes,
    pub(super) limits: Arc<Resources>,
}

/// Who waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// At least one task.
    Some,
    /// All of them.
    All,
}

const NANOS: u64 = 1_000_000_000;

fn seconds(nanos: i64) -> u64 {
    u64::try_from(nanos).unwrap_or_default() / NANOS
}

impl<'a> Seen<'a> {
    /// A container.
    pub(super) fn container(
        seen: &'a ContainerUse,
        detail: &'a ContainerDetail,
        node: &'a Details,
    ) -> Self {
        let state = seen.container.state();
        let started = match &state.life {
            State::Running { started, .. } => Some((seconds(*started), seconds(seen.at))),
            State::Creating {} | State::Created {} | State::Exited { .. } => None,
        };
        let own = Own {
            disk: seen.disk,
            processes: detail.processes,
            limits: Arc::new(state.resources.clone()),
        };
        Self {
            stats: Some(&seen.stats),
            counters: Some(&detail.counters),
            container: Some(own),
            interfaces: &[],
            node: Some(node),
            started,
        }
    }

    /// A pod's own group; nothing if it has none.
    pub(super) fn pod(found: &'a PodDetail) -> Self {
        let created = seconds(found.seen.pod.record.created_at);
        let started = found.counters.as_ref().map(|_| (created, seconds(found.seen.at)));
        Self {
            stats: found.counters.as_ref().map(|_| &found.seen.stats),
            counters: found.counters.as_ref(),
            container: None,
            interfaces: &[],
            node: None,
            started,
        }
    }

    /// A pod's network.
    pub(super) fn network(found: &'a PodDetail) -> Self {
        Self {
            stats: None,
            counters: None,
            container: None,
            interfaces: found.seen.interfaces.as_deref().unwrap_or_default(),
            node: None,
            started: None,
        }
    }

    /// One number of the group's use.
    pub(super) fn used(&self, of: impl Fn(&Stats) -> Option<u64>) -> Values {
        alone(self.stats.and_then(of))
    }

    /// One number that the group counted.
    pub(super) fn counted(&self, of: impl Fn(&Counters) -> Option<u64>) -> Values {
        alone(self.counters.and_then(of))
    }

    /// One number that only a container has.
    pub(super) fn own(&self, of: impl Fn(&Own) -> Option<u64>) -> Values {
        alone(self.container.as_ref().and_then(of))
    }

    /// Whole seconds of stalls.
    pub(super) fn stalled(&self, of: impl Fn(&Stats) -> Option<Pressure>, who: Share) -> Values {
        let stall = |found: Pressure| match who {
            Share::Some => found.some,
            Share::All => found.full,
        };
        let found = self.stats.and_then(of).map(stall);
        alone(whole_seconds(found.map(|stall| stall.total_nanos)))
    }

    /// One number of each interface.
    pub(super) fn carried(&self, of: impl Fn(&Interface) -> u64) -> Values {
        self.interfaces.iter().map(|one| (vec![one.name.clone()], of(one))).collect()
    }

    /// One number of the file system of writable layers, with its device.
    pub(super) fn on_disk(&self, of: impl Fn(&Own, &Details) -> Option<u64>) -> Values {
        let (Some(own), Some(node)) = (&self.container, self.node) else { return Vec::new() };
        of(own, node).map(|value| (vec![node.device.clone()], value)).into_iter().collect()
    }

    /// One number of each device.
    pub(super) fn of_devices(&self, of: impl Fn(&DeviceUse) -> u64) -> Values {
        let all = self.devices().map(|(name, _, found)| (vec![name], of(found)));
        all.collect()
    }

    fn devices(&self) -> impl Iterator<Item = (String, (u32, u32), &DeviceUse)> {
        let found = self.counters.into_iter().flat_map(|counters| &counters.devices);
        found.map(|(number, found)| {
            let known = self.node.and_then(|node| node.devices.get(number).cloned());
            let name = known.unwrap_or_else(|| format!("{}:{}", number.0, number.1));
            (name, *number, found)
        })
    }

    /// One number of each size of huge pages.
    pub(super) fn huge_pages(&self, of: impl Fn((u64, Option<u64>)) -> Option<u64>) -> Values {
        let found = self.counters.into_iter().flat_map(|counters| &counters.huge_pages);
        found.filter_map(|(size, counts)| Some((vec![size.clone()], of(*counts)?))).collect()
    }
}

/// Bytes that went to and came from each device.
pub(super) fn device_bytes(seen: &Seen<'_>) -> Values {
    let both = seen.devices().flat_map(|(name, (major, minor), found)| {
        [("Read", found.read_bytes), ("Write", found.written_bytes)].map(|(operation, bytes)| {
            let labels =
                vec![name.clone(), major.to_string(), minor.to_string(), operation.to_owned()];
            (labels, bytes)
        })
    });
    both.collect()
}

/// Page faults: of the whole group, and of its own processes without those of groups below.
pub(super) fn faults(seen: &Seen<'_>) -> Values {
    let (Some(stats), Some(counters)) = (seen.stats, seen.counters) else { return Vec::new() };
    let all = [
        ("pgfault", "container", counters.own_faults.or(stats.faults)),
        ("pgmajfault", "container", counters.own_major_faults.or(stats.major_faults)),
        ("pgfault", "hierarchy", stats.faults),
        ("pgmajfault", "hierarchy", stats.major_faults),
    ];
    let told = all
        .into_iter()
        .filter_map(|(kind, scope, count)| Some((vec![kind.to_owned(), scope.to_owned()], count?)));
    told.collect()
}

/// A value without labels of its own.
pub(super) fn alone(value: Option<u64>) -> Values {
    value.map(|value| (Vec::new(), value)).into_iter().collect()
}

/// A value with one label.
pub(super) fn labelled(label: &str, value: Option<u64>) -> Values {
    value.map(|value| (vec![label.to_owned()], value)).into_iter().collect()
}

/// Whole seconds.
pub(super) fn whole_seconds(nanos: Option<u64>) -> Option<u64> {
    nanos.map(|nanos| nanos / NANOS)
}

/// A limit that is set; 0 says that there is none.
pub(super) fn limit(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

/// A value, or the kernel's own where none is set.
pub(super) fn or(value: i64, kernels: u64) -> u64 {
    u64::try_from(value).ok().filter(|value| *value > 0).unwrap_or(kernels)
}

/// What an interface received.
pub(super) fn received(of: impl Fn(&Traffic) -> u64) -> impl Fn(&Interface) -> u64 {
    move |interface| of(&interface.received)
}

/// What an interface sent.
pub(super) fn sent(of: impl Fn(&Traffic) -> u64) -> impl Fn(&Interface) -> u64 {
    move |interface| of(&interface.sent)
}
