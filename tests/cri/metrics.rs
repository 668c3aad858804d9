//! Metrics of pods and containers: every name that a kubelet shows is described and, where this kernel
//! has it, told; no two series are the same; the numbers are those of the container.

use shim_proto::runtime_v1 as cri;
use std::collections::{BTreeMap, BTreeSet};
use wherry_tests::cri::{Runtime, all_of};
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{self, Network, resources};
use wherry_tests::until;

/// What a kernel need not have, or what a container that is just there has not done.
const OPTIONAL: [&str; 4] =
    ["container_blkio_", "container_fs_reads", "container_fs_writes", "container_hugetlb_"];

fn descriptors(daemon: &Daemon) -> Vec<cri::MetricDescriptor> {
    let call = |mut client: Runtime| async move {
        client.list_metric_descriptors(cri::ListMetricDescriptorsRequest {}).await
    };
    daemon.cri().ask(call).unwrap().into_inner().descriptors
}

fn listed(daemon: &Daemon) -> Vec<cri::PodSandboxMetrics> {
    let call = |mut client: Runtime| async move {
        client.list_pod_sandbox_metrics(cri::ListPodSandboxMetricsRequest {}).await
    };
    daemon.cri().ask(call).unwrap().into_inner().pod_metrics
}

/// Every series of a pod: name and labels to value.
fn series(
    descriptors: &[cri::MetricDescriptor],
    pod: &cri::PodSandboxMetrics,
) -> BTreeMap<(String, BTreeMap<String, String>), u64> {
    let keys: BTreeMap<&str, &Vec<String>> =
        descriptors.iter().map(|one| (one.name.as_str(), &one.label_keys)).collect();
    let mut all = BTreeMap::new();
    let containers = pod.container_metrics.iter().flat_map(|one| &one.metrics);
    for metric in pod.metrics.iter().chain(containers) {
        let keys = *keys.get(metric.name.as_str()).unwrap();
        assert_eq!(keys.len(), metric.label_values.len(), "{metric:?}");
        let labels = keys.iter().cloned().zip(metric.label_values.iter().cloned()).collect();
        let value = metric.value.as_ref().unwrap().value;
        let twice = all.insert((metric.name.clone(), labels), value);
        assert_eq!(twice, None, "twice: {metric:?}");
    }
    all
}

#[test]
fn root_every_metric_is_described_and_told_once() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let known = descriptors(&daemon);
    assert_eq!(known.len(), 56);
    assert!(listed(&daemon).is_empty());
    daemon.space().shell("for h in /sys/fs/cgroup /sys/fs/cgroup/*; do test -e $h/cgroup.procs && mkdir -p $h/kube/pod1; done; true");
    let mut config = requests::pod("one", Network::Pod, &daemon.logs());
    config.linux.as_mut().unwrap().cgroup_parent = "/kube/pod1".into();
    let pod = Pod::run(&daemon, config);
    let mut config =
        pod.container("c", &["sh", "-c", "exec 3</etc/passwd; exec tail -f /dev/null"]);
    let limits = resources(&mut config);
    (limits.memory_limit_in_bytes, limits.cpu_quota, limits.cpu_period) =
        (64 << 20, 20_000, 100_000);
    let id = pod.start(&config);
    pod.idle("beside");
    let address = daemon.cri().pod_status(&pod.id).unwrap().status.unwrap().network.unwrap().ip;
    daemon.space().shell(&format!("busybox ping -c 1 {address} >/dev/null"));
    let all = until("a count of the writable layer", || {
        let all = series(&known, &listed(&daemon)[0]);
        all.keys().any(|(name, _)| name == "container_fs_usage_bytes").then_some(all)
    });
    let told: BTreeSet<&str> = all.keys().map(|(name, _)| name.as_str()).collect();
    let has_pressure = std::path::Path::new("/proc/pressure/cpu").exists();
    for name in known.iter().map(|one| one.name.as_str()) {
        let optional = OPTIONAL.iter().any(|start| name.starts_with(start))
            || (!has_pressure && name.starts_with("container_pressure_"));
        assert!(optional || told.contains(name), "{name} has no value");
    }
    let of = |name: &str, wanted: &[(&str, &str)]| {
        let fits = |labels: &BTreeMap<String, String>| {
            wanted.iter().all(|(key, value)| labels.get(*key).is_some_and(|found| found == value))
        };
        let found: Vec<u64> =
            all.iter().filter(|((n, l), _)| n == name && fits(l)).map(|(_, v)| *v).collect();
        assert_eq!(found.len(), 1, "{name} {wanted:?}: {all:?}");
        found[0]
    };
    let own = [("container", "c"), ("name", id.as_str()), ("pod", "one"), ("namespace", "tests")];
    assert_eq!(of("container_spec_memory_limit_bytes", &own), 64 << 20);
    assert_eq!(of("container_spec_cpu_quota", &own), 20_000);
    assert_eq!(of("container_processes", &own), 1);
    assert!(of("container_file_descriptors", &own) >= 4);
    assert_eq!(of("container_threads", &own), 1);
    let memory = of("container_memory_usage_bytes", &own);
    assert!(memory > 0 && memory < 64 << 20);
    let group = daemon.cri().info(&id)["cgroupsPath"].as_str().unwrap().to_owned();
    assert_eq!(of("container_memory_usage_bytes", &[("id", group.as_str())]), memory);
    let whole = of("container_memory_usage_bytes", &[("id", "/kube/pod1"), ("container", "")]);
    assert!(whole >= memory);
    let network = [("container", "POD"), ("interface", "eth0"), ("pod", "one")];
    assert!(of("container_network_receive_packets_total", &network) >= 1);
    assert!(of("container_start_time_seconds", &own) > 1_700_000_000);
    // The same, streamed.
    let call = |mut client: Runtime| async move {
        let request = cri::StreamPodSandboxMetricsRequest {};
        all_of(client.stream_pod_sandbox_metrics(request).await).await
    };
    let messages = daemon.cri().ask(call).unwrap();
    assert_eq!(messages.len(), 1);
    let streamed = series(&known, &messages[0].pod_sandbox_metrics[0]);
    let names = |all: &BTreeMap<(String, BTreeMap<String, String>), u64>| {
        all.keys().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>()
    };
    assert_eq!(names(&streamed), names(&all));
    pod.remove();
    daemon.space().shell("for h in /sys/fs/cgroup /sys/fs/cgroup/*; do test -d $h/kube/pod1 && rmdir $h/kube/pod1 $h/kube; done; true");
    leaks.assert_same_after(&daemon);
}
