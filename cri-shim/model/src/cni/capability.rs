//! Capability arguments: what a pod's request says that plugins may be told (CONVENTIONS of
//! containernetworking/cni). Which plugin gets which is its own declaration (`conf.rs`). Pure.

use super::chain::Mac;
use super::conf::ConfList;
use crate::kind::Refused;
use crate::sandbox::config::{PortMapping, Protocol, SandboxConfig};
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// Annotations that limit a pod's traffic, with the argument of the `bandwidth` plugin each becomes.
const RATES: [(&str, &str); 2] =
    [("kubernetes.io/ingress-bandwidth", "ingress"), ("kubernetes.io/egress-bandwidth", "egress")];
/// Slowest and fastest rate that means anything, in bits per second (as the kubelet had it: 1k to 1P).
const RATE_BITS: std::ops::RangeInclusive<u128> = 1_000..=1_000_000_000_000_000;
/// Burst with every rate, in bits: no limit beside the rate.
const BURST_BITS: i32 = i32::MAX;
/// Our own annotation: the hardware address of the pod's interface.
const MAC: &str = "wherry.dev/network-mac";
/// Our own annotation: networks, with commas between them, that the pod gets an address of each from.
const IP_RANGES: &str = "wherry.dev/network-ip-ranges";
/// All annotations of the pod, as containerd and CRI-O name it.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// The arguments of a pod that some plugin of this list takes. Refuses an annotation that is meant for
/// the network and is no such value, whether or not a plugin takes it.
pub fn arguments(list: &ConfList, pod: &SandboxConfig) -> Result<Map<String, Value>, Refused> {
    let mut given = Map::new();
    let mut give = |name: &str, value: Option<Value>| {
        if let Some(value) = value.filter(|_| list.declares(name)) {
            given.insert(name.to_owned(), value);
        }
    };
    give("portMappings", ports(&pod.ports));
    give("bandwidth", bandwidth(pod)?);
    give("mac", mac(pod)?.map(|mac| json!(mac.to_string())));
    give("ipRanges", ip_ranges(pod)?);
    give("dns", pod.dns.as_ref().map(|dns| json!(dns)));
    let group = Some(&pod.cgroup_parent).filter(|group| !group.is_empty());
    give("cgroupPath", group.map(|group| json!(group)));
    let annotations = Some(&pod.annotations).filter(|all| !all.is_empty());
    give(ANNOTATIONS, annotations.map(|all| json!(all)));
    Ok(given)
}

/// Refuses what [`arguments`] would refuse, before anything of the pod exists.
pub fn check(pod: &SandboxConfig) -> Result<(), Refused> {
    bandwidth(pod)?;
    mac(pod)?;
    ip_ranges(pod).map(|_ranges| ())
}

/// A port that both publish on an address of both; ports of 0 are not published.
pub fn clash<'a>(wanted: &'a [PortMapping], taken: &[PortMapping]) -> Option<&'a PortMapping> {
    let everywhere = |port: &PortMapping| {
        port.host_ip.is_empty() || port.host_ip.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified())
    };
    wanted.iter().filter(|port| port.host_port > 0).find(|port| {
        taken.iter().any(|other| {
            other.host_port == port.host_port
                && other.protocol == port.protocol
                && (everywhere(other) || everywhere(port) || other.host_ip == port.host_ip)
        })
    })
}

fn ports(ports: &[PortMapping]) -> Option<Value> {
    let published: Vec<Value> = ports
        .iter()
        .filter(|port| port.host_port > 0)
        .map(|port| {
            json!({
                "hostPort": port.host_port,
                "containerPort": port.container_port,
                "protocol": protocol(port.protocol),
                "hostIP": port.host_ip,
            })
        })
        .collect();
    (!published.is_empty()).then_some(Value::Array(published))
}

/// A transport as plugins and nftables spell it.
pub fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn bandwidth(pod: &SandboxConfig) -> Result<Option<Value>, Refused> {
    let mut rates = Map::new();
    for (key, name) in RATES {
        let Some(text) = pod.annotations.get(key) else { continue };
        let rate = quantity(text).filter(|rate| RATE_BITS.contains(rate));
        let rate = rate.and_then(|rate| u64::try_from(rate).ok()).ok_or_else(|| {
            refuse(key, text, "a quantity of bits per second from 1k to 1P, such as 10M")
        })?;
        rates.insert(format!("{name}Rate"), json!(rate));
        rates.insert(format!("{name}Burst"), json!(BURST_BITS));
    }
    Ok((!rates.is_empty()).then_some(Value::Object(rates)))
}

fn mac(pod: &SandboxConfig) -> Result<Option<Mac>, Refused> {
    let Some(text) = pod.annotations.get(MAC) else { return Ok(None) };
    let mac = Mac::parse(text)
        .ok_or_else(|| refuse(MAC, text, "a unicast hardware address such as 02:42:ac:11:00:02"));
    mac.map(Some)
}

fn ip_ranges(pod: &SandboxConfig) -> Result<Option<Value>, Refused> {
    let Some(text) = pod.annotations.get(IP_RANGES) else { return Ok(None) };
    let networks = text.split(',').map(|part| part.trim().parse::<IpNet>());
    let networks: Result<Vec<IpNet>, _> = networks.collect();
    match networks {
        Ok(networks) if networks.iter().all(|net| net.network() == net.addr()) => {
            let sets: Vec<Value> = networks.iter().map(|net| json!([{"subnet": net}])).collect();
            Ok(Some(Value::Array(sets)))
        }
        _ => Err(refuse(IP_RANGES, text, "networks such as 10.1.0.0/24,fd00::/64")),
    }
}

