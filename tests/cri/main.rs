//! The CRI through the socket, on real containers: what a kubelet relies on. Every test has a daemon of
//! its own and ends with the count of what was left behind. How requests are refused is tested beside
//! the daemon (`cri-shim/daemon/tests`); what happens when something dies is `faults`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed test is a panic"
)]

mod authority;
mod events;
mod execs;
mod explained;
mod handlers;
mod images;
mod inspect;
mod life;
mod limits;
mod lists;
mod logs;
mod metrics;
mod mounts;
mod network;
mod nri;
mod process;
mod resize;
mod security;
mod sessions;
mod stats;
mod stop;
mod streams;
mod systemd;
mod telemetry;
