//! Containers: the protocol's messages to plain requests, and records back to messages.

pub(crate) mod config;
pub(crate) mod mounts;
pub(crate) mod resources;
pub(crate) mod security;
pub(crate) mod status;
pub(crate) mod verbs;
