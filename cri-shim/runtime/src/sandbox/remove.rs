//! RemovePodSandbox: stop, then take away containers, files and record; the name is free afterwards.

use crate::error::RuntimeError;
use crate::events::Happened;
use crate::runtime::Runtime;
use crate::store::missing_is_done;

impl Runtime {
    /// Removes a pod with its containers. Goes on if the caller leaves.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let Some(pod) = missing_is_done(self.0.store.pod(id))? else { return Ok(()) };
        self.stop_sandbox(pod.record.id.as_str()).await?;
        let runtime = self.clone();
        let work = tokio::spawn(async move {
            for container in runtime.0.store.containers_of(&pod.record.id) {
                runtime.remove_container(container.record.id.as_str()).await?;
            }
            let _lock = pod.lock.lock().await;
            runtime.0.store.forget_pod(&pod)?;
            runtime.tell_pod(Happened::Deleted, &pod);
            Ok(())
        });
        work.await.map_err(|_panic| RuntimeError::Lost("the removal of a sandbox"))?
    }
}
