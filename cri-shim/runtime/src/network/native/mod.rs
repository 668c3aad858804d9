//! Network pieces done in process: a bridge with veth pairs, leases in host-local's form, published
//! ports. Today they make the bridge of our own; chains of CNI plugins are executed.

pub mod bridge;
pub mod host_local;
pub mod portmap;
