//! The Container Network Interface as decisions: configurations and results. Pure; files are read and
//! plugins executed by `shim-runtime`. Specification: containernetworking/cni SPEC 1.1.0.

pub mod chain;
pub mod conf;
pub mod result;
