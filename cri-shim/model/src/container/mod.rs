//! Containers as values: what is asked for, and the states one can be in. How a container comes to be is
//! in `spec` and `plan`.

pub mod config;
pub mod life;
