//! The page of metrics: off unless configured; what the daemon counts of itself, and the containers'
//! metrics as text.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use wherry_tests::daemon::{Daemon, Setup};
use wherry_tests::leaks::Leaks;
use wherry_tests::requests::Network;
use wherry_tests::until;

/// A page over the socket: its status and its text.
fn get(daemon: &Daemon, path: &str) -> (String, String) {
    let mut socket = UnixStream::connect(daemon.beside("metrics.sock")).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// Every series of a page: its name with labels to its value, as text.
pub(super) fn series(daemon: &Daemon, path: &str) -> BTreeMap<String, String> {
    let (status, text) = get(daemon, path);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pair = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.to_owned())
    };
    lines.map(pair).collect()
}

/// The containers' own page.
fn containers(daemon: &Daemon, id: &str) {
    let page = until("a page with the container", || {
        let page = series(daemon, "/metrics/cadvisor");
        let of = |name: &str| page.keys().any(|key| key.starts_with(name) && key.contains(id));
        of("container_memory_working_set_bytes{").then_some(page)
    });
    let network = |key: &&String| key.starts_with("container_network_receive_bytes_total{");
    let network = page.keys().find(network).unwrap();
    assert!(network.contains("interface=\"eth0\"") && network.contains("pod=\"counted\""));
    assert_eq!(get(daemon, "/else").0, "HTTP/1.1 404 Not Found");
}

#[test]
fn root_the_daemon_shows_what_it_counted() {
    let config = "[metrics]\nlisten = \"unix:FOLDER/metrics.sock\"\n".to_owned();
    let Some(daemon) = Daemon::with(&Setup { config, ..Setup::default() }) else { return };
    let mode = std::fs::metadata(daemon.beside("metrics.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let leaks = Leaks::before(&daemon);
    let before = series(&daemon, "/metrics");
    let pod = daemon.pod("counted", Network::Pod);
    let id = pod.idle("c");
    let short = pod.run_in("short", &["true"]);
    daemon.cri().ended(&short);
    daemon.cri().status(&id);
    daemon.cri().inspect("none").unwrap_err();
    let now = series(&daemon, "/metrics");
    let grown = |name: &str| {
        let value = |all: &BTreeMap<String, String>| {
            all.get(name).map_or(0, |value| value.parse::<u64>().unwrap())
        };
        assert!(now.contains_key(name), "{name} is not in {now:#?}");
        value(&now) - value(&before)
    };
    let ok = |method: &str| format!("wherry_rpc_total{{method=\"{method}\",code=\"OK\"}}");
    assert_eq!(grown(&ok("RunPodSandbox")), 1);
    assert_eq!(grown(&ok("StartContainer")), 2);
    let missing = "wherry_rpc_total{method=\"ContainerStatus\",code=\"NOT_FOUND\"}";
    assert_eq!(grown(missing), 1);
    assert_eq!(grown("wherry_rpc_seconds_count{method=\"RunPodSandbox\"}"), 1);
    for (of, phase, plugin, count) in [
        ("pod", "namespace", "", 1),
        ("pod", "plugin", "bridge", 1),
        ("pod", "setup", "", 1),
        ("container", "root", "", 2),
        ("container", "mounts", "", 2),
        ("container", "exec", "", 2),
    ] {
        let labels = format!("of=\"{of}\",phase=\"{phase}\",plugin=\"{plugin}\"");
        assert_eq!(grown(&format!("wherry_phase_seconds_count{{{labels}}}")), count, "{labels}");
        let sum: f64 = now[&format!("wherry_phase_seconds_sum{{{labels}}}")].parse().unwrap();
        assert!(sum > 0.0 && sum < 30.0, "{labels}: {sum}");
    }
    assert_eq!((grown("wherry_starts_total"), grown("wherry_ends_total")), (2, 1));
    let (pods, running) = (&now["wherry_pods_ready"], &now["wherry_containers_running"]);
    assert_eq!(
        (pods.as_str(), running.as_str(), now["wherry_containers"].as_str()),
        ("1", "1", "2")
    );
    for name in ["wherry_images", "wherry_network_ready", "wherry_log_lost_bytes_total"] {
        assert!(now.contains_key(name), "{name}");
    }
    containers(&daemon, &id);
    // A zygote that had to be replaced is counted.
    assert_eq!(now["wherry_zygotes_lost_total"], "0");
    for zygote in daemon.space().named("wherry-zygote") {
        daemon.space().kill(zygote);
    }
    let next = daemon.pod("next", Network::Node);
    assert_eq!(series(&daemon, "/metrics")["wherry_zygotes_lost_total"], "1");
    next.remove();
    pod.remove();
    leaks.assert_same_after(&daemon);
}
