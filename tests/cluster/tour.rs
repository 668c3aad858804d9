//! The tour of a user, in the order of a first day: create, look, scale, change, undo, expose, read logs,
//! enter, copy, forward, delete; on two nodes.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use wherry_tests::cluster::Cluster;
use wherry_tests::until;

#[test]
fn root_a_deployment_is_made_changed_exposed_and_deleted() {
    let Some(cluster) = Cluster::start(&["--nodes", "2"]) else { return };
    cluster.kubectl(&["create", "deployment", "httpd-app", "--image=httpd", "--replicas=2"]);
    rolled_out(&cluster);
    let wide = cluster.kubectl(&["get", "pods", "-o", "wide", "--no-headers"]);
    assert!(wide.contains("node-1") && wide.contains("node-2"), "on both nodes: {wide}");
    let nodes = cluster.kubectl(&["get", "nodes", "-o", "wide"]);
    assert_eq!(nodes.matches("wherry://").count(), 2, "{nodes}");
    let described = cluster.kubectl(&["describe", "deployment", "httpd-app"]);
    assert!(described.contains("2 available"), "{described}");

    let mut watch = cluster.begin(&["get", "deployment", "httpd-app", "--watch", "--no-headers"]);
    cluster.kubectl(&["scale", "deployment", "httpd-app", "--replicas=3"]);
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("3/3")), "the watch sees three of three");
    watch.kill().unwrap();
    watch.wait().unwrap();

    exposed(&cluster);
    cluster.kubectl(&["set", "image", "deployment/httpd-app", "httpd=httpd:2.4"]);
    rolled_out(&cluster);
    page(&cluster, "2.4");
    let history = cluster.kubectl(&["rollout", "history", "deployment/httpd-app"]);
    assert!(history.contains('1') && history.contains('2'), "{history}");
    cluster.kubectl(&["rollout", "undo", "deployment/httpd-app"]);
    rolled_out(&cluster);
    page(&cluster, "latest");

    cluster.kubectl(&["delete", "deployment", "httpd-app"]);
    cluster.kubectl(&["delete", "service", "httpd-app", "headless", "outside"]);
    let gone = ["wait", "pod", "-l", "app=httpd-app", "--for=delete", "--timeout=60s"];
    cluster.kubectl(&gone);
}

fn rolled_out(cluster: &Cluster) {
    cluster.kubectl(&["rollout", "status", "deployment/httpd-app", "--timeout=60s"]);
}

/// The Service gives this page to a node, as soon as the node has forgotten the pods that are gone.
fn page(cluster: &Cluster, wanted: &str) {
    let address = cluster.field("service/httpd-app", ".spec.clusterIP");
    let fetch = format!("curl -sS --max-time 2 http://{address}/ || true");
    until("the page of a Service", || cluster.on_node(2, &fetch).contains(wanted).then_some(()));
}

/// As Services of three kinds, seen from a pod, from nodes and by name.
fn exposed(cluster: &Cluster) {
    let expose = ["expose", "deployment", "httpd-app", "--port=80"];
    cluster.kubectl(&expose);
    cluster.kubectl(&[&expose[..], &["--name=headless", "--cluster-ip=None"]].concat());
    cluster.kubectl(&[&expose[..], &["--name=outside", "--type=NodePort"]].concat());
    cluster.kubectl(&["run", "client", "--image=busybox", "--", "sleep", "3600"]);
    cluster.wait("pod/client", "condition=Ready");
    let fetch = "for i in 1 2 3 4 5 6; do curl -sS --max-time 5 http://httpd-app || exit 1; done";
    assert_eq!(cluster.shell("client", fetch).matches("It works").count(), 6);
    let names = cluster.shell("client", "nslookup headless.default.svc.cluster.local");
    assert_eq!(names.matches("Address").count() - 1, 3, "an address per pod: {names}");
    let port = cluster.field("service/outside", ".spec.ports[0].nodePort");
    for node in ["10.80.0.11", "10.80.0.12"] {
        let url = format!("http://{node}:{port}/");
        let page = cluster.in_network(&["curl", "-sS", "--max-time", "5", &url]);
        assert!(page.contains("It works"), "{url}");
    }
    cluster.kubectl(&["delete", "pod", "client", "--grace-period=0", "--force"]);
}

