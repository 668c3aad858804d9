//! The image side as the daemon uses it: pull, list, find, remove, account. Reads come from the index
//! in memory; what takes time runs on threads of its own.

use crate::archive::export;
use crate::auth::Auth;
use crate::config::ImageConfig;
use crate::error::ImageError;
use crate::gc::{self, Collected};
use crate::index::{Adoption, Image, Index, Lease};
use crate::progress::Progress;
use crate::pulls::{Launch, Pulls};
use crate::reference::Reference;
use crate::usage::Usage;
use crate::worker::{Brought, Work};
use crate::writable::Writable;
use shim_model::digest::ChainId;
use shim_model::limits;
use shim_model::phases::Step;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Images of this node.
#[derive(Clone, Debug)]
pub struct Images {
    config: ImageConfig,
    index: Index,
    pulls: Pulls,
    writable: Writable,
    untidy: Arc<Notify>,
}

/// An image that a pull brought.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// The image, with its name.
    pub image: Arc<Image>,
    /// How long each step took; whoever joined a pull gets those before it joined, too.
    pub steps: Vec<Step>,
}

/// Work that may leave layers and blobs that no image needs, unless it is told to be done.
struct Untidy(Option<Arc<Notify>>);

impl Drop for Untidy {
    fn drop(&mut self) {
        if let Some(untidy) = self.0.take() {
            untidy.notify_one();
        }
    }
}

impl Images {
    /// Opens the store below the configured folder, cleaning what a crash left in the making.
    pub fn open(config: ImageConfig, launch: Launch) -> Result<Self, ImageError> {
        let index = Index::open(&config.root)?;
        index.layers().disown()?;
        let leftovers = index.layers().clone();
        // Half an image may be gigabytes, and the first answers do not wait for it.
        std::thread::spawn(move || leftovers.sweep());
        let writable = Writable::open(&config.root)?;
        let pulls = Pulls::new(config.clone(), launch);
        Ok(Self { config, index, pulls, writable, untidy: Arc::default() })
    }

    /// Pulls an image and names it. `heard` gets the layers' progress; dropping the future gives the pull
    /// up, unless somebody else waits for the same.
    pub async fn pull(
        &self,
        name: &str,
        auth: &Auth,
        heard: Option<mpsc::UnboundedSender<Progress>>,
    ) -> Result<Arrived, ImageError> {
        let reference = Reference::parse(name)?;
        let work = Work::Pull { name: reference.to_string(), auth: auth.clone() };
        let mut untidy = Untidy(Some(Arc::clone(&self.untidy)));
        let mut tries = 0;
        loop {
            tries += 1;
            match self.pull_once(&work, &reference, heard.clone()).await {
                // A removal took layers away that this pull had counted on, before it could say so.
                Err(ImageError::Vanished(_)) if tries < 3 => {}
                Err(error) => return Err(error),
                Ok(arrived) => {
                    untidy.0 = None;
                    return Ok(arrived);
                }
            }
        }
    }

    /// Waits until a pull or import failed or was given up, at most so long: then [`Images::collect`] may
    /// find something.
    pub async fn untidy(&self, at_most: Duration) {
        let _either = tokio::time::timeout(at_most, self.untidy.notified()).await;
    }

    async fn pull_once(
        &self,
        work: &Work,
        reference: &Reference,
        heard: Option<mpsc::UnboundedSender<Progress>>,
    ) -> Result<Arrived, ImageError> {
        let held = self.pulls.bring(work, heard).await?;
        let (index, reference) = (self.index.clone(), reference.clone());
        blocking(move || {
            let nothing = || ImageError::Vanished(reference.to_string());
            let only = held.brought.first().ok_or_else(nothing)?;
            let image = index.name(&reference, &only.image, shim_sys::clock::now())?;
            Ok(Arrived { image, steps: held.steps.clone() })
        })
        .await
    }

    /// Reads the images of an OCI layout (a folder), an OCI archive or a `docker save` archive, and gives
    /// them the names that they have there. `name` is for the only image of an archive without names.
    pub async fn import(
        &self,
        from: PathBuf,
        name: Option<&str>,
    ) -> Result<Vec<Arc<Image>>, ImageError> {
        self.import_as(from, name, Adoption::default()).await
    }

