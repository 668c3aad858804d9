//! `wherry-bench`: times one runtime through its CRI socket. `hack/bench` runs it against each runtime
//! in turn, in one run, with the same image and the same network.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints numbers")]

mod client;

use client::Plan;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at.saturating_add(1)).cloned()
    };
    let number = |name: &str, default: usize| {
        value(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let Some(socket) = value("--socket") else {
        eprintln!(
            "usage: wherry-bench --socket PATH [--image NAME] [--pods N] [--clients N] [--each N] [--host-network]"
        );
        return ExitCode::FAILURE;
    };
    let plan = Plan {
        socket: socket.into(),
        image: value("--image").unwrap_or_else(|| "docker.io/library/busybox:latest".to_owned()),
        pods: number("--pods", 40),
        clients: (number("--clients", 8), number("--each", 12)),
        host_network: words.iter().any(|word| word == "--host-network"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(client::run(plan)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wherry-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