#[test]
fn root_a_pod_is_entered_read_copied_and_forwarded() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let script = "trap 'exit 7' TERM; echo begun; while :; do echo tick; sleep 0.2; done";
    cluster.kubectl(&["run", "box", "--image=busybox", "--", "sh", "-c", script]);
    cluster.wait("pod/box", "condition=Ready");

    // exec: output, exit code, input, a terminal of kubectl's own.
    assert_eq!(cluster.shell("box", "echo out; echo err >&2"), "out\n");
    let refused = cluster.refused(&["exec", "box", "--", "sh", "-c", "exit 42"]);
    assert!(refused.contains("exit code 42"), "{refused}");
    assert_eq!(
        piped(&cluster, &["exec", "-i", "box", "--", "wc", "-c"], &vec![7; 300_000]),
        "300000\n"
    );
    let kubectl = cluster.command(&["exec", "-it", "box", "--", "sh", "-c", "tty; stty size"]);
    let typed =
        format!("{} exec -it box -- sh -c 'tty; stty size'", kubectl.get_program().display());
    let seen = std::process::Command::new("script").args(["-qec", &typed, "/dev/null"]).output();
    let seen = String::from_utf8(seen.unwrap().stdout).unwrap();
    assert!(seen.contains("/dev/pts/"), "a terminal: {seen}");

    logs(&cluster);

    // cp: there and back, a whole folder.
    let scratch = tempfile::tempdir().unwrap();
    let (there, back) = (scratch.path().join("there"), scratch.path().join("back"));
    std::fs::create_dir(&there).unwrap();
    std::fs::write(there.join("large"), vec![42; 3_000_000]).unwrap();
    cluster.kubectl(&["cp", there.to_str().unwrap(), "box:/tmp/there"]);
    assert_eq!(cluster.shell("box", "wc -c </tmp/there/large"), "3000000\n");
    cluster.kubectl(&["cp", "box:/tmp/there", back.to_str().unwrap()]);
    assert_eq!(std::fs::read(back.join("large")).unwrap(), vec![42; 3_000_000]);

    // attach sees what the container writes, and does not end it.
    let mut attached = cluster.begin(&["attach", "box"]);
    let mut lines = BufReader::new(attached.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line == "tick")));
    attached.kill().unwrap();
    attached.wait().unwrap();
    assert_eq!(cluster.field("pod/box", ".status.phase"), "Running");

    // run -i --rm: one that reads what is typed, and is gone afterwards.
    let said = ["run", "typed", "--image=busybox", "-i", "--rm", "--restart=Never", "--", "cat"];
    assert!(piped(&cluster, &said, b"typed\n").contains("typed\n"));
    forwarded(&cluster);

    // A grace that is used, and then the container's own exit.
    cluster.kubectl(&["delete", "pod", "box", "--wait=false"]);
    let gone = cluster.command(&["wait", "pod/box", "--for=delete", "--timeout=60s"]).output();
    assert!(gone.unwrap().status.success());
}

fn piped(cluster: &Cluster, arguments: &[&str], input: &[u8]) -> String {
    let mut child = cluster.begin(arguments);
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn logs(cluster: &Cluster) {
    assert!(cluster.kubectl(&["logs", "box"]).starts_with("begun\ntick\n"));
    assert_eq!(cluster.kubectl(&["logs", "box", "--tail=2"]), "tick\ntick\n");
    // Three seconds of them, of which the last is asked for.
    let ticks = || cluster.kubectl(&["logs", "box"]).matches("tick").count();
    until("an old log", || (ticks() >= 15).then_some(()));
    let recent = cluster.kubectl(&["logs", "box", "--since=1s", "--timestamps"]);
    assert!(!recent.contains("begun") && recent.contains('T'), "{recent}");
    let mut follow = cluster.begin(&["logs", "box", "--follow", "--tail=1"]);
    let lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    assert_eq!(lines.take(4).filter(|line| line.as_ref().unwrap() == "tick").count(), 4);
    follow.kill().unwrap();
    follow.wait().unwrap();
    // The log of a container that ended, from its successor.
    cluster.kubectl(&["run", "twice", "--image=busybox", "--", "sh", "-c", "echo life; sleep 1"]);
    until("a second life", || {
        let count = cluster.field("pod/twice", ".status.containerStatuses[0].restartCount");
        (count.parse().unwrap_or(0) >= 1).then_some(())
    });
    assert_eq!(cluster.kubectl(&["logs", "twice", "--previous"]), "life\n");
    cluster.kubectl(&["delete", "pod", "twice", "--now"]);
}

fn forwarded(cluster: &Cluster) {
    cluster.kubectl(&["run", "web", "--image=httpd", "--port=80"]);
    cluster.wait("pod/web", "condition=Ready");
    let mut forward = cluster.command(&["port-forward", "pod/web", "18080:80"]);
    let mut forward = forward.stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 10];
    forward.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    for _ in 0..5 {
        let page = cluster.in_network(&["curl", "-sS", "http://127.0.0.1:18080/"]);
        assert!(page.contains("It works"), "{page}");
    }
    forward.kill().unwrap();
    forward.wait().unwrap();
}
