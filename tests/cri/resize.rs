//! Limits that change while a container runs: at once and visibly, all of them or none, and never by
//! killing what uses more. And what a pod is told to become.

use shim_proto::runtime_v1 as cri;
use tonic::{Code, Status};
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::requests::{Network, resources};

type Limits = cri::LinuxContainerResources;

fn update(daemon: &Daemon, id: &str, limits: Limits) -> Result<(), Status> {
    let container_id = id.to_owned();
    let call = |mut client: wherry_tests::cri::Runtime| async move {
        let request = cri::UpdateContainerResourcesRequest {
            container_id,
            linux: Some(limits),
            ..Default::default()
        };
        client.update_container_resources(request).await
    };
    daemon.cri().ask(call).map(drop)
}

fn shown(daemon: &Daemon, id: &str) -> Limits {
    daemon.cri().status(id).resources.unwrap().linux.unwrap()
}

/// The content of the first of these files that the container's group has: v2's name, then v1's.
fn file(daemon: &Daemon, id: &str, names: [&str; 2]) -> String {
    let info = daemon.cri().info(id);
    let group = info.get("cgroupsPath").unwrap().as_str().unwrap().to_owned();
    let path = names.iter().find_map(|name| daemon.cgroups().file(&group, name)).unwrap();
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

fn memory(daemon: &Daemon, id: &str) -> String {
    file(daemon, id, ["memory.max", "memory.limit_in_bytes"])
}

const MIB: i64 = 1 << 20;

#[test]
fn root_limits_change_up_and_down_and_keep_what_is_not_said() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("resize", Network::Node);
    let mut config = pod.container("c", &["tail", "-f", "/dev/null"]);
    *resources(&mut config) = Limits {
        memory_limit_in_bytes: 64 * MIB,
        memory_swap_limit_in_bytes: 64 * MIB,
        cpu_shares: 512,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        oom_score_adj: 700,
        ..Limits::default()
    };
    let waiting = pod.create(&config);
    // Before the start they are kept, and the start has them.
    update(&daemon, &waiting, Limits { cpu_shares: 256, ..Limits::default() }).unwrap();
    assert_eq!(shown(&daemon, &waiting).cpu_shares, 256);
    daemon.cri().start(&waiting).unwrap();
    let id = waiting;
    assert_eq!(memory(&daemon, &id), (64 * MIB).to_string());
    for (limit, swap) in [(128, 128), (32, 32), (96, 100), (40, 0)] {
        let (limit, swap) = (limit * MIB, swap * MIB);
        let limits = Limits {
            memory_limit_in_bytes: limit,
            memory_swap_limit_in_bytes: swap,
            ..Limits::default()
        };
        update(&daemon, &id, limits).unwrap();
        assert_eq!(memory(&daemon, &id), limit.to_string());
        let shown = shown(&daemon, &id);
        assert_eq!((shown.memory_limit_in_bytes, shown.cpu_quota), (limit, 50_000));
        // Without a word about swap, its part stays.
        let sum = if swap == 0 { limit + 4 * MIB } else { swap };
        assert_eq!(shown.memory_swap_limit_in_bytes, sum);
    }
    let limits = Limits { cpu_quota: -1, cpu_shares: 1024, oom_score_adj: 3, ..Limits::default() };
    update(&daemon, &id, limits).unwrap();
    let quota = file(&daemon, &id, ["cpu.max", "cpu.cfs_quota_us"]);
    assert!(["max 100000", "-1"].contains(&quota.as_str()), "{quota}");
    let now = shown(&daemon, &id);
    assert_eq!((now.cpu_quota, now.cpu_shares, now.cpu_period), (-1, 1024, 100_000));
    // A process's own, which it was given at its start.
    assert_eq!(now.oom_score_adj, 700);
    assert_eq!(daemon.cri().shell(&id, "cat /proc/1/oom_score_adj"), "700\n");
    assert_eq!(daemon.cri().status(&id).state(), cri::ContainerState::ContainerRunning);
    let unknown = update(&daemon, &"f".repeat(64), Limits::default()).unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    daemon.cri().stop(&id, 0).unwrap();
    let ended = update(&daemon, &id, Limits::default()).unwrap_err();
    assert_eq!(ended.code(), Code::FailedPrecondition);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_refused_limit_leaves_all_of_them_as_they_were() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("refused", Network::Node);
    let mut config = pod.container("c", &["tail", "-f", "/dev/null"]);
    *resources(&mut config) = Limits {
        memory_limit_in_bytes: 64 * MIB,
        cpu_shares: 512,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        ..Limits::default()
    };
    let id = pod.start(&config);
    let files = [
        ["memory.max", "memory.limit_in_bytes"],
        ["cpu.weight", "cpu.shares"],
        ["cpu.max", "cpu.cfs_quota_us"],
        ["cpuset.cpus", "cpuset.cpus"],
    ];
    let all = || files.map(|names| file(&daemon, &id, names));
    let (before, known) = (all(), shown(&daemon, &id));
    for memory in [128 * MIB, 16 * MIB] {
        // No machine has this processor: the last of the writes is refused.
        let limits = Limits {
            memory_limit_in_bytes: memory,
            cpu_shares: 2048,
            cpu_quota: 20_000,
            cpu_period: 50_000,
            cpuset_cpus: "9999".into(),
            ..Limits::default()
        };
        let refused = update(&daemon, &id, limits).unwrap_err();
        assert!(refused.message().contains("cpuset.cpus"), "{refused:?}");
        assert_eq!(all(), before);
        assert_eq!(shown(&daemon, &id), known);
    }
    assert_eq!(daemon.cri().status(&id).state(), cri::ContainerState::ContainerRunning);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_limit_below_what_is_in_use_is_refused_and_kills_nobody() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("used", Network::Node);
    let mut config = pod.container("c", &["tail", "-f", "/dev/null"]);
    resources(&mut config).memory_limit_in_bytes = 96 * MIB;
    let id = pod.start(&config);
    cri.shell(&id, "dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2>/dev/null");
    let limit = |mib: i64| Limits { memory_limit_in_bytes: mib * MIB, ..Limits::default() };
    let refused = update(&daemon, &id, limit(24)).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("bytes of memory"), "{refused:?}");
    assert_eq!(memory(&daemon, &id), (96 * MIB).to_string());
    assert_eq!(shown(&daemon, &id).memory_limit_in_bytes, 96 * MIB);
    assert_eq!(cri.status(&id).state(), cri::ContainerState::ContainerRunning);
    cri.shell(&id, "rm /dev/shm/x");
    update(&daemon, &id, limit(24)).unwrap();
    assert_eq!(memory(&daemon, &id), (24 * MIB).to_string());
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_pods_new_limits_are_kept_and_its_group_is_left_to_the_kubelet() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("pod", Network::Node);
    let ask = |id: &str, resources: Limits, overhead: Option<Limits>| {
        let pod_sandbox_id = id.to_owned();
        let call = |mut client: wherry_tests::cri::Runtime| async move {
            let resources = Some(resources);
            let request =
                cri::UpdatePodSandboxResourcesRequest { pod_sandbox_id, overhead, resources };
            client.update_pod_sandbox_resources(request).await
        };
        cri.ask(call).map(drop)
    };
    let memory = Limits { memory_limit_in_bytes: 128 * MIB, ..Limits::default() };
    let cpu = Limits { cpu_quota: 70_000, ..Limits::default() };
    let overhead = Limits { cpu_shares: 20, ..Limits::default() };
    for _ in 0..2 {
        ask(&pod.id, memory.clone(), None).unwrap();
    }
    ask(&pod.id, cpu, Some(overhead)).unwrap();
    let known = |name: &str| cri.pod_info(&pod.id)["state"]["facts"][name].clone();
    let kept = || {
        let resources = known("resources");
        (resources["memory_limit"].as_i64(), resources["cpu_quota"].as_i64())
    };
    assert_eq!(kept(), (Some(128 * MIB), Some(70_000)));
    assert_eq!(known("overhead")["cpu_shares"].as_i64(), Some(20));
    daemon.restart();
    assert_eq!(kept(), (Some(128 * MIB), Some(70_000)));
    let wrong = Limits { memory_limit_in_bytes: -5, ..Limits::default() };
    let refused = ask(&pod.id, wrong, None).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert_eq!(ask("", memory.clone(), None).unwrap_err().code(), Code::NotFound);
    cri.stop_pod(&pod.id).unwrap();
    let refused = ask(&pod.id, memory, None).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    pod.remove();
    leaks.assert_same_after(&daemon);
}
