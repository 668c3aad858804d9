//! Many pods held at once, after a fresh start of the daemon: what they cost in memory, how long a list
//! takes, and how soon a daemon that was killed answers again, with every pod as it was.

use super::{ms, number, parallel};
use crate::board::{self, Board, Subject, less};
use crate::node::Node;
use crate::options::{FOR_MEMORY, FOR_RESTART};
use crate::process;
use anyhow::{Result, ensure};
use shim_proto::runtime_v1::PodSandboxState;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const AVAILABLE: Subject = less("memory per idle pod, by MemAvailable", "MB");
const SHARES: Subject = less("memory per idle pod, by PSS of all processes", "MB");
const EMPTY: Subject = less("daemon, resident, 0 pods", "MB");
const FULL: Subject = less("daemon, resident, 60 pods", "MB");
const PODS: Subject = less("ListPodSandbox, 60 pods", "ms");
const CONTAINERS: Subject = less("ListContainers, 60 containers", "ms");
const RESTART: Subject = less("kill -9 with 60 pods, until the next list", "ms");

/// Lists in a row.
const LISTS: usize = 20;

/// Memory at one moment.
struct Memory {
    available_kib: f64,
    share_kib: f64,
    /// Private memory of each process, by what it does.
    roles: BTreeMap<String, Vec<f64>>,
}

pub(super) async fn measure(node: &mut Node, board: &mut Board) -> Result<()> {
    // A daemon without a past, that has done everything once.
    node.restart().await?;
    let name = node.name();
    let first = node.client.start(&name).await?;
    node.client.end(&first.id).await?;
    let before = memory(node).await?;
    board.add_one(EMPTY, node.runtime, megabytes(process::resident_kib(node.daemon())?));
    parallel::bring_up(node, FOR_MEMORY).await?;
    let after = memory(node).await?;
    per_pod(node, board, &before, &after);
    parallel::bring_up(node, FOR_RESTART - FOR_MEMORY).await?;
    node.settle().await;
    board.add_one(FULL, node.runtime, megabytes(process::resident_kib(node.daemon())?));
    lists(node, board).await?;
    let time = node.restart().await?;
    let ready = PodSandboxState::SandboxReady;
    let pods = node.client.pods().await?;
    let ready = pods.iter().filter(|pod| pod.state() == ready).count();
    ensure!(ready == FOR_RESTART, "{ready} of {FOR_RESTART} pods are ready after a restart");
    board.add_one(RESTART, node.runtime, ms(time));
    node.clear().await
}

async fn lists(node: &Node, board: &mut Board) -> Result<()> {
    let (mut pods, mut containers) = (Vec::new(), Vec::new());
    for _ in 0..LISTS {
        let begun = Instant::now();
        let found = node.client.pods().await?.len();
        pods.push(ms(begun.elapsed()));
        ensure!(found == FOR_RESTART, "{found} of {FOR_RESTART} pods are listed");
        let begun = Instant::now();
        node.client.containers().await?;
        containers.push(ms(begun.elapsed()));
    }
    board.add(PODS, node.runtime, pods);
    board.add(CONTAINERS, node.runtime, containers);
    Ok(())
}

/// Written-back and settled, so that only what stays is seen.
async fn memory(node: &Node) -> Result<Memory> {
    node.settle().await;
    nix::unistd::sync();
    let mut available = Vec::new();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        available.push(process::available_kib()?);
    }
    let (mut roles, mut share_kib) = (BTreeMap::<String, Vec<f64>>::new(), 0.0);
    for pid in node.processes() {
        let (Some(role), Some(cost)) = (process::role(pid), process::cost(pid)) else { continue };
        share_kib += cost.share_kib;
        roles.entry(role).or_default().push(cost.private_kib);
    }
    let available_kib = board::middle(&available).unwrap_or_default();
    Ok(Memory { available_kib, share_kib, roles })
}

fn per_pod(node: &Node, board: &mut Board, before: &Memory, after: &Memory) {
    let pods = number(FOR_MEMORY);
    let used = before.available_kib - after.available_kib;
    board.add_one(AVAILABLE, node.runtime, megabytes(used / pods));
    let share = after.share_kib - before.share_kib;
    board.add_one(SHARES, node.runtime, megabytes(share / pods));
    for (role, processes) in &after.roles {
        let old = before.roles.get(role).map_or(0, Vec::len);
        let more = number(processes.len().saturating_sub(old));
        if let Some(kib) = board::middle(processes).filter(|_| more >= pods) {
            board.role(node.runtime, role, (more / pods, megabytes(kib)));
        }
    }
}

fn megabytes(kib: f64) -> f64 {
    kib * 1024.0 / 1e6
}
