//! The subjects, one file for each course of actions. In every round the runtimes take turns in a new
//! order, so that a slow minute of the machine is nobody's; what one runtime can not do is told and
//! leaves the others alone.

mod counts;
mod exec;
mod held;
mod parallel;
mod pull;
mod start;

use crate::board::Board;
use crate::node::Node;
use crate::options::{Group, Options, Scale};
use anyhow::Result;
use rand::seq::SliceRandom;

/// Measures one group of subjects on every node.
pub(crate) async fn measure(
    group: Group,
    nodes: &mut [Node],
    board: &mut Board,
    options: &Options,
) {
    let scale = Scale::of(options);
    let rounds = match group {
        Group::Start => scale.start.0,
        Group::Exec => scale.exec.0,
        Group::Parallel => scale.parallel.0,
        Group::Held => scale.held,
        Group::Pull => scale.pull,
        Group::Counts => 1,
    };
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    for round in 1..=rounds {
        println!("{} {round}/{rounds}", group.name());
        order.shuffle(&mut rand::rng());
        for at in &order {
            let Some(node) = nodes.get_mut(*at) else { continue };
            board.noise.push(reference());
            node.settle().await;
            if let Err(error) = turn(group, node, board, options).await {
                let told = format!("{}, {}: {error:#}", node.runtime.title(), group.name());
                eprintln!("{told}");
                board.remark(told);
                // Whatever is left of it is not the next subject's.
                drop(node.clear().await);
            }
        }
    }
}

/// One runtime's turn in one round.
async fn turn(group: Group, node: &mut Node, board: &mut Board, options: &Options) -> Result<()> {
    let scale = Scale::of(options);
    match group {
        Group::Start => start::measure(node, board, scale.start.1).await,
        Group::Exec => exec::measure(node, board, scale.exec.1).await,
        Group::Parallel => parallel::measure(node, board, scale.parallel.1).await,
        Group::Held => held::measure(node, board).await,
        Group::Pull => pull::measure(node, board).await,
        Group::Counts => counts::measure(node, board, options).await,
    }
}

/// Something that has nothing to do with any runtime: milliseconds to start and end a small program, the
/// median of a few. How far these lie apart is the noise of the machine.
fn reference() -> f64 {
    let once = || {
        let begun = std::time::Instant::now();
        drop(std::process::Command::new("/bin/busybox").arg("true").status());
        begun.elapsed().as_secs_f64() * 1e3
    };
    let times: Vec<f64> = (0..9).map(|_| once()).collect();
    crate::board::middle(&times).unwrap_or_default()
}

/// Milliseconds.
fn ms(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A count as a number to compute with.
fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
