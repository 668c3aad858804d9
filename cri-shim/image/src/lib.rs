//! `shim-image`: from a name to layers. Pulling (in a worker process of its own), unpacking, naming,
//! removing, import and export. Knows nothing of sandboxes and containers.

#![forbid(unsafe_code)]

pub mod archive;
pub mod auth;
pub mod config;
pub mod content;
pub mod decode;
pub mod error;
pub mod gc;
pub mod hosts;
pub mod images;
pub mod index;
pub mod layer;
pub mod layers;
pub mod manifest;
pub mod progress;
pub mod pull;
pub mod pulls;
pub mod reference;
pub mod registry;
pub mod steps;
pub mod tar;
pub mod unpack;
pub mod usage;
pub mod worker;
pub mod writable;
