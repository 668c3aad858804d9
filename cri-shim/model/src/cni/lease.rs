//! Which address a pod gets, as the host-local plugin decides it: range sets, one address of each,
//! going round behind the last one given. What is taken is the caller's to know.

use crate::kind::Refused;
use ipnet::IpNet;
use serde::Deserialize;
use std::net::IpAddr;

/// A range as it stands in a configuration; what is missing is derived.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RangeText {
    /// The network; without bits of a host.
    pub subnet: IpNet,
    /// First address given; default the first of the network.
    #[serde(default)]
    pub range_start: Option<IpAddr>,
    /// Last address given; default the last usable of the network.
    #[serde(default)]
    pub range_end: Option<IpAddr>,
    /// Never given; default the first of the network.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
}

/// A whole range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The network.
    pub subnet: IpNet,
    /// First address given.
    pub start: IpAddr,
    /// Last address given.
    pub end: IpAddr,
    /// Never given.
    pub gateway: IpAddr,
}

/// An address for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address with the bits of its network.
    pub address: IpNet,
    /// Its gateway.
    pub gateway: IpAddr,
}

/// Ranges of one family, used one after the other; a pod gets one address of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet(Vec<Range>);

impl RangeSet {
    /// Completes and checks the ranges of a set.
    pub fn of(texts: &[RangeText]) -> Result<Self, Refused> {
        let ranges: Vec<_> = texts.iter().map(Range::of).collect::<Result<_, _>>()?;
        let families = ranges.iter().filter(|range| range.start.is_ipv4()).count();
        if ranges.is_empty() || (families != 0 && families != ranges.len()) {
            let found = format!("{} ranges", ranges.len());
            return Err(Refused::new("ipam.ranges", found, "sets of ranges of one family"));
        }
        Ok(Self(ranges))
    }

    /// The range that an address can be given from.
    pub fn find(&self, address: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(address))
    }

    /// True if an address could be given from both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|one| {
            other.0.iter().any(|two| {
                one.contains(two.start)
                    || one.contains(two.end)
                    || two.contains(one.start)
                    || two.contains(one.end)
            })
        })
    }

    /// The lease of one wanted address; `None` if it is not in the set, or is the gateway.
    pub fn exactly(&self, address: IpAddr) -> Option<Lease> {
        let range = self.find(address).filter(|range| range.gateway != address)?;
        range.lease(address)
    }

    /// Every address of the set once, beginning behind `last` (if it is in the set), without gateways.
    pub fn candidates(&self, last: Option<IpAddr>) -> impl Iterator<Item = Lease> {
        let at = last.and_then(|last| {
            let index = self.0.iter().position(|range| range.contains(last))?;
            Some((index, last))
        });
        let (first, behind) = at.map_or((0, None), |(index, last)| (index, Some(last)));
        let head = self.0.get(first);
        let rest = self.0.iter().skip(first.saturating_add(1)).chain(self.0.iter().take(first));
        let ahead = head.into_iter().flat_map(move |range| range.after(behind));
        let wrapped = head.into_iter().flat_map(move |range| range.up_to(behind));
        ahead.chain(rest.flat_map(|range| range.after(None))).chain(wrapped)
    }
}

impl Range {
    fn of(text: &RangeText) -> Result<Self, Refused> {
        let subnet = text.subnet;
        let refuse = |what: &str, found: String, allowed: &str| {
            Err(Refused::new(format!("ipam.{what}"), found, allowed))
        };
        if subnet.addr() != subnet.network() {
            return refuse("subnet", subnet.to_string(), "the address of the network itself");
        }
        if subnet.prefix_len().saturating_add(2) > subnet.max_prefix_len() {
            return refuse("subnet", subnet.to_string(), "a network of four addresses or more");
        }
        let first = address(number(subnet.network()).saturating_add(1), subnet);
        let last = match subnet {
            IpNet::V4(_) => address(number(subnet.broadcast()).saturating_sub(1), subnet),
            IpNet::V6(_) => subnet.broadcast(),
        };
        let range = Self {
            subnet,
            start: text.range_start.unwrap_or(first),
            end: text.range_end.unwrap_or(last),
            gateway: text.gateway.unwrap_or(first),
        };
        for (what, ip) in [("rangeStart", range.start), ("rangeEnd", range.end)] {
            if !subnet.contains(&ip) {
                return refuse(what, ip.to_string(), &format!("an address of {subnet}"));
            }
        }
        if number(range.start) > number(range.end) {
            return refuse("rangeEnd", range.end.to_string(), "not before rangeStart");
        }
        Ok(range)
    }

    fn contains(&self, ip: IpAddr) -> bool {
        self.subnet.contains(&ip) && (number(self.start)..=number(self.end)).contains(&number(ip))
    }

