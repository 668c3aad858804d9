//! What of an archive is not file data, kept beside the unpacked layer so that export can make the very
//! same archive again (same diff id). A record is a zstd stream of pieces in the archive's order: bytes
//! as they stood (headers, padding, data of what was not unpacked) or the place of a file's data.
//! Recording watches the stream that the reader reads; it never changes it.

use serde::{Deserialize, Serialize};
use shim_model::limits;
use std::io::{Read, Write};

/// One piece of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// Bytes as they stand in the archive.
    Bytes(Vec<u8>),
    /// Data of a file of the layer: its path beneath the layer, offset and length of each part.
    Data { path: Vec<u8>, parts: Vec<(u64, u64)> },
}

/// Bytes gathered before a piece is written.
const GATHER: usize = 64 << 10;

/// A stream that is watched.
pub struct Split<R, W: Write> {
    source: R,
    record: Option<zstd::stream::write::Encoder<'static, W>>,
    bytes: Vec<u8>,
    /// Bytes of file data read since [`Split::data_begins`]; `None` outside of data.
    data: Option<u64>,
}

impl<R, W: Write> std::fmt::Debug for Split<R, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Split").field("data", &self.data).finish_non_exhaustive()
    }
}

impl<R: Read, W: Write> Split<R, W> {
    /// Watches a stream; without a place to write to, nothing is recorded.
    pub fn new(source: R, record: Option<W>) -> std::io::Result<Self> {
        let record = record.map(|to| zstd::stream::write::Encoder::new(to, 1)).transpose()?;
        Ok(Self { source, record, bytes: Vec::new(), data: None })
    }

    /// From here on a file's data is read.
    pub fn data_begins(&mut self) -> std::io::Result<()> {
        self.data = Some(0);
        self.flush_bytes()
    }

    /// The file's data was read and written to `path`, to these parts of it; `None` is all of it.
    pub fn data_ends(&mut self, path: &[u8], parts: Option<&[(u64, u64)]>) -> std::io::Result<()> {
        let length = self.data.take().unwrap_or_default();
        let parts = parts.map_or_else(|| vec![(0, length)], <[_]>::to_vec);
        if length == 0 || self.record.is_none() {
            return Ok(());
        }
        self.write(&Piece::Data { path: path.to_vec(), parts })
    }

    /// Ends the record; gives back where it was written to.
    pub fn finish(mut self) -> std::io::Result<Option<W>> {
        self.flush_bytes()?;
        self.record.map(zstd::stream::write::Encoder::finish).transpose()
    }

    fn flush_bytes(&mut self) -> std::io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.bytes);
        self.write(&Piece::Bytes(bytes))
    }

    fn write(&mut self, piece: &Piece) -> std::io::Result<()> {
        let Some(record) = &mut self.record else { return Ok(()) };
        let body = postcard::to_stdvec(piece).map_err(std::io::Error::other)?;
        let length = u32::try_from(body.len()).map_err(std::io::Error::other)?;
        record.write_all(&length.to_le_bytes())?;
        record.write_all(&body)
    }
}

impl<R: Read, W: Write> Read for Split<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        if let Some(data) = &mut self.data {
            *data = data.saturating_add(count as u64);
        } else if self.record.is_some() {
            self.bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
            if self.bytes.len() >= GATHER {
                self.flush_bytes()?;
            }
        }
        Ok(count)
    }
}

/// Reads a record piece by piece.
pub struct Pieces<R: Read>(zstd::stream::read::Decoder<'static, std::io::BufReader<R>>);

impl<R: Read> std::fmt::Debug for Pieces<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pieces")
    }
}

impl<R: Read> Pieces<R> {
    /// Reads from the start of a record.
    pub fn new(record: R) -> std::io::Result<Self> {
        zstd::stream::read::Decoder::new(record).map(Self)
    }

    /// The next piece; `None` at the end.
    pub fn next_piece(&mut self) -> std::io::Result<Option<Piece>> {
        let mut length = [0u8; 4];
        let mut have = 0usize;
        while let Some(room) = length.get_mut(have..).filter(|room| !room.is_empty()) {
            match self.0.read(room)? {
                0 if have == 0 => return Ok(None),
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => have = have.saturating_add(count),
            }
        }
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > limits::ARCHIVE_PIECE_BYTES {
            return Err(std::io::Error::other("a piece is larger than any that is written"));
        }
        let mut body = vec![0u8; length];
        self.0.read_exact(&mut body)?;
        postcard::from_bytes(&body).map(Some).map_err(std::io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::{Piece, Pieces, Split};
    use std::io::Read;

    #[test]
    fn a_record_names_data_and_keeps_the_rest() {
        let mut split = Split::new(b"headDATAtail".as_slice(), Some(Vec::new())).unwrap();
        let mut buffer = [0u8; 4];
        split.read_exact(&mut buffer).unwrap();
        split.data_begins().unwrap();
        split.read_exact(&mut buffer).unwrap();
        split.data_ends(b"a/b", None).unwrap();
        split.read_exact(&mut buffer).unwrap();
        let record = split.finish().unwrap().unwrap();
        let mut pieces = Pieces::new(record.as_slice()).unwrap();
        let mut next = || pieces.next_piece().unwrap();
        assert_eq!(next(), Some(Piece::Bytes(b"head".to_vec())));
        assert_eq!(next(), Some(Piece::Data { path: b"a/b".to_vec(), parts: vec![(0, 4)] }));
        assert_eq!(next(), Some(Piece::Bytes(b"tail".to_vec())));
        assert_eq!(next(), None);
    }

    #[test]
    fn a_damaged_record_is_an_error() {
        let mut split = Split::new(b"head".as_slice(), Some(Vec::new())).unwrap();
        std::io::copy(&mut split, &mut std::io::sink()).unwrap();
        let record = split.finish().unwrap().unwrap();
        let short = record.get(..record.len() - 3).unwrap();
        let mut pieces = Pieces::new(short).unwrap();
        assert!(pieces.next_piece().and_then(|_first| pieces.next_piece()).is_err());
    }
}
