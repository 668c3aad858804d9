//! What the kernel's security modules are told about pods and containers: the model's choice, completed by what
//! this node has loaded.

use crate::error::RuntimeError;
use crate::runtime::Runtime;
use shim_model::container::config::ContainerConfig;
use shim_model::labels::{Labels, apparmor};
use shim_model::sandbox::config::SandboxConfig;
use shim_model::spec::security::APPARMOR;

impl Runtime {
    /// The labels of a container.
    pub(super) async fn container_labels(
        &self,
        config: &ContainerConfig,
    ) -> Result<Labels, RuntimeError> {
        let (asked, host) = (config.apparmor.as_ref(), &self.0.host);
        let choice = apparmor::choose(APPARMOR, asked, config.privileged, host)?;
        Ok(Labels { apparmor: self.0.apparmor.label(APPARMOR, choice).await? })
    }

    /// The labels of a pod's first process.
    pub(crate) async fn pod_labels(&self, config: &SandboxConfig) -> Result<Labels, RuntimeError> {
        let (asked, host) = (config.apparmor.as_ref(), &self.0.host);
        let choice = apparmor::choose(APPARMOR, asked, config.privileged, host)?;
        Ok(Labels { apparmor: self.0.apparmor.label(APPARMOR, choice).await? })
    }
}
