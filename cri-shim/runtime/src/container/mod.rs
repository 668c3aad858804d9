//! Verbs of containers, one story a file: each asks the model what to do, records it in the store and lets
//! the hands do it. Nothing is decided here.

pub mod again;
pub mod attach;
pub mod create;
pub(crate) mod devices;
pub mod exec;
pub(crate) mod handled;
pub mod inspect;
mod labels;
pub mod log;
mod propagation;
pub mod remove;
pub mod session;
pub mod start;
pub mod stop;
pub mod stream;
pub mod update;
