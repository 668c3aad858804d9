//! Where everything of a cluster is: folders below its home, addresses, what was asked for. Pure.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The control plane's address on the bridge that all nodes are on.
pub const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);
/// Addresses of Services.
pub const SERVICES: &str = "10.96.0.0/16";
/// Addresses of all pods; node N has 10.244.N.0/24.
pub const PODS: &str = "10.244.0.0/16";
/// The Service of the cluster's names.
pub const DNS: &str = "10.96.0.10";
/// Where the API is served.
pub const API: &str = "https://10.80.0.1:6443";
/// Where images come from.
pub const REGISTRY: &str = "10.80.0.1:5000";
/// Nodes of one cluster, at most.
pub const MOST_NODES: u8 = 9;

/// What runs the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// The runtime of this repository.
    Wherry,
    /// The peer, with runc.
    Containerd,
}

impl Runtime {
    /// Its name, which is also that of its program, its socket and its folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wherry => "wherry",
            Self::Containerd => "containerd",
        }
    }
}

/// How kube-proxy makes Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Proxy {
    /// nftables.
    Nftables,
    /// iptables.
    Iptables,
}

/// How pods of one node reach those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// A route to each node.
    Plain,
    /// flannel's vxlan.
    Flannel,
}

/// What `up` was asked for; kept, because each node's first process reads it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// How many nodes.
    pub nodes: u8,
    /// What runs the pods.
    pub runtime: Runtime,
    /// How Services are made.
    pub proxy: Proxy,
    /// How pods reach other nodes.
    pub network: Network,
    /// Folder with one folder per built peer.
    pub peers: PathBuf,
    /// The peer that is Kubernetes, `kubernetes` or one of an older minor.
    pub kubernetes: String,
    /// The program under test.
    pub wherry: PathBuf,
    /// Storage of the registry.
    pub images: PathBuf,
}

/// A machine of the cluster: namespaces of its own, with a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// etcd, the registry, the API server and the controllers.
    Control,
    /// A node, by its number from 1.
    Node(u8),
}

impl Machine {
    /// Its address on the bridge.
    pub fn address(self) -> Ipv4Addr {
        match self {
            Self::Control => CONTROL,
            Self::Node(number) => Ipv4Addr::new(10, 80, 0, number.saturating_add(10)),
        }
    }

    /// Parses what [`fmt::Display`] wrote.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "control" => Some(Self::Control),
            other => other.strip_prefix("node-")?.parse().ok().map(Self::Node),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => out.write_str("control"),
            Self::Node(number) => write!(out, "node-{number}"),
        }
    }
}

/// Addresses of the pods of a node.
pub fn pods_of(number: u8) -> String {
    format!("10.244.{number}.0/24")
}

/// Folders of a cluster.
#[derive(Clone, Debug)]
pub struct Home(pub PathBuf);

impl Home {
    /// Keys, certificates, kubeconfigs.
    pub fn pki(&self) -> PathBuf {
        self.0.join("pki")
    }

    /// What was asked for.
    pub fn settings(&self) -> PathBuf {
        self.0.join("settings.json")
    }

    /// All that a machine has.
    pub fn of(&self, machine: Machine) -> PathBuf {
        self.0.join(machine.to_string())
    }

    /// Every machine that has a folder, the control plane first.
    pub fn machines(&self) -> Vec<Machine> {
        let all = std::iter::once(Machine::Control).chain((1..=MOST_NODES).map(Machine::Node));
        all.filter(|machine| self.of(*machine).is_dir()).collect()
    }

    /// A component by the name that people use: `kube-apiserver`, `node-1/kubelet`.
    pub fn component(&self, name: &str) -> Option<(Machine, PathBuf)> {
        let (machine, component) = match name.split_once('/') {
            Some((machine, component)) => (Machine::named(machine)?, component),
            None => (Machine::Control, name),
        };
        let path = self.of(machine).join(component);
        pid_file(&path).exists().then_some((machine, path))
    }
}

/// The log of a component.
pub fn log_file(component: &Path) -> PathBuf {
    component.with_extension("log")
}

/// Its process, as it is numbered inside.
pub fn pid_file(component: &Path) -> PathBuf {
    component.with_extension("pid")
}

#[cfg(test)]
mod tests {
    use super::Machine;

    #[test]
    fn machines_have_names_and_addresses() {
        for machine in [Machine::Control, Machine::Node(1), Machine::Node(9)] {
            assert_eq!(Machine::named(&machine.to_string()), Some(machine));
        }
        assert_eq!(Machine::Node(2).address().to_string(), "10.80.0.12");
        assert_eq!(Machine::named("node-x"), None);
    }
}
