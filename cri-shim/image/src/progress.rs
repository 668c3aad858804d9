//! What a pull tells about itself while it runs: what it holds, so that nobody deletes it, and a line per
//! layer, for the command line's bars, and how long each step took.

use serde::{Deserialize, Serialize};
use shim_model::digest::{BlobDigest, ChainId};
use shim_model::phases::Step;
use std::time::Duration;

/// What a worker tells before it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The image is known: these layers and blobs are needed until it has its name.
    Holds {
        /// Layers, bottom first.
        chain: Vec<ChainId>,
        /// Manifest, index and config.
        blobs: Vec<BlobDigest>,
    },
    /// Something happened to a layer.
    Layer(Progress),
    /// It had its turn then, on the clock that never goes back; until then it waited.
    Turn(Duration),
    /// A step is over.
    Step(Step),
}

/// One event of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Which layer.
    pub layer: BlobDigest,
    /// Compressed bytes so far.
    pub done: u64,
    /// Compressed bytes in all.
    pub total: u64,
    /// What is happening to it.
    pub phase: Phase,
}

/// What happens to a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It was here already.
    Present,
    /// Its bytes arrive and are unpacked at once.
    Downloading,
    /// It is verified and waits for the others.
    Unpacked,
}
