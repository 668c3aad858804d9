//! Leaves on this machine's own cgroups, each test below a group of its own which it takes away. As root
//! only; what the machine lacks is told and skipped.

use crate::cgroup::Cgroups;
use shim_model::cgroup::Write;
use shim_model::cgroup::devices::DeviceRules;
use shim_model::cgroup::driver::GroupPath;
use shim_model::host::CgroupLayout;
use shim_model::resources::Resources;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

/// This machine's cgroups, and a group for one test.
fn machine(name: &str) -> Option<(Cgroups, GroupPath)> {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt;
        own.uid() == 0
    });
    if !is_root {
        eprintln!("skipped: needs root");
        return None;
    }
    let cgroups = Cgroups::detect().unwrap();
    let own = format!("/wherry-test-{name}-{}", std::process::id());
    Some((cgroups, GroupPath::parent(&own).unwrap().named("leaf")))
}

/// Only the v2 half of this machine, as a host without v1 would have it.
fn v2_only(cgroups: &Cgroups) -> Option<Cgroups> {
    if cgroups.v2.is_none() {
        eprintln!("skipped: no cgroup2 mount");
        return None;
    }
    Some(Cgroups { v1: [].into(), layout: CgroupLayout::V2, ..cgroups.clone() })
}

fn folders(cgroups: &Cgroups, group: &GroupPath) -> usize {
    cgroups.folders(group).iter().filter(|folder| folder.exists()).count()
}

