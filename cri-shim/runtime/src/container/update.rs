//! UpdateContainerResources: new limits, as one set with the old ones (`cri-contract.md` §2.8). A created
//! container starts with them; the group of a running one is changed at once, or not at all. A limit below
//! what is in use is refused: the kernel would take it by killing.

use crate::error::RuntimeError;
use crate::nri::What;
use crate::runtime::{Runtime, blocking};
use crate::store::container::{Container, ContainerState};
use shim_model::container::life::State;
use shim_model::resources::Resources;
use shim_model::spec::resources;
use std::sync::Arc;

impl Runtime {
    /// Changes the limits of a container that has not ended; zero, empty and missing values stay as they
    /// are. Goes on if the caller leaves.
    pub async fn update_container(&self, id: &str, change: Resources) -> Result<(), RuntimeError> {
        let container = self.container(id)?;
        let runtime = self.clone();
        let work = tokio::spawn(async move {
            let _lock = container.lock.lock().await;
            let era = runtime.0.nri.enter();
            let change = runtime.nri_update(&era, &container, change).await?;
            runtime.update_locked(&container, &change).await?;
            runtime.nri_container_did(&era, &container, What::PostUpdate).await;
            Ok(())
        });
        work.await.map_err(|_panic| RuntimeError::Lost("the update of a container"))?
    }

    /// Changes the limits of a container whose lock is held.
    pub(crate) async fn update_locked(
        &self,
        container: &Arc<Container>,
        change: &Resources,
    ) -> Result<(), RuntimeError> {
        let known = container.state();
        let next = known.resources.changed(change);
        resources::resources("linux", &next, &self.0.host)?;
        match known.life {
            State::Created {} => {}
            State::Running { .. } => self.write_limits(container, &next).await?,
            State::Creating {} | State::Exited { .. } => {
                return Err(container.wrong_state("created or running", "update its limits"));
            }
        }
        container.change(|known| Some(ContainerState { resources: next, ..known.clone() }), || ());
        Ok(())
    }

    async fn write_limits(
        &self,
        container: &Arc<Container>,
        new: &Resources,
    ) -> Result<(), RuntimeError> {
        let (cgroups, group) = (self.0.cgroups.clone(), container.record.cgroup.clone());
        let (new, id) = (new.clone(), container.record.id.clone());
        blocking(move || {
            if let Some(used) = new.below_use(&cgroups.stats(&group)) {
                let (id, limit) = (id.short().to_owned(), new.memory_limit);
                return Err(RuntimeError::InUse { id, used, limit });
            }
            cgroups.update(&group, &new)
        })
        .await
    }
}
