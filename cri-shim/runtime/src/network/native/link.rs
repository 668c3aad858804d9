//! ADD, CHECK and DEL of a pod's interface in process: what the `bridge` and `ptp` plugins do with
//! host-local addresses, and the result that they would have printed. Which keys are understood is decided
//! by `shim-model`; what is not is never brought here.

use super::bridge::{self, Wanted};
use super::host_local::Leases;
use super::veth::{self, NodeEnd, Over, POD_END, Pair, add_address, add_route, set_up};
use super::{Hands, masquerade};
use crate::error::RuntimeError;
use crate::network::netns::Inside;
use crate::network::routes::{Ask, Known, Routes};
use ipnet::IpNet;
use netlink_packet_route::route::RouteScope;
use serde_json::Value;
use shim_model::cni::chain::{Link, LinkKind, Mac, everywhere};
use shim_model::cni::lease::Lease;
use shim_model::cni::result::{self, Interface};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A pod's interface in a network.
#[derive(Debug)]
pub struct Job<'a> {
    /// What it is to be.
    pub link: &'a Link,
    /// Name of the network.
    pub network: &'a str,
    /// Version of the specification that its result is in.
    pub version: &'a str,
    /// The pod.
    pub id: &'a str,
    /// Its namespace.
    pub netns: &'a Path,
    /// Where host-local keeps its leases (`/var/lib/cni/networks`).
    pub data_dir: &'a Path,
}

impl Job<'_> {
    /// Folder of the leases of the network.
    fn leases(&self) -> PathBuf {
        let own = self.link.ipam.data_dir.as_deref();
        own.map_or(self.data_dir, Path::new).join(self.network)
    }

    /// ADD: makes the interface; its result.
    pub fn add(&self, hands: &Hands, inside: &mut Inside) -> Result<Value, RuntimeError> {
        let leases = Leases::lock(&self.leases())?.take(&self.link.ipam.sets, self.id)?;
        let mac = self.link.mac.or_else(|| {
            let first = leases.iter().min_by_key(|lease| lease.address.addr().is_ipv6())?;
            Some(Mac::of(first.address.addr()))
        });
        let mac = mac.ok_or(RuntimeError::Lost("the addresses of a pod"))?;
        let mut interfaces = Vec::new();
        let node = match &self.link.kind {
            LinkKind::Bridge(wanted) => {
                let gateways = gateways(&leases);
                let known = bridge::ensure(
                    hands,
                    &Wanted {
                        name: &wanted.name,
                        gateways: if wanted.gateway { &gateways } else { &[] },
                        mtu: self.link.mtu,
                        force_address: wanted.force_address,
                        loopback_routed: false,
                    },
                )?;
                interfaces.push(on_the_node(wanted.name.clone(), mac_of(&known)));
                self.pair(mac, Some((known.index, wanted.hairpin))).make(self.id, inside)?
            }
            LinkKind::Ptp => {
                let node = self.pair(mac, None).make(self.id, inside)?;
                route_to_pod(&node, &leases)?;
                node
            }
        };
        interfaces.push(on_the_node(node.name, node.mac));
        let sandbox = Some(self.netns.display().to_string());
        interfaces.push(Interface { name: POD_END.to_owned(), mac, sandbox });
        self.inside(inside, &leases)?;
        if self.link.masquerade {
            for lease in &leases {
                masquerade::ensure(hands, lease.address.trunc())?;
            }
        }
        Ok(result::of_link(self.version, self.link, &interfaces, &leases))
    }

    fn pair(&self, mac: Mac, bridge: Option<(u32, bool)>) -> Pair {
        Pair {
            mac,
            mtu: self.link.mtu,
            bridge: bridge.map(|(index, _)| index),
            hairpin: bridge.is_some_and(|(_, hairpin)| hairpin),
        }
    }

    /// The pod's side: addresses, up, routes.
    fn inside(&self, inside: &mut Inside, leases: &[Lease]) -> Result<(), RuntimeError> {
        let routes = &mut inside.routes;
        let index = routes.link(POD_END)?.ok_or(RuntimeError::Lost("a pod's interface"))?.index;
        let is_ptp = self.link.kind == LinkKind::Ptp;
        let address = |lease: &Lease| add_address(index, lease.address, !is_ptp);
        let mut asks: Vec<Ask> = leases.iter().map(address).collect();
        asks.push(set_up(index));
        for lease in leases.iter().filter(|_| is_ptp) {
            // Everything goes over the node: its address is the only neighbour.
            let source = Some(lease.address.addr());
            let gateway = IpNet::from(lease.gateway);
            asks.push(add_route(index, gateway, Over::Link(RouteScope::Link), source));
            let network = lease.address.trunc();
            asks.push(add_route(index, network, Over::Gateway(lease.gateway), source));
        }
        for route in self.link.routes(leases) {
            let family = everywhere(route.dst.addr());
            let gateways = leases.iter().map(|lease| lease.gateway);
            let gateway =
                route.gw.or_else(|| gateways.into_iter().find(|ip| everywhere(*ip) == family));
            let over = gateway.map_or(Over::Link(RouteScope::Link), Over::Gateway);
            asks.push(add_route(index, route.dst, over, None));
        }
        routes.change(asks)
    }

    /// CHECK: the interface is there with its addresses, and the leases are the pod's.
    pub fn check(&self, kept: &Value) -> Result<(), RuntimeError> {
        let fail = |why: String| RuntimeError::Network {
            doing: format!("check the network {} of a pod", self.network),
            why,
        };
        let mut inside = Inside::enter(self.netns)?;
        let link = inside.routes.link(POD_END)?;
        let index = link.ok_or_else(|| fail(format!("it has no {POD_END}")))?.index;
        let has = veth::addresses(&mut inside.routes, index)?;
        let leases = Leases::existing(&self.leases())?;
        for address in result::addresses(kept) {
            if !has.contains(&address) {
                return Err(fail(format!("{POD_END} has lost the address {address}")));
            }
            if !leases.as_ref().is_some_and(|leases| leases.is_of(address, self.id)) {
                return Err(fail(format!("the lease of {address} is not the pod's")));
            }
        }
        Ok(())
    }

    /// DEL of what [`Self::add`] made; a missing part is done. The pair goes with the namespace, which the
    /// caller gives up next; one that a plugin made is removed at once.
    pub fn del(&self, kept: Option<&Value>, is_ours: bool) -> Result<(), RuntimeError> {
        let bridge = match &self.link.kind {
            LinkKind::Bridge(bridge) => bridge.name.as_str(),
            LinkKind::Ptp => "",
        };
        let ends = kept.map(result::on_the_node).unwrap_or_default();
        if is_ours {
            for name in ends.into_iter().filter(|name| name != bridge) {
                veth::leave_to_namespace(name)?;
            }
        } else if self.netns.exists() {
            let routes = &mut Inside::enter(self.netns)?.routes;
            if let Some(known) = routes.link(POD_END)? {
                veth::remove(routes, known.index)?;
            }
        }
        let likely = kept.map(result::addresses).unwrap_or_default();
        match Leases::existing(&self.leases())? {
            Some(leases) => leases.release(self.id, &likely),
            None => Ok(()),
        }
    }

    /// GC: frees leases of pods that are not among these; how many.
    pub fn collect(&self, stays: impl Fn(&str) -> bool) -> Result<usize, RuntimeError> {
        let Some(leases) = Leases::existing(&self.leases())? else { return Ok(0) };
        let stale: Vec<(IpAddr, String)> =
            leases.all().filter(|(_, owner)| !stays(owner)).collect();
        for (address, owner) in &stale {
            leases.release(owner, &[*address])?;
        }
        Ok(stale.len())
    }
}

