//! Images to an OCI layout or archive. The archive for Docker is the OCI archive with `manifest.json`
//! beside it, as `docker save` itself writes it since version 25. Layers are plain archives, so nothing is
//! compressed twice and a layer's digest is its diff id; the config is the stored one, byte for byte.

use super::rebuild::Rebuild;
use super::sink::Sink;
use super::{docker, oci};
use crate::content::digest_of;
use crate::error::ImageError;
use crate::index::{Image, Index, Lease};
use serde::Serialize;
use shim_model::digest::BlobDigest;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// Where to, and in which form.
#[derive(Debug)]
pub enum To {
    /// An OCI layout in a fresh folder.
    OciLayout(PathBuf),
    /// An OCI archive; the file may be a pipe.
    OciArchive(File),
    /// What `docker load` reads; the file may be a pipe.
    DockerArchive(File),
}

/// An image, the names it is written under, and what keeps it meanwhile.
pub type Chosen = (Arc<Image>, Vec<String>, Lease);

/// What one blob is made from.
enum Blob {
    Bytes(Vec<u8>),
    Layer(Rebuild, u64),
}

/// Everything that is to be written, known before the first byte.
#[derive(Default)]
struct Outline {
    blobs: BTreeMap<BlobDigest, Blob>,
    entries: Vec<serde_json::Value>,
    saved: Vec<docker::Saved>,
}

/// Writes images. Everything that can be refused is refused before the first byte.
pub fn export(index: &Index, images: &[Chosen], to: To) -> Result<(), ImageError> {
    let mut outline = Outline::default();
    for (image, names, _lease) in images {
        add(&mut outline, index, image, names)?;
    }
    let (mut sink, for_docker) = match to {
        To::OciLayout(at) => (Sink::folder(at)?, false),
        To::OciArchive(file) => (Sink::archive(file), false),
        To::DockerArchive(file) => (Sink::archive(file), true),
    };
    sink.bytes(oci::MARK, &oci::mark())?;
    for (digest, blob) in &outline.blobs {
        let name = oci::blob(digest);
        match blob {
            Blob::Bytes(bytes) => sink.bytes(&name, bytes)?,
            Blob::Layer(layer, size) => sink.put(&name, *size, |to| layer.write(to))?,
        }
    }
    if for_docker {
        sink.bytes(docker::MANIFEST, &json(docker::MANIFEST, &outline.saved)?)?;
    }
    sink.bytes(oci::INDEX, &json(oci::INDEX, &oci::index(&outline.entries))?)?;
    sink.finish()
}

fn add(
    outline: &mut Outline,
    index: &Index,
    image: &Image,
    names: &[String],
) -> Result<(), ImageError> {
    let config = BlobDigest::parse(image.id.as_str())?;
    let config_bytes = index.content().get(&config)?;
    let mut layers = Vec::with_capacity(image.chain.len());
    for chain in &image.chain {
        let layer = Rebuild::open(index.layers(), chain)?;
        let digest = BlobDigest::parse(layer.diff_id().as_str())?;
        let size = match outline.blobs.get(&digest) {
            Some(Blob::Layer(_, size)) => *size,
            Some(Blob::Bytes(_)) | None => layer.size()?,
        };
        layers.push((digest.clone(), size));
        outline.blobs.insert(digest, Blob::Layer(layer, size));
    }
    let manifest = json("a manifest", &oci::manifest((&config, config_bytes.len()), &layers))?;
    let digest = digest_of(&manifest);
    outline.entries.extend(oci::entries(&digest, manifest.len(), names));
    outline.saved.push(docker::Saved {
        config: oci::blob(&config),
        repo_tags: Some(names.iter().map(|name| docker::familiar(name)).collect()),
        layers: layers.iter().map(|(digest, _)| oci::blob(digest)).collect(),
    });
    outline.blobs.insert(config, Blob::Bytes(config_bytes));
    outline.blobs.insert(digest, Blob::Bytes(manifest));
    Ok(())
}

fn json(what: &str, value: &impl Serialize) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec(value).map_err(|source| ImageError::Json { what: what.to_owned(), source })
}
