//! What a runtime asks of the kernel for a pod start: system calls, executed programs, flushes to the
//! disk, new processes and threads. A pass of its own, because tracing makes everything slow.

use super::number;
use crate::board::{Board, Subject, less};
use crate::node::Node;
use crate::options::{Options, Scale};
use crate::trace::Trace;
use anyhow::{Context, Result};

const CALLS: Subject = less("system calls per pod start", "");
const PROGRAMS: Subject = less("programs executed besides the container's", "");
const FLUSHES: Subject = less("fsync and fdatasync per pod start", "");
const BORN: Subject = less("processes and threads made per pod start", "");

pub(super) async fn measure(node: &mut Node, board: &mut Board, options: &Options) -> Result<()> {
    let pods = Scale::of(options).counts;
    let folder = tempfile::tempdir().context("make a folder for strace")?;
    let kept = options.traces.as_deref().unwrap_or(folder.path());
    let output = kept.join(node.runtime.name());
    let processes = node.processes();
    let trace = Trace::attach(&processes, &output)?;
    let mut started = Vec::new();
    for _ in 0..pods {
        let name = node.name();
        started.push(node.client.start(&name).await?);
    }
    let counts = trace.finish(&output)?;
    let runtime = node.runtime;
    let each = |count: u32| f64::from(count) / number(pods);
    board.add_one(CALLS, runtime, each(counts.all()));
    board.add_one(PROGRAMS, runtime, each(counts.executed()) - 1.0);
    board.add_one(FLUSHES, runtime, each(counts.of(&["fsync", "fdatasync", "syncfs", "sync"])));
    board.add_one(BORN, runtime, each(counts.of(&["clone", "clone3", "fork", "vfork"])));
    board.calls(runtime, &counts, number(pods));
    for pod in started {
        node.client.end(&pod.id).await?;
    }
    Ok(())
}
