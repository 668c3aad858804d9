//! Bridges, by netlink: made, given the pods' gateway as address, and left behind, as the `bridge` plugin
//! does it; a bridge is the network's, not a pod's.

use super::Hands;
use super::veth::{add_address, set_up};
use crate::error::RuntimeError;
use crate::network::routes::{Ask, EXISTS, Known, Routes};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use shim_model::cni::chain::Mac;
use std::path::Path;

/// A bridge that a pod wants.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its addresses: the pods' gateways. Empty = it needs none.
    pub gateways: &'a [IpNet],
    /// Size of packets; the kernel's default if unset. Only for a new one.
    pub mtu: Option<u32>,
    /// Take other addresses that are in the way away.
    pub force_address: bool,
    /// Let the node's own loopback be sent to pods (published ports).
    pub loopback_routed: bool,
}

/// Finds or makes a bridge with these addresses, and lets the node forward.
pub fn ensure(hands: &Hands, wanted: &Wanted<'_>) -> Result<Known, RuntimeError> {
    let mut routes = Routes::open()?;
    let bridge = match routes.link(wanted.name)? {
        Some(known) => known,
        None => make(&mut routes, wanted)?,
    };
    if !bridge.is_bridge {
        return Err(RuntimeError::Network {
            doing: format!("use the bridge {}", wanted.name),
            why: "a device of this name is there and is no bridge".to_owned(),
        });
    }
    if hands.bridges.lock().get(wanted.name) != Some(&bridge.index) {
        prepare(&mut routes, &bridge, wanted)?;
        hands.bridges.lock().insert(wanted.name.to_owned(), bridge.index);
    }
    let gateways = wanted.gateways.iter();
    routes.change(gateways.map(|gateway| add_address(bridge.index, *gateway, true)).collect())?;
    for gateway in wanted.gateways {
        forward(gateway)?;
    }
    Ok(bridge)
}

fn make(routes: &mut Routes, wanted: &Wanted<'_>) -> Result<Known, RuntimeError> {
    let mut link = LinkMessage::default();
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes.push(LinkAttribute::IfName(wanted.name.to_owned()));
    // An address of its own: otherwise it would change with the lowest one of its ports.
    let [a, b, c, d]: [u8; 4] = rand::random();
    link.attributes.push(LinkAttribute::Address(Mac([0x0a, 0x5b, a, b, c, d]).0.to_vec()));
    link.attributes.extend(wanted.mtu.map(LinkAttribute::Mtu));
    link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    routes.change(vec![Ask {
        doing: "make a bridge",
        message: RouteNetlinkMessage::NewLink(link),
        flags: NLM_F_CREATE | NLM_F_EXCL,
        // Two pods at once: whoever comes second finds it.
        fine: Some(EXISTS),
    }])?;
    routes.link(wanted.name)?.ok_or(RuntimeError::Lost("a bridge that was just made"))
}

/// What a bridge needs once, whoever made it.
fn prepare(routes: &mut Routes, bridge: &Known, wanted: &Wanted<'_>) -> Result<(), RuntimeError> {
    let name = wanted.name;
    // Its routes are ours: a pod that plays router must not change them (CVE-2020-10749). A kernel
    // without IPv6 has no such file.
    let _no_ipv6 = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra"), "0");
    if wanted.loopback_routed {
        setting(&format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"))?;
    }
    if !bridge.is_up {
        routes.change(vec![set_up(bridge.index)])?;
    }
    for (other, message) in in_the_way(routes, bridge.index, wanted.gateways)? {
        if !wanted.force_address {
            return Err(RuntimeError::Network {
                doing: format!("use the bridge {name}"),
                why: format!("it has the address {other} already, and forceAddress is not set"),
            });
        }
        let message = RouteNetlinkMessage::DelAddress(message);
        let doing = "replace an address of a bridge";
        routes.change(vec![Ask { doing, message, flags: 0, fine: None }])?;
    }
    Ok(())
}

/// Addresses of a bridge that cannot stay beside these: any other of IPv4, overlapping ones of IPv6.
fn in_the_way(
    routes: &mut Routes,
    bridge: u32,
    gateways: &[IpNet],
) -> Result<Vec<(IpNet, AddressMessage)>, RuntimeError> {
    let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let found = routes.dump("list addresses", all)?.into_iter().filter_map(|message| {
        let RouteNetlinkMessage::NewAddress(message) = message else { return None };
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(ip) | AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })?;
        let net = IpNet::new(local, message.header.prefix_len).ok()?;
        (message.header.index == bridge).then_some((net, message))
    });
    let blocks = |known: &IpNet| {
        gateways.iter().any(|wanted| match (wanted, known) {
            (IpNet::V4(wanted), IpNet::V4(known)) => wanted != known,
            (IpNet::V6(_), IpNet::V6(_)) => {
                wanted != known
                    && (wanted.contains(&known.addr()) || known.contains(&wanted.addr()))
            }
            _ => false,
        }) && !gateways.contains(known)
    };
    Ok(found.filter(|(known, _)| blocks(known)).collect())
}

/// Lets the node forward packets of this family.
pub fn forward(family: &IpNet) -> Result<(), RuntimeError> {
    setting(match family {
        IpNet::V4(_) => "/proc/sys/net/ipv4/ip_forward",
        IpNet::V6(_) => "/proc/sys/net/ipv6/conf/all/forwarding",
    })
}

/// Switches a setting of the kernel on if it is off: switching takes the lock of all networks.
fn setting(path: &str) -> Result<(), RuntimeError> {
    if std::fs::read(path).is_ok_and(|text| text.starts_with(b"1")) {
        return Ok(());
    }
    std::fs::write(path, "1").map_err(RuntimeError::file("write", Path::new(path)))
}
