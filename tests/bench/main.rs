//! `wherry-bench`: Wherry beside its peers, in one run on one machine, through their CRI sockets. Makes the
//! images, a node for each runtime, lets them take turns, and prints one table. `hack/bench` builds what
//! it needs and calls it. Ends everything that it started, on Ctrl-C too.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints numbers")]

mod board;
mod client;
mod images;
mod node;
mod options;
mod process;
mod registry;
mod report;
mod runtime;
mod subjects;
mod trace;

use anyhow::{Context, Result, bail};
use board::Board;
use node::Node;
use options::{Group, Options};
use registry::Store;
use report::Machine;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match options::read(&words).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wherry-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A signal drops the work, and with it every node.
fn run(options: &Options) -> Result<()> {
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    threads.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            done = compare(options) => done,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

async fn compare(options: &Options) -> Result<()> {
    let load = process::load();
    let store = Store::open(&options.cache.join("registry-1"))?;
    images::make(&store, &options.cache.join("pause"), options.groups.contains(&Group::Pull))?;
    let mut nodes = Vec::new();
    for runtime in &options.runtimes {
        println!("starting {}", runtime.title());
        nodes.push(Box::pin(Node::start(*runtime, options, &store)).await?);
    }
    let machine = Machine { load, versions: Node::versions(options) };
    let mut board = Board::default();
    for group in &options.groups {
        subjects::measure(*group, &mut nodes, &mut board, options).await;
    }
    drop(nodes);
    println!("\n{}", report::table(&board, options, &machine));
    if let Some(path) = &options.json {
        let text = report::json(&board, options, &machine).to_string();
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    if !board.remarks.is_empty() {
        bail!("{} subjects could not be measured", board.remarks.len());
    }
    Ok(())
}
