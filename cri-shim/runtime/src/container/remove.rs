//! RemoveContainer: kill if it runs, take its parts away, forget it. The log file stays: the kubelet
//! removes it itself.

use crate::error::RuntimeError;
use crate::events::Happened;
use crate::runtime::Runtime;
use crate::store::missing_is_done;
use std::time::Duration;

impl Runtime {
    /// Removes a container in whatever state; an unknown one is done. Goes on if the caller leaves.
    pub async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let Some(container) = missing_is_done(self.0.store.container(id))? else { return Ok(()) };
        let runtime = self.clone();
        let work = tokio::spawn(async move {
            runtime.stop_container(container.record.id.as_str(), Duration::ZERO).await?;
            let _lock = container.lock.lock().await;
            // Somebody else may have removed it while this call waited.
            if missing_is_done(runtime.0.store.container(container.record.id.as_str()))?.is_none() {
                return Ok(());
            }
            // Its end is told, and its group gone.
            drop(container.ending.lock().await);
            let era = runtime.0.nri.enter();
            runtime.nri_remove(&era, &container).await;
            runtime.teardown_container(&container).await?;
            runtime.0.store.forget_container(&container)?;
            runtime.tell_container(Happened::Deleted, &container);
            runtime.collect_removed_image(&container.record.image_id);
            Ok(())
        });
        work.await.map_err(|_panic| RuntimeError::Lost("the removal of a container"))?
    }
}
