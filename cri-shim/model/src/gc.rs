//! What of the image data may be deleted: everything on disk that nothing holds. Pure: the caller says
//! what is there and what is held, and deletes what is named here in the order given.

use crate::digest::{BlobDigest, ChainId};
use crate::id::ContainerId;
use std::collections::BTreeSet;

/// What keeps data: a named image, a lease on an image that lost its names, or a pull under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its layers, bottom first.
    pub chain: Vec<ChainId>,
    /// Its manifest, index and config.
    pub blobs: Vec<BlobDigest>,
}

/// Names found on disk; also what is to be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Folders of layers.
    pub layers: BTreeSet<ChainId>,
    /// Files of manifests, indexes and configs.
    pub blobs: BTreeSet<BlobDigest>,
    /// Folders of writable layers.
    pub writable: BTreeSet<ContainerId>,
}

/// What of `found` nobody holds. `containers` are those that have a record: nothing on disk exists
/// without a record that named it first, so a writable layer without one is a leftover.
pub fn garbage(found: Found, holders: &[Holder], containers: &BTreeSet<ContainerId>) -> Found {
    let layers: BTreeSet<&ChainId> = holders.iter().flat_map(|holder| &holder.chain).collect();
    let blobs: BTreeSet<&BlobDigest> = holders.iter().flat_map(|holder| &holder.blobs).collect();
    let Found { layers: all_layers, blobs: all_blobs, writable } = found;
    Found {
        layers: all_layers.into_iter().filter(|layer| !layers.contains(layer)).collect(),
        blobs: all_blobs.into_iter().filter(|blob| !blobs.contains(blob)).collect(),
        writable: writable.into_iter().filter(|id| !containers.contains(id)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, Holder, garbage};
    use crate::digest::{BlobDigest, ChainId};
    use crate::id::ContainerId;
    use proptest::prelude::{any, proptest};
    use std::collections::BTreeSet;

    fn layer(byte: u8) -> ChainId {
        ChainId::from_bytes([byte; 32])
    }

    fn blob(byte: u8) -> BlobDigest {
        BlobDigest::from_bytes([byte; 32])
    }

    #[test]
    fn what_two_images_share_goes_with_the_last() {
        let found = || Found {
            layers: [layer(1), layer(2), layer(3)].into(),
            blobs: [blob(1), blob(2)].into(),
            writable: BTreeSet::new(),
        };
        let one = Holder { chain: vec![layer(1), layer(2)], blobs: vec![blob(1)] };
        let two = Holder { chain: vec![layer(1), layer(3)], blobs: vec![blob(2)] };
        let none = BTreeSet::new();
        assert_eq!(garbage(found(), &[one, two.clone()], &none), Found::default());
        let gone = garbage(found(), &[two], &none);
        assert_eq!((gone.layers, gone.blobs), ([layer(2)].into(), [blob(1)].into()));
    }

    #[test]
    fn a_writable_layer_goes_when_no_record_names_its_container() {
        let (kept, left) = (ContainerId::from_random([1; 32]), ContainerId::from_random([2; 32]));
        let found = Found { writable: [kept.clone(), left.clone()].into(), ..Found::default() };
        assert_eq!(garbage(found, &[], &[kept].into()).writable, [left].into());
    }

    proptest! {
        #[test]
        fn nothing_held_is_ever_named(found in any::<Vec<u8>>(), held in any::<Vec<u8>>()) {
            let found = Found {
                layers: found.iter().map(|byte| layer(*byte)).collect(),
                blobs: found.iter().map(|byte| blob(*byte)).collect(),
                writable: BTreeSet::new(),
            };
            let holder = Holder {
                chain: held.iter().map(|byte| layer(*byte)).collect(),
                blobs: held.iter().map(|byte| blob(*byte)).collect(),
            };
            let gone = garbage(found.clone(), std::slice::from_ref(&holder), &BTreeSet::new());
            assert!(holder.chain.iter().all(|layer| !gone.layers.contains(layer)));
            assert!(holder.blobs.iter().all(|blob| !gone.blobs.contains(blob)));
            assert!(found.layers.iter().all(|l| gone.layers.contains(l) || holder.chain.contains(l)));
        }
    }
}
