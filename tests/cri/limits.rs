//! Limits are in force, on the group that the request names, and what they do is told.

use shim_proto::runtime_v1 as cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{Network, pod, resources};

/// The content of the first of these files that the group has: v2's name, then v1's.
fn limit(daemon: &Daemon, group: &str, files: [&str; 2]) -> String {
    let path = files.iter().find_map(|file| daemon.cgroups().file(group, file));
    let path = path.unwrap_or_else(|| panic!("{group} has none of {files:?}"));
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

#[test]
fn root_limits_are_on_the_containers_own_group() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let mut config = pod("limits", Network::Node, &daemon.logs());
    // As a kubelet does it: the pod's group is there before the pod.
    daemon.space().shell("for h in /sys/fs/cgroup /sys/fs/cgroup/*; do test -e $h/cgroup.procs && mkdir -p $h/kube/pod1; done; true");
    config.linux.as_mut().unwrap().cgroup_parent = "/kube/pod1".into();
    let pod = Pod::run(&daemon, config);
    let mut config = pod.container("c", &["tail", "-f", "/dev/null"]);
    let limits = resources(&mut config);
    limits.memory_limit_in_bytes = 64 << 20;
    (limits.cpu_period, limits.cpu_quota, limits.cpu_shares) = (100_000, 50_000, 512);
    let id = pod.start(&config);
    let group = cri.info(&id)["cgroupsPath"].as_str().unwrap().to_owned();
    assert!(group.starts_with("/kube/pod1/"), "{group}");
    let of = |files| limit(&daemon, &group, files);
    assert_eq!(of(["memory.max", "memory.limit_in_bytes"]), (64 << 20).to_string());
    let quota = of(["cpu.max", "cpu.cfs_quota_us"]);
    assert!(["50000 100000", "50000"].contains(&quota.as_str()), "{quota}");
    // The process is in it, and a command too.
    let pid = cri.info(&id)["pid"].to_string();
    let procs = of(["cgroup.procs", "cgroup.procs"]);
    let inner = daemon.space().shell(&format!("cat /proc/{pid}/cgroup"));
    assert!(inner.contains(&group), "{inner} {procs}");
    let own = cri.shell(&id, "cat /proc/1/cgroup; cat /proc/self/cgroup");
    assert!(!own.contains("kube"), "a container sees the host's groups: {own}");
    let shown = cri.status(&id).resources.unwrap().linux.unwrap();
    assert_eq!((shown.memory_limit_in_bytes, shown.cpu_quota), (64 << 20, 50_000));
    pod.remove();
    daemon.space().shell("for h in /sys/fs/cgroup /sys/fs/cgroup/*; do test -d $h/kube/pod1 && rmdir $h/kube/pod1 $h/kube; done; true");
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_running_out_of_memory_is_told_as_such() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("oom", Network::Node);
    let limited = |name: &str, command: &[&str]| {
        let mut config = pod.container(name, command);
        resources(&mut config).memory_limit_in_bytes = 24 << 20;
        resources(&mut config).memory_swap_limit_in_bytes = 24 << 20;
        pod.start(&config)
    };
    let eater = limited("eater", &["tail", "/dev/zero"]);
    let neighbour = limited("neighbour", &["tail", "-f", "/dev/null"]);
    let ended = cri.ended(&eater);
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"));
    // Who is killed by anybody else is not out of memory.
    assert_eq!(cri.status(&neighbour).state(), cri::ContainerState::ContainerRunning);
    cri.stop(&neighbour, 0).unwrap();
    let ended = cri.status(&neighbour);
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "Error"));
    pod.remove();
    leaks.assert_same_after(&daemon);
}
