//! Published ports of the bridge of our own. What is published stands in small files, one per pod; the
//! firewall's chain is always made anew from all of them in one transaction, so it can never drift.
//! The transaction is given to nft(8): one program, only for pods of the command line.

use crate::error::RuntimeError;
use serde::{Deserialize, Serialize};
use shim_model::cni::capability::{clash, protocol};
use shim_model::id::SandboxId;
use shim_model::sandbox::config::{PortMapping, Protocol};
use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

/// What a pod publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its ports; only those with a host port count.
    pub ports: Vec<PortMapping>,
    /// Name of the node's end of its pair.
    pub node_end: String,
}

impl Published {
    /// True if any port is published.
    pub fn has_ports(&self) -> bool {
        self.ports.iter().any(|port| port.host_port > 0)
    }
}

/// Everything that is published, by pod.
pub fn all(folder: &Path) -> Vec<(String, Published)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let published = serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?;
            Some((entry.file_name().to_string_lossy().into_owned(), published))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Refuses a port that another pod publishes already, or that a program of the node has: its clients
/// would be sent to the pod.
pub fn check(folder: &Path, id: &SandboxId, wanted: &[PortMapping]) -> Result<(), RuntimeError> {
    let refused = |port: &PortMapping, owner: &str| RuntimeError::Network {
        doing: format!("publish port {}", port.host_port),
        why: format!("{owner} has it already; take another port, or stop that first"),
    };
    for (owner, published) in all(folder).iter().filter(|(owner, _)| owner != id.as_str()) {
        if let Some(port) = clash(wanted, &published.ports) {
            let owner = owner.get(..12).unwrap_or(owner);
            return Err(refused(port, &format!("sandbox {owner}")));
        }
    }
    match wanted.iter().find(|port| is_bound(port)) {
        Some(port) => Err(refused(port, "a program of this node")),
        None => Ok(()),
    }
}

/// True if a program of the node listens where this port is to be published. Nothing is kept: a program
/// that comes later is in the way of nobody, and is not reached.
fn is_bound(port: &PortMapping) -> bool {
    let Some(number) = u16::try_from(port.host_port).ok().filter(|number| *number > 0) else {
        return false;
    };
    let address = (port.host_ip.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), number);
    let bound = match port.protocol {
        Protocol::Tcp => TcpListener::bind(address).map(drop),
        Protocol::Udp => UdpSocket::bind(address).map(drop),
        // The standard library does not know it.
        Protocol::Sctp => Ok(()),
    };
    bound.is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

/// Notes what a pod publishes.
pub fn note(folder: &Path, id: &SandboxId, published: &Published) -> Result<(), RuntimeError> {
    fs::create_dir_all(folder).map_err(RuntimeError::file("make the folder", folder))?;
    let path = folder.join(id.as_str());
    let text = serde_json::to_vec(published).unwrap_or_default();
    fs::write(&path, text).map_err(RuntimeError::file("write", path))
}

/// Forgets what a pod publishes; what it was.
pub fn forget(folder: &Path, id: &str) -> Option<Published> {
    let path = folder.join(id);
    let known = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let _gone = fs::remove_file(path);
    known
}

/// The ruleset, in a table of the bridge's own, so that daemons with different bridges keep each other's
/// ports: source NAT for the bridge's network, and every published port. The node's loopback may be
/// sent to the bridge, so what comes from the bridge for the loopback is dropped before connections are
/// looked up, where answers still have the bridge's address (CVE-2020-8558).
pub fn ruleset(bridge: &str, subnet: &str, published: &[(String, Published)]) -> String {
    let table = format!("table ip wherry-{bridge}");
    let mut text = format!("add {table}\ndelete {table}\n");
    let _infallible = write!(
        text,
        "{table} {{\n\
         \tchain postrouting {{ type nat hook postrouting priority 100;\n\
         \t\tip saddr {subnet} ip daddr != {subnet} masquerade\n\
         \t\tip saddr 127.0.0.0/8 oifname \"{bridge}\" masquerade\n\
         \t\tip saddr {subnet} ip daddr {subnet} ct status dnat masquerade\n\
         \t}}\n\
         \tchain loopback {{ type filter hook prerouting priority -300;\n\
         \t\tiifname \"{bridge}\" ip daddr 127.0.0.0/8 drop\n\
         \t}}\n\
         \tchain prerouting {{ type nat hook prerouting priority -100; fib daddr type local jump ports\n\t}}\n\
         \tchain output {{ type nat hook output priority -100; fib daddr type local jump ports\n\t}}\n\
         \tchain ports {{\n"
    );
    for (_, pod) in published {
        for port in pod.ports.iter().filter(|port| port.host_port > 0) {
            let protocol = protocol(port.protocol);
            let only = match port.host_ip.parse::<Ipv4Addr>() {
                Ok(ip) if !ip.is_unspecified() => format!("ip daddr {ip} "),
                Ok(_) | Err(_) => String::new(),
            };
            let _infallible = writeln!(
                text,
                "\t\t{only}{protocol} dport {} dnat to {}:{}",
                port.host_port, pod.address, port.container_port
            );
        }
    }
    text.push_str("\t}\n}\n");
    text
}

/// Puts a ruleset in force, whole or not at all.
pub fn apply(ruleset: &str) -> Result<(), RuntimeError> {
    let failed = |why: String| RuntimeError::Network {
        doing: "set the firewall's rules with nft".to_owned(),
        why,
    };
    let child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child =
        child.map_err(|error| failed(format!("{error}; install the package nftables")))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(ruleset.as_bytes()).map_err(|error| failed(error.to_string()))?;
    }
    let done = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if done.status.success() {
        Ok(())
    } else {
        Err(failed(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Published, check, note, ruleset};
    use shim_model::id::SandboxId;
    use shim_model::sandbox::config::PortMapping;

    fn published(host_port: i32) -> Published {
        let port = PortMapping { host_port, container_port: 80, ..PortMapping::default() };
        let address = "10.88.0.2".parse().unwrap();
        Published { address, ports: vec![port], node_end: "veth00000000".to_owned() }
    }

    #[test]
    fn a_port_is_published_once() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (SandboxId::from_random([1; 32]), SandboxId::from_random([2; 32]));
        note(dir.path(), &one, &published(3000)).unwrap();
        let refused = check(dir.path(), &two, &published(3000).ports).unwrap_err().to_string();
        assert!(refused.contains("port 3000") && refused.contains(one.short()), "{refused}");
        assert!(check(dir.path(), &two, &published(3001).ports).is_ok());
        assert!(check(dir.path(), &one, &published(3000).ports).is_ok());
    }

    #[test]
    fn the_ruleset_of_one_published_port() {
        insta::assert_snapshot!(ruleset(
            "wherry0",
            "10.88.0.0/16",
            &[("id".into(), published(3000))]
        ));
    }
}
