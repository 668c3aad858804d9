//! Takes away what no pod has: pins, leases of our own bridge, attachments that only the cache remembers;
//! and has the plugins of the configured list collect theirs (GC of SPEC 1.1.0). At start, and now and
//! then. What is being made is never taken for garbage: pods are counted after garbage was listed.

use super::cache::{self, Kept};
use super::plugin::{self, Call};
use super::{Network, builtin, netns};
use crate::error::{RuntimeError, chain};
use crate::runtime::blocking;
use serde_json::Map;
use shim_model::cni::chain::Step;
use shim_model::cni::conf::ConfList;
use shim_model::id::SandboxId;
use shim_model::limits;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The pods there are; `None` once there is no runtime any more.
pub type Pods = dyn Fn() -> Option<BTreeSet<SandboxId>> + Send + Sync;

impl Network {
    /// Collects now, and from time to time for as long as there are pods to ask for.
    pub async fn tend(&self, pods: Arc<Pods>) {
        self.collect(&pods).await;
        let network = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(limits::CNI_GC_EVERY).await;
                if pods().is_none() {
                    break;
                }
                network.collect(&pods).await;
            }
        });
    }

    /// Takes away what no pod has; what fails is told in the log and stays until the next time.
    pub async fn collect(&self, pods: &Arc<Pods>) {
        let warn = |what: &str, error: &RuntimeError| {
            tracing::warn!(error = chain(error), "{what}");
        };
        if let Err(error) = self.sweep(Arc::clone(pods)).await {
            warn("something of an earlier network stays", &error);
        }
        if let Err(error) = self.detach_strays(pods).await {
            warn("an attachment of a pod that is gone stays", &error);
        }
        let Ok(list) = self.configured.get() else { return };
        if list.disable_gc || !list.at_least("1.1.0") {
            return;
        }
        // A pod whose ADD is under way is not among those that stay: GC never runs beside one, and one
        // that comes ends it.
        let Ok(_no_add) = self.gate.try_write() else { return };
        tokio::select! {
            collected = self.collect_list(&list, pods) => {
                if let Err(error) = collected {
                    warn("the plugins could not collect everything", &error);
                }
            }
            () = self.hurry.notified() => {
                tracing::debug!("GC gives way to a pod");
            }
        }
    }

    /// Pins and leases of our own.
    async fn sweep(&self, pods: Arc<Pods>) -> Result<(), RuntimeError> {
        let config = Arc::clone(&self.chains.config);
        blocking(move || {
            let names = std::fs::read_dir(&config.netns_dir).into_iter().flatten().flatten();
            let pinned: Vec<SandboxId> = names
                .filter_map(|name| SandboxId::parse(&name.file_name().to_string_lossy()).ok())
                .collect();
            let Some(known) = pods() else { return Ok(()) };
            for id in pinned.iter().filter(|id| !known.contains(id)) {
                netns::remove(&config.netns_dir.join(id.as_str()))?;
            }
            builtin::sweep(&config.builtin, &|| pods().unwrap_or_default())
        })
        .await
    }

    /// DEL of attachments that were made for pods of ours which are gone without one.
    async fn detach_strays(&self, pods: &Arc<Pods>) -> Result<(), RuntimeError> {
        let cache_dir = self.chains.config.cache_dir.clone();
        let all = blocking(move || Ok(cache::all(&cache_dir))).await?;
        let Some(known) = pods() else { return Ok(()) };
        let mut failed = Ok(());
        for kept in all.into_iter().filter(|kept| self.is_ours(kept)) {
            if !SandboxId::parse(&kept.id).is_ok_and(|id| known.contains(&id)) {
                tracing::info!(id = kept.id, "a pod left a network attachment behind");
                failed = self.chains.del(kept).await.and(failed);
            }
        }
        failed
    }

    fn is_ours(&self, kept: &Kept) -> bool {
        kept.netns.parent() == Some(&self.chains.config.netns_dir)
    }

    /// GC of one list, with every attachment that stays: of our pods, and of other runtimes that keep
    /// theirs in the same cache.
    async fn collect_list(&self, list: &ConfList, pods: &Arc<Pods>) -> Result<(), RuntimeError> {
        let cache_dir = self.chains.config.cache_dir.clone();
        let all = blocking(move || Ok(cache::all(&cache_dir))).await?;
        let Some(known) = pods() else { return Ok(()) };
        let others = all
            .into_iter()
            .filter(|kept| kept.list.name == list.name && !self.is_ours(kept))
            .filter(|kept| kept.netns.exists())
            .map(|kept| kept.id);
        let stay: BTreeSet<String> = known.iter().map(ToString::to_string).chain(others).collect();
        let (chains, own, ids) = (self.chains.clone(), list.clone(), stay.clone());
        blocking(move || chains.collect(&own, |id| ids.contains(id))).await?;
        let eth0 = super::native::veth::POD_END;
        let stay: Vec<_> = stay.into_iter().map(|id| (id, eth0.to_owned())).collect();
        let steps = self.chains.steps(list, &Map::new()).into_iter().enumerate();
        let mut failed = Ok(());
        for (index, _) in steps.filter(|(_, step)| !matches!(step, Step::Link(_))) {
            let typ = list.plugin_type(index);
            if plugin::find(&self.chains.config, typ).is_ok() {
                let call = Call { verb: "GC", pod: None, config: &self.chains.config };
                let done = plugin::run(&call, typ, &list.input_of_all(index, Some(&stay))).await;
                failed = done.map(drop).and(failed);
            }
        }
        failed
    }
}