fn refuse(annotation: &str, found: &str, allowed: &str) -> Refused {
    Refused::new(format!("config.annotations[\"{annotation}\"]"), found, allowed)
}

/// A resource quantity of Kubernetes (`10M`, `1.5Gi`, `2e6`, `500m`) in whole units, rounded up; `None`
/// for anything else, a negative one, and what does not fit.
fn quantity(text: &str) -> Option<u128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    let mut value: u128 = digits.parse().ok()?;
    let (binary, mut power) = scale(suffix)?;
    power = power.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    value = value.checked_shl(binary).filter(|shifted| shifted >> binary == value)?;
    let factor = 10u128.checked_pow(power.unsigned_abs())?;
    if power < 0 { Some(value.div_ceil(factor)) } else { value.checked_mul(factor) }
}

/// A suffix as powers of two and of ten.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    let decimal = |power| Some((0, power));
    let binary = |power| Some((power, 0));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        exponent => {
            let power = exponent.strip_prefix(['e', 'E'])?;
            power.parse().ok().filter(|power| (-30..=30).contains(power)).map(|power| (0, power))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{arguments, clash, quantity};
    use crate::cni::conf::ConfList;
    use crate::sandbox::config::{PortMapping, SandboxConfig};
    use serde_json::json;

    const ALL: &str = r#"{"name":"n","type":"t","capabilities":{"portMappings":true,"bandwidth":true,"mac":true,"ipRanges":true,"dns":false}}"#;

    fn pod(annotations: &[(&str, &str)]) -> SandboxConfig {
        let annotations =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        SandboxConfig { annotations: annotations.collect(), ..SandboxConfig::default() }
    }

    fn port(host_port: i32, host_ip: &str) -> PortMapping {
        let host_ip = host_ip.to_owned();
        PortMapping { host_port, container_port: 80, host_ip, ..PortMapping::default() }
    }

    #[test]
    fn a_pod_gives_what_the_list_declares() {
        let mut pod = pod(&[
            ("kubernetes.io/ingress-bandwidth", "10M"),
            ("wherry.dev/network-mac", "02:42:AC:11:00:02"),
            ("wherry.dev/network-ip-ranges", "10.1.0.0/24, fd00::/64"),
        ]);
        pod.ports = vec![port(3000, ""), port(0, "")];
        pod.dns = Some(crate::sandbox::config::Dns::default());
        let list = ConfList::parse(ALL).unwrap();
        assert_eq!(
            serde_json::Value::Object(arguments(&list, &pod).unwrap()),
            json!({
                "portMappings": [{"hostPort":3000,"containerPort":80,"protocol":"tcp","hostIP":""}],
                "bandwidth": {"ingressRate":10_000_000,"ingressBurst":2_147_483_647},
                "mac": "02:42:ac:11:00:02",
                "ipRanges": [[{"subnet":"10.1.0.0/24"}],[{"subnet":"fd00::/64"}]],
            })
        );
        let none = ConfList::parse(r#"{"name":"n","type":"t"}"#).unwrap();
        assert!(arguments(&none, &pod).unwrap().is_empty());
    }

    #[test]
    fn a_wrong_annotation_is_refused_by_its_name() {
        let list = ConfList::parse(ALL).unwrap();
        for (key, bad) in [
            ("kubernetes.io/ingress-bandwidth", "fast"),
            ("kubernetes.io/egress-bandwidth", "999"),
            ("kubernetes.io/egress-bandwidth", "2P"),
            ("kubernetes.io/egress-bandwidth", "-10M"),
            ("wherry.dev/network-mac", "02:42:ac:11:00"),
            ("wherry.dev/network-mac", "01:00:5e:00:00:01"),
            ("wherry.dev/network-ip-ranges", "10.1.0.1/24"),
            ("wherry.dev/network-ip-ranges", ""),
        ] {
            let refused = arguments(&list, &pod(&[(key, bad)])).unwrap_err();
            assert_eq!(refused.field, format!("config.annotations[\"{key}\"]"), "{bad}");
        }
    }

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for (text, value) in [
            ("10M", Some(10_000_000)),
            ("1Ki", Some(1_024)),
            ("5", Some(5)),
            ("1.5k", Some(1_500)),
            ("2e6", Some(2_000_000)),
            ("1500m", Some(2)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("x", None),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("1e99", None),
            ("10 M", None),
        ] {
            assert_eq!(quantity(text), value, "{text}");
        }
    }

    #[test]
    fn a_port_is_taken_once_per_address() {
        assert!(clash(&[port(80, "")], &[port(80, "10.0.0.1")]).is_some());
        assert!(clash(&[port(80, "::")], &[port(80, "10.0.0.1")]).is_some());
        assert!(clash(&[port(80, "10.0.0.1")], &[port(80, "10.0.0.1")]).is_some());
        assert!(clash(&[port(80, "10.0.0.2")], &[port(80, "10.0.0.1")]).is_none());
        assert!(clash(&[port(81, "")], &[port(80, "")]).is_none());
        assert!(clash(&[port(0, "")], &[port(0, "")]).is_none());
    }
}
