//! One layer: download, digest, inflate, diff id, unpack, streamed. An asynchronous task brings bytes
//! and hashes them; a thread inflates, hashes and unpacks. Between them stands a queue of a few
//! chunks, so memory is bounded and neither waits for a whole layer. A broken connection goes on at
//! the byte that was reached; nothing is written but the files themselves.

use crate::decode::{Compression, decoder};
use crate::error::ImageError;
use crate::layers::dir::Making;
use crate::manifest;
use crate::progress::{Event, Phase, Progress};
use crate::pull::Places;
use crate::registry::retry;
use crate::tar::TarError;
use crate::unpack::apply::{Unpacked, unpack_recorded};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use shim_model::digest::{BlobDigest, DiffId};
use shim_model::limits;
use std::io::Read;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A layer that was unpacked and is what it was named.
#[derive(Debug)]
pub struct Fetched {
    /// The folder in the making.
    pub making: Making,
    /// What it came to.
    pub unpacked: Unpacked,
}

/// Fetches a layer into a folder in the making and verifies both of its digests.
pub async fn fetch(
    places: &Places,
    layer: &manifest::Layer,
    diff_id: &DiffId,
    making: Making,
    tell: &mpsc::UnboundedSender<Event>,
) -> Result<Fetched, ImageError> {
    let (sender, receiver) = mpsc::channel::<Bytes>(limits::LAYER_QUEUE);
    let (compression, name, wanted) =
        (layer.compression, layer.digest.to_string(), diff_id.clone());
    // The folder goes with the thread: if nobody waits any more it is removed after the last write.
    let unpacking = tokio::task::spawn_blocking(move || {
        let arriving = Arriving::new(receiver);
        let (unpacked, found) = unpack_stream(arriving, compression, &making, &name)?;
        if found == wanted {
            return Ok(Fetched { making, unpacked });
        }
        Err(ImageError::Mismatch {
            what: format!("layer {name} with diff id {wanted}"),
            found: found.to_string(),
        })
    });
    let downloaded = download(places, layer, sender, tell).await;
    let unpacked =
        unpacking.await.map_err(|_panic| ImageError::Worker(layer.digest.to_string()))?;
    // A broken download also breaks the unpacking: then the cause is the download. Where the unpacking
    // ended first, the download only saw that nobody takes its bytes.
    match (downloaded, unpacked) {
        (Ok(()), Ok(fetched)) => {
            let (layer, total) = (layer.digest.clone(), layer.size);
            let done = Progress { layer, done: total, total, phase: Phase::Unpacked };
            let _nobody_listens = tell.send(Event::Layer(done));
            Ok(fetched)
        }
        (Err(ImageError::Cancelled(_)) | Ok(()), Err(error)) | (Err(error), _) => Err(error),
    }
}

/// Brings the bytes of a layer in order, verified as a whole at the end.
async fn download(
    places: &Places,
    layer: &manifest::Layer,
    to: mpsc::Sender<Bytes>,
    tell: &mpsc::UnboundedSender<Event>,
) -> Result<(), ImageError> {
    let mut hash = Sha256::new();
    let mut reached = 0u64;
    let mut breaks = 0;
    let what = layer.digest.to_string();
    while reached < layer.size {
        let failed = match from(places, layer, &mut reached, &mut hash, &to, tell).await {
            Ok(()) if reached >= layer.size => break,
            Ok(()) => places.unavailable(&what, "the connection ended early"),
            Err(error @ (ImageError::Unavailable { .. } | ImageError::Status { .. })) => error,
            Err(error) => return Err(error),
        };
        breaks += 1;
        if breaks > limits::LAYER_BREAKS {
            return Err(failed);
        }
        tokio::time::sleep(retry::pause(breaks, rand::random())).await;
    }
    let found = BlobDigest::from_bytes(hash.finalize().into());
    if found != layer.digest {
        return Err(ImageError::Mismatch {
            what: format!("layer {what}"),
            found: found.to_string(),
        });
    }
    Ok(())
}

