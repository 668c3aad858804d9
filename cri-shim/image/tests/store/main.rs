//! The image store against real and lying registries, foreign unpackers and crashes. One binary; tests
//! that unpack need root and say so where they are skipped.

#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    clippy::panic_in_result_fn,
    clippy::indexing_slicing,
    reason = "a test that meets something unexpected ends"
)]

mod archives;
mod crashes;
mod endpoints;
mod exact;
mod hostile;
mod links;
mod lying_registry;
mod manifests;
mod proxies;
mod real_registry;
mod registry;
mod sizes;
mod support;
mod tls;
mod tree;
