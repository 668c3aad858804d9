//! RuntimeClass handlers on this node: which are configured, what their programs say of themselves, and the
//! few commands that the daemon runs itself. What runs containers is run by the pod's monitor.

pub mod known;
pub mod program;
