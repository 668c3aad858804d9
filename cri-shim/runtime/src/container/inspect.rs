//! Everything about a container that a person may want to see and nothing needs: its OCI spec, made again
//! from what it was made from, its plan, its groups. Reads a few small files; only for verbose statuses.

use super::create::read_plan;
use crate::runtime::Runtime;
use crate::store::container::Container;
use serde_json::Value;
use shim_model::container::config::ContainerConfig;
use shim_model::digest::BlobDigest;
use shim_model::edits;
use shim_model::image::ImageConfig;
use shim_model::plan::InitPlan;
use shim_model::spec::{self, SpecInput};
use std::path::PathBuf;

impl Runtime {
    /// The container's OCI runtime spec with the limits that are in force, as JSON; or why there is none.
    pub fn container_spec(&self, container: &Container) -> Result<Value, String> {
        let record = &container.record;
        let text = |error: &dyn std::error::Error| crate::error::chain(error);
        let pod = self.0.store.pod(record.sandbox.as_str()).map_err(|error| text(&error))?;
        let image = self.image_config(&record.image_id)?;
        let resources = container.state().resources.clone();
        let config = ContainerConfig { resources, ..record.config.clone() };
        let cgroup_path = record.cgroup.to_string();
        let input = SpecInput {
            sandbox: &pod.record.config,
            setup: &pod.record.setup,
            container: &config,
            image: &image,
            user: &record.user,
            host: &self.0.host,
            cgroup_path: &cgroup_path,
            devices: &record.devices,
        };
        let mut built = spec::build(&input).map_err(|error| text(&error))?;
        edits::apply(&mut built, &record.edits).map_err(|error| text(&error))?;
        spec::json(&built.spec).map_err(|error| text(&error))
    }

    /// What an image's config says, also of one that was removed while containers use it.
    pub(crate) fn image_config(&self, id: &str) -> Result<ImageConfig, String> {
        if let Ok(Some(image)) = self.0.images.find(id) {
            return Ok(image.config.clone());
        }
        let read = || {
            let bytes = self.0.images.index().content().get(&BlobDigest::parse(id).ok()?).ok()?;
            ImageConfig::parse(&bytes).ok()
        };
        read().ok_or_else(|| "the image was removed, and its config with it".to_owned())
    }

    /// The plan that its first process carried out.
    pub fn container_plan(&self, container: &Container) -> Option<InitPlan> {
        let record = &container.record;
        read_plan(&self.0.store.disk.container(&record.sandbox, &record.id)).ok()
    }

    /// Where its groups are.
    pub fn container_groups(&self, container: &Container) -> Vec<PathBuf> {
        self.0.cgroups.folders(&container.record.cgroup)
    }
}
