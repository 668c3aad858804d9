//! The story of an import, told in the worker: which images an archive holds, then the pull's own
//! pipeline with the archive in the place of a registry. Every digest that is named is checked.

use super::source::Source;
use super::{docker, oci};
use crate::content;
use crate::decode::Compression;
use crate::error::ImageError;
use crate::layer;
use crate::layers::dir::Making;
use crate::manifest::{self, Document, Layer};
use crate::progress::Event;
use crate::pull::{Puller, Wanted, paired};
use crate::worker::Brought;
use shim_model::digest::{BlobDigest, DiffId, ImageId};
use shim_model::image;
use shim_model::limits;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// One image of an archive.
struct Found {
    names: Vec<String>,
    wanted: Wanted,
    /// File of each layer by the digest that the pipeline knows it by.
    files: BTreeMap<BlobDigest, String>,
    /// True if that digest is of the file's bytes; of an archive for Docker only the diff id is known.
    digests: bool,
}

/// Reads every image of an archive or layout that fits this machine.
pub async fn import(
    puller: &Puller,
    from: &Path,
    tell: &mpsc::UnboundedSender<Event>,
) -> Result<Vec<Brought>, ImageError> {
    let _turn = puller.turn().await;
    let (path, scratch) = (from.to_owned(), puller.config.root.join("tmp"));
    let opened = tokio::task::spawn_blocking(move || Source::open(&path, &scratch)).await;
    let source = opened.map_err(|_panic| ImageError::Worker("open the archive".to_owned()))??;
    let source = Arc::new(source);
    let images = if source.has(oci::MARK) && source.has(oci::INDEX) {
        of_layout(puller, &source)?
    } else if source.has(docker::MANIFEST) {
        of_docker(puller, &source)?
    } else {
        let text = format!(
            "{} is neither an OCI layout nor an archive of docker save: it has no {} and no {}",
            from.display(),
            oci::INDEX,
            docker::MANIFEST
        );
        return Err(ImageError::Unsupported(text));
    };
    let mut brought = Vec::with_capacity(images.len());
    for Found { names, wanted, files, digests } in images {
        let bring = |layer: &Layer, diff_id: &DiffId, making: Making| {
            let file = files.get(&layer.digest).cloned().unwrap_or_default();
            let wanted = if digests { Some(layer.digest.clone()) } else { None };
            let what = (Arc::clone(&source), file, layer.compression, wanted, diff_id.clone());
            async move {
                let unpacked = tokio::task::spawn_blocking(move || unpack(what, making)).await;
                unpacked.map_err(|_panic| ImageError::Worker("unpack a layer".to_owned()))?
            }
        };
        let image = puller.complete(wanted, tell, bring).await?;
        brought.push(Brought { image, names });
    }
    Ok(brought)
}

/// A layer's file, how it is compressed, its digest if one is named, and its diff id.
type What = (Arc<Source>, String, Compression, Option<BlobDigest>, DiffId);

fn unpack(
    (source, file, compression, digest, diff_id): What,
    making: Making,
) -> Result<layer::Fetched, ImageError> {
    let (reader, _length) = source.open_file(&file)?;
    let mut hashed = layer::Hashed::new(reader);
    let (unpacked, found) = layer::unpack_stream(&mut hashed, compression, &making, &file)?;
    let differs = |found: String| ImageError::Mismatch { what: format!("layer {file}"), found };
    if found != diff_id {
        return Err(differs(found.to_string()));
    }
    let found = BlobDigest::from_bytes(hashed.digest());
    if digest.is_some_and(|digest| digest != found) {
        return Err(differs(found.to_string()));
    }
    Ok(layer::Fetched { making, unpacked })
}

