//! Who does which part of a chain: a first plugin `bridge` or `ptp` with host-local addresses is done in
//! process where every key is one that is understood exactly; plugins that have nothing to do for this
//! pod (no published port, no bandwidth) are left out; all others are run. A pure function of the list and
//! of what the pod asks, so that DEL finds the answer of ADD.

use super::conf::{ConfList, declared};
use super::lease::{Lease, RangeSet, RangeText};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::fmt;
use std::net::IpAddr;

/// What is done of one plugin of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// In process.
    Link(Box<Link>),
    /// Nothing: the plugin would pass the result on as it is.
    Idle,
    /// The plugin is run.
    Run,
}

/// The pod's interface: a veth pair whose end on the node is a port of a bridge, or a link by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where its end on the node goes.
    pub kind: LinkKind,
    /// `mtu`; the kernel's default if unset.
    pub mtu: Option<u32>,
    /// `ipMasq`: source NAT for what leaves the pod's network.
    pub masquerade: bool,
    /// Hardware address of the pod's end that was asked for.
    pub mac: Option<Mac>,
    /// Where its addresses come from.
    pub ipam: Ipam,
    /// `dns` of the plugin, passed on.
    pub dns: Option<Value>,
}

/// The two plugins that make a veth pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// `bridge`.
    Bridge(Bridge),
    /// `ptp`.
    Ptp,
}

/// Keys of the `bridge` plugin.
#[expect(clippy::struct_excessive_bools, reason = "switches of the plugin, each by itself")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Its name.
    pub name: String,
    /// `isGateway`: it has the gateway's address, and the node forwards.
    pub gateway: bool,
    /// `isDefaultGateway`: pods get a default route to it.
    pub default_gateway: bool,
    /// `hairpinMode`: a pod's frames may come back to it.
    pub hairpin: bool,
    /// `forceAddress`: another address of the bridge is replaced.
    pub force_address: bool,
}

/// Keys of the `host-local` plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipam {
    /// A pod gets one address of each.
    pub sets: Vec<RangeSet>,
    /// Routes of the pod.
    pub routes: Vec<Route>,
    /// Folder of the leases, where it is not host-local's own; the network's name comes below it.
    pub data_dir: Option<String>,
}

/// A route of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Where to.
    pub dst: IpNet,
    /// Over whom; unset = the gateway of the family's first address.
    #[serde(default)]
    pub gw: Option<IpAddr>,
}

