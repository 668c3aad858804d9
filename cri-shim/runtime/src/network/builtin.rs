//! The bridge of our own, for the command line on a node without a CNI configuration: source NAT, ports
//! published on the node and on its loopback, pods that reach each other. IPv4.

use super::Attachment;
use super::native::bridge::{self, Bridge};
use super::native::host_end;
use super::native::host_local::{Leases, Range};
use super::native::portmap::{self, Published};
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
    /// Addresses of pods, as `10.88.0.0/16`.
    pub subnet: String,
    /// Where leases and published ports are kept.
    pub data_dir: PathBuf,
}

impl BuiltinConfig {
    fn range(&self) -> Result<Range, RuntimeError> {
        let why = || format!("\"{}\" is no IPv4 network of /8 to /29", self.subnet);
        Range::parse(&self.subnet).ok_or_else(|| RuntimeError::Network {
            doing: "use network.subnet".to_owned(),
            why: why(),
        })
    }

    fn ports(&self) -> PathBuf {
        self.data_dir.join("ports")
    }

    fn leases(&self) -> PathBuf {
        self.data_dir.join("leases")
    }
}

/// Attaches a pod.
pub fn add(
    config: &BuiltinConfig,
    attachment: &Attachment,
    netns: &Path,
) -> Result<Vec<IpAddr>, RuntimeError> {
    let range = config.range()?;
    let leases = Leases::lock(&config.leases())?;
    portmap::check(&config.ports(), &attachment.id, &attachment.ports)?;
    let address = leases.take(&range, &attachment.id)?;
    let bridge = Bridge { name: &config.bridge, gateway: range.gateway(), prefix: range.prefix };
    let index = bridge.ensure()?;
    bridge.attach(index, &host_end(attachment.id.as_str()), netns, address, true)?;
    portmap::note(
        &config.ports(),
        &attachment.id,
        &Published { address, ports: attachment.ports.clone() },
    )?;
    portmap::apply(&portmap::ruleset(
        &config.bridge,
        &config.subnet,
        &portmap::all(&config.ports()),
    ))?;
    Ok(vec![IpAddr::V4(address)])
}

/// Takes a pod's attachment away; a missing one is done.
pub fn del(config: &BuiltinConfig, attachment: &Attachment) -> Result<(), RuntimeError> {
    if !config.leases().exists() {
        return Ok(());
    }
    remove(config, &Leases::lock(&config.leases())?, attachment.id.as_str())
}

/// Frees what no pod has.
pub fn sweep(config: &BuiltinConfig, pods: &BTreeSet<SandboxId>) -> Result<(), RuntimeError> {
    if !config.leases().exists() {
        return Ok(());
    }
    let leases = Leases::lock(&config.leases())?;
    for stranger in leases.strangers(pods) {
        remove(config, &leases, &stranger)?;
    }
    Ok(())
}

fn remove(config: &BuiltinConfig, leases: &Leases, id: &str) -> Result<(), RuntimeError> {
    if portmap::forget(&config.ports(), id) {
        portmap::apply(&portmap::ruleset(
            &config.bridge,
            &config.subnet,
            &portmap::all(&config.ports()),
        ))?;
    }
    bridge::detach(&host_end(id))?;
    leases.release(id)
}
