//! `wherry.v1`: what the CRI lacks and the command line needs, on the same socket and through the same
//! wrapper as the CRI. `service` names every RPC, `pods`, `images` and `sessions` do them.

pub(crate) mod images;
pub(crate) mod pods;
pub(crate) mod service;
pub(crate) mod sessions;
