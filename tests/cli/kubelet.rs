//! Pods of a kubelet beside one's own: shown and marked, looked into, and not changed without --force.

use crate::listed;
use shim_proto::runtime_v1 as cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::images::NAME;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{self, Network};

/// A pod with the labels that a kubelet gives, and a container in it.
fn of_a_kubelet(daemon: &Daemon) -> (Pod<'_>, String) {
    let mut config = requests::pod("web-0", Network::Pod, &daemon.logs());
    let metadata = config.metadata.clone().unwrap();
    let labels = [
        ("io.kubernetes.pod.name", metadata.name),
        ("io.kubernetes.pod.namespace", metadata.namespace),
        ("io.kubernetes.pod.uid", metadata.uid),
    ];
    config.labels = labels.map(|(key, value)| (key.to_owned(), value)).into();
    let pod = Pod::run(daemon, config);
    let command = ["sh", "-c", "echo hello; exec tail -f /dev/null"];
    let mut container = pod.container("server", &command);
    container.labels = pod.config.labels.clone();
    container.labels.insert("io.kubernetes.container.name".into(), "server".into());
    let id = pod.start(&container);
    (pod, id)
}

#[test]
fn root_a_kubelets_pods_are_shown_and_marked() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let (pod, id) = of_a_kubelet(&daemon);
    daemon.ok(&["run", "-d", "--name", "server", NAME, "tail", "-f", "/dev/null"]);
    let all = listed(&daemon, &[]);
    let owners: Vec<_> =
        all.iter().map(|one| (one["name"].clone(), one["owner"].clone())).collect();
    assert_eq!(owners, [("server".into(), "wherry".into()), ("server".into(), "kubelet".into())]);
    let own = daemon.ok(&["ps"]);
    assert!(own.lines().any(|line| line.ends_with("kubelet")), "{own}");
    assert!(daemon.ok(&["pods"]).lines().any(|line| line.ends_with("kubelet")));
    // A name is one's own; a kubelet's has an id, and is looked into like any other.
    assert_eq!(daemon.ok(&["logs", &id]), "hello");
    assert_eq!(daemon.ok(&["exec", &id, "echo", "inside"]), "inside");
    assert!(daemon.ok(&["inspect", &id]).contains(&id));
    daemon.ok(&["rm", "-f", "server"]);
    assert!(pod_is_ready(&daemon, &pod));
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_kubelets_containers_are_changed_by_force_only() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let (pod, id) = of_a_kubelet(&daemon);
    for verb in ["stop", "rm"] {
        let told = daemon.refused(&[verb, &id]);
        assert!(told.contains("kubelet") && told.contains("--force"), "{verb}: {told}");
        assert!(told.contains("web-0") && told.contains("kubectl"), "{verb}: {told}");
    }
    // -f is a habit: `rm -f $(ps -aq)`.
    assert!(daemon.refused(&["rm", "-f", &id]).contains("--force"));
    assert_eq!(listed(&daemon, &[]).len(), 1);
    daemon.ok(&["stop", "--force", "-t", "0", &id]);
    // Only the kubelet starts it again; and what ended is refused without --force all the same.
    assert!(daemon.refused(&["start", &id]).contains("kubelet"));
    assert!(daemon.refused(&["rm", &id]).contains("--force"));
    daemon.ok(&["rm", "--force", &id]);
    assert_eq!(listed(&daemon, &["-a"]).len(), 0);
    // The pod is the kubelet's.
    assert!(pod_is_ready(&daemon, &pod));
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_label_of_ours_on_a_kubelets_pod_does_not_make_it_ours() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let mut config = requests::pod("pretends", Network::Node, &daemon.logs());
    config.labels = [
        ("wherry.dev/cli".to_owned(), "true".to_owned()),
        ("io.kubernetes.pod.uid".to_owned(), "1".to_owned()),
    ]
    .into();
    config.annotations.insert("wherry.dev/remove".into(), "true".into());
    let pod = Pod::run(&daemon, config);
    let id = pod.run_in("c", &["true"]);
    daemon.cri().ended(&id);
    assert_eq!(listed(&daemon, &["-a"])[0]["owner"], "kubelet");
    assert!(daemon.refused(&["rm", &id]).contains("--force"));
    pod.remove();
    leaks.assert_same_after(&daemon);
}

fn pod_is_ready(daemon: &Daemon, pod: &Pod<'_>) -> bool {
    let status = daemon.cri().pod_status(&pod.id).unwrap().status.unwrap();
    status.state() == cri::PodSandboxState::SandboxReady
}
