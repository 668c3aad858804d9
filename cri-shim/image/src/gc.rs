//! Space given back: what the model's list names is taken out of sight at once, its files are deleted
//! afterwards. Pulls go on meanwhile; what they hold is not named. Only this file deletes image data.

use crate::error::ImageError;
use crate::index::Index;
use shim_model::digest::ChainId;
use shim_model::gc::{self, Found, Holder};
use std::collections::BTreeSet;

/// What a collection took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers.
    pub layers: usize,
    /// Manifests, indexes and configs.
    pub blobs: usize,
}

/// Deletes what no image, lease or pull holds and no container stands on. `pulls` is asked while no
/// name can be given, so nothing falls between a pull and its name. Goes on after a failure; the first
/// one is told.
pub fn collect(
    index: &Index,
    pulls: impl FnOnce() -> Vec<Holder>,
    used: &BTreeSet<ChainId>,
) -> Result<Collected, ImageError> {
    let (layers, content) = (index.layers(), index.content());
    let mut failure = None;
    let (gone, aside) = index.while_unchanged(|mut holders| {
        holders.extend(pulls());
        holders.push(Holder { chain: used.iter().cloned().collect(), blobs: Vec::new() });
        let found = Found {
            layers: layers.list().into_iter().collect(),
            blobs: content.list().into_iter().collect(),
            ..Found::default()
        };
        let gone = gc::garbage(found, &holders, &BTreeSet::new());
        gone.blobs.iter().for_each(|blob| content.remove(blob));
        let mut aside = Vec::new();
        for chain in &gone.layers {
            match layers.set_aside(chain) {
                Ok(folder) => aside.extend(folder),
                Err(error) => failure = failure.take().or(Some(error)),
            }
        }
        index.forget_layers(&gone.layers);
        (gone, aside)
    });
    for folder in aside {
        if let Err(error) = layers.delete(&folder) {
            failure = failure.or(Some(error));
        }
    }
    let collected = Collected { layers: gone.layers.len(), blobs: gone.blobs.len() };
    failure.map_or(Ok(collected), Err)
}
