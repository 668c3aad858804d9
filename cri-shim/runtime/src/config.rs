//! Settings of the runtime; plain values, given by whoever reads configuration files.

use crate::network::NetworkConfig;
use shim_model::handler::choice::Configured;
use shim_model::plan::Rlimit;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where things are and what is allowed.
#[expect(clippy::struct_excessive_bools, reason = "each is one setting")]
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Durable data: ledger, images, writable layers, private logs.
    pub root: PathBuf,
    /// Runtime state on tmpfs.
    pub state: PathBuf,
    /// Network.
    pub network: NetworkConfig,
    /// Give pods `net.ipv4.ip_unprivileged_port_start=0`.
    pub unprivileged_ports: bool,
    /// Give pods a `ping_group_range` that holds everybody.
    pub unprivileged_icmp: bool,
    /// Make a folder where a mount's host path does not exist.
    pub create_missing_host_paths: bool,
    /// Resource limits of every container's processes.
    pub rlimits: Vec<Rlimit>,
    /// RuntimeClass handlers by name, beside our own.
    pub handlers: BTreeMap<String, Configured>,
    /// Folders of CDI devices; a later one wins.
    pub cdi_folders: Vec<PathBuf>,
}

impl RuntimeConfig {
    /// Folder of logs that no kubelet asked for.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
}
