//! The story of a pull, told in the worker process: find the manifest, choose the platform, check the
//! config, fetch the missing layers side by side, flush once, make them visible. The name is given by
//! the daemon afterwards (`index`), so nothing is visible that is not whole.

use crate::auth::{self, Auth};
use crate::config::ImageConfig;
use crate::content::{self, Content};
use crate::error::ImageError;
use crate::hosts::{self, Endpoint};
use crate::layer::{self, Fetched};
use crate::layers::dir::{Layers, Making};
use crate::layers::publish::{self, Ready};
use crate::manifest::{self, Document};
use crate::progress::{Event, Phase, Progress};
use crate::reference::Reference;
use crate::registry::client::Client;
use crate::steps::Moment;
use serde::{Deserialize, Serialize};
use shim_model::digest::{BlobDigest, ChainId, DiffId, ImageId};
use shim_model::image;
use shim_model::limits;
use shim_model::phases::Phase as Steps;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore, SemaphorePermit, mpsc};

/// What a pull brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// The image: the digest of its config.
    pub id: ImageId,
    /// What the name stood for: the digest of the index, or of the manifest.
    pub digest: BlobDigest,
    /// The manifest of this platform.
    pub manifest: BlobDigest,
    /// Layers, bottom first.
    pub chain: Vec<ChainId>,
}

/// Everything pulls share in one worker.
#[derive(Debug)]
pub struct Puller {
    pub(crate) config: ImageConfig,
    layers: Layers,
    pub(crate) content: Content,
    /// One fetch of a layer at a time, however many pulls want it.
    at_work: Mutex<HashMap<ChainId, Arc<Mutex<()>>>>,
    /// So many pulls and imports at once.
    turns: Semaphore,
}

/// The endpoints of one pull, in order.
#[derive(Debug)]
pub struct Places {
    reference: Reference,
    clients: Vec<Client>,
}

impl Places {
    fn open(config: &ImageConfig, reference: &Reference, auth: &Auth) -> Result<Self, ImageError> {
        let mut places = hosts::endpoints(&config.registry_config, &reference.host)?;
        places.retain(|endpoint| endpoint.pull);
        let last = places.len().saturating_sub(1);
        let client = |(at, endpoint): (usize, Endpoint)| {
            let tries = if at == last {
                limits::REGISTRY_TRIES
            } else {
                limits::REGISTRY_TRIES_OF_A_MIRROR
            };
            let auth = credentials(config, &endpoint, reference, auth)?;
            Client::new(endpoint, &reference.host, auth, tries)
        };
        let clients = places.into_iter().enumerate().map(client).collect::<Result<_, _>>()?;
        Ok(Self { reference: reference.clone(), clients })
    }

    /// Asks one endpoint after the other; the last error is the answer, unless an earlier one says more.
    async fn each<'a, T, F: Future<Output = Result<T, ImageError>>>(
        &'a self,
        tag: bool,
        ask: impl Fn(&'a Client) -> F,
    ) -> Result<T, ImageError> {
        let mut failure = None;
        for client in self.clients.iter().filter(|client| !tag || client.resolves()) {
            match ask(client).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    tracing::debug!(error = error.chain(), "an endpoint did not serve");
                    let says_more = !matches!(error, ImageError::Unavailable { .. });
                    if failure.is_none() || says_more {
                        failure = Some(error);
                    }
                }
            }
        }
        Err(failure
            .unwrap_or_else(|| self.unavailable("anything", "no endpoint is configured for it")))
    }

    async fn manifest(&self, what: &str) -> Result<(Vec<u8>, Option<String>), ImageError> {
        self.each(!what.starts_with("sha256:"), |client| client.manifest(&self.reference, what))
            .await
    }

    async fn small_blob(&self, digest: &BlobDigest, limit: usize) -> Result<Vec<u8>, ImageError> {
        self.each(false, |client| client.small_blob(&self.reference, digest, limit)).await
    }

    /// A blob from a byte on, and where its bytes start.
    pub async fn blob(
        &self,
        digest: &BlobDigest,
        from: u64,
    ) -> Result<(reqwest::Response, u64), ImageError> {
        self.each(false, |client| client.blob(&self.reference, digest, from)).await
    }

    /// A connection that broke.
    pub fn broken(&self, digest: &BlobDigest, error: &reqwest::Error) -> ImageError {
        match self.clients.first() {
            Some(client) => client.unreachable(digest.as_str(), error),
            None => self.unavailable(digest.as_str(), "the connection broke"),
        }
    }

    /// A host that does not serve.
    pub fn unavailable(&self, what: &str, said: &str) -> ImageError {
        ImageError::Unavailable {
            what: what.to_owned(),
            host: self.reference.host.clone(),
            said: said.to_owned(),
        }
    }
}

