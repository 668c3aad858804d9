//! Real kubeadm on a node of Wherry's: its checks, what it pulls, what it writes for the kubelet, and how it
//! cleans up. The node's control plane is that of the cluster; kubeadm starts none. What is typed here stands
//! in `docs/kubeadm.md`.

use std::path::Path;
use wherry_tests::cluster::Cluster;
use wherry_tests::docs::block;
use wherry_tests::{say, setting};

/// What such a node is not: one without a kubelet, and, on many machines, one with cgroup v2 alone. Nothing
/// of it is about the runtime.
const IGNORED: &str = "--ignore-preflight-errors=Port-10250,SystemVerification";

/// Its checks of the runtime, as it names what does not hold.
const CHECKS: [&str; 2] = [" CRI]", " ContainerRuntimeVersion]"];

/// A node with kubeadm and its configuration.
struct Node {
    cluster: Cluster,
    /// Where its programs are, and its configuration.
    before: String,
}

impl Node {
    fn start() -> Option<Self> {
        let programs = setting("WHERRY_PEERS").map(|peers| Path::new(&peers).join("kubernetes"));
        let Some(programs) = programs.filter(|folder| folder.join("kubeadm").exists()) else {
            say("skipped: WHERRY_PEERS has no kubeadm; hack/cluster build makes it");
            return None;
        };
        let cluster = Cluster::start(&[])?;
        let file = cluster.home().join("kubeadm.yaml");
        let before =
            format!("export PATH={}:$PATH; C=--config={};", programs.display(), file.display());
        let before = format!("WHERRY={}; {before}", cluster.wherry().display());
        let version = cluster.on_node(1, &format!("{before} kubeadm version -o short"));
        let page = block("kubeadm.md", "yaml");
        assert!(page.contains(version.trim()), "the page is for kubeadm {version}");
        // Without these it takes the machine's name, and asks for a default route.
        let name = page.replace("nodeRegistration:\n", "nodeRegistration:\n  name: node-1\n");
        let address =
            "kind: InitConfiguration\nlocalAPIEndpoint:\n  advertiseAddress: 10.80.0.11\n";
        let config = name.replace("kind: InitConfiguration\n", address);
        std::fs::write(&file, config).unwrap();
        // Its name is asked for, and no server of names knows it.
        cluster.on_node(1, "echo 10.80.0.11 node-1 >>/etc/hosts");
        Some(Self { cluster, before })
    }

    /// What a command says.
    fn ok(&self, command: &str) -> String {
        self.cluster.on_node(1, &format!("{} {command} 2>&1", self.before))
    }

    /// What a command says that must fail.
    fn refused(&self, command: &str) -> String {
        self.cluster.node_refuses(1, &format!("{} {command} 2>&1", self.before))
    }

    /// Puts a small stand-in for each image that kubeadm wants into the registry; their names.
    fn images(&self) -> Vec<String> {
        let listed = self.ok("kubeadm config images list $C");
        let names: Vec<String> = listed.lines().map(ToOwned::to_owned).collect();
        assert!(names.iter().all(|name| name.starts_with("registry.k8s.io/")), "{listed}");
        for name in &names {
            let to = name.replace("registry.k8s.io/", "docker://10.80.0.1:5000/");
            let from = "docker://10.80.0.1:5000/library/busybox:latest";
            let insecure = ["--src-tls-verify=false", "--dest-tls-verify=false"];
            self.cluster.in_network(
                &[&["skopeo", "copy", "--quiet"][..], &insecure, &[from, &to]].concat(),
            );
        }
        names
    }
}

#[test]
fn root_kubeadm_finds_a_runtime_writes_its_endpoint_and_cleans_up() {
    let Some(node) = Node::start() else { return };
    let names = node.images();
    assert!(names.iter().any(|name| name.contains("/pause:")), "{names:?}");

    // Nobody answers: that, and nothing else, is an error that is not ignored.
    let preflight = format!("kubeadm init phase preflight $C {IGNORED}");
    let pid = node.cluster.home().join("node-1/wherry.pid");
    let pid = std::fs::read_to_string(pid).unwrap();
    node.ok(&format!("kill -STOP {pid}"));
    let told = node.refused(&preflight);
    let errors: Vec<&str> = told.lines().filter(|line| line.contains("[ERROR")).collect();
    let of_runtime = |line: &&str| CHECKS.iter().any(|check| line.contains(check));
    assert!(errors.len() == CHECKS.len() && errors.iter().all(of_runtime), "{told}");
    node.ok(&format!("kill -CONT {pid}"));

    // It answers: no complaint about it, and every image is pulled.
    let told = node.ok(&preflight);
    assert_eq!(told.lines().find(of_runtime), None, "{told}");
    let here = node.ok("$WHERRY --socket /run/wherry/wherry.sock images --format json");
    assert!(names.iter().all(|name| here.contains(name.as_str())), "{here}");
    node.ok("kubeadm config images pull $C");

    node.ok("kubeadm init phase certs all $C");
    node.ok("kubeadm init phase kubeconfig all $C");
    node.ok("kubeadm init phase kubelet-start $C");
    let endpoint = "containerRuntimeEndpoint: \"unix:///run/wherry/wherry.sock\"";
    let instance = node.ok("cat /var/lib/kubelet/instance-config.yaml");
    assert!(instance.contains(endpoint), "{instance}");
    let config = node.ok("cat /var/lib/kubelet/config.yaml");
    assert!(config.contains("unix:///run/wherry/wherry.sock"), "{config}");

    // What kubeadm removes, the kubelet, which it cannot stop here, makes again under other ids.
    let pods = || node.ok("$WHERRY --socket /run/wherry/wherry.sock pods --format json");
    let ids = |text: &str| -> Vec<String> {
        let pods: serde_json::Value = serde_json::from_str(text).unwrap();
        let id = |pod: &serde_json::Value| pod["id"].as_str().unwrap().to_owned();
        pods.as_array().unwrap().iter().map(id).collect()
    };
    let before = ids(&pods());
    assert!(!before.is_empty(), "the cluster's names are served by a pod");
    let told = node.ok("kubeadm reset --force --cri-socket=unix:///run/wherry/wherry.sock");
    assert!(!told.contains("Failed to remove containers"), "{told}");
    let after = pods();
    assert!(!before.iter().any(|id| after.contains(id)), "{before:?} of {after}; {told}");
}
