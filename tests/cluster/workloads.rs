//! Controllers other than Deployments: daemon sets, stateful sets with a volume that stays, jobs; in a
//! namespace of their own, which takes all of it away.

use wherry_tests::cluster::Cluster;
use wherry_tests::until;

#[test]
fn root_controllers_of_every_kind_run_their_pods() {
    let Some(cluster) = Cluster::start(&["--nodes", "2", "--proxy", "iptables"]) else { return };
    cluster.kubectl(&["create", "namespace", "work"]);
    cluster.kubectl(&["config", "view"]);
    cluster.apply("workloads.yaml");
    let work = |arguments: &[&str]| cluster.kubectl(&[&["-n", "work"], arguments].concat());

    work(&["rollout", "status", "daemonset/everywhere", "--timeout=60s"]);
    let everywhere = work(&["get", "pods", "-l", "app=everywhere", "-o", "wide", "--no-headers"]);
    assert!(everywhere.contains("node-1") && everywhere.contains("node-2"), "{everywhere}");

    work(&["rollout", "status", "statefulset/kept", "--timeout=60s"]);
    work(&["exec", "kept-0", "--", "sh", "-c", "echo mine >/data/mine"]);
    work(&["delete", "pod", "kept-0", "--now"]);
    work(&["rollout", "status", "statefulset/kept", "--timeout=60s"]);
    work(&["wait", "pod/kept-0", "--for=condition=Ready", "--timeout=60s"]);
    assert_eq!(work(&["exec", "kept-0", "--", "cat", "/data/mine"]), "mine\n");
    let names = "for i in 0 1; do nslookup kept-$i.kept.work.svc.cluster.local || exit 1; done";
    work(&["exec", "kept-1", "--", "sh", "-c", names]);

    work(&["wait", "job/sum", "--for=condition=Complete", "--timeout=90s"]);
    let sums = work(&["logs", "-l", "job-name=sum", "--tail=-1"]);
    assert_eq!(sums, "5050\n5050\n5050\n");
    work(&["wait", "job/hopeless", "--for=condition=Failed", "--timeout=90s"]);
    work(&["create", "job", "at-once", "--from=cronjob/nightly"]);
    work(&["wait", "job/at-once", "--for=condition=Complete", "--timeout=60s"]);
    assert_eq!(work(&["logs", "job/at-once"]), "good night\n");

    cluster.kubectl(&["delete", "namespace", "work", "--timeout=90s"]);
    until("nodes without pods of it", || {
        let left = cluster.on_node(1, "ls /var/log/pods") + &cluster.on_node(2, "ls /var/log/pods");
        (!left.contains("work_")).then_some(())
    });
}
