//! `shim-model`: what things are, and every decision. Pure: no files, no clock, no randomness, no
//! environment, no async, no protobuf. Every error here is about the input.

#![forbid(unsafe_code)]

pub mod cdi;
pub mod cgroup;
pub mod cni;
pub mod container;
pub mod digest;
pub mod edits;
pub mod gc;
pub mod handler;
pub mod host;
pub mod id;
pub mod idmaps;
pub mod image;
pub mod interfaces;
pub mod kind;
pub mod labels;
pub mod limits;
pub mod log;
pub mod mountinfo;
pub mod nri;
pub mod overlay;
pub mod phases;
pub mod plan;
pub mod record;
pub mod resources;
pub mod rlimits;
pub mod sandbox;
pub mod seccomp;
pub mod signal;
pub mod spec;
pub mod untag;
pub mod users;
pub mod wire;
