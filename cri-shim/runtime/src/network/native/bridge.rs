//! A bridge and veth pairs on it, by netlink. The pod's end is made directly in the pod's namespace, so
//! no name of it is ever seen on the host.

use crate::error::RuntimeError;
use crate::network::netns::{self, Routes};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::path::Path;

/// A bridge with its own address.
#[derive(Clone, Debug)]
pub struct Bridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address: the pods' gateway.
    pub gateway: Ipv4Addr,
    /// Bits of the network.
    pub prefix: u8,
}

impl Bridge<'_> {
    /// Makes the bridge if it is missing; its index.
    pub fn ensure(&self) -> Result<u32, RuntimeError> {
        let mut routes = Routes::open()?;
        if let Some(index) = index_of(&mut routes, self.name)? {
            return Ok(index);
        }
        let mut link = LinkMessage::default();
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes.push(LinkAttribute::IfName(self.name.to_owned()));
        link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        let made = routes.ask(
            "make the bridge",
            RouteNetlinkMessage::NewLink(link),
            NLM_F_CREATE | NLM_F_EXCL,
        );
        // Two pods at once: whoever came second finds it.
        let index = index_of(&mut routes, self.name)?;
        let index = index.ok_or_else(|| made.err().unwrap_or(RuntimeError::Lost("the bridge")))?;
        add_address(&mut routes, index, self.gateway, self.prefix)?;
        for (file, text) in [
            ("/proc/sys/net/ipv4/ip_forward".to_owned(), "1"),
            // Lets 127.0.0.1:PORT of the node be sent to a pod.
            (format!("/proc/sys/net/ipv4/conf/{}/route_localnet", self.name), "1"),
        ] {
            std::fs::write(&file, text).map_err(RuntimeError::file("write", file))?;
        }
        Ok(index)
    }

    /// Puts a pod on the bridge with this address; `host_end` is the veth's name on the node.
    #[expect(clippy::too_many_arguments, reason = "both ends of a pair, and what is set on them")]
    pub fn attach(
        &self,
        bridge: u32,
        host_end: &str,
        netns: &Path,
        address: Ipv4Addr,
        default_route: bool,
    ) -> Result<(), RuntimeError> {
        let target = File::open(netns).map_err(RuntimeError::file("open the namespace", netns))?;
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName("eth0".to_owned()));
        peer.attributes.push(LinkAttribute::NetNsFd(target.as_raw_fd()));
        let mut link = LinkMessage::default();
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes.push(LinkAttribute::IfName(host_end.to_owned()));
        link.attributes.push(LinkAttribute::Controller(bridge));
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        Routes::open()?.ask(
            "make the pod's veth pair",
            RouteNetlinkMessage::NewLink(link),
            NLM_F_CREATE | NLM_F_EXCL,
        )?;
        // A pod may reach its own published port: frames go back out of the port they came from.
        let hairpin = format!("/sys/class/net/{host_end}/brport/hairpin_mode");
        let _without_sysfs_of_this_namespace = std::fs::write(hairpin, "1");
        let gateway = default_route.then_some(self.gateway);
        let prefix = self.prefix;
        netns::inside(netns, move || inside(address, prefix, gateway))
    }
}

/// Takes a veth pair away by its end on the node; a missing one is done.
pub fn detach(host_end: &str) -> Result<(), RuntimeError> {
    let mut routes = Routes::open()?;
    let Some(index) = index_of(&mut routes, host_end)? else { return Ok(()) };
    let mut link = LinkMessage::default();
    link.header.index = index;
    match routes.ask("remove the pod's veth pair", RouteNetlinkMessage::DelLink(link), 0) {
        Err(_) if index_of(&mut routes, host_end)?.is_none() => Ok(()),
        done => done,
    }
}

/// The pod's side: address, link up, default route.
fn inside(address: Ipv4Addr, prefix: u8, gateway: Option<Ipv4Addr>) -> Result<(), RuntimeError> {
    let mut routes = Routes::open()?;
    let index =
        index_of(&mut routes, "eth0")?.ok_or(RuntimeError::Lost("the pod's end of a veth pair"))?;
    add_address(&mut routes, index, address, prefix)?;
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    routes.ask("set up the pod's link", RouteNetlinkMessage::SetLink(link), 0)?;
    let Some(gateway) = gateway else { return Ok(()) };
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.table = 254;
    route.header.protocol = RouteProtocol::Boot;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    route.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    route.attributes.push(RouteAttribute::Oif(index));
    routes.ask(
        "set the pod's default route",
        RouteNetlinkMessage::NewRoute(route),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

fn add_address(
    routes: &mut Routes,
    index: u32,
    address: Ipv4Addr,
    prefix: u8,
) -> Result<(), RuntimeError> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(IpAddr::V4(address)));
    message.attributes.push(AddressAttribute::Address(IpAddr::V4(address)));
    routes.ask(
        "add an address",
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

/// A link's index by name; `None` if there is none.
fn index_of(routes: &mut Routes, name: &str) -> Result<Option<u32>, RuntimeError> {
    let found = routes.dump("list links", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    Ok(found.into_iter().find_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) => link
            .attributes
            .iter()
            .any(|attribute| matches!(attribute, LinkAttribute::IfName(known) if known == name))
            .then_some(link.header.index),
        _ => None,
    }))
}
