//! The pod network: a namespace per pod, then whatever the node's CNI configuration says, or, for the
//! command line on a node without one, a bridge of our own. Additions are limited in number, deletions
//! never wait for that limit.

pub mod builtin;
pub mod cache;
pub mod conf;
pub mod native;
pub mod netns;
pub mod plugin;

use crate::error::RuntimeError;
use crate::runtime::blocking;
use builtin::BuiltinConfig;
use conf::Configured;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shim_model::cni::chain::{self, BridgeChain, Wants};
use shim_model::cni::conf::{ConfList, capabilities};
use shim_model::cni::result;
use shim_model::id::SandboxId;
use shim_model::limits;
use shim_model::sandbox::config::{Metadata, PortMapping, SandboxConfig};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Settings of the network.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Folder of CNI configurations.
    pub conf_dir: PathBuf,
    /// Folders of CNI plugins, searched in order.
    pub bin_dirs: Vec<PathBuf>,
    /// Where results are kept, in libcni's layout (`/var/lib/cni`).
    pub cache_dir: PathBuf,
    /// Do the usual chains in process.
    pub native: bool,
    /// Where namespaces are pinned.
    pub netns_dir: PathBuf,
    /// The bridge of our own.
    pub builtin: BuiltinConfig,
}

/// What a pod's network was made from: enough to take it away after a restart or a reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The pod.
    pub id: SandboxId,
    /// Pod name, namespace, uid.
    pub metadata: Metadata,
    /// Declared ports.
    pub ports: Vec<PortMapping>,
    /// The bandwidth annotations: ingress and egress, bits per second.
    pub bandwidth: Option<(u64, u64)>,
    /// Made by the command line: our own bridge will do where no CNI configuration exists.
    pub own: bool,
    /// Loopback only.
    #[serde(default)]
    pub none: bool,
}

/// Loopback only, or a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Addresses, the pod's own first.
    pub ips: Vec<IpAddr>,
}

/// Whether pods can have a network, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// True with a usable configuration.
    pub ready: bool,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// The network of this node.
#[derive(Clone, Debug)]
pub struct Network {
    config: Arc<NetworkConfig>,
    configured: Configured,
    adding: Arc<Semaphore>,
}

impl Attachment {
    /// The attachment of a pod's request.
    pub fn of(id: &SandboxId, config: &SandboxConfig) -> Self {
        let rate = |key: &str| config.annotations.get(key).and_then(|text| quantity(text));
        let (ingress, egress) =
            (rate("kubernetes.io/ingress-bandwidth"), rate("kubernetes.io/egress-bandwidth"));
        let bandwidth =
            ingress.or(egress).map(|_| (ingress.unwrap_or_default(), egress.unwrap_or_default()));
        Self {
            id: id.clone(),
            metadata: config.metadata.clone(),
            ports: config.ports.clone(),
            bandwidth,
            own: config.own,
            none: config.own
                && config.annotations.get("wherry.dev/network").is_some_and(|kind| kind == "none"),
        }
    }

    fn capabilities(&self) -> Map<String, Value> {
        let bandwidth = self.bandwidth.map(|(ingress, egress)| {
            let burst = i64::from(i32::MAX);
            let mut rates = Map::new();
            for (name, rate) in [("ingress", ingress), ("egress", egress)] {
                if rate > 0 {
                    rates.insert(format!("{name}Rate"), rate.into());
                    rates.insert(format!("{name}Burst"), burst.into());
                }
            }
            Value::Object(rates)
        });
        capabilities(&self.ports, bandwidth)
    }
}

