//! What the kernel's security modules are told about pods and containers: the model's choice, completed by what
//! this node has.

use crate::error::RuntimeError;
use crate::runtime::Runtime;
use crate::selinux as node;
use crate::store::pod::Pod;
use shim_model::container::config::ContainerConfig;
use shim_model::labels::selinux::Contexts;
use shim_model::labels::{Labels, apparmor, selinux};
use shim_model::sandbox::config::SandboxConfig;
use shim_model::spec::security::APPARMOR;

impl Runtime {
    /// The labels of a container.
    pub(super) async fn container_labels(
        &self,
        pod: &Pod,
        config: &ContainerConfig,
    ) -> Result<Labels, RuntimeError> {
        let (privileged, host) = (config.privileged, &self.0.host);
        let choice = apparmor::choose(APPARMOR, config.apparmor.as_ref(), privileged, host)?;
        let level = selinux::level_of(pod.record.setup.labels.files.as_deref());
        let contexts = selinux::choose(config.selinux.as_ref(), privileged, &level, host)?;
        labels(self.0.apparmor.label(APPARMOR, choice).await?, contexts)
    }

    /// The labels of a pod's first process, and of what its containers share.
    pub(crate) async fn pod_labels(&self, config: &SandboxConfig) -> Result<Labels, RuntimeError> {
        let (privileged, host) = (config.privileged, &self.0.host);
        let choice = apparmor::choose(APPARMOR, config.apparmor.as_ref(), privileged, host)?;
        let level = node::fresh_level(&self.0.store.pods());
        let contexts = selinux::choose(config.selinux.as_ref(), privileged, &level, host)?;
        labels(self.0.apparmor.label(APPARMOR, choice).await?, contexts)
    }
}

fn labels(apparmor: Option<String>, contexts: Option<Contexts>) -> Result<Labels, RuntimeError> {
    contexts.as_ref().map_or(Ok(()), node::check)?;
    let (process, files) = contexts.map(|both| (both.process, both.files)).unzip();
    Ok(Labels { apparmor, process, files })
}
