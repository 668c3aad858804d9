//! Everything about a container that a person may want to see and nothing needs: its OCI spec, made again
//! from what it was made from, its plan, its groups. Reads a few small files; only for verbose statuses.

use super::create::read_plan;
use super::handled;
use crate::error::chain;
use crate::filters;
use crate::runtime::Runtime;
use crate::store::container::Container;
use crate::store::pod::Pod;
use serde_json::Value;
use shim_image::index::Image;
use shim_model::container::config::ContainerConfig;
use shim_model::digest::BlobDigest;
use shim_model::edits;
use shim_model::image::ImageConfig;
use shim_model::plan::{InitPlan, Step};
use shim_model::spec::{self, security};
use std::path::PathBuf;

impl Runtime {
    /// The container's OCI runtime spec with the limits that are in force, as JSON, or why there is none. Of
    /// one that another runtime runs, the spec that its program was given.
    pub fn container_spec(&self, container: &Container) -> Result<Value, String> {
        let record = &container.record;
        let pod = self.0.store.pod(record.sandbox.as_str()).map_err(|error| chain(&error))?;
        if pod.record.handler.is_some() {
            let folder = self.0.store.disk.container(&record.sandbox, &record.id);
            return handled::spec(&folder).map_err(|error| chain(&error));
        }
        let image = self.image_config(&record.image_id)?;
        let resources = container.state().resources.clone();
        let config = ContainerConfig { resources, ..record.config.clone() };
        let built = self.built(&pod, record, (&config, &image));
        let mut built = built.map_err(|error| chain(&error))?;
        edits::apply(&mut built, &record.edits).map_err(|error| chain(&error))?;
        let mut shown = spec::json(&built.spec).map_err(|error| chain(&error))?;
        if let Some(linux) = shown.get_mut("linux").and_then(Value::as_object_mut) {
            linux.extend(self.seccomp(&pod, container).map(|told| ("seccomp".to_owned(), told)));
        }
        Ok(shown)
    }

    /// Its seccomp profile in the words of the spec; none where there is none, and where the profile's file
    /// is not any more what the filter was made from.
    fn seccomp(&self, pod: &Pod, container: &Container) -> Option<Value> {
        let config = &container.record.config;
        let sets = security::sets(config, security::may(&self.0.host, &pod.record.setup)).ok()?;
        let choice = security::seccomp(config);
        let now = self.0.filters.get(&choice, sets.effective, &self.0.host).ok()??;
        let plan = self.container_plan(container)?;
        let in_force = plan.process.iter().rev().find_map(|step| match step {
            Step::Seccomp { filter, .. } => Some(filter),
            _other => None,
        });
        if in_force != Some(&now.to_bytes()) {
            return None;
        }
        filters::said(&choice, sets.effective, &self.0.host).ok()?
    }

    /// What an image's config says, also of one that was removed while containers use it.
    pub(crate) fn image_config(&self, id: &str) -> Result<ImageConfig, String> {
        if let Ok(Some(image)) = self.0.images.find(id) {
            return Ok(image.config.clone());
        }
        let read = || ImageConfig::parse(&self.image_bytes(id)?).ok();
        read().ok_or_else(|| "the image was removed, and its config with it".to_owned())
    }

    /// An image's whole config, as its author wrote it.
    pub fn image_spec(&self, image: &Image) -> Option<Value> {
        serde_json::from_slice(&self.image_bytes(image.id.as_str())?).ok()
    }

    fn image_bytes(&self, id: &str) -> Option<Vec<u8>> {
        self.0.images.index().content().get(&BlobDigest::parse(id).ok()?).ok()
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
