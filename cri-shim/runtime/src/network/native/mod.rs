//! Network pieces done in process: a bridge with veth pairs, leases in host-local's form, published
//! ports. They make the usual chain of CNI plugins and the bridge of our own; other chains are executed.

pub mod bridge;
pub mod chain;
pub mod host_local;
pub mod portmap;

/// The veth's name on the node: short enough for the kernel, long enough to be the pod's.
pub fn host_end(id: &str) -> String {
    format!("wh{}", id.get(..12).unwrap_or(id))
}
