//! Veth pairs, by netlink: both ends are made in one message, the pod's directly in the pod's namespace,
//! so no name of it is ever seen on the node. Taking a pair away is left to the end of the namespace where
//! that can be: the kernel removes many pairs at once then, and nobody waits for it.

use crate::error::{RuntimeError, chain};
use crate::network::netns::Inside;
use crate::network::routes::{Ask, EXISTS, NO_DEVICE, Routes};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use shim_model::cni::chain::Mac;
use shim_model::limits;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

/// Name of a pod's interface.
pub const POD_END: &str = "eth0";
/// Main routing table (rtnetlink(7), `RT_TABLE_MAIN`).
const MAIN_TABLE: u8 = 254;

/// A pair to make.
#[derive(Debug)]
pub struct Pair {
    /// Hardware address of the pod's end.
    pub mac: Mac,
    /// Size of packets; the kernel's default if unset.
    pub mtu: Option<u32>,
    /// The bridge whose port the node's end is.
    pub bridge: Option<u32>,
    /// Frames may leave by the port they came from.
    pub hairpin: bool,
}

/// The node's end of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEnd {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Mac,
}

/// Names that the node's end may have, from the pod's id: as the plugins make them (`veth` and eight hex
/// digits), but found again by whoever knows the pod.
fn names(id: &str) -> impl Iterator<Item = NodeEnd> {
    let parts = (0..8).filter_map(|place| id.get(place * 8..(place + 1) * 8));
    parts.filter_map(|part| {
        let [a, b, c, d] = u32::from_str_radix(part, 16).ok()?.to_be_bytes();
        // Locally administered; another prefix than the pod's ends have.
        Some(NodeEnd { name: format!("veth{part}"), mac: Mac([0x0a, 0x5a, a, b, c, d]) })
    })
}

impl Pair {
    /// Makes the pair, the node's end up: the pod's cannot be before both know each other (`veth_open`).
    pub fn make(&self, id: &str, inside: &mut Inside) -> Result<NodeEnd, RuntimeError> {
        let mut routes = Routes::open()?;
        inside.quiet();
        let mut refused = RuntimeError::Lost("the names of a veth pair");
        for end in names(id) {
            match routes.change(self.messages(&end, inside)) {
                Ok(()) => return Ok(end),
                Err(error) => refused = error,
            }
            // Only a name that another pod has is a reason to try the next one.
            if routes.link(&end.name)?.is_none() || inside.routes.link(POD_END)?.is_some() {
                break;
            }
        }
        Err(refused)
    }

    fn messages(&self, end: &NodeEnd, inside: &Inside) -> Vec<Ask> {
        let mut peer = link(POD_END, self.mac, self.mtu);
        peer.attributes.push(LinkAttribute::NetNsFd(inside.namespace().as_raw_fd()));
        let mut node = link(&end.name, end.mac, self.mtu);
        node.header.flags = LinkFlags::Up;
        node.header.change_mask = LinkFlags::Up;
        node.attributes.extend(self.bridge.map(LinkAttribute::Controller));
        node.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let mut asks = vec![Ask {
            doing: "make the pod's veth pair",
            message: RouteNetlinkMessage::NewLink(node),
            flags: NLM_F_CREATE | NLM_F_EXCL,
            fine: None,
        }];
        if self.hairpin {
            asks.push(hairpin(&end.name));
        }
        asks
    }
}

/// An end of a pair.
fn link(name: &str, mac: Mac, mtu: Option<u32>) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link.attributes.push(LinkAttribute::Address(mac.0.to_vec()));
    link.attributes.extend(mtu.map(LinkAttribute::Mtu));
    link
}

/// Lets frames leave a port of a bridge that they came from.
fn hairpin(name: &str) -> Ask {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
    ]));
    Ask {
        doing: "let a pod reach itself",
        message: RouteNetlinkMessage::NewLink(link),
        flags: 0,
        fine: None,
    }
}

/// Sets a link up.
pub fn set_up(index: u32) -> Ask {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    Ask {
        doing: "set up a link",
        message: RouteNetlinkMessage::SetLink(link),
        flags: 0,
        fine: None,
    }
}

