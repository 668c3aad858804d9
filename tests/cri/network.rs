//! The network of pods as they see it, with a usual configuration that is done in process: addresses,
//! names, files, loopback; and that addresses come back.

use shim_proto::runtime_v1 as cri;
use wherry_tests::daemon::Daemon;
use wherry_tests::leaks::Leaks;
use wherry_tests::pods::Pod;
use wherry_tests::requests::{Network, pod};

fn ip_of(daemon: &Daemon, pod: &Pod<'_>) -> String {
    daemon.cri().pod_status(&pod.id).unwrap().status.unwrap().network.unwrap().ip
}

#[test]
fn root_pods_reach_each_other_by_their_addresses() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let (one, two) = (daemon.pod("one", Network::Pod), daemon.pod("two", Network::Pod));
    let server = one.run_in("c", &["httpd", "-f", "-p", "8080", "-h", "/www"]);
    let client = two.idle("c");
    let (first, second) = (ip_of(&daemon, &one), ip_of(&daemon, &two));
    assert!(first.starts_with("10.90.") && second.starts_with("10.90.") && first != second);
    // The status tells what the pod really has.
    let own = cri.shell(&server, "ip -4 -o addr show dev eth0");
    assert!(own.contains(&format!(" {first}/16 ")), "{own}");
    let page = "a page of a container\n";
    let fetch = format!("wget -q -O - http://{first}:8080/");
    assert_eq!(cri.shell(&client, &fetch), page);
    // Containers of a pod share its loopback.
    let beside = one.idle("beside");
    assert_eq!(cri.shell(&beside, "wget -q -O - http://127.0.0.1:8080/"), page);
    // The node reaches its pods.
    let mut node = daemon.space().command(std::path::Path::new("/bin/busybox"));
    let answer = node.args(["wget", "-q", "-O", "-", &format!("http://{first}:8080/")]).output();
    assert_eq!(String::from_utf8(answer.unwrap().stdout).unwrap(), page);
    one.remove();
    two.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_pods_files_are_the_requests() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let mut config = pod("files", Network::Pod, &daemon.logs());
    config.hostname = "the-host".into();
    config.dns_config = Some(cri::DnsConfig {
        servers: vec!["192.0.2.53".into()],
        searches: vec!["tests.example".into(), "example".into()],
        options: vec!["ndots:5".into()],
    });
    let pod = Pod::run(&daemon, config);
    let id = pod.idle("c");
    let resolv = "nameserver 192.0.2.53\nsearch tests.example example\noptions ndots:5\n";
    let found = cri.shell(&id, "cat /etc/resolv.conf");
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&found), sorted(resolv));
    assert_eq!(
        cri.shell(&id, "hostname; cat /etc/hostname; echo $HOSTNAME"),
        "the-host\n".repeat(3)
    );
    let hosts = cri.shell(&id, "cat /etc/hosts");
    let own = format!("{}\tthe-host", ip_of(&daemon, &pod));
    let has = |line: &str| {
        hosts.lines().any(|found| found.split_whitespace().eq(line.split_whitespace()))
    };
    assert!(has(&own) && has("127.0.0.1 localhost"), "{hosts}");
    // Shared between containers, and gone with the pod.
    let other = pod.idle("other");
    cri.shell(&id, "echo x > /dev/shm/between");
    assert_eq!(cri.shell(&other, "cat /dev/shm/between; hostname"), "x\nthe-host\n");
    pod.remove();
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_the_nodes_network_is_the_nodes() {
    let Some(daemon) = Daemon::start() else { return };
    let leaks = Leaks::before(&daemon);
    let cri = daemon.cri();
    let pod = daemon.pod("node", Network::Node);
    let id = pod.idle("c");
    let node = daemon.space().shell("readlink /proc/self/ns/net");
    assert_eq!(cri.shell(&id, "readlink /proc/self/ns/net"), node);
    assert_eq!(ip_of(&daemon, &pod), "");
    pod.remove();
    leaks.assert_same_after(&daemon);
}
