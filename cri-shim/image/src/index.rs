//! Which images are here and what they are called: the only writer of image records. In memory for
//! readers, one small file per image on disk (`images/HEX`), written before it is published. A record
//! that cannot be read, or whose layers are gone, is set aside and stops nobody else.

use crate::content::{Content, durable};
use crate::error::ImageError;
use crate::layers::dir::{Layers, scratch_name};
use crate::pull::Pulled;
use crate::reference::{Reference, What};
use crate::usage::{self, Usage};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use shim_model::digest::{BlobDigest, ChainId, ImageId};
use shim_model::gc::Holder;
use shim_model::image::ImageConfig;
use shim_model::record;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is wished for images that are imported, besides their names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Adoption {
    /// Also their names by the digests of their manifests.
    pub digests: bool,
    /// Keep them from the kubelet's garbage collection.
    pub pinned: bool,
}

/// One image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Image {
    /// Digest of its config.
    pub id: ImageId,
    /// `host/path:tag`, sorted.
    pub tags: BTreeSet<String>,
    /// `host/path@digest`, sorted.
    pub digests: BTreeSet<String>,
    /// Manifests and indexes that lead here.
    pub manifests: BTreeSet<BlobDigest>,
    /// Layers, bottom first.
    pub chain: Vec<ChainId>,
    /// Bytes on the disk, all layers together and the config.
    pub size: u64,
    /// When it came, nanoseconds since the epoch.
    pub pulled_at: i64,
    /// Never taken by the kubelet's garbage collection.
    pub pinned: bool,
    /// What its config says.
    #[serde(skip)]
    pub config: ImageConfig,
}

/// Keeps an image's layers while it lives.
#[derive(Debug)]
pub struct Lease {
    id: ImageId,
    index: Arc<Inner>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut tables = self.index.tables.write();
        let gone = match tables.leases.get_mut(&self.id) {
            Some(count) => {
                *count = count.saturating_sub(1);
                *count == 0
            }
            None => false,
        };
        if gone {
            tables.leases.remove(&self.id);
        }
    }
}

/// The index.
#[derive(Clone, Debug)]
pub struct Index {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    /// Where records are written before they have their name.
    tmp: PathBuf,
    layers: Layers,
    content: Content,
    /// One change of records at a time. Taken before `tables`; held across the disk, so only on threads
    /// for blocking work.
    writing: Mutex<()>,
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    images: BTreeMap<ImageId, Arc<Image>>,
    /// Removed by name, but a container still uses its layers.
    removed: BTreeMap<ImageId, Arc<Image>>,
    leases: BTreeMap<ImageId, usize>,
    /// Bytes and inodes of every layer here.
    sizes: BTreeMap<ChainId, Usage>,
}

