//! The bridge of our own, for the command line on a node without a CNI configuration: source NAT, ports
//! published on the node and on its loopback, pods that reach each other. IPv4.

use super::Attachment;
use super::native::Hands;
use super::native::bridge::{self, Wanted};
use super::native::host_local::Leases;
use super::native::portmap::{self, Published};
use super::native::veth::{self, Over, POD_END, Pair, add_address, add_route, set_up};
use super::netns::Inside;
use crate::error::RuntimeError;
use ipnet::{IpNet, Ipv4Net};
use shim_model::cni::chain::{Mac, everywhere};
use shim_model::cni::lease::{Lease, RangeSet, RangeText};
use shim_model::id::SandboxId;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

/// Settings of our own bridge.
#[derive(Clone, Debug)]
pub struct BuiltinConfig {
    /// Name of the bridge.
    pub bridge: String,
    /// Addresses of pods, as `10.88.0.0/16`.
    pub subnet: String,
    /// Where leases and published ports are kept.
    pub data_dir: PathBuf,
}

impl BuiltinConfig {
    fn range(&self) -> Result<(Ipv4Net, RangeSet), RuntimeError> {
        let refuse = |why: String| RuntimeError::Network {
            doing: format!("use network.subnet {}", self.subnet),
            why,
        };
        let subnet: Ipv4Net = self
            .subnet
            .parse()
            .map_err(|error: ipnet::AddrParseError| refuse(error.to_string()))?;
        let text = RangeText {
            subnet: IpNet::V4(subnet),
            range_start: None,
            range_end: None,
            gateway: None,
        };
        let set = RangeSet::of(&[text]).map_err(|refused| refuse(refused.to_string()))?;
        Ok((subnet, set))
    }

    fn ports(&self) -> PathBuf {
        self.data_dir.join("ports")
    }

    fn leases(&self) -> PathBuf {
        self.data_dir.join("leases")
    }
}

/// Attaches a pod.
pub fn add(
    config: &BuiltinConfig,
    hands: &Hands,
    attachment: &Attachment,
    inside: &mut Inside,
) -> Result<Vec<IpAddr>, RuntimeError> {
    let (subnet, set) = config.range()?;
    let id = attachment.id.as_str();
    let leases = Leases::lock(&config.leases())?;
    portmap::check(&config.ports(), &attachment.id, &attachment.ports)?;
    let lease = leases.take(&[set], id)?.pop().ok_or(RuntimeError::Lost("a pod's address"))?;
    let node_end = connect(config, hands, id, lease, inside)?;
    let IpAddr::V4(address) = lease.address.addr() else {
        return Err(RuntimeError::Lost("an IPv4 address"));
    };
    let published = Published { address, ports: attachment.ports.clone(), node_end };
    portmap::note(&config.ports(), &attachment.id, &published)?;
    let is_first = !hands.masquerades.lock().contains(&IpNet::V4(subnet));
    if is_first || published.has_ports() {
        apply(config)?;
        hands.masquerades.lock().insert(IpNet::V4(subnet));
    }
    Ok(vec![IpAddr::V4(address)])
}

/// The pair on the bridge, and the pod's side; the name of the node's end.
fn connect(
    config: &BuiltinConfig,
    hands: &Hands,
    id: &str,
    lease: Lease,
    inside: &mut Inside,
) -> Result<String, RuntimeError> {
    let gateway = IpNet::new(lease.gateway, lease.address.prefix_len()).ok();
    let wanted = Wanted {
        name: &config.bridge,
        gateways: gateway.as_slice(),
        mtu: None,
        force_address: false,
        // 127.0.0.1:PORT of the node is sent to pods.
        loopback_routed: true,
    };
    let bridge = bridge::ensure(hands, &wanted)?;
    let pair = Pair {
        mac: Mac::of(lease.address.addr()),
        mtu: None,
        bridge: Some(bridge.index),
        // A pod may reach its own published port.
        hairpin: true,
    };
    let node = pair.make(id, inside)?;
    let link = inside.routes.link(POD_END)?.ok_or(RuntimeError::Lost("a pod's interface"))?;
    let default = everywhere(lease.gateway);
    inside.routes.change(vec![
        add_address(link.index, lease.address, true),
        set_up(link.index),
        add_route(link.index, default, Over::Gateway(lease.gateway), None),
    ])?;
    Ok(node.name)
}

/// Takes a pod's attachment away; a missing one is done.
pub fn del(config: &BuiltinConfig, attachment: &Attachment) -> Result<(), RuntimeError> {
    match Leases::existing(&config.leases())? {
        Some(leases) => remove(config, &leases, attachment.id.as_str()),
        None => Ok(()),
    }
}

/// Frees what no pod has; they are counted after the leases were listed.
pub fn sweep(
    config: &BuiltinConfig,
    pods: &dyn Fn() -> BTreeSet<SandboxId>,
) -> Result<(), RuntimeError> {
    let Some(leases) = Leases::existing(&config.leases())? else { return Ok(()) };
    let owners: BTreeSet<String> = leases.all().map(|(_, owner)| owner).collect();
    let known = pods();
    for owner in owners {
        if !SandboxId::parse(&owner).is_ok_and(|id| known.contains(&id)) {
            remove(config, &leases, &owner)?;
        }
    }
    Ok(())
}

fn remove(config: &BuiltinConfig, leases: &Leases, id: &str) -> Result<(), RuntimeError> {
    let known = portmap::forget(&config.ports(), id);
    let address = known.as_ref().map(|known| IpAddr::V4(known.address));
    if let Some(known) = known {
        if known.has_ports() {
            apply(config)?;
        }
        veth::leave_to_namespace(known.node_end)?;
    }
    leases.release(id, address.as_slice())
}

fn apply(config: &BuiltinConfig) -> Result<(), RuntimeError> {
    let all = portmap::all(&config.ports());
    portmap::apply(&portmap::ruleset(&config.bridge, &config.subnet, &all))
}
