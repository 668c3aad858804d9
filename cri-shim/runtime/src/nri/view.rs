//! Pods and containers as plugins are shown them: their records and states, and the OCI spec, which is built
//! again from the record and the image, or the kept plan, for whoever needs it. Reads; changes nothing.

use crate::container::create::read_plan;
use crate::error::{RuntimeError, chain};
use crate::runtime::{Runtime, blocking};
use crate::store::container::{Container, ContainerRecord, ContainerState};
use crate::store::pod::{Pod, PodFacts};
use shim_model::container::config::ContainerConfig;
use shim_model::edits;
use shim_model::image::ImageConfig;
use shim_model::plan::Program;
use shim_model::spec::{self, Built, SpecInput};
use std::path::PathBuf;
use std::sync::Arc;

/// A pod.
#[derive(Clone, Debug)]
pub struct PodView {
    /// The pod.
    pub pod: Arc<Pod>,
    /// What is known of it; of one that is being made, more than is published.
    pub facts: PodFacts,
    /// Pin of its network namespace, if it has one of its own.
    pub netns: Option<PathBuf>,
}

/// A container.
#[derive(Clone, Debug)]
pub struct ContainerView {
    /// Its record, or what will be.
    pub record: ContainerRecord,
    /// Its state.
    pub state: ContainerState,
    /// Its spec, edits and all.
    pub built: Built,
}

/// Everything there is.
#[derive(Clone, Debug, Default)]
pub struct Everything {
    /// Pods that callers may see.
    pub pods: Vec<PodView>,
    /// Their containers that have not ended.
    pub containers: Vec<Arc<ContainerView>>,
}

impl Runtime {
    /// A pod as it is.
    pub(crate) fn pod_view(&self, pod: &Arc<Pod>) -> PodView {
        self.pod_view_with(pod, pod.state().facts.clone())
    }

    /// A pod with facts that are not published yet.
    pub(crate) fn pod_view_with(&self, pod: &Arc<Pod>, facts: PodFacts) -> PodView {
        let own = pod.record.attachment.as_ref().filter(|_| !facts.torn_down);
        let netns =
            own.map(|attachment| self.0.config.network.netns_dir.join(attachment.id.as_str()));
        PodView { pod: Arc::clone(pod), facts, netns }
    }

    /// A container as it is.
    pub(crate) async fn container_view(
        &self,
        container: &Arc<Container>,
    ) -> Result<Arc<ContainerView>, RuntimeError> {
        let (runtime, own) = (self.clone(), Arc::clone(container));
        blocking(move || runtime.view_of(&own).map(Arc::new)).await
    }

    /// Everything that a plugin which comes now must know.
    pub async fn everything(&self) -> Result<Everything, RuntimeError> {
        let runtime = self.clone();
        blocking(move || {
            let pods = runtime.sandboxes().iter().map(|pod| runtime.pod_view(pod)).collect();
            let mut containers = Vec::new();
            for container in runtime.containers().iter().filter(|one| !one.has_ended()) {
                match runtime.view_of(container) {
                    Ok(view) => containers.push(Arc::new(view)),
                    // It went meanwhile.
                    Err(_) if runtime.container(container.record.id.as_str()).is_err() => {}
                    Err(error) => {
                        let (id, error) = (container.record.id.short(), chain(&error));
                        tracing::warn!(id, error, "a container cannot be shown to plugins");
                    }
                }
            }
            Ok(Everything { pods, containers })
        })
        .await
    }

    fn view_of(&self, container: &Container) -> Result<ContainerView, RuntimeError> {
        let record = container.record.clone();
        let pod = self.0.store.pod(record.sandbox.as_str())?;
        let (config, image) = match self.image_config(&record.image_id) {
            Ok(image) => (record.config.clone(), image),
            // Its plan knows what it executes whatever became of its image; the folder of a handler's
            // container holds none.
            Err(_) => match read_plan(&self.0.store.disk.container(&record.sandbox, &record.id)) {
                Ok(plan) => (executed(&record.config, &plan.program), ImageConfig::default()),
                Err(_) => (record.config.clone(), ImageConfig::default()),
            },
        };
        let mut built = self.built(&pod, &record, (&config, &image))?;
        edits::apply(&mut built, &record.edits)?;
        let state = (*container.state()).clone();
        Ok(ContainerView { record, state, built })
    }

    /// The spec of a container, without edits.
    pub(crate) fn built(
        &self,
        pod: &Pod,
        record: &ContainerRecord,
        (config, image): (&ContainerConfig, &ImageConfig),
    ) -> Result<Built, RuntimeError> {
        let cgroup_path = record.cgroup.to_string();
        Ok(spec::build(&SpecInput {
            sandbox: &pod.record.config,
            setup: &pod.record.setup,
            container: config,
            image,
            user: &record.user,
            host: &self.0.host,
            cgroup_path: &cgroup_path,
            devices: &record.devices,
            labels: &record.labels,
        })?)
    }
}

/// A request that says what is executed in the end.
fn executed(config: &ContainerConfig, program: &Program) -> ContainerConfig {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let variable = |entry: &std::ffi::CString| {
        let entry = entry.to_bytes();
        let at = entry.iter().position(|byte| *byte == b'=')?;
        let (key, value) = entry.split_at_checked(at)?;
        Some((text(key), value.get(1..).unwrap_or_default().to_vec()))
    };
    ContainerConfig {
        command: program.argv.iter().map(|arg| text(arg.to_bytes())).collect(),
        args: Vec::new(),
        envs: program.env.iter().filter_map(variable).collect(),
        ..config.clone()
    }
}
