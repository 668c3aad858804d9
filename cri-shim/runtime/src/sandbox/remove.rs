//! RemovePodSandbox: stop, then take away containers, files and record; the name is free afterwards. Logs are
//! the kubelet's, but those of the command line's pods are ours.

use crate::error::RuntimeError;
use crate::events::Happened;
use crate::nri::What;
use crate::runtime::Runtime;
use crate::store::missing_is_done;
use crate::store::pod::Pod;
use std::path::Path;

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
            // Somebody else may have removed it while this call waited, and its name have a new owner.
            if missing_is_done(runtime.0.store.pod(pod.record.id.as_str()))?.is_none() {
                return Ok(());
            }
            let era = runtime.0.nri.enter();
            runtime.nri_pod_did(&era, &pod, What::RemovePod).await;
            runtime.remove_own_logs(&pod);
            runtime.0.store.forget_pod(&pod)?;
            runtime.tell_pod(Happened::Deleted, &pod);
            Ok(())
        });
        work.await.map_err(|_panic| RuntimeError::Lost("the removal of a sandbox"))?
    }

    /// The log folder of a pod of the command line, which nobody else cleans. Its files went with their
    /// containers; what else somebody put there stays.
    fn remove_own_logs(&self, pod: &Pod) {
        let folder = Path::new(&pod.record.config.log_directory);
        if pod.record.config.own && folder.parent() == Some(self.0.config.logs().as_path()) {
            let _missing_is_done = std::fs::remove_dir(folder);
        }
    }
}
