//! What containers and pods use: that the numbers are there, that they are right, and that a list of
//! hundreds is one short pass.

use shim_proto::runtime_v1 as cri;
use tonic::{Code, Status};
use wherry_tests::cri::Runtime;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{self, Network, resources};
use wherry_tests::until;

fn of_container(daemon: &Daemon, id: &str) -> Result<cri::ContainerStats, Status> {
    let request = cri::ContainerStatsRequest { container_id: id.to_owned() };
    let call = |mut client: Runtime| async move { client.container_stats(request).await };
    Ok(daemon.cri().ask(call)?.into_inner().stats.unwrap())
}

fn of_pod(daemon: &Daemon, id: &str) -> Result<cri::PodSandboxStats, Status> {
    let request = cri::PodSandboxStatsRequest { pod_sandbox_id: id.to_owned() };
    let call = |mut client: Runtime| async move { client.pod_sandbox_stats(request).await };
    Ok(daemon.cri().ask(call)?.into_inner().stats.unwrap())
}

fn all(daemon: &Daemon, filter: Option<cri::ContainerStatsFilter>) -> Vec<cri::ContainerStats> {
    let request = cri::ListContainerStatsRequest { filter };
    let call = |mut client: Runtime| async move { client.list_container_stats(request).await };
    daemon.cri().ask(call).unwrap().into_inner().stats
}

fn of(value: Option<cri::UInt64Value>) -> u64 {
    value.unwrap().value
}

const MIB: u64 = 1 << 20;

