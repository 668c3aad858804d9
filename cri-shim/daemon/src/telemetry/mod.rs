//! Looking in from outside: `logs` is what the daemon tells. Metrics and traces have rooms of their own
//! once there is somebody to read them; every RPC is timed already (`rpc/service.rs`).

pub(crate) mod logs;
