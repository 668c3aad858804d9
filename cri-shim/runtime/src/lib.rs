//! `shim-runtime`: does what the model decided. Pods, containers, their records, network, cgroups and
//! root file systems. No gRPC, no protobuf, no HTTP server; the daemon calls it, it calls the kernel
//! through `shim-sys`, images through `shim-image`, and monitors through their sockets.

#![forbid(unsafe_code)]

pub mod cgroup;
pub mod error;
