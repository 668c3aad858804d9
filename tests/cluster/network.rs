//! A network that people have: flannel's vxlan between nodes, with the bridge plugin in process on each.

use wherry_tests::cluster::{self, Cluster};
use wherry_tests::{say, until};

#[test]
fn root_pods_reach_each_other_through_flannel() {
    if !cluster::built("flannel") {
        return say("skipped: hack/cluster build --network flannel was not called");
    }
    let Some(cluster) = Cluster::start(&["--nodes", "2", "--network", "flannel"]) else { return };
    for (name, image, node) in
        [("here", "busybox", "node-1"), ("there", "httpd", "node-2"), ("beside", "httpd", "node-1")]
    {
        let place =
            format!(r#"{{"spec":{{"nodeName":"{node}","terminationGracePeriodSeconds":0}}}}"#);
        let mut run = vec!["run", name, "--image", image, "--overrides", &place];
        if name == "here" {
            run.extend(["--", "sleep", "3600"]);
        }
        cluster.kubectl(&run);
        cluster.wait(&format!("pod/{name}"), "condition=Ready");
        cluster.kubectl(&["expose", "pod", name, "--port=80"]);
    }
    assert!(cluster.on_node(1, "ip -d link show flannel.1").contains("vxlan id 1"));
    assert_eq!(cluster.shell("here", "cat /sys/class/net/eth0/mtu"), "1450\n");
    for name in ["there", "beside"] {
        let address = cluster.field(&format!("pod/{name}"), ".status.podIP");
        let fetch = |host: &str| format!("curl -sS --max-time 5 http://{host}/");
        assert!(cluster.shell("here", &fetch(&address)).contains("It works"), "{name}");
        until("the page of a Service", || {
            let page = cluster.command(&["exec", "here", "--", "sh", "-c", &fetch(name)]).output();
            String::from_utf8(page.unwrap().stdout).unwrap().contains("It works").then_some(())
        });
    }
    let larger = "head -c 200000 /dev/zero | curl -sS --max-time 5 -T - http://there/ >/dev/null";
    cluster.shell("here", larger);
}
