//! The network against this kernel, each test in a network and mount namespace of its own. Root only;
//! what the machine lacks is told and skipped.

mod collect;
mod dial;
mod link;
mod own;
mod place;
mod plugins;
mod programs;
mod speed;
