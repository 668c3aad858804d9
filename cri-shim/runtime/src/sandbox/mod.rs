//! Verbs of pod sandboxes, one story a file.

pub mod remove;
pub mod run;
pub mod stop;
