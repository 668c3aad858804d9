//! The image side as the daemon uses it: pull, list, find, remove, account. Reads come from the index
//! in memory; what takes time runs on threads of its own.

use crate::auth::Auth;
use crate::config::ImageConfig;
use crate::error::ImageError;
use crate::index::{Image, Index, Lease};
use crate::progress::Progress;
use crate::pulls::{Launch, Pulls};
use crate::reference::Reference;
use crate::writable::Writable;
use shim_model::digest::ChainId;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Images of this node.
#[derive(Clone, Debug)]
pub struct Images {
    config: ImageConfig,
    index: Index,
    pulls: Pulls,
    writable: Writable,
    /// Pulls hold it to share, the collection alone: what a pull just made has no name yet.
    collecting: Arc<tokio::sync::RwLock<()>>,
}

/// Use of the image file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsUsage {
    /// Bytes and inodes of all layers.
    pub images: (u64, u64),
    /// Bytes and inodes of all writable layers.
    pub containers: (u64, u64),
}

impl Images {
    /// Opens the store below the configured folder, cleaning what a crash left in the making.
    pub fn open(config: ImageConfig, launch: Launch) -> Result<Self, ImageError> {
        let index = Index::open(&config.root)?;
        index.layers().sweep()?;
        let writable = Writable::open(&config.root)?;
        let pulls = Pulls::new(config.clone(), launch);
        Ok(Self { config, index, pulls, writable, collecting: Arc::default() })
    }

    /// Pulls an image and names it.
    pub async fn pull(
        &self,
        name: &str,
        auth: &Auth,
        heard: Option<mpsc::UnboundedSender<Progress>>,
    ) -> Result<Arc<Image>, ImageError> {
        let reference = Reference::parse(name)?;
        let _sharing = self.collecting.read().await;
        let pulled = self.pulls.pull(&reference.to_string(), auth, heard).await?;
        let index = self.index.clone();
        blocking(move || index.name(&reference, &pulled, shim_sys::clock::now())).await
    }

    /// The image with this name or id.
    pub fn find(&self, name: &str) -> Result<Option<Arc<Image>>, ImageError> {
        self.index.find(name)
    }

    /// Every image.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.index.list()
    }

    /// Removes an image by any of its names, with all of them; a missing one is done. Its layers go
    /// once nothing stands on them; `used` are those that containers stand on.
    pub async fn remove(&self, name: &str, used: BTreeSet<ChainId>) -> Result<(), ImageError> {
        let Some(image) = self.index.find(name)? else { return Ok(()) };
        let index = self.index.clone();
        let id = image.id.clone();
        blocking(move || index.remove(&id)).await?;
        self.collect(used);
        Ok(())
    }

    /// Deletes in the background what nothing needs.
    pub fn collect(&self, used: BTreeSet<ChainId>) {
        let images = self.clone();
        tokio::spawn(async move {
            let _alone = images.collecting.write().await;
            let index = images.index.clone();
            if let Err(error) = blocking(move || index.collect(&used)).await {
                tracing::warn!(error = error.chain(), "layers that nothing needs stay on the disk");
            }
        });
    }

    /// Gives an image a further name.
    pub async fn tag(&self, name: &str, new: &str) -> Result<Arc<Image>, ImageError> {
        let image = self.index.find(name)?.ok_or_else(|| ImageError::Missing(name.to_owned()))?;
        let (index, reference) = (self.index.clone(), Reference::parse(new)?);
        blocking(move || index.tag(&image.id, &reference)).await
    }

    /// Keeps an image's layers as long as the lease lives.
    pub fn lease(&self, image: &Image) -> Lease {
        self.index.lease(&image.id)
    }

    /// Folders of an image's layers, top first, as overlayfs takes them.
    pub fn layer_folders(&self, image: &Image) -> Vec<PathBuf> {
        image.chain.iter().rev().map(|chain| self.index.layers().files(chain)).collect()
    }

    /// Writable layers.
    pub fn writable(&self) -> &Writable {
        &self.writable
    }

    /// The index, for import and export.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Settings.
    pub fn config(&self) -> &ImageConfig {
        &self.config
    }

    /// What layers and writable layers use. Walks the writable layers: call it in the background.
    pub fn usage(&self) -> FsUsage {
        let layers = self.index.layers();
        let mut usage = FsUsage::default();
        for meta in layers.list().iter().filter_map(|chain| layers.meta(chain)) {
            usage.images.0 = usage.images.0.saturating_add(meta.bytes);
            usage.images.1 = usage.images.1.saturating_add(meta.inodes);
        }
        for id in self.writable.list() {
            let (bytes, inodes) = self.writable.usage(&id);
            usage.containers.0 = usage.containers.0.saturating_add(bytes);
            usage.containers.1 = usage.containers.1.saturating_add(inodes);
        }
        usage
    }
}

/// Runs blocking work on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(ImageError::Worker("a task of the image store".to_owned())),
    }
}
