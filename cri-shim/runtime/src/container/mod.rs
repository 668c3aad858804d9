//! Verbs of containers, one story a file.

pub mod create;
pub mod exec;
pub mod log;
pub mod remove;
pub mod start;
pub mod stop;
pub mod update;
