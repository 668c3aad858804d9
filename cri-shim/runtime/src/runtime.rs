//! The runtime as one value: what every verb needs, and the reads that never wait.

use crate::apparmor::AppArmor;
use crate::cdi::Cdi;
use crate::cgroup::Cgroups;
use crate::config::RuntimeConfig;
use crate::counts::Counts;
use crate::error::RuntimeError;
use crate::events::{Event, Events};
use crate::filters::Filters;
use crate::handlers::known::Handlers;
use crate::host;
use crate::monitors::Zygote;
use crate::network::Network;
use crate::nri::Nri;
use crate::pulled::Pulled;
use crate::stats::detail;
use crate::stats::disk::Disks;
use crate::store::Store;
use crate::store::container::Container;
use crate::store::disk::StateDir;
use crate::store::ledger::Ledger;
use crate::store::pod::Pod;
use shim_image::images::Images;
use shim_image::reference::Reference;
use shim_model::digest::ChainId;
use shim_model::host::Host;
use shim_model::untag::{self, Goes};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// The runtime; clones share everything.
#[derive(Clone, Debug)]
pub struct Runtime(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: RuntimeConfig,
    pub(crate) host: Host,
    pub(crate) store: Store,
    pub(crate) zygote: Zygote,
    pub(crate) images: Images,
    pub(crate) cgroups: Cgroups,
    pub(crate) network: Network,
    pub(crate) filters: Filters,
    pub(crate) events: Events<Event>,
    pub(crate) counts: Counts,
    pub(crate) pulled: Pulled,
    pub(crate) disks: Arc<Disks>,
    /// Where the file system of writable layers is, as the mount table names it.
    pub(crate) device: String,
    /// When this daemon began.
    pub(crate) since: Instant,
    pub(crate) cdi: Cdi,
    pub(crate) handlers: Handlers,
    pub(crate) nri: Nri,
    pub(crate) apparmor: AppArmor,
}

impl Runtime {
    /// Starts the runtime and recovers what an earlier daemon left: when this returns, every read
    /// tells the truth.
    pub async fn start(
        config: RuntimeConfig,
        images: Images,
        cgroups: Cgroups,
        zygote: Zygote,
    ) -> Result<Self, RuntimeError> {
        let boot = shim_sys::clock::boot_id().map_err(RuntimeError::system("read the boot id"))?;
        crate::store::disk::make(&config.logs())?;
        let disk = StateDir::open(&config.state, &boot)?;
        let (ledger, past) = Ledger::open(&config.root)?;
        let host = host::probe(&config, &cgroups)?;
        let network = Network::start(config.network.clone())?;
        let handlers = Handlers::ask(config.handlers.clone(), &config.state, &host);
        let apparmor = AppArmor::start(host.apparmor, &config.state);
        let (handlers, apparmor) = tokio::join!(handlers, apparmor);
        let inner = Inner {
            host,
            store: Store::new(disk, ledger),
            zygote,
            images,
            cgroups,
            network,
            filters: Filters::default(),
            events: Events::default(),
            counts: Counts::default(),
            pulled: Pulled::default(),
            disks: Arc::default(),
            device: detail::device_of(&config.root),
            since: Instant::now(),
            cdi: Cdi::watch(config.cdi_folders.clone()),
            handlers,
            nri: Nri::default(),
            apparmor,
            config,
        };
        let runtime = Self(Arc::new(inner));
        runtime.recover(past).await?;
        runtime.count_disks();
        Ok(runtime)
    }

    /// The node's facts.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// Settings.
    pub fn config(&self) -> &RuntimeConfig {
        &self.0.config
    }

    /// Images.
    pub fn images(&self) -> &Images {
        &self.0.images
    }

    /// What was counted since the start.
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// Listeners to events that were too slow since the start.
    pub fn listeners_lost(&self) -> u64 {
        self.0.events.slow()
    }

    /// How often a zygote had to be replaced since the start.
    pub fn zygotes_lost(&self) -> u64 {
        self.0.zygote.lost()
    }

    /// Network.
    pub fn network(&self) -> &Network {
        &self.0.network
    }

    /// Devices of vendors.
    pub fn cdi(&self) -> &Cdi {
        &self.0.cdi
    }

