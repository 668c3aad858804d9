//! Limits as NRI says them, and ours. Pure. What this runtime has no limit for is refused by its name: a
//! plugin that sets it must not believe that it is set.

use shim_model::resources::Resources;
use shim_proto::nri_v1alpha1 as nri;
use shim_proto::nri_v1alpha1::Field;

/// A limit that a plugin sets: its field, and the page size or file of those that have several.
pub(super) type Set = (Field, String);

/// Ours as NRI says them.
pub(super) fn shown(ours: &Resources) -> nri::LinuxResources {
    let signed = |value: i64| (value != 0).then_some(nri::OptionalInt64 { value });
    let unsigned = |value: i64| {
        let value = u64::try_from(value).ok().filter(|value| *value != 0)?;
        Some(nri::OptionalUInt64 { value })
    };
    let memory = nri::LinuxMemory {
        limit: signed(ours.memory_limit),
        swap: signed(ours.memory_swap_limit),
        ..nri::LinuxMemory::default()
    };
    let cpu = nri::LinuxCpu {
        shares: unsigned(ours.cpu_shares),
        quota: signed(ours.cpu_quota),
        period: unsigned(ours.cpu_period),
        cpus: ours.cpuset_cpus.clone(),
        mems: ours.cpuset_mems.clone(),
        ..nri::LinuxCpu::default()
    };
    let page = |(size, limit): (&String, &u64)| nri::HugepageLimit {
        page_size: size.clone(),
        limit: *limit,
    };
    nri::LinuxResources {
        memory: Some(memory),
        cpu: Some(cpu),
        hugepage_limits: ours.hugepages.iter().map(page).collect(),
        unified: ours.unified.clone(),
        pids: (ours.pids_limit != 0).then_some(nri::LinuxPids { limit: ours.pids_limit }),
        ..nri::LinuxResources::default()
    }
}

/// What a plugin sets, as ours, and which fields that are.
pub(super) fn asked(theirs: &nri::LinuxResources) -> Result<(Resources, Vec<Set>), String> {
    refuse(theirs)?;
    let (memory, cpu) = (theirs.memory.unwrap_or_default(), theirs.cpu.clone().unwrap_or_default());
    let mut sets = Vec::new();
    let mut signed = |field: Field, value: Option<i64>| {
        if value.is_some() {
            sets.push((field, String::new()));
        }
        value.unwrap_or_default()
    };
    let number = |value: nri::OptionalUInt64| i64::try_from(value.value).unwrap_or(i64::MAX);
    let ours = Resources {
        memory_limit: signed(Field::MemLimit, memory.limit.map(|limit| limit.value)),
        memory_swap_limit: signed(Field::MemSwapLimit, memory.swap.map(|swap| swap.value)),
        cpu_shares: signed(Field::CpuShares, cpu.shares.map(number)),
        cpu_quota: signed(Field::CpuQuota, cpu.quota.map(|quota| quota.value)),
        cpu_period: signed(Field::CpuPeriod, cpu.period.map(number)),
        pids_limit: signed(Field::PidsLimit, theirs.pids.map(|pids| pids.limit)),
        oom_score_adj: 0,
        hugepages: theirs
            .hugepage_limits
            .iter()
            .map(|page| (page.page_size.clone(), page.limit))
            .collect(),
        unified: theirs.unified.clone(),
        cpuset_cpus: cpu.cpus,
        cpuset_mems: cpu.mems,
    };
    for (field, text) in
        [(Field::CpuSetCpUs, &ours.cpuset_cpus), (Field::CpuSetMems, &ours.cpuset_mems)]
    {
        if !text.is_empty() {
            sets.push((field, String::new()));
        }
    }
    sets.extend(ours.hugepages.keys().map(|size| (Field::HugepageLimits, size.clone())));
    sets.extend(ours.unified.keys().map(|file| (Field::CgroupsUnified, file.clone())));
    Ok((ours, sets))
}

fn refuse(theirs: &nri::LinuxResources) -> Result<(), String> {
    let memory = theirs.memory.unwrap_or_default();
    let cpu = theirs.cpu.clone().unwrap_or_default();
    let no = [
        ("memory.reservation", memory.reservation.is_some()),
        ("memory.kernel", memory.kernel.is_some()),
        ("memory.kernel_tcp", memory.kernel_tcp.is_some()),
        ("memory.swappiness", memory.swappiness.is_some()),
        ("memory.disable_oom_killer", memory.disable_oom_killer.is_some_and(|off| off.value)),
        ("memory.use_hierarchy", memory.use_hierarchy.is_some()),
        ("cpu.realtime_runtime", cpu.realtime_runtime.is_some()),
        ("cpu.realtime_period", cpu.realtime_period.is_some()),
        ("blockio_class", theirs.blockio_class.is_some()),
        ("rdt_class", theirs.rdt_class.is_some()),
        ("devices", !theirs.devices.is_empty()),
    ];
    match no.iter().find(|(_, set)| *set) {
        Some((name, _)) => Err(format!("it sets linux.resources.{name}: this release cannot")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Field, asked, shown};
    use shim_model::resources::Resources;
    use shim_proto::nri_v1alpha1 as nri;

    #[test]
    fn what_is_shown_can_be_asked_for() {
        let ours = Resources {
            memory_limit: 1 << 20,
            memory_swap_limit: -1,
            cpu_shares: 2,
            cpu_quota: -1,
            cpu_period: 1_000,
            cpuset_cpus: "0-1".into(),
            hugepages: [("2MB".into(), 4)].into(),
            unified: [("memory.low".into(), "1".into())].into(),
            pids_limit: 9,
            ..Resources::default()
        };
        let (again, sets) = asked(&shown(&ours)).unwrap();
        assert_eq!(again, ours);
        assert_eq!(sets.len(), 9);
        assert!(sets.contains(&(Field::HugepageLimits, "2MB".to_owned())));
        assert!(asked(&shown(&Resources::default())).unwrap().1.is_empty());
    }

    #[test]
    fn what_cannot_be_set_is_refused_by_its_name() {
        let check = |resources: nri::LinuxResources| asked(&resources).unwrap_err();
        let one = Some(nri::OptionalInt64 { value: 1 });
        let memory = nri::LinuxMemory { reservation: one, ..nri::LinuxMemory::default() };
        let resources = nri::LinuxResources { memory: Some(memory), ..Default::default() };
        assert!(check(resources).contains("memory.reservation"));
        let class = Some(nri::OptionalString { value: "gold".into() });
        let resources = nri::LinuxResources { rdt_class: class, ..Default::default() };
        assert!(check(resources).contains("rdt_class"));
    }
}