/// One connection's share of a layer.
#[expect(clippy::too_many_arguments, reason = "the state of one download over several connections")]
async fn from(
    places: &Places,
    layer: &manifest::Layer,
    reached: &mut u64,
    hash: &mut Sha256,
    to: &mpsc::Sender<Bytes>,
    tell: &mpsc::UnboundedSender<Event>,
) -> Result<(), ImageError> {
    let (mut response, start) = places.blob(&layer.digest, *reached).await?;
    let length = response.content_length().map(|length| length.saturating_add(start));
    if let Some(found) = length.filter(|length| *length != layer.size) {
        let what = format!("layer {} of {} bytes", layer.digest, layer.size);
        return Err(ImageError::Mismatch { what, found: format!("{found} bytes") });
    }
    let mut skip = reached.saturating_sub(start);
    let mut told = *reached;
    let mut pace = Pace::default();
    let mut asked = Instant::now();
    while let Some(mut chunk) =
        response.chunk().await.map_err(|error| places.broken(&layer.digest, &error))?
    {
        if pace.is_too_slow(asked.elapsed(), chunk.len()) {
            let what = layer.digest.as_str();
            return Err(places.unavailable(what, "it brings next to nothing"));
        }
        if skip > 0 {
            let passed = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            bytes::Buf::advance(&mut chunk, passed);
            skip = skip.saturating_sub(passed as u64);
        }
        if chunk.is_empty() {
            asked = Instant::now();
            continue;
        }
        let after = reached.saturating_add(chunk.len() as u64);
        if after > layer.size {
            let what = format!("layer {} of {} bytes", layer.digest, layer.size);
            return Err(ImageError::Mismatch { what, found: "more bytes".to_owned() });
        }
        hash.update(&chunk);
        *reached = after;
        if to.send(chunk).await.is_err() {
            // The unpacking ended: its own error says why.
            return Err(ImageError::Cancelled(layer.digest.to_string()));
        }
        if after.saturating_sub(told) > 512 << 10 {
            told = after;
            let event = Progress {
                layer: layer.digest.clone(),
                done: after,
                total: layer.size,
                phase: Phase::Downloading,
            };
            let _nobody_listens = tell.send(Event::Layer(event));
        }
        asked = Instant::now();
    }
    Ok(())
}

/// How fast bytes come. A connection that gives a byte now and then never stalls, and never ends. Only the
/// time that we wait for the registry counts, not what our own disk takes.
#[derive(Default)]
struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// More bytes came after such a wait; true if they and those before them were too few for their time.
    fn is_too_slow(&mut self, waited: Duration, more: usize) -> bool {
        self.waited = self.waited.saturating_add(waited);
        self.bytes = self.bytes.saturating_add(more as u64);
        if self.waited < limits::REGISTRY_PACE {
            return false;
        }
        let slow = self.bytes < limits::REGISTRY_PACE_BYTES;
        *self = Self::default();
        slow
    }
}

/// The queue as a reader, for the thread that unpacks.
struct Arriving {
    queue: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl Arriving {
    fn new(queue: mpsc::Receiver<Bytes>) -> Self {
        Self { queue, chunk: Bytes::new() }
    }
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.chunk.is_empty() {
            match self.queue.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.chunk.len());
        let part = self.chunk.split_to(count);
        buffer.get_mut(..count).unwrap_or_default().copy_from_slice(&part);
        Ok(count)
    }
}

/// Hashes what passes.
#[derive(Debug)]
pub struct Hashed<R> {
    source: R,
    hash: Sha256,
}

impl<R: Read> Hashed<R> {
    /// Hashes what is read from `source`.
    pub fn new(source: R) -> Self {
        Self { source, hash: Sha256::new() }
    }

    /// SHA-256 of everything that was read.
    pub fn digest(self) -> [u8; 32] {
        self.hash.finalize().into()
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// Inflates and unpacks a stream into a folder in the making, records how its archive is made, and
/// gives its diff id.
pub fn unpack_stream(
    source: impl Read + Send,
    compression: Compression,
    making: &Making,
    name: &str,
) -> Result<(Unpacked, DiffId), ImageError> {
    let broken =
        |source| ImageError::Layer { layer: name.to_owned(), source: TarError::Read(source) };
    let mut hashed = Hashed::new(decoder(compression, source).map_err(broken)?);
    let unpacked = unpack_recorded(&mut hashed, making.files()?, name, Some(making.record()?))?;
    Ok((unpacked, DiffId::from_bytes(hashed.digest())))
}

#[cfg(test)]
mod tests {
    use super::Pace;
    use std::time::Duration;

    #[test]
    fn a_byte_now_and_then_is_too_slow_and_a_slow_line_is_not() {
        let slow = |wait: u64, bytes: usize| {
            let mut pace = Pace::default();
            (0..100).any(|_| pace.is_too_slow(Duration::from_secs(wait), bytes))
        };
        assert!(slow(30, 1) && slow(59, 10_000));
        assert!(!slow(1, 1_000) && !slow(10, 6_000));
    }
}
