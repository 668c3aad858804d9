//! All plugins, asked one after the other in the order of their indices and names. What they answer is
//! gathered by `merge`; those that validate are asked last, about the whole. A plugin that left is skipped.

use super::merge::Merged;
use super::plugin::Plugin;
use super::{adjust, resources, view};
use futures_util::future::BoxFuture;
use shim_model::resources::Resources;
use shim_proto::nri_v1alpha1 as nri;
use shim_proto::nri_v1alpha1::Event;
use shim_runtime::error::RuntimeError;
use shim_runtime::nri::view::ContainerView;
use shim_runtime::nri::{Occasion, Plugins, Reply, What};
use std::sync::Arc;

/// The plugins of one era.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain(Vec<Arc<Plugin>>);

impl Plugins for Chain {
    fn tell(&self, occasion: Occasion) -> BoxFuture<'_, Result<Reply, RuntimeError>> {
        Box::pin(self.occasion(occasion))
    }
}

impl Chain {
    /// This chain with one more.
    pub(super) fn with(&self, plugin: Arc<Plugin>) -> Self {
        let mut all: Vec<_> =
            self.0.iter().filter(|p| !p.connection.is_closed()).cloned().collect();
        all.push(plugin);
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Self(all)
    }

    /// This chain without those who left.
    pub(super) fn without_gone(&self) -> Self {
        Self(self.0.iter().filter(|plugin| !plugin.connection.is_closed()).cloned().collect())
    }

