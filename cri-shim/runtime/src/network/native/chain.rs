//! The usual chain in process: a bridge with host-local addresses, with the plugins' own lease files,
//! so that a plugin's DEL undoes it as well. One lock per network, held for the lease only.

use super::bridge::{self, Bridge};
use super::host_local::{Leases, Range};
use super::portmap;
use crate::error::RuntimeError;
use crate::network::Attachment;
use serde_json::{Value, json};
use shim_model::cni::chain::BridgeChain;
use shim_model::cni::conf::ConfList;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Networks whose source NAT was set up by this process.
static MASQUERADED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Where host-local keeps the leases of a network.
fn leases(chain: &BridgeChain, network: &str, default: &Path) -> PathBuf {
    chain.data_dir.as_deref().map_or(default, Path::new).join(network)
}

/// ADD: the result that the plugins would have printed.
pub fn add(
    chain: &BridgeChain,
    list: &ConfList,
    attachment: &Attachment,
    netns: &Path,
    data_dir: &Path,
) -> Result<Value, RuntimeError> {
    let why = || format!("{} is no IPv4 network of /8 to /29", chain.subnet);
    let range = Range::parse(&chain.subnet)
        .ok_or_else(|| RuntimeError::Network { doing: "read the subnet".to_owned(), why: why() })?;
    let address =
        Leases::lock(&leases(chain, &list.name, data_dir))?.take(&range, &attachment.id)?;
    let bridge = Bridge { name: &chain.bridge, gateway: range.gateway(), prefix: range.prefix };
    let index = bridge.ensure()?;
    bridge.attach(
        index,
        &super::host_end(attachment.id.as_str()),
        netns,
        address,
        chain.default_route,
    )?;
    if chain.masquerade {
        masquerade(&chain.subnet)?;
    }
    Ok(result(list, chain, netns, (address, range.prefix, range.gateway())))
}

fn result(
    list: &ConfList,
    chain: &BridgeChain,
    netns: &Path,
    (address, prefix, gateway): (Ipv4Addr, u8, Ipv4Addr),
) -> Value {
    let routes =
        if chain.default_route { json!([{"dst": "0.0.0.0/0", "gw": gateway}]) } else { json!([]) };
    json!({
        "cniVersion": list.version,
        "interfaces": [{"name": chain.bridge}, {"name": "eth0", "sandbox": netns}],
        "ips": [{"address": format!("{address}/{prefix}"), "gateway": gateway, "interface": 1}],
        "routes": routes,
        "dns": {},
    })
}

/// DEL of what [`add`] made; a missing part is done.
pub fn del(
    chain: &BridgeChain,
    list: &ConfList,
    attachment: &Attachment,
    data_dir: &Path,
) -> Result<(), RuntimeError> {
    bridge::detach(&super::host_end(attachment.id.as_str()))?;
    let folder = leases(chain, &list.name, data_dir);
    if folder.exists() {
        Leases::lock(&folder)?.release(attachment.id.as_str())?;
    }
    Ok(())
}

/// Source NAT of a whole network, once per process: the rules say nothing of single pods.
fn masquerade(subnet: &str) -> Result<(), RuntimeError> {
    let known = |networks: &BTreeSet<String>| networks.contains(subnet);
    if MASQUERADED.lock().is_ok_and(|networks| known(&networks)) {
        return Ok(());
    }
    let table = format!("wherry_{}", subnet.replace(['.', '/'], "_"));
    portmap::apply(&format!(
        "add table ip {table}\ndelete table ip {table}\n\
         table ip {table} {{\n\tchain postrouting {{ type nat hook postrouting priority 100;\n\
         \t\tip saddr {subnet} ip daddr != {{ {subnet}, 224.0.0.0/4 }} masquerade\n\t}}\n}}\n"
    ))?;
    if let Ok(mut networks) = MASQUERADED.lock() {
        networks.insert(subnet.to_owned());
    }
    Ok(())
}