/// Adds an address to a link; one that is there already is done. Nobody waits for duplicates.
pub fn add_address(index: u32, address: IpNet, is_prefix_route: bool) -> Ask {
    let mut message = AddressMessage::default();
    let mut flags = AddressFlags::empty();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    if address.addr().is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        flags |= AddressFlags::Nodad;
    }
    if !is_prefix_route {
        flags |= AddressFlags::Noprefixroute;
    }
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    if !flags.is_empty() {
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    Ask {
        doing: "add an address",
        message: RouteNetlinkMessage::NewAddress(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
        fine: Some(EXISTS),
    }
}

/// How a route leaves.
#[derive(Clone, Copy, Debug)]
pub enum Over {
    /// Over a neighbour.
    Gateway(IpAddr),
    /// The destination is on the link, with this scope.
    Link(RouteScope),
}

/// Adds a route; one that is there already is done.
pub fn add_route(index: u32, dst: IpNet, over: Over, source: Option<IpAddr>) -> Ask {
    let mut route = RouteMessage::default();
    route.header.address_family = family(dst.addr());
    route.header.destination_prefix_length = dst.prefix_len();
    route.header.table = MAIN_TABLE;
    route.header.protocol = RouteProtocol::Boot;
    route.header.kind = RouteType::Unicast;
    route.header.scope = match over {
        Over::Gateway(_) => RouteScope::Universe,
        Over::Link(scope) => scope,
    };
    if dst.prefix_len() > 0 {
        route.attributes.push(RouteAttribute::Destination(on_the_wire(dst.addr())));
    }
    if let Over::Gateway(gateway) = over {
        route.attributes.push(RouteAttribute::Gateway(on_the_wire(gateway)));
    }
    route.attributes.extend(source.map(|ip| RouteAttribute::PrefSource(on_the_wire(ip))));
    route.attributes.push(RouteAttribute::Oif(index));
    Ask {
        doing: "add a route",
        message: RouteNetlinkMessage::NewRoute(route),
        flags: NLM_F_CREATE | NLM_F_EXCL,
        fine: Some(EXISTS),
    }
}

/// The way to a pod over this link, even if one over another link is there still.
pub fn replace_route(index: u32, pod: IpNet) -> Ask {
    let ask = add_route(index, pod, Over::Link(RouteScope::Host), None);
    Ask { flags: NLM_F_CREATE | NLM_F_REPLACE, ..ask }
}

/// Addresses of a link.
pub fn addresses(routes: &mut Routes, index: u32) -> Result<Vec<IpAddr>, RuntimeError> {
    let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let found = routes.dump("list addresses", all)?;
    let address = |message: RouteNetlinkMessage| match message {
        RouteNetlinkMessage::NewAddress(message) if message.header.index == index => {
            message.attributes.into_iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(ip) | AddressAttribute::Address(ip) => Some(ip),
                _ => None,
            })
        }
        _ => None,
    };
    Ok(found.into_iter().filter_map(address).collect())
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn on_the_wire(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}

/// Removes a link by number; a missing one is done. Waits until the kernel has done it, some 40 ms.
pub fn remove(routes: &mut Routes, index: u32) -> Result<(), RuntimeError> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    routes.change(vec![Ask {
        doing: "remove a link",
        message: RouteNetlinkMessage::DelLink(link),
        flags: 0,
        fine: Some(NO_DEVICE),
    }])
}

/// Sets the node's end of a pair down before its address is given to another pod: a bridge forgets what it
/// learned of it, routes over it are gone. The pair itself goes with its namespace; what somebody holds
/// beyond that is removed after a while.
pub fn leave_to_namespace(name: String) -> Result<(), RuntimeError> {
    let mut routes = Routes::open()?;
    let Some(known) = routes.link(&name)? else { return Ok(()) };
    let mut link = LinkMessage::default();
    link.header.index = known.index;
    link.header.change_mask = LinkFlags::Up;
    routes.change(vec![Ask {
        doing: "set down a link",
        message: RouteNetlinkMessage::SetLink(link),
        flags: 0,
        fine: Some(NO_DEVICE),
    }])?;
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move {
            tokio::time::sleep(limits::LINK_GONE).await;
            drop(tokio::task::spawn_blocking(move || held(&name, known.index)).await);
        });
    }
    Ok(())
}

/// Removes a pair whose namespace somebody else still holds.
fn held(name: &str, index: u32) {
    let removed = Routes::open().and_then(|mut routes| match routes.link(name)? {
        Some(known) if known.index == index => {
            tracing::info!(name, "a pod's namespace is still held; its link is removed");
            remove(&mut routes, index)
        }
        _ => Ok(()),
    });
    if let Err(error) = removed {
        tracing::warn!(name, error = chain(&error), "a link of a pod stays");
    }
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn names_are_those_of_the_plugins_and_follow_the_id() {
        let id = format!("0123abcd{}", "f".repeat(56));
        let all: Vec<_> = names(&id).collect();
        let [first, second, ..] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((first.name.as_str(), second.name.as_str()), ("veth0123abcd", "vethffffffff"));
        assert_eq!((first.mac.to_string().as_str(), all.len()), ("0a:5a:01:23:ab:cd", 8));
    }
}
