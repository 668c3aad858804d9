//! The command line, driven as a person who knows docker or a script drives it: the real binary, real pipes
//! and a real terminal against a daemon on a machine without a CNI configuration. Every test has a daemon of
//! its own and ends with the count of what was left behind. What is promised stands in `docs/cli.md`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test is a panic")]

mod archives;
mod codes;
mod execs;
mod images;
mod kubelet;
mod life;
mod limits;
mod lists;
mod logs;
mod lookalikes;
mod mounts;
mod network;
mod plugged;
mod process;
mod run;
mod sessions;
mod terminals;
mod trouble;

use wherry_tests::daemon::{Daemon, Setup};

/// A daemon on a bare machine.
fn bare() -> Option<Daemon> {
    Daemon::with(&Setup { network: false, ..Setup::default() })
}

/// What `ps` lists, as JSON.
fn listed(daemon: &Daemon, how: &[&str]) -> Vec<serde_json::Value> {
    let words: Vec<&str> = ["ps", "--format", "json"].iter().chain(how).copied().collect();
    let parsed: serde_json::Value = serde_json::from_str(&daemon.ok(&words)).unwrap();
    parsed.as_array().unwrap().clone()
}
