//! What runs on each machine of a cluster, with every flag. Pure.

use super::keep::Component;
use super::layout::{
    CONTROL, Home, Machine, Network, PODS, Proxy, REGISTRY, Runtime, SERVICES, Settings,
};
use std::path::PathBuf;

/// Where a node's list of CNI plugins is.
pub const NETWORK_LIST: &str = "/etc/cni/net.d/10-cluster.conflist";

/// The socket of the runtime on a node.
pub fn socket(runtime: Runtime) -> PathBuf {
    let name = runtime.name();
    PathBuf::from(format!("/run/{name}/{name}.sock"))
}

/// Of the control plane.
pub fn control(home: &Home, settings: &Settings) -> Vec<Component> {
    let folder = home.of(Machine::Control);
    let etcd = settings.peers.join("etcd/server");
    vec![
        component(
            "registry",
            &[
                "docker-registry".to_owned(),
                "serve".to_owned(),
                shown(&folder.join("registry.yaml")),
            ],
        ),
        component(
            "etcd",
            &[shown(&etcd), format!("--config-file={}", folder.join("etcd.yaml").display())],
        ),
        component("kube-apiserver", &api_server(home, settings)),
        component("kube-controller-manager", &controllers(home, settings)),
        component(
            "kube-scheduler",
            &[
                program(settings, "kube-scheduler"),
                format!("--kubeconfig={}", home.pki().join("scheduler.kubeconfig").display()),
                "--leader-elect=false".to_owned(),
            ],
        ),
    ]
}

fn api_server(home: &Home, settings: &Settings) -> Vec<String> {
    let mut argv = vec![program(settings, "kube-apiserver")];
    let fixed = [
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        // Pods have addresses that only nodes know; the bridge's routes know the nodes.
        "--enable-aggregator-routing=true",
        "--kubelet-preferred-address-types=InternalIP",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
    ];
    argv.extend(fixed.map(str::to_owned));
    argv.push(format!("--advertise-address={CONTROL}"));
    argv.push(format!("--service-cluster-ip-range={SERVICES}"));
    for (flag, file) in [
        ("client-ca-file", "ca.crt"),
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
        ("kubelet-client-certificate", "admin.crt"),
        ("kubelet-client-key", "admin.key"),
        ("kubelet-certificate-authority", "ca.crt"),
        ("service-account-key-file", "sa.pub"),
        ("service-account-signing-key-file", "sa.key"),
        ("requestheader-client-ca-file", "front-proxy-ca.crt"),
        ("proxy-client-cert-file", "front-proxy.crt"),
        ("proxy-client-key-file", "front-proxy.key"),
    ] {
        argv.push(format!("--{flag}={}", home.pki().join(file).display()));
    }
    argv
}

fn controllers(home: &Home, settings: &Settings) -> Vec<String> {
    let mut argv = vec![
        program(settings, "kube-controller-manager"),
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        format!("--service-cluster-ip-range={SERVICES}"),
    ];
    for (flag, file) in [
        ("kubeconfig", "controller.kubeconfig"),
        ("service-account-private-key-file", "sa.key"),
        ("root-ca-file", "ca.crt"),
        ("cluster-signing-cert-file", "ca.crt"),
        ("cluster-signing-key-file", "ca.key"),
        ("requestheader-client-ca-file", "front-proxy-ca.crt"),
    ] {
        argv.push(format!("--{flag}={}", home.pki().join(file).display()));
    }
    argv
}

/// Of a node.
pub fn node(home: &Home, settings: &Settings, number: u8) -> Vec<Component> {
    let machine = Machine::Node(number);
    let folder = home.of(machine);
    let kubelet = [
        program(settings, "kubelet"),
        format!("--config={}", folder.join("kubelet.yaml").display()),
        format!("--kubeconfig={}", home.pki().join(format!("{machine}.kubeconfig")).display()),
        format!("--hostname-override={machine}"),
        format!("--node-ip={}", machine.address()),
        "--v=2".to_owned(),
    ];
    let proxy = [
        program(settings, "kube-proxy"),
        format!("--config={}", folder.join("proxy.yaml").display()),
    ];
    let mut all = vec![
        runtime(home, settings, number),
        Component { after: Some(socket(settings.runtime)), ..component("kubelet", &kubelet) },
        component("kube-proxy", &proxy),
    ];
    if settings.network == Network::Flannel {
        all.push(flannel(home, settings, machine));
    }
    all
}

