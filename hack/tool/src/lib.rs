//! Development chores as functions, so that `hack-tool` and the tests run the same ones. Each chore has a
//! file of its own and is told the repository's root; none of this is shipped.

#![forbid(unsafe_code)]

pub mod cluster;
pub mod proto;
