//! Pulls of two images from a registry on the same machine: the image is not there, what was written
//! before is on the disk, the registry's files are in memory.

use super::ms;
use crate::board::{Board, Subject, less};
use crate::images;
use crate::node::Node;
use anyhow::Result;
use std::time::Instant;

const LAYERS: [Subject; 2] =
    [less("pull, 12 layers, 400 MB", "ms"), less("CPU time of that pull", "ms")];
const FILES: [Subject; 2] =
    [less("pull, 40,000 small files", "ms"), less("CPU time of that pull of files", "ms")];

pub(super) async fn measure(node: &Node, board: &mut Board) -> Result<()> {
    for (image, [time, processor]) in [(images::LAYERS, LAYERS), (images::FILES, FILES)] {
        node.client.remove_image(image).await?;
        node.settle().await;
        nix::unistd::sync();
        let before = node.processor_seconds()?;
        let begun = Instant::now();
        node.client.pull(image).await?;
        board.add_one(time, node.runtime, ms(begun.elapsed()));
        let seconds = node.processor_seconds()? - before;
        board.add_one(processor, node.runtime, seconds * 1e3);
        node.client.remove_image(image).await?;
    }
    Ok(())
}
