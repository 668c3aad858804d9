//! The CRI: convert, call the runtime, convert back. The only rooms that know both vocabularies.

pub(crate) mod call;
pub(crate) mod container;
pub(crate) mod events;
pub(crate) mod filter;
pub(crate) mod image;
pub(crate) mod info;
pub(crate) mod lists;
pub(crate) mod metrics;
pub(crate) mod own;
pub(crate) mod sandbox;
pub(crate) mod service;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod streams;
pub(crate) mod verbose;