/// A resource quantity of Kubernetes (`10M`, `1Gi`, `500k`) in its unit; `None` for nonsense.
fn quantity(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

impl Network {
    /// Reads the configuration and watches its folder.
    pub fn start(config: NetworkConfig) -> Result<Self, RuntimeError> {
        crate::store::disk::make(&config.netns_dir)?;
        let configured = Configured::watch(config.conf_dir.clone());
        let adding = Arc::new(Semaphore::new(limits::NETWORK_OPERATIONS));
        Ok(Self { config: Arc::new(config), configured, adding })
    }

    /// Whether pods can have a network. No I/O.
    pub fn ready(&self) -> Readiness {
        match self.configured.get() {
            Ok(_) => Readiness { ready: true, reason: String::new(), message: String::new() },
            Err(message) => {
                Readiness { ready: false, reason: "NetworkPluginNotReady".to_owned(), message }
            }
        }
    }

    /// A fresh network namespace with loopback up, pinned under the pod's id.
    pub async fn namespace(&self, id: &SandboxId) -> Result<OwnedFd, RuntimeError> {
        let pin = self.config.netns_dir.join(id.as_str());
        blocking(move || netns::make(&pin)).await
    }

    /// Attaches a pod's namespace; its addresses are in use when this returns.
    pub async fn add(&self, attachment: &Attachment) -> Result<Added, RuntimeError> {
        if attachment.none {
            return Ok(Added { ips: Vec::new() });
        }
        let _slot = self.adding.acquire().await;
        let netns = self.config.netns_dir.join(attachment.id.as_str());
        match self.configured.get() {
            Ok(list) => self.add_by_plugins(&list, attachment, &netns).await,
            Err(_) if attachment.own => {
                let (config, attachment) = (Arc::clone(&self.config), attachment.clone());
                let ips =
                    blocking(move || builtin::add(&config.builtin, &attachment, &netns)).await?;
                Ok(Added { ips })
            }
            Err(why) => Err(RuntimeError::Network { doing: "attach a pod".to_owned(), why }),
        }
    }

    async fn add_by_plugins(
        &self,
        list: &ConfList,
        attachment: &Attachment,
        netns: &std::path::Path,
    ) -> Result<Added, RuntimeError> {
        let given = attachment.capabilities();
        cache::put(&self.config.cache_dir, list, attachment, &given, netns, None)?;
        let result = match self.native(list, attachment) {
            Some(chain) => {
                let (list, attachment) = (list.clone(), attachment.clone());
                let (netns, data) = (netns.to_owned(), self.config.cache_dir.join("networks"));
                blocking(move || native::chain::add(&chain, &list, &attachment, &netns, &data))
                    .await?
            }
            None => self.run_plugins(list, attachment, &given, netns).await?,
        };
        cache::put(&self.config.cache_dir, list, attachment, &given, netns, Some(&result))?;
        let ips = result::addresses(&result);
        if ips.is_empty() {
            let why = format!("the network {} gave it no address", list.name);
            return Err(RuntimeError::Network {
                doing: format!("attach sandbox {}", attachment.id.short()),
                why,
            });
        }
        Ok(Added { ips })
    }

    async fn run_plugins(
        &self,
        list: &ConfList,
        attachment: &Attachment,
        given: &Map<String, Value>,
        netns: &std::path::Path,
    ) -> Result<Value, RuntimeError> {
        let call =
            plugin::Call { command: "ADD", attachment, netns: Some(netns), config: &self.config };
        let mut previous = None;
        for index in 0..list.plugins.len() {
            let input = list.input(index, given, previous.as_ref());
            previous = Some(plugin::run(&call, list.plugin_type(index), &input).await?);
        }
        Ok(previous.unwrap_or_default())
    }

    /// The chain to do in process for this pod, if it is one. A pure function of what ADD was given, so
    /// DEL finds the same answer; and either undoes the other, because leases and names are the same.
    fn native(&self, list: &ConfList, attachment: &Attachment) -> Option<BridgeChain> {
        let ports = attachment.ports.iter().any(|port| port.host_port > 0);
        let wants = Wants { ports, bandwidth: attachment.bandwidth.is_some() };
        chain::native(list, wants).filter(|_| self.config.native)
    }

    /// Takes a pod's attachment away with what ADD was given. Safe to repeat, and without a namespace.
    pub async fn del(&self, attachment: &Attachment) -> Result<(), RuntimeError> {
        let kept = cache::find(&self.config.cache_dir, attachment)?;
        if attachment.own {
            let (config, own) = (Arc::clone(&self.config), attachment.clone());
            blocking(move || builtin::del(&config.builtin, &own)).await?;
        }
        let Some(kept) = kept else { return Ok(()) };
        let netns = self.config.netns_dir.join(attachment.id.as_str());
        let netns = netns.exists().then_some(netns);
        if let Some(chain) = self.native(&kept.list, attachment) {
            let (list, own) = (kept.list.clone(), attachment.clone());
            let data = self.config.cache_dir.join("networks");
            blocking(move || native::chain::del(&chain, &list, &own, &data)).await?;
            return cache::remove(&self.config.cache_dir, &kept.list, attachment);
        }
        let call = plugin::Call {
            command: "DEL",
            attachment,
            netns: netns.as_deref(),
            config: &self.config,
        };
        for index in (0..kept.list.plugins.len()).rev() {
            let input = kept.list.input(index, &kept.capabilities, kept.result.as_ref());
            plugin::run(&call, kept.list.plugin_type(index), &input).await?;
        }
        cache::remove(&self.config.cache_dir, &kept.list, attachment)
    }

    /// Unpins a pod's namespace; a missing one is done.
    pub async fn remove_namespace(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let pin = self.config.netns_dir.join(id.as_str());
        blocking(move || netns::remove(&pin)).await
    }

    /// Unpins namespaces and frees leases of our own bridge that no pod has.
    pub async fn sweep(&self, pods: &BTreeSet<SandboxId>) {
        let (config, pods) = (Arc::clone(&self.config), pods.clone());
        let swept = blocking(move || {
            for name in std::fs::read_dir(&config.netns_dir).into_iter().flatten().flatten() {
                let name = name.file_name().to_string_lossy().into_owned();
                if SandboxId::parse(&name).is_ok_and(|id| !pods.contains(&id)) {
                    netns::remove(&config.netns_dir.join(name))?;
                }
            }
            builtin::sweep(&config.builtin, &pods)
        });
        if let Err(error) = swept.await {
            tracing::warn!(
                error = crate::error::chain(&error),
                "something of an earlier network stays"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::quantity;

    #[test]
    fn quantities_have_units() {
        assert_eq!(
            [quantity("10M"), quantity("1Ki"), quantity("5"), quantity("x")],
            [Some(10_000_000), Some(1024), Some(5), None]
        );
    }
}
