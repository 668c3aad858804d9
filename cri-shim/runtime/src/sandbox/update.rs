//! `UpdatePodSandboxResources`: what a kubelet is about to write to the pod's own group. The group is the
//! kubelet's, so nothing is written here (`cri-contract.md` §1.1, §6.8): the values are checked, recorded
//! and shown. A refusal stops the kubelet's resize.

use crate::error::RuntimeError;
use crate::nri::What;
use crate::runtime::Runtime;
use crate::store::pod::{PodFacts, PodState};
use shim_model::resources::Resources;
use shim_model::spec::resources;

impl Runtime {
    /// Records new limits of a ready pod; `None` leaves the known ones, and so does a value that is zero
    /// or empty. Safe to repeat, in any order of values.
    pub async fn update_sandbox(
        &self,
        id: &str,
        overhead: Option<Resources>,
        resources: Option<Resources>,
    ) -> Result<(), RuntimeError> {
        let pod = self.sandbox(id)?;
        for (field, asked) in [("overhead", &overhead), ("resources", &resources)] {
            if let Some(asked) = asked {
                resources::resources(field, asked, &self.0.host)?;
            }
        }
        let _lock = pod.lock.lock().await;
        if !pod.is_ready() {
            return Err(pod.not_ready("change its limits"));
        }
        let era = self.0.nri.enter();
        let what = What::UpdatePod { overhead: overhead.clone(), resources: resources.clone() };
        self.nri_pod(&era, &pod, what).await?;
        let (known, config) = (pod.state(), &pod.record.config);
        let changed = |now: &Option<Resources>,
                       first: &Option<Resources>,
                       asked: Option<Resources>| {
            let known = now.as_ref().or(first.as_ref());
            asked.map(|asked| known.cloned().unwrap_or_default().changed(&asked)).or(now.clone())
        };
        let facts = PodFacts {
            resources: changed(&known.facts.resources, &config.resources, resources),
            overhead: changed(&known.facts.overhead, &config.overhead, overhead),
            ..known.facts.clone()
        };
        pod.set(PodState { life: known.life.clone(), facts })?;
        self.nri_pod_did(&era, &pod, What::PostUpdatePod).await;
        Ok(())
    }
}
