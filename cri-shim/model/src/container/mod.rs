//! Containers: what is asked for, and the states.

pub mod config;
pub mod life;
