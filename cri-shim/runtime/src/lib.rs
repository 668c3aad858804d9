//! `shim-runtime`: does what the model decided. Pods, containers, their records, network, cgroups and
//! root file systems. No gRPC, no protobuf, no HTTP server; the daemon calls it, it calls the kernel
//! through `shim-sys`, images through `shim-image`, and monitors through their sockets.

#![forbid(unsafe_code)]

pub mod apparmor;
pub mod cdi;
pub mod cgroup;
pub mod config;
pub mod container;
pub mod counts;
pub mod error;
pub mod events;
pub mod filters;
pub mod given;
pub mod handlers;
pub mod host;
pub mod idmap;
pub mod monitors;
pub mod network;
pub mod nri;
pub mod pulled;
pub mod recover;
pub mod rootfs;
pub mod runtime;
pub mod sandbox;
mod selinux;
pub mod stats;
pub mod store;
pub mod teardown;
pub mod terminal;
mod timing;
pub mod watch;