#[test]
fn root_a_container_is_measured_by_its_group_and_its_files() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("measured", Network::Node);
    let mut config = pod.container("c", &["tail", "-f", "/dev/null"]);
    resources(&mut config).memory_limit_in_bytes = 96 << 20;
    let id = pod.start(&config);
    let idle = of_container(&daemon, &id).unwrap();
    let attributes = idle.attributes.clone().unwrap();
    assert_eq!((attributes.id.as_str(), attributes.metadata.unwrap().name.as_str()), (&*id, "c"));
    // Memory of its own, processor time, a file.
    cri.shell(&id, "dd if=/dev/zero of=/dev/shm/x bs=1M count=32 2>/dev/null");
    cri.shell(
        &id,
        "mkdir /files; dd if=/dev/zero of=/files/a bs=1M count=8 2>/dev/null; ln /files/a /files/b",
    );
    cri.shell(&id, "timeout 1 sh -c 'while :; do :; done' || true");
    let busy = of_container(&daemon, &id).unwrap();
    let (before, now) = (idle.memory.unwrap(), busy.memory.unwrap());
    assert!(of(now.usage_bytes) >= of(before.usage_bytes) + 31 * MIB, "{before:?} {now:?}");
    let working = of(now.working_set_bytes);
    assert!(working >= 32 * MIB && working <= of(now.usage_bytes));
    assert_eq!(of(now.available_bytes) + working, 96 * MIB);
    assert!(of(now.rss_bytes) > 0 && of(now.page_faults) > of(before.page_faults));
    assert!(now.major_page_faults.is_some() && now.timestamp > before.timestamp);
    let (before, now) = (idle.cpu.unwrap(), busy.cpu.unwrap());
    let used = of(now.usage_core_nano_seconds) - of(before.usage_core_nano_seconds);
    assert!(used >= 200_000_000, "{used}");
    let passed = u64::try_from(now.timestamp - before.timestamp).unwrap();
    let rate = of(now.usage_nano_cores);
    let expected = used * 1_000_000 / (passed / 1_000);
    assert!(rate > expected / 2 && rate <= 2 * expected, "{rate} of {used} in {passed}");
    let swap = busy.swap.unwrap();
    assert!(swap.swap_usage_bytes.is_some() && swap.timestamp > 0);
    let files = until("a count of the writable layer", || {
        let layer = of_container(&daemon, &id).unwrap().writable_layer?;
        (of(layer.used_bytes) >= 8 * MIB).then_some(layer)
    });
    // Two names, one file: a folder and a file, and what a container's root is given at its start.
    assert!(of(files.used_bytes) < 9 * MIB, "{files:?}");
    assert!(of(files.inodes_used) >= 2 && files.timestamp > 0);
    let mountpoint = files.fs_id.unwrap().mountpoint;
    assert_eq!(mountpoint, daemon.root().to_string_lossy());
    assert_eq!(of_container(&daemon, "none").unwrap_err().code(), Code::NotFound);
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_pressure_is_told_where_the_kernel_has_it() {
    if !std::path::Path::new("/proc/pressure/cpu").exists() {
        return;
    }
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let pod = daemon.pod("pressure", Network::Node);
    let mut config = pod.container("c", &["sh", "-c", "while :; do :; done"]);
    resources(&mut config).cpu_quota = 5_000;
    let id = pod.start(&config);
    let path = daemon.cri().info(&id)["cgroupsPath"].as_str().unwrap().to_owned();
    if daemon.cgroups().file(&path, "cpu.pressure").is_some() {
        until("some pressure", || {
            let stats = of_container(&daemon, &id).unwrap();
            let (cpu, memory) = (stats.cpu?.psi?.some?, stats.memory?.psi?.some?);
            let io = stats.io?.psi?.full?;
            assert!(memory.avg10 <= 100.0 && io.avg10 <= 100.0);
            (cpu.total > 10_000_000 && cpu.avg10 > 0.0 && cpu.avg10 <= 100.0).then_some(())
        });
    }
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_pod_is_measured_by_its_own_group_and_inside_its_network() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    daemon.space().shell("for h in /sys/fs/cgroup /sys/fs/cgroup/*; do test -e $h/cgroup.procs && mkdir -p $h/kube/pod1; done; true");
    let mut config = requests::pod("one", Network::Pod, &daemon.logs());
    config.linux.as_mut().unwrap().cgroup_parent = "/kube/pod1".into();
    let pod = Pod::run(&daemon, config);
    let (one, two) = (pod.idle("one"), pod.idle("two"));
    let address = cri.pod_status(&pod.id).unwrap().status.unwrap().network.unwrap().ip;
    let before = of_pod(&daemon, &pod.id).unwrap().linux.unwrap();
    cri.shell(&one, "dd if=/dev/zero of=/dev/shm/x bs=1M count=16 2>/dev/null");
    daemon.space().shell(&format!("busybox ping -c 2 -s 1000 {address} >/dev/null"));
    let stats = of_pod(&daemon, &pod.id).unwrap();
    let attributes = stats.attributes.unwrap();
    assert_eq!(attributes.metadata.unwrap().uid, "uid-of-one");
    let now = stats.linux.unwrap();
    let mut ids: Vec<_> = now.containers.iter().map(|c| c.attributes.clone().unwrap().id).collect();
    ids.sort();
    let mut wanted = [one, two];
    wanted.sort();
    assert_eq!(ids, wanted);
    let (was, is) = (before.memory.unwrap(), now.memory.unwrap());
    let (was, is) = (of(was.usage_bytes), of(is.usage_bytes));
    assert!(is >= was + 15 * MIB, "{was} {is} {:?}", now.containers);
    let parts: u64 = now.containers.iter().map(|c| of(c.memory.unwrap().usage_bytes)).sum();
    assert!(is + MIB >= parts, "less than its containers together: {parts}");
    assert!(of(now.cpu.unwrap().usage_core_nano_seconds) > 0);
    assert!(of(now.process.unwrap().process_count) >= 2);
    let network = now.network.unwrap();
    let eth0 = network.default_interface.unwrap();
    assert_eq!((eth0.name.as_str(), network.interfaces.len()), ("eth0", 0));
    let old = before.network.unwrap().default_interface.unwrap();
    assert!(of(eth0.rx_bytes) >= of(old.rx_bytes) + 2_000);
    assert!(of(eth0.tx_bytes) >= of(old.tx_bytes) + 2_000);
    assert_eq!((of(eth0.rx_errors), of(eth0.tx_errors)), (0, 0));
    pod.remove();
    daemon.space().shell("for h in /sys/fs/cgroup /sys/fs/cgroup/*; do test -d $h/kube/pod1 && rmdir $h/kube/pod1 $h/kube; done; true");
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_pods_without_a_group_of_their_own_are_the_sum_of_their_parts() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let (large, small) = (daemon.pod("large", Network::Node), daemon.pod("small", Network::Node));
    let id = large.idle("c");
    cri.shell(&id, "dd if=/dev/zero of=/dev/shm/x bs=1M count=32 2>/dev/null");
    let memory = |pod: &Pod<'_>| {
        let linux = of_pod(&daemon, &pod.id).unwrap().linux.unwrap();
        assert!(linux.network.is_none(), "the node's network is no pod's");
        of(linux.memory.unwrap().usage_bytes)
    };
    assert!(memory(&large) >= 32 * MIB);
    assert_eq!(memory(&small), 0);
    assert_eq!(of_pod(&daemon, "").unwrap_err().code(), Code::NotFound);
    assert_eq!(of_pod(&daemon, &"f".repeat(64)).unwrap_err().code(), Code::NotFound);
    cri.stop_pod(&small.id).unwrap();
    assert_eq!(of_pod(&daemon, &small.id).unwrap_err().code(), Code::FailedPrecondition);
    let request = cri::ListPodSandboxStatsRequest::default();
    let call = |mut client: Runtime| async move { client.list_pod_sandbox_stats(request).await };
    let listed = cri.ask(call).unwrap().into_inner().stats;
    let listed: Vec<_> = listed.into_iter().map(|pod| pod.attributes.unwrap().id).collect();
    assert_eq!(listed, [large.id.as_str()]);
    large.remove();
    small.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_list_shows_what_runs_and_passes_its_filter() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("list", Network::Node);
    let ids: Vec<String> = (0..5).map(|index| pod.idle(&format!("c{index}"))).collect();
    pod.create(&pod.container("waiting", &["true"]));
    cri.stop(&ids[4], 0).unwrap();
    let mut listed: Vec<_> =
        all(&daemon, None).into_iter().map(|c| c.attributes.unwrap().id).collect();
    listed.sort();
    let mut running = ids[..4].to_vec();
    running.sort();
    assert_eq!(listed, running);
    let filter = cri::ContainerStatsFilter { id: ids[0].clone(), ..Default::default() };
    assert_eq!(all(&daemon, Some(filter)).len(), 1);
    let filter = cri::ContainerStatsFilter { pod_sandbox_id: "f".repeat(64), ..Default::default() };
    assert!(all(&daemon, Some(filter)).is_empty());
    pod.remove();
    leaks.assert_same_after(&daemon);
}