    /// RuntimeClass handlers.
    pub fn handlers(&self) -> &Handlers {
        &self.0.handlers
    }

    /// Plugins of the Node Resource Interface.
    pub fn nri(&self) -> &Nri {
        &self.0.nri
    }

    /// AppArmor.
    pub fn apparmor(&self) -> &AppArmor {
        &self.0.apparmor
    }

    /// Cgroups.
    pub fn cgroups(&self) -> &Cgroups {
        &self.0.cgroups
    }

    /// Every pod that callers may see.
    pub fn sandboxes(&self) -> Vec<Arc<Pod>> {
        self.0.store.pods().into_iter().filter(|pod| pod.is_shown()).collect()
    }

    /// Every container that callers may see.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.0.store.containers().into_iter().filter(|container| container.is_shown()).collect()
    }

    /// One pod by id or prefix.
    pub fn sandbox(&self, id: &str) -> Result<Arc<Pod>, RuntimeError> {
        self.0
            .store
            .pod(id)
            .and_then(|pod| if pod.is_shown() { Ok(pod) } else { Err(missing("sandbox", id)) })
    }

    /// One container by id or prefix.
    pub fn container(&self, id: &str) -> Result<Arc<Container>, RuntimeError> {
        let found = self.0.store.container(id)?;
        if found.is_shown() { Ok(found) } else { Err(missing("container", id)) }
    }

    /// Layers that containers stand on: they must not be collected.
    pub fn layers_in_use(&self) -> BTreeSet<ChainId> {
        self.0
            .store
            .containers()
            .iter()
            .flat_map(|container| container.record.chain.iter().cloned())
            .collect()
    }

    /// Removes an image by any of its names.
    pub async fn remove_image(&self, name: &str) -> Result<(), RuntimeError> {
        let used = self.layers_in_use();
        self.0
            .images
            .remove(name, used)
            .await
            .map_err(RuntimeError::image(format!("remove the image {name}")))
    }

    /// Takes a name from an image, and removes the image with its last one, unless it is to stay. The names
    /// that went, and the image's id if it went too.
    pub async fn untag_image(
        &self,
        name: &str,
        force: bool,
    ) -> Result<(Vec<String>, Option<String>), RuntimeError> {
        let failed = || RuntimeError::image(format!("remove the image {name}"));
        let found = self.0.images.find(name).map_err(failed())?;
        let image = found.ok_or_else(|| missing("image", name))?;
        let id = image.id.to_string();
        let users: Vec<String> = self
            .containers()
            .iter()
            .filter(|container| container.record.image_id == id)
            .map(|container| self.called(container))
            .collect();
        let asked = Reference::parse(name).ok().map(|reference| reference.to_string());
        let known = untag::Known { tags: &image.tags, users: &users };
        let goes = untag::decide(known, asked.as_deref(), force)
            .map_err(|why| RuntimeError::ImageStays { image: name.to_owned(), why })?;
        match goes {
            Goes::Name(tag) => {
                self.0.images.untag(&image, tag.clone()).await.map_err(failed())?;
                Ok((vec![tag], None))
            }
            Goes::Image => {
                self.remove_image(&id).await?;
                Ok((image.tags.iter().cloned().collect(), Some(id)))
            }
        }
    }

    /// Collects an image that was removed while a container stood on it, now that this one is gone.
    pub(crate) fn collect_removed_image(&self, id: &str) {
        if matches!(self.0.images.find(id), Ok(None)) {
            self.0.images.collect(self.layers_in_use());
        }
    }

    /// A container as people call it: by its name if the command line made it, else by its id.
    fn called(&self, container: &Container) -> String {
        let pod = self.0.store.pod(container.record.sandbox.as_str());
        if pod.is_ok_and(|pod| pod.record.config.own) {
            container.record.config.metadata.name.clone()
        } else {
            container.record.id.short().to_owned()
        }
    }
}

fn missing(what: &'static str, id: &str) -> RuntimeError {
    RuntimeError::NotFound { what, id: id.chars().take(80).collect() }
}

/// Runs blocking work on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(RuntimeError::Lost("a blocking task")),
    }
}