/// A shell in the leaf, put there by the descriptors that the monitor gets.
fn shell_in(cgroups: &Cgroups, group: &GroupPath, script: &str) -> Child {
    let leaf = cgroups.open(group).unwrap();
    let folder = cgroups.v2.as_ref().map(|mount| mount.join(group.as_str()));
    let joins: Vec<OwnedFd> = leaf.join.iter().map(|fd| fd.try_clone().unwrap()).collect();
    // The shell waits for a line, so that it is in the group before it does anything.
    let mut child = Command::new("/bin/sh")
        .args(["-c", &format!("read go; {script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    for tasks in joins {
        shim_sys::fd::write(tasks.as_fd(), pid.as_bytes()).unwrap();
    }
    if let Some(folder) = folder {
        std::fs::write(folder.join("cgroup.procs"), &pid).unwrap();
    }
    drop(child.stdin.take().unwrap());
    child
}

#[test]
fn root_a_leaf_is_made_filled_killed_and_removed() {
    let Some((cgroups, group)) = machine("life") else { return };
    let limits = Resources { memory_limit: 64 << 20, pids_limit: 20, ..Resources::default() };
    cgroups.create(&group, &limits, &DeviceRules::of(false, &[])).unwrap();
    let made = folders(&cgroups, &group);
    let mut child = shell_in(&cgroups, &group, "exec sleep 1000");
    let inside = cgroups.processes(&group);
    let stats = cgroups.stats(&group);
    cgroups.kill(&group);
    let status = child.wait().unwrap();
    cgroups.remove(&group).unwrap();
    cgroups.remove(&group).unwrap();
    assert_eq!(made, cgroups.folders(&group).len());
    assert_eq!(inside, [i32::try_from(child.id()).unwrap()]);
    assert_eq!(stats.tasks, Some(1));
    assert_eq!(stats.memory_limit, Some(64 << 20));
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    let parent = GroupPath::parent(group.to_string().trim_end_matches("/leaf")).unwrap();
    assert_eq!((folders(&cgroups, &group), folders(&cgroups, &parent)), (0, 0));
}

#[test]
fn root_remove_kills_what_is_left_in_sub_groups() {
    let Some((cgroups, group)) = machine("rest") else { return };
    cgroups.create(&group, &Resources::default(), &DeviceRules::All).unwrap();
    let mut child = shell_in(&cgroups, &group, "sleep 1000 & sleep 1001 & exec sleep 1002");
    // The sleepers are below the shell; wait until all are there.
    while cgroups.processes(&group).len() < 3 {
        std::thread::yield_now();
    }
    if let Some(mount) = &cgroups.v2 {
        let sub = mount.join(group.as_str()).join("exec-1");
        std::fs::create_dir(&sub).unwrap();
        std::fs::write(sub.join("cgroup.procs"), child.id().to_string()).unwrap();
    }
    // Reaped here while remove waits for it: a zombie holds no group, but keeps its number.
    let removed = std::thread::scope(|scope| {
        let removing = scope.spawn(|| cgroups.remove(&group));
        child.wait().unwrap();
        removing.join().unwrap()
    });
    removed.unwrap();
    assert_eq!(folders(&cgroups, &group), 0);
}

fn device_denials(cgroups: &Cgroups, group: &GroupPath) -> String {
    let rules = DeviceRules::of(false, &[]);
    cgroups.create(group, &Resources::default(), &rules).unwrap();
    // /dev/kmsg (1:11) is in no rule; a node of a forbidden device may be made, not opened.
    let script = "for d in null zero kmsg; do (: </dev/$d) 2>&- && echo $d; done";
    let mut child = shell_in(cgroups, group, script);
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    cgroups.remove(group).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn root_the_default_rules_are_in_force_in_v1() {
    let Some((cgroups, group)) = machine("devices-v1") else { return };
    if cgroups.layout == CgroupLayout::V2 {
        eprintln!("skipped: no v1 hierarchy");
        return;
    }
    assert_eq!(device_denials(&cgroups, &group), "null zero");
}

#[test]
fn root_the_default_rules_are_in_force_in_v2() {
    let Some((cgroups, group)) = machine("devices-v2") else { return };
    let Some(cgroups) = v2_only(&cgroups) else { return };
    assert_eq!(device_denials(&cgroups, &group), "null zero");
}

#[test]
fn root_a_limit_that_the_kernel_refuses_leaves_nothing_behind() {
    let Some((cgroups, group)) = machine("refused") else { return };
    let limits = Resources { cpuset_cpus: "9999".to_owned(), ..Resources::default() };
    let error = cgroups.create(&group, &limits, &DeviceRules::All).unwrap_err();
    assert!(error.to_string().contains("cpuset.cpus"), "{error}");
    assert_eq!(folders(&cgroups, &group), 0);
}

#[test]
fn root_without_cgroup_kill_a_forking_group_ends_too() {
    let Some((cgroups, group)) = machine("v1") else { return };
    if cgroups.folder("freezer", &group).is_none() || cgroups.layout == CgroupLayout::V2 {
        eprintln!("skipped: no v1 freezer");
        return;
    }
    let cgroups = Cgroups { v2: None, layout: CgroupLayout::V1, ..cgroups };
    cgroups.create(&group, &Resources::default(), &DeviceRules::All).unwrap();
    let mut child = shell_in(&cgroups, &group, "while :; do sleep 1000 & sleep 0.001; done");
    while cgroups.processes(&group).len() < 5 {
        std::thread::yield_now();
    }
    let removed = std::thread::scope(|scope| {
        let removing = scope.spawn(|| cgroups.remove(&group));
        child.wait().unwrap();
        removing.join().unwrap()
    });
    removed.unwrap();
    assert_eq!(folders(&cgroups, &group), 0);
}

#[test]
fn root_limits_of_a_leaf_grow_and_shrink() {
    let Some((cgroups, group)) = machine("resize") else { return };
    if cgroups.folder("cpu", &group).is_none() {
        eprintln!("skipped: no cpu controller");
        return;
    }
    let size = |mebibytes: i64| Resources {
        memory_limit: mebibytes << 20,
        cpu_quota: mebibytes * 1_000,
        cpu_period: 100_000,
        cpu_shares: 512,
        ..Resources::default()
    };
    cgroups.create(&group, &size(64), &DeviceRules::All).unwrap();
    let results: Vec<_> = [128, 32, 512]
        .map(|mebibytes| {
            let updated = cgroups.update(&group, &size(mebibytes));
            (updated.map_err(|e| crate::error::chain(&e)), cgroups.stats(&group).memory_limit)
        })
        .into();
    cgroups.remove(&group).unwrap();
    assert_eq!(
        results,
        [(Ok(()), Some(128 << 20)), (Ok(()), Some(32 << 20)), (Ok(()), Some(512 << 20))]
    );
}

#[test]
fn root_only_optional_files_may_be_missing() {
    let Some((cgroups, group)) = machine("missing") else { return };
    cgroups.create(&group, &Resources::default(), &DeviceRules::All).unwrap();
    let write = |optional| Write {
        controller: "memory",
        file: "memory.of_tomorrow".to_owned(),
        text: "1".to_owned(),
        optional,
    };
    let results = [true, false].map(|optional| cgroups.apply(&group, &[write(optional)]));
    cgroups.remove(&group).unwrap();
    let [optional, needed] = results;
    optional.unwrap();
    assert!(needed.unwrap_err().to_string().contains("memory.of_tomorrow"));
}

#[test]
fn root_a_parent_with_processes_of_its_own_stays_a_domain() {
    let Some((cgroups, group)) = machine("busy") else { return };
    if cgroups.layout != CgroupLayout::V2 {
        eprintln!("skipped: not a host with cgroup v2 alone");
        return;
    }
    let parent = GroupPath::parent(group.to_string().trim_end_matches("/leaf")).unwrap();
    cgroups.create(&parent, &Resources::default(), &DeviceRules::All).unwrap();
    let mut above = shell_in(&cgroups, &parent, "exec sleep 1000");
    cgroups.create(&group, &Resources::default(), &DeviceRules::All).unwrap();
    let folder = cgroups.folders(&group).remove(0);
    let kind = std::fs::read_to_string(folder.join("cgroup.type")).unwrap();
    cgroups.kill(&parent);
    above.wait().unwrap();
    // Once the parent is free, its groups have controllers.
    cgroups.create(&group, &Resources::default(), &DeviceRules::All).unwrap();
    let controllers = std::fs::read_to_string(folder.join("cgroup.controllers")).unwrap();
    cgroups.remove(&group).unwrap();
    cgroups.remove(&parent).unwrap();
    assert_eq!(kind, "domain\n");
    assert!(controllers.contains("memory"), "{controllers}");
}

#[test]
fn root_our_own_processes_are_placed_in_a_container_of_cgroup_v2_too() {
    let Some((cgroups, group)) = machine("nested") else { return };
    if cgroups.layout != CgroupLayout::V2 {
        eprintln!("skipped: not a host with cgroup v2 alone");
        return;
    }
    // The root that a container sees is none: it has the files of a cpuset.
    cgroups.create(&group, &Resources::default(), &DeviceRules::All).unwrap();
    let root = cgroups.folders(&group).remove(0);
    let nested = Cgroups { v2: Some(root.clone()), ..cgroups.clone() };
    let own = GroupPath::parent("/own").unwrap();
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    nested.adopt(&own, i32::try_from(child.id()).unwrap());
    let (is_cpuset, inside) = (root.join("cpuset.cpus").exists(), nested.processes(&own));
    child.kill().unwrap();
    child.wait().unwrap();
    cgroups.remove(&group).unwrap();
    assert!(is_cpuset);
    assert_eq!(inside, [i32::try_from(child.id()).unwrap()]);
}

#[test]
fn root_a_parent_that_we_made_goes_with_its_last_leaf() {
    let Some((cgroups, first)) = machine("parent") else { return };
    let parent = GroupPath::parent(first.to_string().trim_end_matches("/leaf")).unwrap();
    let second = parent.named("second");
    for group in [&first, &second] {
        cgroups.create(group, &Resources::default(), &DeviceRules::All).unwrap();
    }
    cgroups.remove(&first).unwrap();
    let between = folders(&cgroups, &parent);
    cgroups.remove(&second).unwrap();
    assert_eq!((between, folders(&cgroups, &parent)), (cgroups.folders(&parent).len(), 0));
}

#[test]
fn root_a_hybrid_parent_goes_though_a_restart_forgot_who_made_it() {
    let Some((cgroups, group)) = machine("restart") else { return };
    if cgroups.layout != CgroupLayout::Hybrid {
        eprintln!("skipped: not a hybrid host");
        return;
    }
    cgroups.create(&group, &Resources::default(), &DeviceRules::All).unwrap();
    let later = Cgroups::detect().unwrap();
    later.remove(&group).unwrap();
    let parent = GroupPath::parent(group.to_string().trim_end_matches("/leaf")).unwrap();
    let v2 = cgroups.v2.as_ref().unwrap().join(parent.as_str());
    let (v2_is_left, all) = (v2.exists(), folders(&cgroups, &parent));
    // The v1 folders stand for the kubelet's, which it takes away itself.
    for folder in cgroups.folders(&parent) {
        drop(std::fs::remove_dir(folder));
    }
    assert!(!v2_is_left);
    assert_eq!(all, cgroups.folders(&parent).len() - 1);
}
