//! The Container Network Interface as decisions: configurations, what a pod asks of them, who does which
//! part of a chain, which address a pod gets, results. Pure; files are read, plugins executed and links
//! made by `shim-runtime`. Specification: containernetworking/cni SPEC 1.1.0.

pub mod capability;
pub mod chain;
pub mod conf;
pub mod lease;
pub mod result;
