//! `shim-child`: the roles without threads. The zygote forks monitors; a monitor holds one pod, is the
//! parent of its containers, writes their logs and records their exits; pod-init reaps in a shared PID
//! namespace; the walk turns a clone into a container's program. No async, no TLS, no JSON: the daemon
//! decides, these obey. The daemon reaches them only by messages (`shim_model::wire`).

#![forbid(unsafe_code)]

mod error;
mod explain;
mod hooks;
mod label;
mod launch;
mod monitor;
mod mounts;
mod pod_init;
mod times;
mod walk;
mod zygote;

pub use error::ChildError;
pub use explain::explain;
pub use launch::{ZygoteHandle, spawn_zygote};
pub use zygote::zygote_main;
