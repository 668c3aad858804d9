//! One pod after the other: how long each call of its life takes, and how much processor time the whole
//! life costs.

use super::{ms, number};
use crate::board::{Board, Subject, less};
use crate::node::Node;
use anyhow::Result;

const WHOLE: Subject = less("pod start: run, create, start", "ms");
const RUN: Subject = less("RunPodSandbox", "ms");
const CREATE: Subject = less("CreateContainer", "ms");
const START: Subject = less("StartContainer", "ms");
const STOP: Subject = less("StopPodSandbox", "ms");
const REMOVE: Subject = less("RemovePodSandbox", "ms");
const PROCESSOR: Subject = less("CPU time per lifecycle", "ms");

pub(super) async fn measure(node: &mut Node, board: &mut Board, pods: usize) -> Result<()> {
    let (mut started, mut ended) = (Vec::new(), Vec::new());
    let before = node.processor_seconds()?;
    for _ in 0..pods {
        let name = node.name();
        let pod = node.client.start(&name).await?;
        ended.push(node.client.end(&pod.id).await?);
        started.push(pod);
    }
    // What the runtime does beside its last answer is a part of the life.
    node.settle().await;
    let seconds = node.processor_seconds()? - before;
    let runtime = node.runtime;
    let whole = started.iter().map(|pod| ms(pod.run + pod.create + pod.start));
    board.add(WHOLE, runtime, whole.collect());
    board.add(RUN, runtime, started.iter().map(|pod| ms(pod.run)).collect());
    board.add(CREATE, runtime, started.iter().map(|pod| ms(pod.create)).collect());
    board.add(START, runtime, started.iter().map(|pod| ms(pod.start)).collect());
    board.add(STOP, runtime, ended.iter().map(|pod| ms(pod.stop)).collect());
    board.add(REMOVE, runtime, ended.iter().map(|pod| ms(pod.remove)).collect());
    board.add_one(PROCESSOR, runtime, seconds * 1e3 / number(pods));
    Ok(())
}
