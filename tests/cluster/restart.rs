//! The runtime is killed, exchanged and begun again under pods that work, with a real kubelet looking on:
//! nobody notices. A node that boots again has what it should, and nothing else.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;
use wherry_tests::cluster::Cluster;
use wherry_tests::{program, repetitions, until};

/// Pods that answer requests, per repetition of the long checks.
const PODS: u32 = 6;

/// All that must not change: which containers, how often begun, since when the node is ready.
fn unchanged(cluster: &Cluster) -> (String, String) {
    let containers = "{range .items[*]}{.metadata.name} {.status.podIP} \
                      {.status.containerStatuses[*].containerID} \
                      {.status.containerStatuses[*].restartCount}\n{end}";
    // A kubelet that begins again does not know the address that an ended pod had.
    let running = "--field-selector=status.phase=Running";
    let output = format!("jsonpath={containers}");
    let pods = cluster.kubectl(&["get", "pods", "-A", running, "-o", &output]);
    let ready = ".status.conditions[?(@.type==\"Ready\")]";
    let since = cluster.field("node/node-1", &format!("{ready}['status','lastTransitionTime']"));
    (pods, since)
}

fn busy(cluster: &Cluster) {
    cluster.apply("busy.yaml");
    let replicas = format!("--replicas={}", PODS * repetitions().clamp(2, 10));
    cluster.kubectl(&["scale", "deployment", "web", &replicas]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    cluster.wait("pod/client", "condition=Ready");
    cluster.wait("pod/writer", "condition=Ready");
    cluster.wait("pod/once", "jsonpath={.status.phase}=Succeeded");
}

/// What a pod wrote, from the node's files: also while no kubelet answers.
fn log(cluster: &Cluster, pod: &str) -> String {
    cluster.on_node(1, &format!("cat $(ls -tr /var/log/pods/default_{pod}_*/c/*.log*)"))
}

/// The client asks on, and so the node works on, through what has just been done.
fn goes_on(cluster: &Cluster) {
    let asked = || log(cluster, "client").matches("asked").count();
    let before = asked();
    until("more requests", || (asked() >= before + 5).then_some(()));
}

#[test]
fn root_nobody_notices_that_the_runtime_begins_again() {
    let Some(wherry) = program() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let installed = scratch.path().join("wherry");
    std::fs::copy(&wherry, &installed).unwrap();
    let Some(cluster) = Cluster::with_wherry(&installed, &[]) else { return };
    busy(&cluster);
    let before = unchanged(&cluster);

    for _ in 0..2 {
        cluster.hack(&["restart", "node-1/wherry"]);
        goes_on(&cluster);
    }
    // Another build in its place, as a package does it: a new file under the old name.
    let other = scratch.path().join("other");
    let stripped = Command::new("strip").arg("-o").arg(&other).arg(&wherry).status().unwrap();
    assert!(stripped.success());
    std::fs::rename(&other, &installed).unwrap();
    cluster.hack(&["restart", "node-1/wherry"]);
    goes_on(&cluster);
    cluster.hack(&["restart", "node-1/kubelet"]);
    goes_on(&cluster);
    cluster.hack(&["restart", "node-1/wherry"]);
    cluster.hack(&["restart", "node-1/kubelet"]);
    goes_on(&cluster);
    // The kubelet that began last has told of itself; work of every kind goes on.
    let answers = || cluster.command(&["exec", "writer", "--", "true"]).output().unwrap();
    until("commands in old pods", || answers().status.success().then_some(()));
    cluster.kubectl(&["run", "later", "--image=busybox", "--", "sleep", "3600"]);
    cluster.wait("pod/later", "condition=Ready");
    cluster.kubectl(&["delete", "pod", "later", "--now"]);
    std::thread::sleep(Duration::from_secs(2));

    assert_eq!(unchanged(&cluster), before);
    let asked = log(&cluster, "client");
    assert!(!asked.contains("failed"), "{} requests failed", asked.matches("failed").count());
    let lines = log(&cluster, "writer");
    let numbers = lines.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
    let numbers: Vec<_> = numbers.collect();
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>(), "no line is lost or told twice");
    assert!(numbers.len() > 500, "{}", numbers.len());
}

#[test]
fn root_a_node_boots_again_with_what_it_should_have() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    busy(&cluster);
    let ids = || {
        let field = "jsonpath={.items[*].status.containerStatuses[*].containerID}";
        let ids = cluster.kubectl(&["get", "pods", "-o", field]);
        ids.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let before = ids();
    cluster.hack(&["reboot", "node-1"]);
    // All that should run runs, in new containers.
    until("new containers", || {
        let kept = ids().intersection(&before).count();
        // The pod that has ended keeps its one.
        (kept == 1).then_some(())
    });
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    for pod in ["client", "writer"] {
        cluster.wait(&format!("pod/{pod}"), "condition=Ready");
    }
    assert_eq!(cluster.field("pod/once", ".status.phase"), "Succeeded");
    assert_eq!(cluster.on_node(1, "cat /var/lib/kubelet/of-the-test/runs"), "init\nmain\n");
    // No address without a pod that has it.
    let field = "jsonpath={.items[*].status.podIP}";
    until("as many addresses as pods", || {
        let pods = cluster.kubectl(&["get", "pods", "-A", "-o", field]);
        let leases = cluster.on_node(1, "ls /var/lib/cni/networks/cluster | grep '^10'");
        let pods: BTreeSet<_> = pods.split_whitespace().collect();
        let once = cluster.field("pod/once", ".status.podIP");
        let running: BTreeSet<_> = pods.into_iter().filter(|ip| *ip != once).collect();
        let leases: BTreeSet<_> = leases.split_whitespace().filter(|ip| *ip != once).collect();
        (running == leases).then_some(())
    });
    let processes = cluster.on_node(1, "ps -e | grep -c wherry-monitor");
    let sandboxes = cluster.kubectl(&["get", "pods", "-A", "--no-headers"]);
    let running = sandboxes.lines().filter(|line| line.contains("Running")).count();
    assert_eq!(processes.trim(), running.to_string(), "a monitor per pod that runs, no ghost");
}
