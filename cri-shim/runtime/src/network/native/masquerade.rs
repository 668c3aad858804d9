//! Source NAT of a pod network, in a table of our own. One rule for the whole network: no pod adds or
//! removes any, unlike the plugins', which have rules for every pod.

use super::{Hands, portmap};
use crate::error::RuntimeError;
use ipnet::IpNet;

/// Gives a network its source NAT, once per process.
pub fn ensure(hands: &Hands, network: IpNet) -> Result<(), RuntimeError> {
    if hands.masquerades.lock().contains(&network) {
        return Ok(());
    }
    portmap::apply(&ruleset(network))?;
    hands.masquerades.lock().insert(network);
    Ok(())
}

/// The table of a network: what leaves it gets the node's address, but not multicast, which pods of the
/// same link want to see with its sender.
fn ruleset(network: IpNet) -> String {
    let (family, multicast) = match network {
        IpNet::V4(_) => ("ip", "224.0.0.0/4"),
        IpNet::V6(_) => ("ip6", "ff00::/8"),
    };
    let name = network.to_string().replace(['.', '/', ':'], "_");
    format!(
        "add table {family} wherry_{name}\ndelete table {family} wherry_{name}\n\
         table {family} wherry_{name} {{\n\
         \tchain postrouting {{ type nat hook postrouting priority 100;\n\
         \t\t{family} saddr {network} {family} daddr != {{ {network}, {multicast} }} masquerade\n\
         \t}}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_ruleset_of_a_network() {
        insta::assert_snapshot!(super::ruleset("10.1.0.0/16".parse().unwrap()));
    }
}