/// A mirror on another host is not who the credentials of a pull are for; the file may have some for it.
fn credentials(
    config: &ImageConfig,
    endpoint: &Endpoint,
    reference: &Reference,
    given: &Auth,
) -> Result<Auth, ImageError> {
    match given {
        _ if !endpoint.own => {
            let repository = format!("{}/{}", endpoint.authority(), reference.path);
            auth::from_file(&config.auth_file, &repository)
        }
        Auth::Anonymous => auth::from_file(&config.auth_file, &reference.repository()),
        given => Ok(given.clone()),
    }
}

/// What is to be fetched.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) id: ImageId,
    pub(crate) digest: BlobDigest,
    pub(crate) manifest: BlobDigest,
    pub(crate) layers: Vec<(manifest::Layer, DiffId, ChainId)>,
}

impl Puller {
    /// Over a data folder.
    pub fn open(config: ImageConfig) -> Result<Self, ImageError> {
        let (layers, content) = (Layers::open(&config.root)?, Content::open(&config.root)?);
        let turns = Semaphore::new(limits::PULLS);
        Ok(Self { config, layers, content, at_work: Mutex::default(), turns })
    }

    /// Waits for a turn; dropped, it is the next one's.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes it.
        self.turns.acquire().await.ok()
    }

    /// Pulls one image.
    pub async fn pull(
        &self,
        name: &str,
        auth: &Auth,
        tell: mpsc::UnboundedSender<Event>,
    ) -> Result<Pulled, ImageError> {
        let reference = Reference::parse(name)?;
        let _turn = self.turn().await;
        let _nobody_listens = tell.send(Event::Turn(shim_sys::clock::monotonic()));
        let begun = Moment::now();
        let places = Places::open(&self.config, &reference, auth)?;
        let wanted = self.resolve(&places, &reference).await?;
        over(&tell, begun, Steps::PullResolve);
        let (places, told) = (&places, &tell);
        let bring = |layer: &manifest::Layer, diff_id: &DiffId, making| {
            let (layer, diff_id) = (layer.clone(), diff_id.clone());
            async move { layer::fetch(places, &layer, &diff_id, making, told).await }
        };
        self.complete(wanted, &tell, bring).await
    }

    /// Brings the layers that are missing and makes them visible.
    pub(crate) async fn complete<F: Future<Output = Result<Fetched, ImageError>>>(
        &self,
        wanted: Wanted,
        tell: &mpsc::UnboundedSender<Event>,
        bring: impl Fn(&manifest::Layer, &DiffId, Making) -> F,
    ) -> Result<Pulled, ImageError> {
        let chain: Vec<ChainId> = wanted.layers.iter().map(|(_, _, chain)| chain.clone()).collect();
        let config = BlobDigest::parse(wanted.id.as_str())?;
        let blobs = vec![wanted.digest.clone(), wanted.manifest.clone(), config];
        let _nobody_listens = tell.send(Event::Holds { chain: chain.clone(), blobs });
        self.fetch_missing(&wanted, &chain, tell, bring).await?;
        Ok(Pulled { id: wanted.id, digest: wanted.digest, manifest: wanted.manifest, chain })
    }

    /// Tag or digest to a verified config and a list of layers.
    async fn resolve(&self, places: &Places, reference: &Reference) -> Result<Wanted, ImageError> {
        let what = reference.to_string();
        let (bytes, served) = places.manifest(reference.manifest()).await?;
        if let Some(digest) = reference.digest() {
            content::verify(&bytes, digest, "the manifest")?;
        }
        let digest = self.content.put(&bytes)?;
        let (mut manifest, mut document) =
            (digest.clone(), manifest::parse(&bytes, &what, served.as_deref())?);
        let mut depth = 0usize;
        while let Document::Index(entries) = &document {
            depth += 1;
            if depth > limits::INDEX_DEPTH {
                return Err(ImageError::Bound {
                    what: format!("the depth of indexes of {what}"),
                    bound: limits::INDEX_DEPTH as u64,
                });
            }
            let chosen = manifest::choose(entries, &what, &self.config.architecture)?;
            let (bytes, served) = places.manifest(chosen.digest.as_str()).await?;
            content::verify(&bytes, &chosen.digest, "the manifest")?;
            manifest = self.content.put(&bytes)?;
            document = manifest::parse(&bytes, &what, served.as_deref())?;
        }
        let Document::Image { config, layers } = document else {
            return Err(ImageError::Unsupported(format!("{what} is no image")));
        };
        let bytes = places.small_blob(&config.digest, image::CONFIG_BYTES).await?;
        content::verify(&bytes, &config.digest, "the config")?;
        self.content.put(&bytes)?;
        let layers = paired(&what, &bytes, layers, &self.config.architecture)?;
        Ok(Wanted { id: ImageId::parse(config.digest.as_str())?, digest, manifest, layers })
    }

    async fn fetch_missing<F: Future<Output = Result<Fetched, ImageError>>>(
        &self,
        wanted: &Wanted,
        chain: &[ChainId],
        tell: &mpsc::UnboundedSender<Event>,
        bring: impl Fn(&manifest::Layer, &DiffId, Making) -> F,
    ) -> Result<(), ImageError> {
        let begun = Moment::now();
        // Locks are taken from the bottom up, as every pull does, so two pulls cannot wait for each other.
        let mut guards = Vec::new();
        let mut missing = Vec::new();
        for (index, (layer, _, id)) in wanted.layers.iter().enumerate() {
            let guard =
                if self.layers.meta(id).is_none() { Some(self.alone(id).await) } else { None };
            if self.layers.meta(id).is_some() {
                let total = layer.size;
                let event = Progress {
                    layer: layer.digest.clone(),
                    done: total,
                    total,
                    phase: Phase::Present,
                };
                let _nobody_listens = tell.send(Event::Layer(event));
                continue;
            }
            guards.extend(guard);
            missing.push(index);
        }
        let slots = Semaphore::new(self.config.layers_at_once.max(1));
        let fetches = missing
            .iter()
            .filter_map(|index| wanted.layers.get(*index).map(|l| (*index, l)))
            .map(|(place, (layer, diff, _))| {
                let (slots, bring) = (&slots, &bring);
                async move {
                    let _slot = slots.acquire().await;
                    let making = self.layers.begin()?;
                    let fetched = bring(layer, diff, making).await?;
                    Ok::<Ready, ImageError>(Ready { place, diff_id: diff.clone(), fetched })
                }
            });
        let ready = futures_util::future::try_join_all(fetches).await?;
        over(tell, begun, Steps::PullLayers);
        let begun = Moment::now();
        let (layers, chain) = (self.layers.clone(), chain.to_vec());
        let image = wanted.id.to_string();
        // Flushing and copying wait for the disk.
        let publishing = move || publish::publish(&layers, &chain, ready, &image);
        let published = tokio::task::spawn_blocking(publishing).await;
        published.map_err(|_panic| ImageError::Worker("publish layers".to_owned()))??;
        over(tell, begun, Steps::PullPublish);
        drop(guards);
        Ok(())
    }

    /// Waits until nobody else fetches this layer.
    async fn alone(&self, chain: &ChainId) -> OwnedMutexGuard<()> {
        let lock = Arc::clone(self.at_work.lock().await.entry(chain.clone()).or_default());
        lock.lock_owned().await
    }
}

