//! What the verbs say to plugins: one line at the place where it happens. Before the fact a refusal is the
//! verb's failure; after it, a refusal is told in the log and changes nothing. What plugins ask for in their
//! answers is done here too, before the verb goes on.

use super::{Era, Occasion, What};
use crate::error::{RuntimeError, chain};
use crate::nri::view::ContainerView;
use crate::runtime::Runtime;
use crate::store::container::Container;
use crate::store::pod::{Pod, PodFacts};
use shim_model::nri::Adjustment;
use shim_model::resources::Resources;
use std::sync::Arc;

impl Runtime {
    /// Before a pod can be seen. A refusal takes back what others were told.
    pub(crate) async fn nri_run_pod(
        &self,
        era: &Era,
        pod: &Arc<Pod>,
        facts: &PodFacts,
    ) -> Result<(), RuntimeError> {
        if era.is_quiet() {
            return Ok(());
        }
        let view = self.pod_view_with(pod, facts.clone());
        let told = era.tell(Occasion { what: What::RunPod, pod: view, container: None }).await;
        if told.is_err() {
            self.nri_undo_run_pod(era, pod).await;
        }
        told.map(drop)
    }

    /// Takes back what plugins were told of a pod that nobody will see.
    pub(crate) async fn nri_undo_run_pod(&self, era: &Era, pod: &Arc<Pod>) {
        for what in [What::StopPod, What::RemovePod] {
            self.nri_pod_did(era, pod, what).await;
        }
    }

    /// A ready pod's containers have been ended; its network is still there. Their ends are told first.
    pub(crate) async fn nri_stop_pod(&self, pod: &Arc<Pod>) {
        if self.0.nri.enter().is_quiet() {
            return;
        }
        for container in self.0.store.containers_of(&pod.record.id) {
            drop(container.ending.lock().await);
        }
        let era = self.0.nri.enter();
        self.nri_pod_did(&era, pod, What::StopPod).await;
    }

    /// A container is about to be forgotten; one that was never started ends with it.
    pub(crate) async fn nri_remove(&self, era: &Era, container: &Arc<Container>) {
        if !container.has_ended() {
            self.nri_container_did(era, container, What::Stop).await;
        }
        self.nri_container_did(era, container, What::Remove).await;
    }

    /// Of a pod that is there: something happened, or will and can be refused.
    pub(crate) async fn nri_pod(
        &self,
        era: &Era,
        pod: &Arc<Pod>,
        what: What,
    ) -> Result<(), RuntimeError> {
        if era.is_quiet() {
            return Ok(());
        }
        era.tell(Occasion { what, pod: self.pod_view(pod), container: None }).await.map(drop)
    }

    /// As [`Self::nri_pod`], where a refusal changes nothing.
    pub(crate) async fn nri_pod_did(&self, era: &Era, pod: &Arc<Pod>, what: What) {
        if !era.is_quiet() {
            self.after(era, Occasion { what, pod: self.pod_view(pod), container: None }).await;
        }
    }

    /// What plugins make of a container that is being decided.
    pub(crate) async fn nri_create(
        &self,
        era: &Era,
        pod: &Arc<Pod>,
        view: &Arc<ContainerView>,
    ) -> Result<Adjustment, RuntimeError> {
        let container = Some(Arc::clone(view));
        let occasion = Occasion { what: What::Create, pod: self.pod_view(pod), container };
        let reply = era.tell(occasion).await?;
        drop(self.nri_changes(reply.changes, reply.evict).await);
        Ok(reply.adjustment)
    }

    /// Takes back what plugins were told of a container that could not be made.
    pub(crate) async fn nri_undo_create(
        &self,
        era: &Era,
        pod: &Arc<Pod>,
        view: Arc<ContainerView>,
    ) {
        for what in [What::Stop, What::Remove] {
            let container = Some(Arc::clone(&view));
            self.after(era, Occasion { what, pod: self.pod_view(pod), container }).await;
        }
    }

    /// Of a container that is there: what will happen to it and can be refused.
    pub(crate) async fn nri_container(
        &self,
        era: &Era,
        container: &Arc<Container>,
        what: What,
    ) -> Result<(), RuntimeError> {
        if era.is_quiet() {
            return Ok(());
        }
        let reply = era.tell(self.occasion(container, what).await?).await?;
        drop(self.nri_changes(reply.changes, reply.evict).await);
        Ok(())
    }

    /// As [`Self::nri_container`], where a refusal changes nothing.
    pub(crate) async fn nri_container_did(
        &self,
        era: &Era,
        container: &Arc<Container>,
        what: What,
    ) {
        if era.is_quiet() {
            return;
        }
        match self.occasion(container, what).await {
            Ok(occasion) => self.after(era, occasion).await,
            Err(error) => {
                let id = container.record.id.short();
                tracing::warn!(id, error = chain(&error), "a container cannot be shown to plugins");
            }
        }
    }

    /// The limits that a container gets, where these were asked for.
    pub(crate) async fn nri_update(
        &self,
        era: &Era,
        container: &Arc<Container>,
        change: Resources,
    ) -> Result<Resources, RuntimeError> {
        if era.is_quiet() {
            return Ok(change);
        }
        let occasion = self.occasion(container, What::Update(change.clone())).await?;
        let reply = era.tell(occasion).await?;
        drop(self.nri_changes(reply.changes, reply.evict).await);
        Ok(reply.resources.unwrap_or(change))
    }

    async fn occasion(
        &self,
        container: &Arc<Container>,
        what: What,
    ) -> Result<Occasion, RuntimeError> {
        let pod = self.0.store.pod(container.record.sandbox.as_str())?;
        let view = self.container_view(container).await?;
        Ok(Occasion { what, pod: self.pod_view(&pod), container: Some(view) })
    }

    async fn after(&self, era: &Era, occasion: Occasion) {
        let (what, pod) = (occasion.what.clone(), occasion.pod.pod.record.id.clone());
        match era.tell(occasion).await {
            Ok(reply) => drop(self.nri_changes(reply.changes, reply.evict).await),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(
                    ?what,
                    pod = pod.short(),
                    error,
                    "a plugin refuses what is so already"
                );
            }
        }
    }
}