/// The gateways of addresses, each with the bits of its network.
fn gateways(leases: &[Lease]) -> Vec<IpNet> {
    let gateway = |lease: &Lease| IpNet::new(lease.gateway, lease.address.prefix_len()).ok();
    leases.iter().filter_map(gateway).collect()
}

fn on_the_node(name: String, mac: Mac) -> Interface {
    Interface { name, mac, sandbox: None }
}

/// A hardware address as the kernel tells it; zeros for a device that has none.
fn mac_of(known: &Known) -> Mac {
    Mac(known.mac.as_slice().try_into().unwrap_or_default())
}

/// The node's side of a link by itself: it answers for the gateway, and knows the way to the pod.
fn route_to_pod(node: &NodeEnd, leases: &[Lease]) -> Result<(), RuntimeError> {
    let mut routes = Routes::open()?;
    let known = routes.link(&node.name)?.ok_or(RuntimeError::Lost("the node's end of a pair"))?;
    // A pod that plays router must not change the node's routes (CVE-2020-10749).
    let _no_ipv6 = std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/accept_ra", node.name), "0");
    let mut asks = Vec::new();
    for lease in leases {
        asks.push(add_address(known.index, IpNet::from(lease.gateway), true));
        let pod = IpNet::from(lease.address.addr());
        asks.push(veth::replace_route(known.index, pod));
    }
    routes.change(asks)?;
    leases.iter().try_for_each(|lease| bridge::forward(&lease.address))
}
