//! Which chains of plugins are done in process: a bridge with host-local addresses, where every key is
//! one that is understood exactly. Anything else, and a pod that publishes ports or has a bandwidth, is
//! left to the plugins. Pure.

use super::conf::ConfList;
use serde_json::{Map, Value};

/// A chain that can be done in process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeChain {
    /// Name of the bridge.
    pub bridge: String,
    /// Network of the pods, as `10.0.0.0/16`.
    pub subnet: String,
    /// Source NAT for what leaves the network.
    pub masquerade: bool,
    /// Folder of the leases, where it is not host-local's own; the network's name comes below it.
    pub data_dir: Option<String>,
    /// Pods get a default route.
    pub default_route: bool,
}

/// What a pod wants that not every chain has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// It publishes ports.
    pub ports: bool,
    /// Its traffic is limited.
    pub bandwidth: bool,
}

/// The chain to do in process for a pod; `None` = run the plugins.
pub fn native(list: &ConfList, wants: Wants) -> Option<BridgeChain> {
    let (first, rest) = list.plugins.split_first()?;
    let idle = |plugin: &Map<String, Value>| match plugin.get("type").and_then(Value::as_str) {
        Some("portmap") => !wants.ports,
        Some("bandwidth") => !wants.bandwidth,
        Some("loopback") => true,
        _ => false,
    };
    (text(first, "type")? == "bridge" && rest.iter().all(idle)).then(|| bridge(first))?
}

fn bridge(plugin: &Map<String, Value>) -> Option<BridgeChain> {
    known(
        plugin,
        &[
            "type",
            "bridge",
            "isGateway",
            "isDefaultGateway",
            "ipMasq",
            "hairpinMode",
            "ipam",
            "name",
            "cniVersion",
        ],
    )?;
    let flag = |key: &str| plugin.get(key).and_then(Value::as_bool).unwrap_or_default();
    if !flag("isGateway") && !flag("isDefaultGateway") {
        return None;
    }
    let ipam = plugin.get("ipam")?.as_object()?;
    known(ipam, &["type", "ranges", "subnet", "routes", "dataDir"])?;
    (text(ipam, "type")? == "host-local").then_some(())?;
    let subnet = match (ipam.get("ranges"), ipam.get("subnet")) {
        (None, Some(subnet)) => subnet.as_str()?.to_owned(),
        (Some(ranges), None) => only_range(ranges)?,
        _ => return None,
    };
    let (network, prefix) = subnet.split_once('/')?;
    network.parse::<std::net::Ipv4Addr>().ok()?;
    prefix.parse::<u8>().ok().filter(|bits| (8..=29).contains(bits))?;
    let default_route = routes(ipam.get("routes"))?;
    Some(BridgeChain {
        bridge: text(plugin, "bridge").unwrap_or("cni0").to_owned(),
        subnet,
        masquerade: flag("ipMasq"),
        data_dir: text(ipam, "dataDir").map(str::to_owned),
        default_route: default_route || flag("isDefaultGateway"),
    })
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}

/// Every key is one of these.
fn known(object: &Map<String, Value>, keys: &[&str]) -> Option<()> {
    object.keys().all(|key| keys.contains(&key.as_str())).then_some(())
}

/// The subnet of a single range set with a single range of nothing but a subnet.
fn only_range(ranges: &Value) -> Option<String> {
    let [set] = ranges.as_array()?.as_slice() else { return None };
    let [range] = set.as_array()?.as_slice() else { return None };
    let range = range.as_object()?;
    known(range, &["subnet"])?;
    text(range, "subnet").map(str::to_owned)
}

/// Whether there is a default route; `None` if there is any other.
fn routes(routes: Option<&Value>) -> Option<bool> {
    let Some(routes) = routes else { return Some(false) };
    let mut default = false;
    for route in routes.as_array()? {
        let route = route.as_object()?;
        known(route, &["dst"])?;
        (text(route, "dst")? == "0.0.0.0/0").then_some(())?;
        default = true;
    }
    Some(default)
}

#[cfg(test)]
mod tests {
    use super::{Wants, native};
    use crate::cni::conf::ConfList;

    const IDLE: Wants = Wants { ports: false, bandwidth: false };

    fn chain(bridge: &str, ipam: &str, rest: &str) -> ConfList {
        let text = format!(
            r#"{{"name":"n","cniVersion":"1.0.0","plugins":[{{"type":"bridge"{bridge},"ipam":{{"type":"host-local"{ipam}}}}}{rest}]}}"#
        );
        ConfList::parse(&text).unwrap()
    }

    #[test]
    fn the_usual_chain_is_done_in_process() {
        let list = chain(
            r#","bridge":"cni0","isGateway":true,"ipMasq":true"#,
            r#","ranges":[[{"subnet":"10.1.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]"#,
            r#",{"type":"portmap","capabilities":{"portMappings":true}}"#,
        );
        let found = native(&list, IDLE).unwrap();
        assert_eq!(
            (found.bridge.as_str(), found.subnet.as_str(), found.masquerade, found.default_route),
            ("cni0", "10.1.0.0/16", true, true)
        );
        assert_eq!(native(&list, Wants { ports: true, bandwidth: false }), None);
    }

    #[test]
    fn a_key_that_is_not_understood_leaves_it_to_the_plugins() {
        let subnet = r#","subnet":"10.1.0.0/16""#;
        let gateway = r#","isGateway":true"#;
        assert!(native(&chain(gateway, subnet, ""), IDLE).is_some());
        for (bridge, ipam, rest) in [
            ("", subnet, ""),
            (r#","isGateway":true,"vlan":5"#, subnet, ""),
            (r#","isGateway":true,"mtu":1400"#, subnet, ""),
            (gateway, r#","subnet":"fd00::/64""#, ""),
            (gateway, r#","subnet":"10.1.0.0/16","rangeStart":"10.1.0.9""#, ""),
            (gateway, r#","ranges":[[{"subnet":"10.1.0.0/16","gateway":"10.1.0.9"}]]"#, ""),
            (gateway, r#","ranges":[[{"subnet":"10.1.0.0/16"}],[{"subnet":"10.2.0.0/16"}]]"#, ""),
            (gateway, r#","subnet":"10.1.0.0/16","routes":[{"dst":"10.9.0.0/16"}]"#, ""),
            (gateway, subnet, r#",{"type":"tuning"}"#),
        ] {
            assert_eq!(native(&chain(bridge, ipam, rest), IDLE), None, "{bridge} {ipam} {rest}");
        }
    }
}