/// A unicast hardware address of an Ethernet device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Reads `02:42:ac:11:00:02`; refuses multicast and the empty address.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0u8; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2)?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        let [first, ..] = bytes;
        (parts.next().is_none() && first & 1 == 0 && bytes != [0; 6]).then_some(Self(bytes))
    }

    /// The address of a pod's end, made from its IP address: whoever gets the same IP address later has
    /// the same hardware address, so that no neighbour keeps a wrong one.
    pub fn of(ip: IpAddr) -> Self {
        let [a, b, c, d] = match ip {
            IpAddr::V4(ip) => ip.octets(),
            IpAddr::V6(ip) => {
                let [.., a, b, c, d] = ip.octets();
                [a, b, c, d]
            }
        };
        // Locally administered; the prefix that Kubernetes' own network plugins use for it.
        Self([0x0a, 0x58, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.map(|byte| format!("{byte:02x}")).join(":");
        out.write_str(&text)
    }
}

/// The default route's destination in a family.
pub fn everywhere(family: IpAddr) -> IpNet {
    match family {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

impl Link {
    /// The pod's routes: those of the addresses' plugin, then default routes if the bridge is to be that.
    pub fn routes(&self, leases: &[Lease]) -> Vec<Route> {
        let mut routes = self.ipam.routes.clone();
        if let LinkKind::Bridge(Bridge { default_gateway: true, .. }) = self.kind {
            for lease in leases {
                let dst = everywhere(lease.gateway);
                if !routes.iter().any(|route| route.gw.is_some() && route.dst == dst) {
                    routes.push(Route { dst, gw: Some(lease.gateway) });
                }
            }
        }
        routes
    }
}

/// What to do for each plugin of a list for a pod with these capability arguments.
pub fn steps(list: &ConfList, given: &Map<String, Value>) -> Vec<Step> {
    let step = |(index, plugin): (usize, &Map<String, Value>)| {
        let given = declared(plugin, given);
        let is_unset =
            |keys: &[&str]| keys.iter().all(|key| plugin.get(*key).is_none_or(is_nothing));
        match (text(plugin, "type").unwrap_or_default(), index) {
            _ if !is_unset(&["args", "runtimeConfig"]) => Step::Run,
            ("bridge", 0) => link(plugin, &given, bridge).unwrap_or(Step::Run),
            ("ptp", 0) => link(plugin, &given, ptp).unwrap_or(Step::Run),
            ("portmap", 1..) if !given.contains_key("portMappings") => Step::Idle,
            ("bandwidth", 1..)
                if !given.contains_key("bandwidth")
                    && is_unset(&["ingressRate", "ingressBurst", "egressRate", "egressBurst"]) =>
            {
                Step::Idle
            }
            // The loopback of every pod is up already.
            ("loopback", _) => Step::Idle,
            _ => Step::Run,
        }
    };
    list.plugins.iter().enumerate().map(step).collect()
}

type Kind = fn(&Map<String, Value>) -> Option<LinkKind>;

fn link(plugin: &Map<String, Value>, given: &Map<String, Value>, kind: Kind) -> Option<Step> {
    // The finer arguments for addresses are host-local's own business.
    known(given, &["mac", "ipRanges"])?;
    let mtu = match plugin.get("mtu") {
        None => None,
        Some(mtu) => Some(u32::try_from(mtu.as_u64()?).ok()?).filter(|mtu| *mtu > 0),
    };
    let mac = match given.get("mac") {
        None => None,
        Some(mac) => Some(Mac::parse(mac.as_str()?)?),
    };
    Some(Step::Link(Box::new(Link {
        kind: kind(plugin)?,
        mtu,
        masquerade: flag(plugin, "ipMasq")?,
        mac,
        ipam: ipam(plugin.get("ipam")?.as_object()?, given.get("ipRanges"))?,
        dns: plugin.get("dns").filter(|dns| dns.is_object()).cloned(),
    })))
}

/// Keys that both plugins have.
const COMMON: [&str; 9] =
    ["type", "name", "cniVersion", "capabilities", "ipam", "ipMasq", "ipMasqBackend", "mtu", "dns"];

fn bridge(plugin: &Map<String, Value>) -> Option<LinkKind> {
    const OWN: [&str; 6] = [
        "bridge",
        "isGateway",
        "isDefaultGateway",
        "hairpinMode",
        "forceAddress",
        "preserveDefaultVlan",
    ];
    known(plugin, &[&COMMON[..], &OWN[..]].concat())?;
    let name = text(plugin, "bridge").unwrap_or("cni0");
    let default_gateway = flag(plugin, "isDefaultGateway")?;
    is_device(name).then_some(LinkKind::Bridge(Bridge {
        name: name.to_owned(),
        gateway: flag(plugin, "isGateway")? || default_gateway,
        default_gateway,
        hairpin: flag(plugin, "hairpinMode")?,
        force_address: flag(plugin, "forceAddress")?,
    }))
}

fn ptp(plugin: &Map<String, Value>) -> Option<LinkKind> {
    known(plugin, &COMMON).map(|()| LinkKind::Ptp)
}

/// A name that the kernel takes for a device (`dev_valid_name`).
fn is_device(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() < 16
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

fn ipam(ipam: &Map<String, Value>, asked: Option<&Value>) -> Option<Ipam> {
    known(
        ipam,
        &[
            "type",
            "name",
            "ranges",
            "routes",
            "dataDir",
            "subnet",
            "rangeStart",
            "rangeEnd",
            "gateway",
        ],
    )?;
    (text(ipam, "type")? == "host-local").then_some(())?;
    let mut texts: Vec<Vec<RangeText>> = Vec::new();
    if let Some(asked) = asked {
        texts.extend(Vec::deserialize(asked).ok()?);
    }
    if ipam.contains_key("subnet") {
        let old: Map<String, Value> = ["subnet", "rangeStart", "rangeEnd", "gateway"]
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), ipam.get(*key)?.clone())))
            .collect();
        texts.push(vec![RangeText::deserialize(Value::Object(old)).ok()?]);
    }
    if let Some(ranges) = ipam.get("ranges") {
        texts.extend(Vec::deserialize(ranges).ok()?);
    }
    let sets: Vec<RangeSet> =
        texts.iter().map(|set| RangeSet::of(set).ok()).collect::<Option<_>>()?;
    let overlap = |(index, one): (usize, &RangeSet)| {
        sets.iter().skip(index.saturating_add(1)).any(|two| one.overlaps(two))
    };
    if sets.is_empty() || sets.iter().enumerate().any(overlap) {
        return None;
    }
    let routes = match ipam.get("routes") {
        None | Some(Value::Null) => Vec::new(),
        Some(routes) => Vec::deserialize(routes).ok()?,
    };
    let data_dir = match ipam.get("dataDir") {
        None => None,
        Some(path) => Some(path.as_str().filter(|path| path.starts_with('/'))?.to_owned()),
    };
    Some(Ipam { sets, routes, data_dir })
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}