    /// Nobody is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names, in order.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.iter().map(|plugin| plugin.name.clone()).collect()
    }

    /// Lets everybody know that we leave.
    pub(super) async fn shut_down(&self) {
        for plugin in &self.0 {
            drop(plugin.ask::<nri::Empty>("Shutdown", &nri::Empty {}).await);
            plugin.connection.close();
        }
    }

    async fn occasion(&self, occasion: Occasion) -> Result<Reply, RuntimeError> {
        let Occasion { what, pod, container } = occasion;
        let pod = Some(view::pod(&pod));
        match (what, container) {
            (What::Create, Some(view)) => self.create(pod, &view).await,
            (What::Update(change), Some(view)) => self.update(pod, &view, change).await,
            (What::Stop, Some(view)) => self.stop(pod, &view).await,
            (What::RunPod, _) => {
                let request = nri::RunPodSandboxRequest { pod };
                self.all(Event::RunPodSandbox, "RunPodSandbox", &request).await
            }
            (What::UpdatePod { overhead, resources }, _) => {
                let request = nri::UpdatePodSandboxRequest {
                    pod,
                    overhead_linux_resources: overhead.as_ref().map(resources::shown),
                    linux_resources: resources.as_ref().map(resources::shown),
                };
                self.all(Event::UpdatePodSandbox, "UpdatePodSandbox", &request).await
            }
            (What::PostUpdatePod, _) => {
                let request = nri::PostUpdatePodSandboxRequest { pod };
                self.all(Event::PostUpdatePodSandbox, "PostUpdatePodSandbox", &request).await
            }
            (What::StopPod, _) => {
                let request = nri::StopPodSandboxRequest { pod };
                self.all(Event::StopPodSandbox, "StopPodSandbox", &request).await
            }
            (What::RemovePod, _) => {
                let request = nri::RemovePodSandboxRequest { pod };
                self.all(Event::RemovePodSandbox, "RemovePodSandbox", &request).await
            }
            (what, container) => self.plain(what, pod, container).await,
        }
    }

    /// What happens to a container where only a refusal counts.
    async fn plain(
        &self,
        what: What,
        pod: Option<nri::PodSandbox>,
        container: Option<Arc<ContainerView>>,
    ) -> Result<Reply, RuntimeError> {
        let container = container.as_deref().map(view::container);
        match what {
            What::PostCreate => {
                let request = nri::PostCreateContainerRequest { pod, container };
                self.all(Event::PostCreateContainer, "PostCreateContainer", &request).await
            }
            What::Start => {
                let request = nri::StartContainerRequest { pod, container };
                self.all(Event::StartContainer, "StartContainer", &request).await
            }
            What::PostStart => {
                let request = nri::PostStartContainerRequest { pod, container };
                self.all(Event::PostStartContainer, "PostStartContainer", &request).await
            }
            What::PostUpdate => {
                let request = nri::PostUpdateContainerRequest { pod, container };
                self.all(Event::PostUpdateContainer, "PostUpdateContainer", &request).await
            }
            What::Remove => {
                let request = nri::RemoveContainerRequest { pod, container };
                self.all(Event::RemoveContainer, "RemoveContainer", &request).await
            }
            // Other stories.
            What::Create
            | What::Update(_)
            | What::Stop
            | What::RunPod
            | What::UpdatePod { .. }
            | What::PostUpdatePod
            | What::StopPod
            | What::RemovePod => Ok(Reply::default()),
        }
    }

    fn who_wants(&self, event: Event) -> impl Iterator<Item = &Arc<Plugin>> {
        self.0.iter().filter(move |plugin| plugin.wants(event))
    }

    /// The same to everybody; only a refusal counts.
    async fn all(
        &self,
        event: Event,
        method: &'static str,
        request: &impl prost::Message,
    ) -> Result<Reply, RuntimeError> {
        for plugin in self.who_wants(event) {
            let _says_nothing: Option<nri::Empty> = plugin.ask(method, request).await?;
        }
        Ok(Reply::default())
    }

    async fn create(
        &self,
        pod: Option<nri::PodSandbox>,
        view: &ContainerView,
    ) -> Result<Reply, RuntimeError> {
        const METHOD: &str = "CreateContainer";
        let pristine = view::container(view);
        let mut request = nri::CreateContainerRequest { pod, container: Some(pristine.clone()) };
        let mut merged = Merged::default();
        let mut last = None;
        for plugin in self.who_wants(Event::CreateContainer) {
            let reply: Option<nri::CreateContainerResponse> = plugin.ask(METHOD, &request).await?;
            let Some(reply) = reply else { continue };
            let container = request.container.get_or_insert_default();
            let adjust = reply.adjust.unwrap_or_default();
            merged
                .adjust(&plugin.name, container, adjust)
                .and_then(|()| merged.updates(&plugin.name, Some(&pristine.id), reply.update))
                .and_then(|()| merged.evictions(reply.evict))
                .map_err(|why| plugin.refused(METHOD, &why))?;
            last = Some(plugin);
        }
        self.validate(&request, pristine, &merged).await?;
        let Some(last) = last else { return Ok(Reply::default()) };
        let adjustment = adjust::adjustment(&merged.adjust, &view.record.user)
            .map_err(|why| last.refused(METHOD, &why))?;
        let changes = merged.changes.into_values().collect();
        Ok(Reply { adjustment, changes, evict: merged.evict, resources: None })
    }

    /// Asks those who judge what the others want. One that is gone by now judges as little as one that never
    /// came; one that is asked and cannot answer lets nothing pass.
    async fn validate(
        &self,
        request: &nri::CreateContainerRequest,
        pristine: nri::Container,
        merged: &Merged,
    ) -> Result<(), RuntimeError> {
        const METHOD: &str = "ValidateContainerAdjustment";
        let event = Event::ValidateContainerAdjustment;
        if self.who_wants(event).next().is_none() {
            return Ok(());
        }
        let asked = self.who_wants(Event::CreateContainer);
        let instance = |plugin: &Arc<Plugin>| {
            let (index, name) = plugin.name.split_once('-').unwrap_or_default();
            nri::PluginInstance { name: name.to_owned(), index: index.to_owned() }
        };
        let validated = nri::ValidateContainerAdjustmentRequest {
            pod: request.pod.clone(),
            container: Some(pristine),
            adjust: Some(merged.adjust.clone()),
            update: merged.shown_updates(),
            owners: Some(merged.owners.shown()),
            plugins: asked.map(instance).collect(),
        };
        for plugin in self.who_wants(event).filter(|plugin| !plugin.connection.is_closed()) {
            let reply: Option<nri::ValidateContainerAdjustmentResponse> =
                plugin.ask(METHOD, &validated).await?;
            let no = || plugin.refused(METHOD, "it gave no answer");
            let reply = reply.ok_or_else(no)?;
            if reply.reject {
                return Err(plugin.refused(METHOD, &reply.reason));
            }
        }
        Ok(())
    }

    async fn update(
        &self,
        pod: Option<nri::PodSandbox>,
        view: &ContainerView,
        change: Resources,
    ) -> Result<Reply, RuntimeError> {
        const METHOD: &str = "UpdateContainer";
        let container = view::container(view);
        let id = container.id.clone();
        let mut request = nri::UpdateContainerRequest {
            pod,
            container: Some(container),
            linux_resources: Some(resources::shown(&change)),
        };
        let (mut merged, mut wanted) = (Merged::default(), change);
        for plugin in self.who_wants(Event::UpdateContainer) {
            let reply: Option<nri::UpdateContainerResponse> = plugin.ask(METHOD, &request).await?;
            let Some(reply) = reply else { continue };
            merged
                .updates(&plugin.name, None, reply.update)
                .and_then(|()| merged.evictions(reply.evict))
                .map_err(|why| plugin.refused(METHOD, &why))?;
            if let Some(own) = merged.changes.remove(&id) {
                wanted = wanted.changed(&own.resources);
                request.linux_resources = Some(resources::shown(&wanted));
            }
        }
        let changes = merged.changes.into_values().collect();
        Ok(Reply { resources: Some(wanted), changes, evict: merged.evict, ..Reply::default() })
    }

    async fn stop(
        &self,
        pod: Option<nri::PodSandbox>,
        view: &ContainerView,
    ) -> Result<Reply, RuntimeError> {
        const METHOD: &str = "StopContainer";
        let request = nri::StopContainerRequest { pod, container: Some(view::container(view)) };
        let mut merged = Merged::default();
        for plugin in self.who_wants(Event::StopContainer) {
            let reply: Option<nri::StopContainerResponse> = plugin.ask(METHOD, &request).await?;
            let updates = reply.unwrap_or_default().update;
            merged
                .updates(&plugin.name, None, updates)
                .map_err(|why| plugin.refused(METHOD, &why))?;
        }
        Ok(Reply { changes: merged.changes.into_values().collect(), ..Reply::default() })
    }
}
