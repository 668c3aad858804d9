//! The Node Resource Interface: plugins connect to a socket of ours and take part in the lives of pods and
//! containers. `server` lets them in and synchronizes them, `chain` asks them in their order, `plugin` is one
//! of them; below, `connection` over `mux` and `ttrpc`; `merge`, `owners`, `adjust`, `resources` decide what
//! their answers mean, `view` what they are shown. What becomes of it is the runtime's (`runtime/nri`).

mod adjust;
mod chain;
mod connection;
mod merge;
mod mux;
mod owners;
pub(crate) mod plugin;
mod resources;
pub(crate) mod server;
#[cfg(test)]
mod tests;
mod ttrpc;
mod view;
