//! Unpacked layers become visible: each is completed from those below it, all are flushed once, then each is
//! renamed to its chain id, parents first. Blocks. Until a layer has its name, a crash leaves nothing but
//! folders in `tmp/`, and a layer that has it is whole and on the disk.

use super::complete::complete;
use super::dir::{Layers, Meta};
use crate::error::ImageError;
use crate::layer::Fetched;
use shim_model::digest::{ChainId, DiffId};
use std::collections::HashMap;
use std::path::PathBuf;

/// A layer that was unpacked and is to be published.
#[derive(Debug)]
pub struct Ready {
    /// Its place in the image, 0 = bottom.
    pub place: usize,
    /// Digest of its archive.
    pub diff_id: DiffId,
    /// Its files.
    pub fetched: Fetched,
}

/// Publishes layers of one image, whose layers are `chain`, bottom first. `image` is for errors.
pub fn publish(
    layers: &Layers,
    chain: &[ChainId],
    mut ready: Vec<Ready>,
    image: &str,
) -> Result<(), ImageError> {
    if ready.is_empty() {
        return Ok(());
    }
    ready.sort_by_key(|layer| layer.place);
    let mut making: HashMap<usize, PathBuf> = HashMap::new();
    for Ready { place, fetched, .. } in &mut ready {
        let below = (0..*place).filter_map(|at| {
            let made = making.get(&at).cloned();
            made.or_else(|| chain.get(at).map(|id| layers.files(id)))
        });
        let below: Vec<PathBuf> = below.collect();
        let unpacked = std::mem::take(&mut fetched.unpacked);
        let exact = unpacked.exact;
        let done = complete(&fetched.making.files()?, unpacked, &below);
        // A layer below that was deleted meanwhile also looks like an archive that links to nothing.
        if below.iter().any(|folder| !folder.is_dir()) {
            return Err(ImageError::Vanished(image.to_owned()));
        }
        done?;
        fetched.unpacked.exact = exact;
        making.insert(*place, fetched.making.files_path());
    }
    layers.flush()?;
    for Ready { place, diff_id, fetched } in ready {
        let below = chain.get(..place).unwrap_or_default();
        if below.iter().any(|parent| layers.meta(parent).is_none()) {
            return Err(ImageError::Vanished(image.to_owned()));
        }
        let Some(id) = chain.get(place) else { continue };
        let (bytes, inodes) = fetched.making.usage();
        let meta = Meta { diff_id, bytes, inodes, exact: fetched.unpacked.exact };
        layers.commit(fetched.making, id, &meta)?;
    }
    Ok(())
}
