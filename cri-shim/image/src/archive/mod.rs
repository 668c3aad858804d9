//! Import and export: an OCI layout in a folder, the same as an archive, and what `docker save` writes.
//! Import goes through the pull's own pipeline and verification; export makes the very layers again
//! that came (same diff ids, so the image keeps its id).

pub mod docker;
pub mod export;
pub mod import;
pub mod oci;
pub mod rebuild;
pub mod sink;
pub mod source;
