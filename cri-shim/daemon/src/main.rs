//! The binary `wherry`: picks its role before any thread exists. The daemon, the zygote that forks
//! monitors, the worker that pulls images, and the command line are one file.

#![forbid(unsafe_code)]

mod args;
mod authority;
mod cli;
mod config;
mod error;
mod folders;
mod listen;
mod lookalike;
mod nri;
mod rpc;
mod serve;
mod streaming;
mod telemetry;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Roles without a command line of their own: nothing is parsed, nothing is started on the way.
    match std::env::args_os().nth(1).as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("zygote") => shim_child::zygote_main(),
        Some("pull-worker") => shim_image::worker::main(),
        _ => lookalike::run().unwrap_or_else(args::run),
    }
}
