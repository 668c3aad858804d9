//! Several clients at once, each with a connection of its own and one pod after the other: start, stop,
//! remove. Also brings up and ends many pods for other subjects.

use super::{ms, number};
use crate::board::{Board, Subject, less, more};
use crate::node::Node;
use crate::options::CLIENTS;
use anyhow::{Context, Result};
use std::time::Instant;

const START: Subject = less("pod start, 8 clients", "ms");
const RATE: Subject = more("lifecycles per second, 8 clients", "1/s");
const PROCESSOR: Subject = less("CPU time per lifecycle, 8 clients", "ms");

pub(super) async fn measure(node: &mut Node, board: &mut Board, each: usize) -> Result<()> {
    let before = node.processor_seconds()?;
    let begun = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let client = node.another_client();
        let names: Vec<String> = (0..each).map(|_| node.name()).collect();
        clients.push(tokio::spawn(async move {
            let mut taken = Vec::new();
            for name in names {
                let pod = client.start(&name).await?;
                taken.push(ms(pod.run + pod.create + pod.start));
                client.end(&pod.id).await?;
            }
            anyhow::Ok(taken)
        }));
    }
    let mut taken = Vec::new();
    for client in clients {
        taken.extend(client.await.context("a client")??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    node.settle().await;
    let processor = node.processor_seconds()? - before;
    let pods = number(taken.len());
    board.add(START, node.runtime, taken);
    board.add_one(RATE, node.runtime, pods / seconds);
    board.add_one(PROCESSOR, node.runtime, processor * 1e3 / pods);
    Ok(())
}

/// Starts so many pods and leaves them running.
pub(super) async fn bring_up(node: &mut Node, pods: usize) -> Result<()> {
    let mut names: Vec<Vec<String>> = vec![Vec::new(); CLIENTS];
    for number in 0..pods {
        let name = node.name();
        if let Some(own) = names.get_mut(number % CLIENTS) {
            own.push(name);
        }
    }
    let clients = names.into_iter().map(|names| {
        let client = node.another_client();
        tokio::spawn(async move {
            for name in names {
                client.start(&name).await?;
            }
            anyhow::Ok(())
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.context("a client")??;
    }
    Ok(())
}