/// A switch that may be missing; `None` if it is no boolean.
fn flag(object: &Map<String, Value>, key: &str) -> Option<bool> {
    object.get(key).map_or(Some(false), Value::as_bool)
}

/// Every key is one of these, or says what its absence says.
fn known(object: &Map<String, Value>, keys: &[&str]) -> Option<()> {
    object
        .iter()
        .all(|(key, value)| keys.contains(&key.as_str()) || is_nothing(value))
        .then_some(())
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Link, LinkKind, Mac, Step, steps};
    use crate::cni::conf::ConfList;
    use serde_json::{Map, Value, json};

    fn chain(first: &str, ipam: &str, rest: &str) -> ConfList {
        let text = format!(
            r#"{{"name":"n","cniVersion":"1.0.0","plugins":[{{{first},"ipam":{{"type":"host-local"{ipam}}}}}{rest}]}}"#
        );
        ConfList::parse(&text).unwrap()
    }

    fn given(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn first(list: &ConfList, given: &Map<String, Value>) -> Option<Link> {
        match steps(list, given).into_iter().next() {
            Some(Step::Link(link)) => Some(*link),
            _ => None,
        }
    }

    const BRIDGE: &str = r#""type":"bridge","isGateway":true"#;
    const SUBNET: &str = r#","subnet":"10.1.0.0/16""#;
    const REST: &str = r#",{"type":"portmap","capabilities":{"portMappings":true}},{"type":"bandwidth","capabilities":{"bandwidth":true}},{"type":"tuning"}"#;

    #[test]
    fn the_usual_chain_is_done_in_process_and_idle_plugins_are_left_out() {
        let list = chain(
            r#""type":"bridge","bridge":"br1","isDefaultGateway":true,"ipMasq":true,"promiscMode":false"#,
            r#","ranges":[[{"subnet":"10.1.0.0/16"}],[{"subnet":"fd00::/64"}]],"routes":[{"dst":"0.0.0.0/0"}]"#,
            REST,
        );
        let all = steps(&list, &Map::new());
        let Some(Step::Link(link)) = all.first() else { panic!("{all:?}") };
        let LinkKind::Bridge(bridge) = &link.kind else { panic!("{link:?}") };
        assert!(bridge.name == "br1" && bridge.gateway && link.masquerade && !bridge.hairpin);
        assert_eq!(all[1..], [Step::Idle, Step::Idle, Step::Run]);
        let leases: Vec<_> =
            link.ipam.sets.iter().filter_map(|set| set.candidates(None).next()).collect();
        let routes: Vec<_> =
            link.routes(&leases).iter().map(|r| (r.dst.to_string(), r.gw)).collect();
        assert_eq!(
            routes,
            [
                ("0.0.0.0/0".to_owned(), None),
                ("0.0.0.0/0".to_owned(), Some("10.1.0.1".parse().unwrap())),
                ("::/0".to_owned(), Some("fd00::1".parse().unwrap())),
            ]
        );
    }

    #[test]
    fn a_plugin_is_run_only_for_a_pod_that_needs_it() {
        let list = chain(BRIDGE, SUBNET, REST);
        let ports = given(&json!({"portMappings":[{"hostPort":1,"containerPort":1}]}));
        assert_eq!(steps(&list, &ports)[1..3], [Step::Run, Step::Idle]);
        let rates = given(&json!({"bandwidth":{"ingressRate":1000}}));
        assert_eq!(steps(&list, &rates)[1..3], [Step::Idle, Step::Run]);
        let fixed = chain(BRIDGE, SUBNET, r#",{"type":"bandwidth","egressRate":1000}"#);
        assert_eq!(steps(&fixed, &Map::new())[1], Step::Run);
    }

    #[test]
    fn ptp_and_declared_arguments_are_understood() {
        let list = chain(
            r#""type":"ptp","mtu":1400,"capabilities":{"mac":true,"ipRanges":true}"#,
            SUBNET,
            "",
        );
        let asked = json!({"mac":"02:00:00:00:00:01","ipRanges":[[{"subnet":"10.2.0.0/24"}]]});
        let link = first(&list, &given(&asked)).unwrap();
        assert_eq!((link.kind, link.mtu), (LinkKind::Ptp, Some(1_400)));
        assert_eq!((link.mac, link.ipam.sets.len()), (Mac::parse("02:00:00:00:00:01"), 2));
        let overlapping = given(&json!({"ipRanges":[[{"subnet":"10.1.9.0/24"}]]}));
        assert_eq!(first(&list, &overlapping), None);
    }

    #[test]
    fn a_key_that_is_not_understood_leaves_it_to_the_plugins() {
        assert!(first(&chain(BRIDGE, SUBNET, ""), &Map::new()).is_some());
        for (plugin, ipam) in [
            (r#""type":"bridge","vlan":5"#, SUBNET),
            (r#""type":"bridge","promiscMode":true"#, SUBNET),
            (r#""type":"bridge","bridge":"a/b""#, SUBNET),
            (r#""type":"bridge","mtu":"big""#, SUBNET),
            (r#""type":"bridge","runtimeConfig":{"mac":"x"}"#, SUBNET),
            (r#""type":"macvlan""#, SUBNET),
            (BRIDGE, ""),
            (BRIDGE, r#","subnet":"10.1.0.0/31""#),
            (BRIDGE, r#","subnet":"10.1.0.0/16","resolvConf":"/etc/resolv.conf""#),
            (BRIDGE, r#","ranges":[[{"subnet":"10.1.0.0/16","vlan":1}]]"#),
            (BRIDGE, r#","subnet":"10.1.0.0/16","routes":[{"dst":"10.9.0.0/16","mtu":9}]"#),
            (BRIDGE, r#","subnet":"10.1.0.0/16","dataDir":"relative""#),
        ] {
            assert_eq!(first(&chain(plugin, ipam, ""), &Map::new()), None, "{plugin} {ipam}");
        }
    }

    #[test]
    fn hardware_addresses_are_unicast() {
        assert_eq!(Mac::parse("0A:58:0a:01:00:02").unwrap().to_string(), "0a:58:0a:01:00:02");
        assert_eq!(Mac::of("10.1.0.2".parse().unwrap()).to_string(), "0a:58:0a:01:00:02");
        for bad in ["", "01:00:00:00:00:00", "00:00:00:00:00:00", "0a:58:0a:01:00", "0a580a010002"]
        {
            assert_eq!(Mac::parse(bad), None, "{bad}");
        }
    }
}