/// Tells of a step that is over.
fn over(tell: &mpsc::UnboundedSender<Event>, begun: Moment, phase: Steps) {
    let _nobody_listens = tell.send(Event::Step(begun.step(phase)));
}

/// Layers with their diff ids and chain ids; the config must name as many as the manifest.
pub fn paired(
    what: &str,
    config: &[u8],
    layers: Vec<manifest::Layer>,
    architecture: &str,
) -> Result<Vec<(manifest::Layer, DiffId, ChainId)>, ImageError> {
    let config = image::ImageConfig::parse(config)?;
    if config.os != "linux" || config.architecture != architecture {
        return Err(ImageError::NoPlatform {
            reference: what.to_owned(),
            platform: format!("linux/{architecture}"),
            has: format!("{}/{}", config.os, config.architecture),
        });
    }
    if config.diff_ids.len() != layers.len() {
        let found = format!("{} diff ids for {} layers", config.diff_ids.len(), layers.len());
        return Err(ImageError::Mismatch { what: format!("the config of {what}"), found });
    }
    let mut chain: Option<ChainId> = None;
    let mut pairs = Vec::with_capacity(layers.len());
    for (layer, diff) in layers.into_iter().zip(&config.diff_ids) {
        let diff = DiffId::parse(diff)?;
        let id = chain.as_ref().map_or_else(|| ChainId::first(&diff), |below| below.then(&diff));
        chain = Some(id.clone());
        pairs.push((layer, diff, id));
    }
    Ok(pairs)
}
