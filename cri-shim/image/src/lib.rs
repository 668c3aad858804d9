//! `shim-image`: from a name to layers. Pulling (in a worker process of its own), unpacking, naming,
//! removing, import and export. Knows nothing of sandboxes and containers.

#![forbid(unsafe_code)]

pub mod auth;
pub mod decode;
pub mod error;
pub mod hosts;
pub mod manifest;
pub mod reference;
pub mod tar;
pub mod unpack;