/// It works with the API in the name of the cluster's administrator, and makes the list of CNI plugins.
fn flannel(home: &Home, settings: &Settings, machine: Machine) -> Component {
    let argv = [
        "env".to_owned(),
        format!("NODE_NAME={machine}"),
        shown(&settings.peers.join("flannel/flannel")),
        format!("--kubeconfig={}", home.pki().join("admin.kubeconfig").display()),
        format!("--net-config={}", home.of(machine).join("net-conf.json").display()),
        format!("--cni-config={NETWORK_LIST}"),
    ];
    component("flannel", &argv)
}

fn runtime(home: &Home, settings: &Settings, number: u8) -> Component {
    let folder = home.of(Machine::Node(number));
    let peers = |name: &str| settings.peers.join(name);
    match settings.runtime {
        Runtime::Wherry => component(
            "wherry",
            &[
                shown(&settings.wherry),
                "serve".to_owned(),
                format!("--cni-bin-dir={}", peers("cni").display()),
                format!("--registry-config={}", folder.join("certs.d").display()),
            ],
        ),
        Runtime::Containerd => Component {
            path: vec![peers("containerd"), peers("runc")],
            ..component(
                "containerd",
                &[
                    shown(&peers("containerd").join("containerd")),
                    format!("--config={}", folder.join("containerd.toml").display()),
                ],
            )
        },
    }
}

fn component(name: &'static str, argv: &[String]) -> Component {
    Component { name, argv: argv.to_vec(), path: Vec::new(), after: None }
}

fn program(settings: &Settings, name: &str) -> String {
    shown(&settings.peers.join(&settings.kubernetes).join(name))
}

fn shown(path: &std::path::Path) -> String {
    path.display().to_string()
}

/// Files of the control plane: their names in its folder, and their text.
pub fn control_files(home: &Home, settings: &Settings) -> Vec<(&'static str, String)> {
    let folder = shown(&home.of(Machine::Control));
    let images = shown(&settings.images);
    let registry = include_str!("files/registry.yaml").replace("@IMAGES@", &images);
    vec![
        ("registry.yaml", registry.replace("@ADDRESS@", REGISTRY)),
        ("etcd.yaml", include_str!("files/etcd.yaml").replace("@FOLDER@", &folder)),
    ]
}

/// Files of a node: their names in its folder, and their text.
pub fn node_files(home: &Home, settings: &Settings, number: u8) -> Vec<(String, String)> {
    let machine = Machine::Node(number);
    let proxy = match settings.proxy {
        Proxy::Nftables => "nftables",
        Proxy::Iptables => "iptables",
    };
    let values = [
        ("@NODE@", machine.to_string()),
        ("@FOLDER@", shown(&home.of(machine))),
        ("@PKI@", shown(&home.pki())),
        ("@SOCKET@", shown(&socket(settings.runtime))),
        ("@PODS@", PODS.to_owned()),
        ("@SUBNET@", super::layout::pods_of(number)),
        ("@PROXY@", proxy.to_owned()),
        ("@PEERS@", shown(&settings.peers)),
    ];
    let filled = |text: &str| {
        values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    };
    let mut files = vec![
        ("kubelet.yaml".to_owned(), filled(include_str!("files/kubelet.yaml"))),
        ("proxy.yaml".to_owned(), filled(include_str!("files/proxy.yaml"))),
        ("containerd.toml".to_owned(), filled(include_str!("files/containerd.toml"))),
        ("network.conflist".to_owned(), filled(include_str!("files/network.conflist"))),
        ("net-conf.json".to_owned(), filled(include_str!("files/net-conf.json"))),
        ("resolv.conf".to_owned(), format!("nameserver {CONTROL}\n")),
    ];
    for host in ["docker.io", "registry.k8s.io", "gcr.io", "k8s.gcr.io", "quay.io"] {
        let text =
            format!("[host.\"http://{REGISTRY}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
        files.push((format!("certs.d/{host}/hosts.toml"), text));
    }
    files
}
