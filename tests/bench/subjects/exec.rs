//! `ExecSync` of `true` in a container that runs, one after the other: what a probe costs.

use super::{ms, number};
use crate::board::{Board, Subject, less};
use crate::node::Node;
use anyhow::Result;

const EXEC: Subject = less("ExecSync of true", "ms");
const PROCESSOR: Subject = less("CPU time per ExecSync", "ms");

pub(super) async fn measure(node: &mut Node, board: &mut Board, times: usize) -> Result<()> {
    let name = node.name();
    let pod = node.client.start(&name).await?;
    node.client.exec(&pod.container).await?;
    node.settle().await;
    let before = node.processor_seconds()?;
    let mut taken = Vec::new();
    for _ in 0..times {
        taken.push(ms(node.client.exec(&pod.container).await?));
    }
    let seconds = node.processor_seconds()? - before;
    board.add(EXEC, node.runtime, taken);
    board.add_one(PROCESSOR, node.runtime, seconds * 1e3 / number(times));
    node.client.end(&pod.id).await?;
    Ok(())
}
