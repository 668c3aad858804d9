//! What a pod's network is made from: plain data that goes into the pod's record, enough to take the
//! network away after a restart or a reboot.

use serde::{Deserialize, Serialize};
use shim_model::cni::capability;
use shim_model::id::SandboxId;
use shim_model::kind::Refused;
use shim_model::sandbox::config::{Metadata, PortMapping, SandboxConfig};

/// The attachment of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The pod.
    pub id: SandboxId,
    /// Pod name, namespace, uid.
    pub metadata: Metadata,
    /// Declared ports.
    pub ports: Vec<PortMapping>,
    /// Made by the command line: our own bridge will do where no CNI configuration exists.
    pub own: bool,
    /// Loopback only.
    #[serde(default)]
    pub none: bool,
}

impl Attachment {
    /// The attachment of a pod's request; refuses what no network could be asked for.
    pub fn of(id: &SandboxId, config: &SandboxConfig) -> Result<Self, Refused> {
        capability::check(config)?;
        Ok(Self {
            id: id.clone(),
            metadata: config.metadata.clone(),
            ports: config.ports.clone(),
            own: config.own,
            none: config.own
                && config.annotations.get("wherry.dev/network").is_some_and(|kind| kind == "none"),
        })
    }

    /// What every plugin is told beside its configuration (`CNI_ARGS`), in this order: a strict plugin
    /// reads it from the left.
    pub fn args(&self) -> Vec<(String, String)> {
        let meta = &self.metadata;
        [
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", &meta.namespace),
            ("K8S_POD_NAME", &meta.name),
            ("K8S_POD_INFRA_CONTAINER_ID", self.id.as_str()),
            ("K8S_POD_UID", &meta.uid),
        ]
        .map(|(key, value)| (key.to_owned(), value.replace([';', '='], "_")))
        .into()
    }
}
