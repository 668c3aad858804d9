//! The network of a container on a bare machine: a bridge with source NAT and published ports, the
//! node's own, or none. "Outside" is a host of its own behind a link of the node.

use crate::{bare, listed};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;
use wherry_tests::daemon::Daemon;
use wherry_tests::images::NAME;
use wherry_tests::leaks::Leaks;
use wherry_tests::until;

/// The node's address on the link to the outside.
const NODE: &str = "192.0.2.1";
/// The host outside.
const OUTSIDE: &str = "192.0.2.2";

const PAGE: &str = "a page of a container";
/// A web server of the test image.
const SERVER: [&str; 6] = ["httpd", "-f", "-p", "8080", "-h", "/www"];

/// A host outside, in a namespace with the name `outside`.
fn outside(daemon: &Daemon) {
    daemon.space().shell(&format!(
        "set -e; mkdir -p /run/netns; mount -t tmpfs outside /run/netns; ip netns add outside\n\
         ip link add to-outside type veth peer name eth0 netns outside\n\
         ip addr add {NODE}/24 dev to-outside; ip link set to-outside up\n\
         ip -n outside addr add {OUTSIDE}/24 dev eth0; ip -n outside link set eth0 up\n\
         ip -n outside link set lo up"
    ));
}

/// Takes it away.
const NO_OUTSIDE: &str = "ip link del to-outside; ip netns del outside; umount -R /run/netns";

/// The node's network namespace, as it is seen in the space.
const ON_NODE: &str = "/proc/1/ns/net";
/// That of the host outside.
const FROM_OUTSIDE: &str = "/run/netns/outside";

/// Fetches a page from a place; nothing where there is none.
fn fetch(daemon: &Daemon, place: &str, address: &str) -> String {
    let address: SocketAddr = address.parse().unwrap();
    let patience = Duration::from_secs(2);
    let fetched = daemon.space().within(place, || {
        let mut server = TcpStream::connect_timeout(&address, patience)?;
        server.set_read_timeout(Some(patience))?;
        server.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        server.read_to_string(&mut answer).map(|_| answer)
    });
    let answer: std::io::Result<String> = fetched;
    let answer = answer.unwrap_or_default();
    answer.split_once("\r\n\r\n").map(|(_, page)| page.trim_end().to_owned()).unwrap_or_default()
}

/// The pin of a container's network namespace.
fn namespace(daemon: &Daemon, name: &str) -> PathBuf {
    let all = listed(daemon, &[]);
    let found = all.iter().find(|container| container["name"] == name).unwrap();
    daemon.state().join("netns").join(found["pod"].as_str().unwrap())
}

fn server(daemon: &Daemon, name: &str, ports: &[&str]) -> String {
    let ports = ports.iter().flat_map(|port| ["-p", port]);
    let words = ["run", "-d", "--name", name].into_iter().chain(ports).chain([NAME]).chain(SERVER);
    daemon.ok(&words.collect::<Vec<_>>())
}

fn address(daemon: &Daemon, name: &str) -> String {
    let text = daemon.ok(&["exec", name, "sh", "-c", "ip -4 -o addr show dev eth0"]);
    let at = text.split_whitespace().skip_while(|word| *word != "inet").nth(1).unwrap();
    at.split('/').next().unwrap().to_owned()
}