    fn lease(&self, ip: IpAddr) -> Option<Lease> {
        let address = IpNet::new(ip, self.subnet.prefix_len()).ok()?;
        Some(Lease { address, gateway: self.gateway })
    }

    /// Leases behind an address, or all.
    fn after(&self, behind: Option<IpAddr>) -> impl Iterator<Item = Lease> {
        let from = behind.map_or(number(self.start), |ip| number(ip).saturating_add(1));
        self.leases(from, number(self.end))
    }

    /// Leases from the first to an address; none without one.
    fn up_to(&self, last: Option<IpAddr>) -> impl Iterator<Item = Lease> {
        let (from, to) = last.map_or((1, 0), |ip| (number(self.start), number(ip)));
        self.leases(from, to)
    }

    fn leases(&self, from: u128, to: u128) -> impl Iterator<Item = Lease> {
        (from..=to)
            .map(|bits| address(bits, self.subnet))
            .filter(|ip| *ip != self.gateway)
            .filter_map(|ip| self.lease(ip))
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The address with these bits, in the family of `like`.
fn address(bits: u128, like: IpNet) -> IpAddr {
    match like {
        IpNet::V4(_) => IpAddr::V4(u32::try_from(bits).unwrap_or(u32::MAX).into()),
        IpNet::V6(_) => IpAddr::V6(bits.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{RangeSet, RangeText};
    use serde_json::{Value, json};

    fn texts(value: Value) -> Vec<RangeText> {
        serde_json::from_value(value).unwrap()
    }

    fn set(value: Value) -> Result<RangeSet, crate::kind::Refused> {
        RangeSet::of(&texts(value))
    }

    fn candidates(set: &RangeSet, last: Option<&str>) -> Vec<String> {
        let last = last.map(|text| text.parse().unwrap());
        set.candidates(last).map(|lease| lease.address.to_string()).collect()
    }

    #[test]
    fn addresses_go_round_behind_the_last_one_and_skip_the_gateway() {
        let small = set(json!([{"subnet": "10.1.0.0/29"}])).unwrap();
        let all = ["10.1.0.2/29", "10.1.0.3/29", "10.1.0.4/29", "10.1.0.5/29", "10.1.0.6/29"];
        assert_eq!(candidates(&small, None), all);
        assert_eq!(
            candidates(&small, Some("10.1.0.4")),
            ["10.1.0.5/29", "10.1.0.6/29", "10.1.0.2/29", "10.1.0.3/29", "10.1.0.4/29"]
        );
        assert_eq!(candidates(&small, Some("10.9.0.4")), all);
    }

    #[test]
    fn a_set_goes_on_in_its_next_range() {
        let two = set(json!([
            {"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10", "rangeEnd": "10.1.0.11"},
            {"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.1", "rangeEnd": "10.2.0.2", "gateway": "10.2.0.1"}
        ]))
        .unwrap();
        assert_eq!(
            candidates(&two, Some("10.1.0.11")),
            ["10.2.0.2/24", "10.1.0.10/24", "10.1.0.11/24"]
        );
    }

    #[test]
    fn a_large_ipv6_network_is_not_counted_out() {
        let large = set(json!([{"subnet": "fd00::/64"}])).unwrap();
        let lease = large.candidates(None).next().unwrap();
        assert_eq!(
            (lease.address.to_string(), lease.gateway.to_string()),
            ("fd00::2/64".to_owned(), "fd00::1".to_owned())
        );
        assert!(large.exactly("fd00::1".parse().unwrap()).is_none());
        assert!(large.exactly("fd00::99".parse().unwrap()).is_some());
    }

    #[test]
    fn what_is_no_range_is_refused_by_its_field() {
        for (bad, field) in [
            (json!([{"subnet": "10.1.0.1/24"}]), "ipam.subnet"),
            (json!([{"subnet": "10.1.0.0/31"}]), "ipam.subnet"),
            (json!([{"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1"}]), "ipam.rangeStart"),
            (json!([{"subnet": "10.1.0.0/24", "rangeEnd": "fd00::1"}]), "ipam.rangeEnd"),
            (json!([{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]), "ipam.ranges"),
            (json!([]), "ipam.ranges"),
        ] {
            let refused = set(bad.clone()).unwrap_err().to_string();
            assert!(refused.contains(field), "{bad}: {refused}");
        }
    }

    #[test]
    fn overlapping_sets_are_seen() {
        let one = set(json!([{"subnet": "10.1.0.0/24"}])).unwrap();
        let two = set(json!([{"subnet": "10.1.0.0/16", "rangeStart": "10.1.1.0"}])).unwrap();
        let three = set(json!([{"subnet": "10.1.0.0/25"}])).unwrap();
        assert!(!one.overlaps(&two) && one.overlaps(&three) && three.overlaps(&one));
    }
}