    /// Likewise, with what else is wished for its images.
    pub async fn import_as(
        &self,
        from: PathBuf,
        name: Option<&str>,
        adoption: Adoption,
    ) -> Result<Vec<Arc<Image>>, ImageError> {
        let given = name.map(Reference::parse).transpose()?;
        let mut untidy = Untidy(Some(Arc::clone(&self.untidy)));
        let held = self.pulls.bring(&Work::Import { from }, None).await?;
        let index = self.index.clone();
        let named = blocking(move || {
            let only = held.brought.len() == 1;
            let name_one = |brought: &Brought| {
                let mut tags: Vec<Reference> = brought
                    .names
                    .iter()
                    .map(|name| Reference::parse(name))
                    .collect::<Result<_, _>>()?;
                tags.extend(given.clone().filter(|_| only));
                index.adopt(&brought.image, &tags, adoption, shim_sys::clock::now())
            };
            held.brought.iter().map(name_one).collect()
        })
        .await?;
        untidy.0 = None;
        Ok(named)
    }

    /// Writes images by these names to an archive or layout.
    pub async fn export(&self, names: Vec<String>, to: export::To) -> Result<(), ImageError> {
        let mut chosen = Vec::new();
        for name in names {
            let image = self.index.find(&name)?.ok_or_else(|| ImageError::Missing(name.clone()))?;
            let tag = Reference::parse(&name).ok().map(|reference| reference.to_string());
            let tags = match tag.filter(|tag| image.tags.contains(tag)) {
                Some(tag) => vec![tag],
                None => image.tags.iter().cloned().collect(),
            };
            let lease = self.lease(&image);
            chosen.push((image, tags, lease));
        }
        let index = self.index.clone();
        blocking(move || export::export(&index, &chosen, to)).await
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

    /// Deletes in the background what nothing needs. Pulls go on meanwhile.
    pub fn collect(&self, used: BTreeSet<ChainId>) {
        let images = self.clone();
        tokio::task::spawn_blocking(move || match images.collect_now(&used) {
            Ok(gone) => tracing::debug!(gone.layers, gone.blobs, "deleted what no image needs"),
            Err(error) => {
                tracing::warn!(error = error.chain(), "layers that nothing needs stay on the disk");
            }
        });
    }

    /// As [`Images::collect`], and waits until the space is given back. Blocks.
    pub fn collect_now(&self, used: &BTreeSet<ChainId>) -> Result<Collected, ImageError> {
        gc::collect(&self.index, || self.pulls.holders(), used)
    }

    /// Keeps an image from the kubelet's garbage collection, or no longer.
    pub async fn pin(&self, name: &str, pinned: bool) -> Result<Arc<Image>, ImageError> {
        let image = self.index.find(name)?.ok_or_else(|| ImageError::Missing(name.to_owned()))?;
        let index = self.index.clone();
        blocking(move || index.pin(&image.id, pinned)).await
    }

    /// Gives an image a further name.
    pub async fn tag(&self, name: &str, new: &str) -> Result<Arc<Image>, ImageError> {
        let image = self.index.find(name)?.ok_or_else(|| ImageError::Missing(name.to_owned()))?;
        let (index, reference) = (self.index.clone(), Reference::parse(new)?);
        blocking(move || index.tag(&image.id, &reference)).await
    }

    /// Takes a name from an image, which keeps its others.
    pub async fn untag(&self, image: &Image, tag: String) -> Result<Arc<Image>, ImageError> {
        let (index, id) = (self.index.clone(), image.id.clone());
        blocking(move || index.untag(&id, &tag)).await
    }

    /// Keeps an image's layers as long as the lease lives.
    pub fn lease(&self, image: &Image) -> Lease {
        self.index.lease(&image.id)
    }

    /// Folders of an image's layers, top first, as overlayfs takes them.
    pub fn layer_folders(&self, image: &Image) -> Vec<PathBuf> {
        image.chain.iter().rev().map(|chain| self.index.layers().files(chain)).collect()
    }

    /// Folders of a container's root, top first: the image's layers, and below them the mount points that
    /// every container needs. An image that takes all layers that the kernel allows does without.
    pub fn root_folders(&self, image: &Image) -> Vec<PathBuf> {
        let mut folders = self.layer_folders(image);
        if folders.len() < limits::OVERLAY_LAYERS {
            folders.push(self.writable.mount_points().to_owned());
        }
        folders
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

    /// What images take on the disk. Blocks, but shortly.
    pub fn usage(&self) -> Usage {
        self.index.usage()
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
