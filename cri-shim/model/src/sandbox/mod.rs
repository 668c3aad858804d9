//! Pod sandboxes: what is asked for, the states, the plan, the files.

pub mod config;
pub mod files;
pub mod life;
pub mod plan;