impl Index {
    /// Reads every record below a data folder.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        let dir = root.join("images");
        fs::create_dir_all(&dir).map_err(ImageError::file("make the folder", &dir))?;
        let (layers, content) = (Layers::open(root)?, Content::open(root)?);
        let mut tables = Tables::default();
        for entry in fs::read_dir(&dir).map_err(ImageError::file("list", &dir))?.flatten() {
            let path = entry.path();
            // Set aside as damaged.
            if path.extension().is_some() {
                continue;
            }
            if let Some(image) = load(&path, &layers, &content) {
                tables.images.insert(image.id.clone(), Arc::new(image));
                continue;
            }
            tracing::warn!(path = %path.display(), "an image record cannot be used and was set aside");
            let _stays_then = fs::rename(&path, path.with_extension("damaged"));
        }
        for chain in layers.list() {
            let usage = layers.usage(&chain);
            tables.sizes.insert(chain, usage);
        }
        let (writing, tables) = (Mutex::new(()), RwLock::new(tables));
        let tmp = root.join("tmp");
        Ok(Self { inner: Arc::new(Inner { dir, tmp, layers, content, writing, tables }) })
    }

    /// Every image.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.inner.tables.read().images.values().cloned().collect()
    }

    /// Names what a pull brought. A tag that another image had moves.
    pub fn name(
        &self,
        reference: &Reference,
        pulled: &Pulled,
        now: i64,
    ) -> Result<Arc<Image>, ImageError> {
        let _alone = self.inner.writing.lock();
        let mut image = self.known_or_new(pulled, now)?;
        let repository = reference.repository();
        image.digests.insert(format!("{repository}@{}", pulled.digest));
        image.manifests.extend([pulled.digest.clone(), pulled.manifest.clone()]);
        if let What::Tag(_) = reference.what {
            image.tags.insert(reference.to_string());
            self.take_tag(&reference.to_string(), &pulled.id)?;
        }
        self.put(image)
    }

    /// Gives an image a further tag.
    pub fn tag(&self, id: &ImageId, reference: &Reference) -> Result<Arc<Image>, ImageError> {
        let _alone = self.inner.writing.lock();
        let known = self.inner.tables.read().images.get(id).cloned();
        let mut image = known
            .map(|image| (*image).clone())
            .ok_or_else(|| ImageError::Missing(id.to_string()))?;
        self.take_tag(&reference.to_string(), id)?;
        image.tags.insert(reference.to_string());
        self.put(image)
    }

    /// Takes a name from an image, which keeps its others.
    pub fn untag(&self, id: &ImageId, tag: &str) -> Result<Arc<Image>, ImageError> {
        let _alone = self.inner.writing.lock();
        let known = self.inner.tables.read().images.get(id).cloned();
        let mut image = known
            .map(|image| (*image).clone())
            .ok_or_else(|| ImageError::Missing(id.to_string()))?;
        image.tags.remove(tag);
        self.put(image)
    }

    /// Names an image that was imported: layers and config are here already.
    pub fn adopt(
        &self,
        pulled: &Pulled,
        tags: &[Reference],
        adoption: Adoption,
        now: i64,
    ) -> Result<Arc<Image>, ImageError> {
        let _alone = self.inner.writing.lock();
        let mut image = self.known_or_new(pulled, now)?;
        image.manifests.insert(pulled.manifest.clone());
        image.pinned |= adoption.pinned;
        // In an archive for Docker the config stands for the manifest that there is none of.
        let digests = adoption.digests && pulled.digest.as_str() != pulled.id.as_str();
        for tag in tags {
            if digests {
                image.digests.insert(format!("{}@{}", tag.repository(), pulled.digest));
            }
            self.take_tag(&tag.to_string(), &pulled.id)?;
            image.tags.insert(tag.to_string());
        }
        self.put(image)
    }

    /// Keeps an image from the kubelet's garbage collection, or no longer.
    pub fn pin(&self, id: &ImageId, pinned: bool) -> Result<Arc<Image>, ImageError> {
        let _alone = self.inner.writing.lock();
        let known = self.inner.tables.read().images.get(id).cloned();
        let image = known.ok_or_else(|| ImageError::Missing(id.to_string()))?;
        self.put(Image { pinned, ..(*image).clone() })
    }

    /// The record to extend. What a collection took away since the pull looked is an error that the
    /// next try of the pull cures.
    fn known_or_new(&self, pulled: &Pulled, now: i64) -> Result<Image, ImageError> {
        let vanished = || ImageError::Vanished(pulled.id.to_string());
        let layers = &self.inner.layers;
        if pulled.chain.iter().any(|chain| layers.meta(chain).is_none()) {
            return Err(vanished());
        }
        let sizes: Vec<Usage> = pulled.chain.iter().map(|chain| layers.usage(chain)).collect();
        self.inner.tables.write().sizes.extend(pulled.chain.iter().cloned().zip(sizes.clone()));
        if let Some(known) = self.inner.tables.read().images.get(&pulled.id) {
            return Ok((**known).clone());
        }
        let config = BlobDigest::parse(pulled.id.as_str())?;
        let config = self.inner.content.get(&config).map_err(|_gone| vanished())?;
        let size: u64 = sizes.iter().map(|(bytes, _)| *bytes).sum();
        Ok(Image {
            id: pulled.id.clone(),
            tags: BTreeSet::new(),
            digests: BTreeSet::new(),
            manifests: BTreeSet::new(),
            chain: pulled.chain.clone(),
            size: size.saturating_add(config.len() as u64),
            pulled_at: now,
            pinned: false,
            config: ImageConfig::parse(&config)?,
        })
    }

    fn take_tag(&self, tag: &str, new_owner: &ImageId) -> Result<(), ImageError> {
        let holders: Vec<_> = self
            .list()
            .into_iter()
            .filter(|image| image.id != *new_owner && image.tags.contains(tag))
            .collect();
        for holder in holders {
            let mut image = (*holder).clone();
            image.tags.remove(tag);
            self.put(image)?;
        }
        Ok(())
    }

    /// Disk first, then everybody sees it.
    fn put(&self, image: Image) -> Result<Arc<Image>, ImageError> {
        let path = self.inner.dir.join(image.id.hex());
        let bytes = record::encode("durable", &image).map_err(|error| ImageError::Told {
            text: format!("write the record of {}: {error}", image.id),
            kind: shim_model::kind::Kind::Internal,
        })?;
        durable(&self.inner.tmp.join(scratch_name("image")), &path, &bytes)?;
        let image = Arc::new(image);
        let mut tables = self.inner.tables.write();
        tables.removed.remove(&image.id);
        tables.images.insert(image.id.clone(), Arc::clone(&image));
        Ok(image)
    }

    /// The image with this id, id prefix, tag or digest; `None` if there is none.
    pub fn find(&self, name: &str) -> Result<Option<Arc<Image>>, ImageError> {
        let tables = self.inner.tables.read();
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        let is_hex = !hex.is_empty()
            && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if let Ok(id) = ImageId::parse(&format!("sha256:{hex}")) {
            if let Some(image) = tables.images.get(&id) {
                return Ok(Some(Arc::clone(image)));
            }
            if name.starts_with("sha256:") {
                return Ok(None);
            }
        }
        if let Ok(reference) = Reference::parse(name) {
            let text = reference.to_string();
            let named = tables.images.values().find(|image| match &reference.what {
                What::Tag(_) => image.tags.contains(&text),
                What::Digest(_) => image.digests.contains(&text),
            });
            if let Some(image) = named {
                return Ok(Some(Arc::clone(image)));
            }
        }
        if !is_hex || hex.len() < 4 {
            return Ok(None);
        }
        let mut fitting = tables.images.values().filter(|image| image.id.hex().starts_with(hex));
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Ok(Some(Arc::clone(only))),
            (Some(_), Some(_)) => Err(ImageError::Ambiguous(name.to_owned())),
            (None, _) => Ok(None),
        }
    }

    /// Takes an image out of sight with all its names, at once. True if it was there.
    pub fn remove(&self, id: &ImageId) -> Result<bool, ImageError> {
        let _alone = self.inner.writing.lock();
        let path = self.inner.dir.join(id.hex());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(ImageError::file("remove", path)(error));
            }
            Ok(()) | Err(_) => {}
        }
        let mut tables = self.inner.tables.write();
        let Some(image) = tables.images.remove(id) else { return Ok(false) };
        tables.removed.insert(id.clone(), image);
        Ok(true)
    }

    /// Keeps the layers of an image, removed or not, as long as the lease lives.
    pub fn lease(&self, id: &ImageId) -> Lease {
        let mut tables = self.inner.tables.write();
        let count = tables.leases.entry(id.clone()).or_default();
        *count = count.saturating_add(1);
        Lease { id: id.clone(), index: Arc::clone(&self.inner) }
    }

    /// What layers, manifests, configs and records take on the disk. Looks at the small ones: blocks, if
    /// only for a moment.
    pub fn usage(&self) -> Usage {
        let (layers, records) = {
            let tables = self.inner.tables.read();
            let records: Vec<PathBuf> =
                tables.images.keys().map(|id| self.inner.dir.join(id.hex())).collect();
            (usage::sum(tables.sizes.values().copied()), records)
        };
        let records = usage::sum(records.iter().map(|record| usage::of_file(record)));
        usage::sum([layers, records, self.inner.content.usage()])
    }

    /// Runs `work` while no name can be given or taken, with what images and leases hold. Forgets
    /// removed images that nobody leases.
    pub(crate) fn while_unchanged<T>(&self, work: impl FnOnce(Vec<Holder>) -> T) -> T {
        let _alone = self.inner.writing.lock();
        let holders = {
            let mut tables = self.inner.tables.write();
            let leased: BTreeSet<ImageId> = tables.leases.keys().cloned().collect();
            tables.removed.retain(|id, _| leased.contains(id));
            tables
                .images
                .values()
                .chain(tables.removed.values())
                .map(|image| holder(image))
                .collect()
        };
        work(holders)
    }

    /// Forgets the sizes of layers that are gone.
    pub(crate) fn forget_layers(&self, gone: &BTreeSet<ChainId>) {
        self.inner.tables.write().sizes.retain(|chain, _| !gone.contains(chain));
    }

    /// The layer store.
    pub fn layers(&self) -> &Layers {
        &self.inner.layers
    }

    /// The store of manifests and configs.
    pub fn content(&self) -> &Content {
        &self.inner.content
    }
}

/// What an image keeps on disk.
fn holder(image: &Image) -> Holder {
    let config = BlobDigest::parse(image.id.as_str()).ok();
    let blobs = image.manifests.iter().cloned().chain(config).collect();
    Holder { chain: image.chain.clone(), blobs }
}

fn load(path: &Path, layers: &Layers, content: &Content) -> Option<Image> {
    let mut image: Image = record::decode(&fs::read(path).ok()?).ok()?.value;
    let whole = image.chain.iter().all(|chain| layers.meta(chain).is_some());
    let config = content.get(&BlobDigest::parse(image.id.as_str()).ok()?).ok()?;
    image.config = ImageConfig::parse(&config).ok()?;
    whole.then_some(image)
}
