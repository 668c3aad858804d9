//! A layer's archive made again from its folder and the record of how it was made: the very same bytes,
//! checked against the diff id while they are written.

use crate::error::ImageError;
use crate::layers::dir::Layers;
use crate::unpack::split::{Piece, Pieces};
use sha2::{Digest, Sha256};
use shim_model::digest::{ChainId, DiffId};
use shim_sys::path;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// A layer that can be made again.
#[derive(Debug)]
pub struct Rebuild {
    files: OwnedFd,
    record: std::path::PathBuf,
    diff_id: DiffId,
}

/// Bytes copied at once.
const BUFFER: usize = 256 << 10;

impl Rebuild {
    /// Opens a layer; refused if its archive named a file twice, because the first one's data is gone.
    pub fn open(layers: &Layers, chain: &ChainId) -> Result<Self, ImageError> {
        let missing = || ImageError::Missing(format!("layer {chain}"));
        let meta = layers.meta(chain).ok_or_else(missing)?;
        if !meta.exact {
            return Err(ImageError::Unsupported(format!(
                "the archive of layer {} named a file twice; it cannot be made again as it was",
                meta.diff_id
            )));
        }
        let files = path::open_folder(&layers.files(chain))
            .map_err(ImageError::system(format!("open layer {chain}")))?;
        Ok(Self { files, record: layers.record(chain), diff_id: meta.diff_id })
    }

    /// Digest of the archive.
    pub fn diff_id(&self) -> &DiffId {
        &self.diff_id
    }

    /// Bytes of the archive.
    pub fn size(&self) -> Result<u64, ImageError> {
        let mut pieces = self.pieces()?;
        let mut size = 0u64;
        while let Some(piece) = pieces.next_piece().map_err(|error| self.broken(error))? {
            let more: u64 = match piece {
                Piece::Bytes(bytes) => bytes.len() as u64,
                Piece::Data { parts, .. } => parts.iter().map(|(_, length)| *length).sum(),
            };
            size = size.saturating_add(more);
        }
        Ok(size)
    }

    /// Writes the archive.
    pub fn write(&self, to: &mut dyn Write) -> Result<(), ImageError> {
        let mut out = Hashing { to, hash: Sha256::new() };
        let mut buffer = vec![0u8; BUFFER];
        let mut pieces = self.pieces()?;
        while let Some(piece) = pieces.next_piece().map_err(|error| self.broken(error))? {
            match piece {
                Piece::Bytes(bytes) => out.write_all(&bytes),
                Piece::Data { path, parts } => {
                    let doing = || format!("open {} of a layer", String::from_utf8_lossy(&path));
                    let file =
                        path::open_file(&self.files, &path).map_err(ImageError::system(doing()))?;
                    copy(&File::from(file), &parts, &mut buffer, &mut out)
                }
            }
            .map_err(|error| self.broken(error))?;
        }
        let found = DiffId::from_bytes(out.hash.finalize().into());
        if found == self.diff_id {
            return Ok(());
        }
        let what = format!("the layer made again with diff id {}", self.diff_id);
        Err(ImageError::Mismatch { what, found: found.to_string() })
    }

    fn pieces(&self) -> Result<Pieces<File>, ImageError> {
        File::open(&self.record).and_then(Pieces::new).map_err(|error| self.broken(error))
    }

    fn broken(&self, source: std::io::Error) -> ImageError {
        ImageError::Unrecorded { layer: self.diff_id.to_string(), source }
    }
}

fn copy(
    file: &File,
    parts: &[(u64, u64)],
    buffer: &mut [u8],
    to: &mut impl Write,
) -> std::io::Result<()> {
    for (offset, length) in parts {
        let (mut at, mut left) = (*offset, *length);
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let room = buffer.get_mut(..want).unwrap_or_default();
            file.read_exact_at(room, at)?;
            to.write_all(room)?;
            at = at.saturating_add(want as u64);
            left = left.saturating_sub(want as u64);
        }
    }
    Ok(())
}

/// Hashes what is written.
struct Hashing<'a> {
    to: &'a mut dyn Write,
    hash: Sha256,
}

impl Write for Hashing<'_> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let count = self.to.write(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}
