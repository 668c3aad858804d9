//! What pods are made of, as a kubelet asks for it: volumes of every kind, init containers and sidecars,
//! probes, hooks, limits, users, classes, and containers that come later.

use wherry_tests::cluster::Cluster;
use wherry_tests::until;

#[test]
fn root_a_pod_has_all_that_it_asks_for() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    cluster.on_node(
        1,
        "mkdir -p /var/log/of-the-test; chmod 777 /var/log/of-the-test; \
         echo node-one >/var/log/of-the-test/hostname-of-the-test",
    );
    cluster.apply("pod-of-everything.yaml");
    cluster.wait("pod/everything", "condition=Ready");
    let address = cluster.field("pod/everything", ".status.podIP");
    let said = cluster.kubectl(&["logs", "everything", "-c", "main"]);
    let wanted = format!(
        "made by init\nmade by sidecar\nenv blue hunter2 {address} node-1\n\
         file from a file from a file hunter2 downward\ntoken yes\nmemory 1\nhost node-one\n\
         image <h1>It works!</h1><p>latest</p>\nuser 1000 2000 2000 3000\n\
         capabilities 0000000000000000\n"
    );
    assert_eq!(said, wanted);
    let all = cluster.kubectl(&["logs", "everything", "--all-containers", "--prefix"]);
    assert!(all.contains("[pod/everything/main]"), "{all}");
    assert_eq!(cluster.shell("everything", "cat /shared/hook"), "hook\n");
    let read_only = cluster.refused(&["exec", "everything", "-c", "main", "--", "touch", "/x"]);
    assert!(read_only.contains("Read-only"), "{read_only}");
    assert_eq!(cluster.field("pod/everything", ".status.qosClass"), "Burstable");

    // A container that comes later, in the process namespace of the one it looks at.
    let debug = ["debug", "everything", "--image=busybox", "--target=main", "-c", "later"];
    cluster
        .kubectl(&[&debug[..], &["--", "sh", "-c", "ps | grep -c [h]ttpd; ls /shared"]].concat());
    let seen = until("words of the later container", || {
        let said = cluster.command(&["logs", "everything", "-c", "later"]).output().unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        (!said.is_empty()).then_some(said)
    });
    assert_eq!(seen.lines().next(), Some("1"), "{seen}");

    // What is asked for while it runs.
    let resize = r#"{"spec":{"containers":[{"name":"main","resources":{"limits":{"cpu":"300m","memory":"96Mi"}}}]}}"#;
    cluster.kubectl(&["patch", "pod", "everything", "--subresource=resize", "--patch", resize]);
    let limits = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us \
                  2>/dev/null || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max";
    until("new limits, without a restart", || {
        let now = cluster.shell("everything", limits);
        (now.contains("100663296") && now.contains("30000")).then_some(())
    });
    let restarts = ".status.containerStatuses[?(@.name==\"main\")].restartCount";
    assert_eq!(cluster.field("pod/everything", restarts), "0");

    cluster.kubectl(&["delete", "pod", "everything"]);
    assert_eq!(cluster.on_node(1, "cat /var/log/of-the-test/bye"), "bye\n");
}

#[test]
fn root_what_goes_wrong_in_a_pod_is_told() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    cluster.apply("pods-that-fail.yaml");
    let reason = |pod: &str, state: &str| {
        cluster
            .field(&format!("pod/{pod}"), &format!(".status.containerStatuses[0].{state}.reason"))
    };
    until("killed for its memory", || {
        let now = reason("greedy", "state.terminated");
        (!now.is_empty()).then(|| assert_eq!(now, "OOMKilled"))
    });
    let code = ".status.containerStatuses[0].state.terminated.exitCode";
    assert_eq!(cluster.field("pod/greedy", code), "137");
    until("no image", || reason("no-image", "state.waiting").contains("ImagePull").then_some(()));
    until("no program", || {
        (reason("no-program", "state.waiting") == "RunContainerError"
            || reason("no-program", "lastState.terminated") == "StartError")
            .then_some(())
    });
    until("restarted by its probe", || {
        let count = cluster.field("pod/unwell", ".status.containerStatuses[0].restartCount");
        (count.parse().unwrap_or(0) >= 1).then_some(())
    });
    let message = ".status.containerStatuses[0].state.terminated.message";
    until("last words", || (cluster.field("pod/last-words", message) == "goodbye").then_some(()));
    let code = ".status.containerStatuses[0].state.terminated.exitCode";
    assert_eq!(cluster.field("pod/last-words", code), "3");
    let class = cluster.field("pod/no-class", ".status.containerStatuses[0].state.waiting.reason");
    assert_eq!(class, "ContainerCreating");
    let events =
        cluster.kubectl(&["get", "events", "--field-selector=involvedObject.name=no-class"]);
    assert!(events.contains("nobody"), "the handler is named: {events}");
}

#[test]
fn root_pods_have_user_namespaces_and_classes() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    cluster.apply("pods-of-classes.yaml");
    for pod in ["own-users", "classed", "of-the-host"] {
        cluster.wait(&format!("pod/{pod}"), "condition=Ready");
    }
    let map = cluster.shell("own-users", "cat /proc/self/uid_map");
    let fields: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(fields[0], "0");
    assert_ne!(fields[1], "0", "root inside is nobody outside: {map}");
    assert_eq!(cluster.shell("own-users", "id -u; stat -c %u /data /config/colour"), "0\n0\n0\n");
    assert_eq!(cluster.shell("of-the-host", "ip -o addr show eth0 | grep -c 10.80.0.11"), "1\n");
    let processes = cluster.shell("of-the-host", "ps | grep -c [k]ubelet");
    assert_ne!(processes, "0\n");
}
