//! The bridge of our own, for the command line on a node without a CNI configuration.

use super::Attachment;
use crate::error::RuntimeError;
use shim_model::id::SandboxId;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Settings of our own bridge.
#[derive(Clone, Debug)]
pub struct BuiltinConfig {
    /// Name of the bridge.
    pub bridge: String,
    /// Addresses of pods, as `10.89.0.0/16`.
    pub subnet: String,
    /// Where leases are kept.
    pub data_dir: PathBuf,
}

/// Attaches a pod.
pub fn add(
    config: &BuiltinConfig,
    attachment: &Attachment,
    netns: &Path,
) -> Result<Vec<IpAddr>, RuntimeError> {
    let _ = (config, attachment, netns);
    Err(RuntimeError::Unsupported("the bridge of our own".to_owned()))
}

/// Takes a pod's attachment away; a missing one is done.
pub fn del(config: &BuiltinConfig, attachment: &Attachment) -> Result<(), RuntimeError> {
    let _ = (config, attachment);
    Ok(())
}

/// Frees what no pod has.
pub fn sweep(config: &BuiltinConfig, pods: &BTreeSet<SandboxId>) -> Result<(), RuntimeError> {
    let _ = (config, pods);
    Ok(())
}
