//! The distribution protocol (v2): asking one endpoint for manifests and blobs, with its challenge,
//! its redirects, its retries and ranges. Bytes leave here unverified; whoever names them by digest
//! verifies.

pub mod challenge;
pub mod client;
pub mod connect;
pub mod hop;
pub mod range;
pub mod retry;
pub mod token;