/// Images of an OCI layout; those for other machines are passed over unless nothing else is there.
fn of_layout(puller: &Puller, source: &Source) -> Result<Vec<Found>, ImageError> {
    let named = oci::images(&source.small(oci::INDEX, limits::MANIFEST_BYTES)?)?;
    let mut images = Vec::new();
    let mut passed_over = None;
    for oci::Named { digest, names } in named {
        match of_manifest(puller, source, &digest, names) {
            Ok(found) => images.push(found),
            Err(error @ ImageError::NoPlatform { .. }) => passed_over = Some(error),
            Err(error) => return Err(error),
        }
    }
    match passed_over {
        Some(error) if images.is_empty() => Err(error),
        Some(_) | None => Ok(images),
    }
}

fn of_manifest(
    puller: &Puller,
    source: &Source,
    digest: &BlobDigest,
    names: Vec<String>,
) -> Result<Found, ImageError> {
    let what = names.first().cloned().unwrap_or_else(|| digest.to_string());
    let read = |digest: &BlobDigest, limit| {
        let bytes = source.small(&oci::blob(digest), limit)?;
        content::verify(&bytes, digest, "a blob of the archive").map(|()| bytes)
    };
    let mut manifest = digest.clone();
    let mut bytes = read(digest, limits::MANIFEST_BYTES)?;
    let mut document = manifest::parse(&bytes, &what, None)?;
    for _ in 0..limits::INDEX_DEPTH {
        let Document::Index(entries) = &document else { break };
        manifest = manifest::choose(entries, &what, &puller.config.architecture)?.digest.clone();
        bytes = read(&manifest, limits::MANIFEST_BYTES)?;
        document = manifest::parse(&bytes, &what, None)?;
    }
    let Document::Image { config, layers } = document else {
        return Err(ImageError::Unsupported(format!("{what} is no image")));
    };
    let config_bytes = read(&config.digest, image::CONFIG_BYTES)?;
    let files =
        layers.iter().map(|layer| (layer.digest.clone(), oci::blob(&layer.digest))).collect();
    let layers = paired(&what, &config_bytes, layers, &puller.config.architecture)?;
    puller.content.put(&bytes)?;
    puller.content.put(&config_bytes)?;
    let id = ImageId::parse(config.digest.as_str())?;
    let wanted = Wanted { id, digest: manifest.clone(), manifest, layers };
    Ok(Found { names, wanted, files, digests: true })
}

fn of_docker(puller: &Puller, source: &Source) -> Result<Vec<Found>, ImageError> {
    let saved = docker::images(&source.small(docker::MANIFEST, limits::MANIFEST_BYTES)?)?;
    saved.into_iter().map(|saved| of_saved(puller, source, saved)).collect()
}

fn of_saved(puller: &Puller, source: &Source, saved: docker::Saved) -> Result<Found, ImageError> {
    let config_bytes = source.small(&saved.config, image::CONFIG_BYTES)?;
    let diff_ids = image::ImageConfig::parse(&config_bytes)?.diff_ids;
    let mut layers = Vec::with_capacity(saved.layers.len());
    let mut files = BTreeMap::new();
    // A config with another number of layers is refused when they are paired.
    let diff_ids = diff_ids.into_iter().map(Some).chain(std::iter::repeat(None));
    for (file, diff_id) in saved.layers.iter().zip(diff_ids) {
        let (reader, size) = source.open_file(file)?;
        let mut start = Vec::new();
        reader.take(4).read_to_end(&mut start).map_err(ImageError::file("read", file))?;
        let compression = Compression::of_start(&start);
        let digest = match diff_id {
            Some(diff_id) => BlobDigest::parse(&diff_id)?,
            None => content::digest_of(file.as_bytes()),
        };
        files.insert(digest.clone(), file.clone());
        layers.push(Layer { digest, size, compression });
    }
    let layers = paired(&saved.config, &config_bytes, layers, &puller.config.architecture)?;
    let config = puller.content.put(&config_bytes)?;
    let id = ImageId::parse(config.as_str())?;
    // Such an archive has no manifest of its own; the config stands for it.
    let wanted = Wanted { id, digest: config.clone(), manifest: config, layers };
    Ok(Found { names: saved.repo_tags.unwrap_or_default(), wanted, files, digests: false })
}
