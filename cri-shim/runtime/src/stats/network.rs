//! The interfaces of a pod as they are inside its network namespace. The pod's monitor is in that namespace
//! as long as the pod lives, so its view of `/proc/PID/net` is the pod's: nobody has to go in.

use crate::monitors;
use crate::store::pod::Pod;
use shim_model::interfaces::{self, Interface};

/// A pod's interfaces; `None` with the node's network, and once its monitor is gone.
pub(super) fn interfaces(pod: &Pod) -> Option<Vec<Interface>> {
    pod.record.attachment.as_ref()?;
    let monitor = pod.state().facts.monitor?;
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/net/{file}", monitor.pid));
    let (dev, route) = (read("dev").ok()?, read("route").unwrap_or_default());
    // Afterwards: had its number gone to another process, these would be somebody else's interfaces.
    monitors::alive(monitor).then(|| interfaces::interfaces(&dev, &route))
}
