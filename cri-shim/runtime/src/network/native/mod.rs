//! Network pieces done in process: veth pairs on a bridge or by themselves, leases in host-local's form,
//! source NAT, published ports. They make the usual chains of CNI plugins and the bridge of our own; other
//! plugins are executed. A plugin's DEL undoes what is made here.

pub mod bridge;
pub mod host_local;
pub mod link;
pub mod masquerade;
pub mod portmap;
pub mod veth;

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};

/// What this process knows to be in order already, so that not every pod looks at it again.
#[derive(Debug, Default)]
pub struct Hands {
    /// Bridges that were checked, with their number: one that was made anew has another.
    bridges: Mutex<BTreeMap<String, u32>>,
    /// Networks that have their source NAT.
    pub(in crate::network) masquerades: Mutex<BTreeSet<ipnet::IpNet>>,
}
