//! StopPodSandbox: everything that runs for a pod ends, its network is taken away; the pod stays listed
//! as not ready with its containers. Safe to repeat; an unknown pod is done.

use crate::error::RuntimeError;
use crate::runtime::Runtime;
use crate::store::missing_is_done;
use shim_model::limits;

impl Runtime {
    /// Stops a pod. Goes on if the caller leaves.
    pub async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let Some(pod) = missing_is_done(self.0.store.pod(id))? else { return Ok(()) };
        let runtime = self.clone();
        let work = tokio::spawn(async move {
            let _lock = pod.lock.lock().await;
            let after = limits::TEARDOWN;
            let undone = runtime.teardown_pod(&pod, "it was stopped");
            let late = |_| {
                let doing = format!("stop sandbox {}", pod.record.id.short());
                Err(RuntimeError::Deadline { doing, after })
            };
            tokio::time::timeout(after, undone).await.unwrap_or_else(late)
        });
        work.await.map_err(|_panic| RuntimeError::Lost("the stop of a sandbox"))?
    }
}