#[test]
fn root_a_published_port_is_reached_from_everywhere() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    outside(&daemon);
    server(&daemon, "web", &["3000:8080"]);
    let own = address(&daemon, "web");
    until("a server", || (fetch(&daemon, ON_NODE, &format!("{own}:8080")) == PAGE).then_some(()));
    assert_eq!(fetch(&daemon, ON_NODE, "127.0.0.1:3000"), PAGE);
    assert_eq!(fetch(&daemon, ON_NODE, &format!("{NODE}:3000")), PAGE);
    assert_eq!(fetch(&daemon, FROM_OUTSIDE, &format!("{NODE}:3000")), PAGE);
    // Containers too, the server itself included.
    let get = |from: &str, address: &str| {
        daemon.cli(&["exec", from, "timeout", "2", "wget", "-q", "-O", "-", address]).stdout
    };
    server(&daemon, "other", &[]);
    for name in ["web", "other"] {
        assert_eq!(get(name, &format!("http://{NODE}:3000/")).trim_end(), PAGE, "{name}");
    }
    assert_eq!(get("other", &format!("http://{own}:8080/")).trim_end(), PAGE);
    daemon.ok(&["rm", "-f", "web", "other"]);
    assert_eq!(fetch(&daemon, ON_NODE, "127.0.0.1:3000"), "");
    daemon.space().shell(NO_OUTSIDE);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_port_may_be_published_on_one_address_or_for_another_protocol() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    outside(&daemon);
    server(&daemon, "web", &["127.0.0.1:3001:8080", "3002:8080", "3003:53/udp"]);
    until("a server", || (fetch(&daemon, ON_NODE, "127.0.0.1:3001") == PAGE).then_some(()));
    assert_eq!(fetch(&daemon, FROM_OUTSIDE, &format!("{NODE}:3001")), "");
    assert_eq!(fetch(&daemon, ON_NODE, &format!("{NODE}:3001")), "");
    assert_eq!(fetch(&daemon, FROM_OUTSIDE, &format!("{NODE}:3002")), PAGE);
    let server = daemon.space().within(namespace(&daemon, "web"), || UdpSocket::bind("0.0.0.0:53"));
    let server = server.unwrap();
    for (place, address) in [(ON_NODE, "127.0.0.1"), (ON_NODE, NODE), (FROM_OUTSIDE, NODE)] {
        let client = daemon.space().within(place, || UdpSocket::bind("0.0.0.0:0")).unwrap();
        let patience = Some(Duration::from_secs(10));
        server.set_read_timeout(patience).unwrap();
        client.set_read_timeout(patience).unwrap();
        client.send_to(b"question", (address, 3003)).unwrap();
        let mut bytes = [0; 16];
        let (count, from) = server.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..count], b"question");
        server.send_to(b"answer", from).unwrap();
        let (count, from) = client.recv_from(&mut bytes).unwrap();
        // Who answers is who was asked.
        assert_eq!(
            (&bytes[..count], from),
            (&b"answer"[..], (address.parse::<IpAddr>().unwrap(), 3003).into())
        );
    }
    let ports = daemon.ok(&["ps"]);
    assert!(ports.contains("0.0.0.0:3003->53/udp"), "{ports}");
    daemon.ok(&["rm", "-f", "web"]);
    daemon.space().shell(NO_OUTSIDE);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_what_leaves_has_the_nodes_address() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    outside(&daemon);
    let listener = daemon.space().within(FROM_OUTSIDE, || TcpListener::bind("0.0.0.0:9000"));
    let listener = listener.unwrap();
    let script = format!("nc {OUTSIDE} 9000 </dev/null");
    let begun = daemon.begin(&["run", "--rm", NAME, "sh", "-c", &script]);
    let (mut client, address) = listener.accept().unwrap();
    assert_eq!(address.ip().to_string(), NODE);
    client.write_all(b"hello\n").unwrap();
    drop(client);
    let said = begun.end();
    assert_eq!((said.stdout.as_str(), said.code), ("hello\n", 0), "{said:?}");
    drop(listener);
    daemon.space().shell(NO_OUTSIDE);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_port_that_somebody_has_is_refused() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    server(&daemon, "web", &["3000:8080"]);
    let again = ["run", "-d", "--name", "again", "-p", "3000:80", NAME, "tail", "-f", "/dev/null"];
    let told = daemon.refused(&again);
    assert!(told.contains("port 3000") && told.contains("web"), "{told}");
    // A port of another address or protocol is another port.
    daemon.ok(&["run", "--rm", "-p", "3000:80/udp", NAME, "true"]);
    daemon.ok(&["rm", "-f", "web"]);
    // A program of the node is not cut off.
    let program = daemon.space().within(ON_NODE, || TcpListener::bind("0.0.0.0:3000")).unwrap();
    let told = daemon.refused(&again);
    assert!(told.contains("port 3000"), "{told}");
    drop(program);
    daemon.ok(&again);
    daemon.ok(&["rm", "-f", "again"]);
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_a_network_may_be_the_nodes_or_none() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let links = |network: &str| {
        let words = ["run", "--rm", "--network", network, NAME, "ls", "/sys/class/net"];
        daemon.ok(&words).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(links("none"), ["lo"]);
    assert_eq!(links("bridge"), ["eth0", "lo"]);
    let node = daemon.space().shell("readlink /proc/self/ns/net");
    let namespace = |network: &str| {
        daemon.ok(&["run", "--rm", "--network", network, NAME, "readlink", "/proc/self/ns/net"])
    };
    assert_eq!(namespace("host"), node.trim_end());
    assert_ne!(namespace("none"), node.trim_end());
    // A loopback that works, and nothing that leads away.
    let script = "ping -c 1 -W 1 127.0.0.1 >/dev/null && ! ip route | grep -q . && echo alone";
    assert_eq!(daemon.ok(&["run", "--rm", "--network", "none", NAME, "sh", "-c", script]), "alone");
    leaks.assert_same_after(&daemon);
}

#[test]
fn root_the_nodes_loopback_stays_the_nodes() {
    let Some(daemon) = bare() else { return };
    let leaks = Leaks::before(&daemon);
    let secret = daemon.space().within(ON_NODE, || TcpListener::bind("127.0.0.1:4000")).unwrap();
    secret.set_nonblocking(true).unwrap();
    // Published ports of the loopback are sent to the bridge; nothing may come the other way
    // (CVE-2020-8558).
    let script = "ip addr del 127.0.0.1/8 dev lo; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet\n\
                  ip route add 127.0.0.0/8 via $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p')\n\
                  timeout 3 nc 127.0.0.1 4000 </dev/null 2>/dev/null; echo done";
    let said = daemon.cli(&["run", "--rm", "--privileged", NAME, "sh", "-c", script]);
    assert_eq!(said.stdout, "done\n", "{said:?}");
    let reached = secret.accept().map(|(_, from)| from);
    assert!(reached.is_err(), "reached from {reached:?}");
    drop(secret);
    leaks.assert_same_after(&daemon);
}
