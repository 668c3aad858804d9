//! The reader: 512-byte blocks to [`Entry`]s, and the data of each in between. Bounds of
//! `reliability.md` §2 are held while reading, so a hostile archive costs no more than they allow.

use super::field::{self, octal, text};
use super::pax::{self, Records};
use super::sparse::{self, Pieces};
use super::{Entry, Kind, TarError, Xattrs};
use shim_model::limits;
use std::io::Read;

const BLOCK: usize = 512;

/// Reads entries out of a stream.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    entries: u64,
    /// Data of the present entry that was not read yet.
    left: u64,
    /// Padding after it.
    padding: u64,
}

/// Names and records that come before the entry they belong to.
#[derive(Default)]
struct Pending {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Records,
}

impl<R: Read> Reader<R> {
    /// Reads from the start of an archive.
    pub fn new(source: R) -> Self {
        Self { source, entries: 0, left: 0, padding: 0 }
    }

    /// The next entry; `None` at the end. Data of the entry before that was not read is passed over.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.pass_over()?;
        let mut pending = Pending::default();
        loop {
            let Some(block) = self.block()? else { return Ok(None) };
            self.entries = self.entries.saturating_add(1);
            if self.entries > limits::TAR_ENTRIES {
                return Err(self.over("the number of entries", limits::TAR_ENTRIES));
            }
            let size = self.number(&block, 124..136, "size")?;
            match block.get(156).copied().unwrap_or_default() {
                b'x' => pending.records.extend(self.records(size)?),
                // A global header's records would change every later entry: nothing we need stands there.
                b'g' => drop(self.header_body(size)?),
                b'L' => pending.path = Some(self.long_name(size)?),
                b'K' => pending.link = Some(self.long_name(size)?),
                kind => return self.entry(&block, kind, size, &pending).map(Some),
            }
        }
    }

    /// Reads data of the present entry; 0 at its end.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(part) = buffer.get_mut(..want).filter(|part| !part.is_empty()) else {
            return Ok(0);
        };
        let count = retry(|| self.source.read(part))?;
        if count == 0 {
            return Err(TarError::Short("the data of an entry"));
        }
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }

    /// The stream below, for who watches what is read from it.
    pub fn source_mut(&mut self) -> &mut R {
        &mut self.source
    }

    /// Gives the stream back, after the end of the archive, so that what follows can be checked.
    pub fn into_inner(self) -> R {
        self.source
    }

    fn pass_over(&mut self) -> Result<(), TarError> {
        let mut scratch = [0u8; 16 << 10];
        let mut rest = self.left.saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        while rest > 0 {
            let want = scratch.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            let part = scratch.get_mut(..want).unwrap_or_default();
            self.source.read_exact(part).map_err(short("the data of an entry"))?;
            rest = rest.saturating_sub(want as u64);
        }
        Ok(())
    }

    /// A header block; `None` at the two zero blocks or the end of the stream between entries.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0u8; BLOCK];
        let mut have = 0usize;
        while let Some(part) = block.get_mut(have..).filter(|part| !part.is_empty()) {
            let count = retry(|| self.source.read(part))?;
            if count == 0 {
                return if have == 0 { Ok(None) } else { Err(TarError::Short("a header")) };
            }
            have = have.saturating_add(count);
        }
        if is_zero(&block) {
            return self.end();
        }
        let said = self.number(&block, 148..156, "checksum")?;
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
            .sum();
        if said == sum {
            Ok(Some(block))
        } else {
            Err(self.field("checksum", "the sum of its header"))
        }
    }

    /// An archive ends with two zero blocks or with the stream. What follows one alone is read by some
    /// programs and not by others: refused.
    fn end(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut second = Vec::with_capacity(BLOCK);
        (&mut self.source).take(BLOCK as u64).read_to_end(&mut second).map_err(TarError::Read)?;
        if is_zero(&second) { Ok(None) } else { Err(self.field("end", "two blocks of zeros")) }
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        kind: u8,
        header_size: u64,
        pending: &Pending,
    ) -> Result<Entry, TarError> {
        let records = &pending.records;
        let size = match records.get(b"size".as_slice()) {
            Some(value) => {
                pax::number(value).ok_or_else(|| self.field("size", "a decimal number"))?
            }
            None => header_size,
        };
        let path = self.name(block, pending)?;
        let link = match (records.get(b"linkpath".as_slice()), pending.link.clone()) {
            (Some(link), _) => link.clone(),
            (None, Some(link)) => link,
            (None, None) => text(block.get(157..257)),
        };
        if path.is_empty()
            || path.len() > limits::TAR_NAME_BYTES
            || link.len() > limits::TAR_NAME_BYTES
            || path.contains(&0)
            || link.contains(&0)
        {
            return Err(self.field("name", "1 to 4096 bytes without NUL"));
        }
        let kind = self.kind(block, kind, &path)?;
        let mut entry = Entry {
            link,
            mode: u32::try_from(self.number(block, 100..108, "mode")? & 0o7777).unwrap_or_default(),
            uid: self.id(block, records, 108..116, "uid")?,
            gid: self.id(block, records, 116..124, "gid")?,
            mtime: self.mtime(block, records)?,
            size: if kind == Kind::File { size } else { 0 },
            xattrs: self.xattrs(records)?,
            pieces: None,
            kind,
            path,
        };
        // Only files carry data; a size on a folder or link is a lie that some writers tell.
        let has_data = matches!(entry.kind, Kind::File | Kind::Other(_));
        self.left = if has_data { size } else { 0 };
        self.padding = self.left.next_multiple_of(BLOCK as u64).saturating_sub(self.left);
        self.sparse(block, records, &mut entry)?;
        Ok(entry)
    }

    fn name(&self, block: &[u8; BLOCK], pending: &Pending) -> Result<Vec<u8>, TarError> {
        for key in [b"GNU.sparse.name".as_slice(), b"path"] {
            if let Some(path) = pending.records.get(key) {
                return Ok(path.clone());
            }
        }
        if let Some(path) = &pending.path {
            return Ok(path.clone());
        }
        let name = text(block.get(..100));
        let prefix = text(block.get(345..500));
        let posix = block.get(257..263) == Some(b"ustar\0".as_slice());
        if !posix || prefix.is_empty() {
            return Ok(name);
        }
        if name.is_empty() {
            return Err(self.field("name", "a name beside its prefix"));
        }
        Ok([prefix.as_slice(), b"/", &name].concat())
    }

    fn kind(&self, block: &[u8; BLOCK], kind: u8, path: &[u8]) -> Result<Kind, TarError> {
        let device = |reader: &Self| -> Result<(u32, u32), TarError> {
            let part = |range, name| -> Result<u32, TarError> {
                let number = reader.number(block, range, name)?;
                u32::try_from(number).map_err(|_large| reader.field(name, "a device number"))
            };
            Ok((part(329..337, "device major")?, part(337..345, "device minor")?))
        };
        Ok(match kind {
            // Old archives say "file" and mean a folder by a slash at the end.
            0 | b'0' if path.ends_with(b"/") => Kind::Folder,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => device(self).map(|(major, minor)| Kind::Character(major, minor))?,
            b'4' => device(self).map(|(major, minor)| Kind::Block(major, minor))?,
            b'5' => Kind::Folder,
            b'6' => Kind::Fifo,
            other => Kind::Other(other),
        })
    }

    fn id(
        &self,
        block: &[u8; BLOCK],
        records: &Records,
        range: std::ops::Range<usize>,
        name: &'static str,
    ) -> Result<u32, TarError> {
        let number = match records.get(name.as_bytes()) {
            Some(value) => {
                pax::number(value).ok_or_else(|| self.field(name, "a decimal number"))?
            }
            None => self.number(block, range, name)?,
        };
        let id = u32::try_from(number).ok().filter(|id| *id != u32::MAX);
        id.ok_or_else(|| self.field(name, "0 to 4294967294"))
    }

    fn mtime(&self, block: &[u8; BLOCK], records: &Records) -> Result<(i64, u32), TarError> {
        if let Some(value) = records.get(b"mtime".as_slice()) {
            return pax::time(value).ok_or_else(|| self.field("mtime", "a time"));
        }
        let seconds = field::signed(block.get(136..148).unwrap_or_default());
        seconds.map(|seconds| (seconds, 0)).ok_or_else(|| self.field("mtime", "a time"))
    }

    fn xattrs(&self, records: &Records) -> Result<Xattrs, TarError> {
        let found: Vec<_> = records
            .iter()
            .filter_map(|(key, value)| {
                Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone()))
            })
            .collect();
        let bytes: usize =
            found.iter().map(|(key, value)| key.len().saturating_add(value.len())).sum();
        if found.len() > limits::XATTRS || bytes > limits::XATTR_BYTES {
            return Err(self.over("the extended attributes", limits::XATTR_BYTES as u64));
        }
        Ok(found)
    }

    /// Finds the map of a sparse file and takes it off the data.
    fn sparse(
        &mut self,
        block: &[u8; BLOCK],
        records: &Records,
        entry: &mut Entry,
    ) -> Result<(), TarError> {
        let get = |key: &str| records.get(key.as_bytes());
        let refused = |reader: &Self| reader.field("sparse map", "pieces in order inside the file");
        let real = ["GNU.sparse.realsize", "GNU.sparse.size"].into_iter().find_map(get);
        let pieces = if block.get(156) == Some(&b'S') {
            Some(self.old_sparse(block, entry)?)
        } else if get("GNU.sparse.major").map(Vec::as_slice) == Some(b"1") {
            entry.size = real.and_then(|v| pax::number(v)).ok_or_else(|| refused(self))?;
            Some(self.text_map()?)
        } else if let Some(map) = get("GNU.sparse.map") {
            entry.size = real.and_then(|v| pax::number(v)).ok_or_else(|| refused(self))?;
            Some(sparse::from_record(map).ok_or_else(|| refused(self))?)
        } else {
            None
        };
        let Some(pieces) = pieces else { return Ok(()) };
        let pieces = sparse::checked(pieces, entry.size).ok_or_else(|| refused(self))?;
        let data: u64 = pieces.iter().map(|(_, length)| *length).sum();
        if data != self.left {
            return Err(refused(self));
        }
        entry.pieces = Some(pieces);
        Ok(())
    }

    /// GNU's old form: four pieces in the header, further headers of 21 while a byte says so.
    fn old_sparse(&mut self, block: &[u8; BLOCK], entry: &mut Entry) -> Result<Pieces, TarError> {
        entry.size = self.number(block, 483..495, "real size")?;
        let mut pieces = Pieces::new();
        let mut more = block.get(482) == Some(&1);
        self.old_pieces(block.get(386..482).unwrap_or_default(), &mut pieces)?;
        while more {
            let mut next = [0u8; BLOCK];
            self.source.read_exact(&mut next).map_err(short("a sparse map"))?;
            self.old_pieces(next.get(..504).unwrap_or_default(), &mut pieces)?;
            more = next.get(504) == Some(&1);
            if pieces.len() > limits::SPARSE_PIECES {
                return Err(self.over("the sparse map", limits::SPARSE_PIECES as u64));
            }
        }
        Ok(pieces)
    }

    fn old_pieces(&self, bytes: &[u8], pieces: &mut Pieces) -> Result<(), TarError> {
        for pair in bytes.chunks_exact(24) {
            let (offset, length) = pair.split_at(12);
            if offset.first().is_none_or(|b| *b == 0) {
                break;
            }
            let parse =
                |field| octal(field).ok_or_else(|| self.field("sparse map", "octal numbers"));
            pieces.push((parse(offset)?, parse(length)?));
        }
        Ok(())
    }

    /// PAX 1.0: the map stands as text in whole blocks before the data.
    fn text_map(&mut self) -> Result<Pieces, TarError> {
        let mut text = Vec::new();
        loop {
            let mut block = [0u8; BLOCK];
            if self.left < BLOCK as u64 || text.len() > 2 << 20 {
                return Err(self.field("sparse map", "a map before the data"));
            }
            self.source.read_exact(&mut block).map_err(short("a sparse map"))?;
            self.left = self.left.saturating_sub(BLOCK as u64);
            text.extend_from_slice(&block);
            match sparse::from_text(&text) {
                Some(Ok((pieces, used))) if used > text.len().saturating_sub(BLOCK) => {
                    return Ok(pieces);
                }
                Some(Ok(_) | Err(())) => return Err(self.field("sparse map", "decimal numbers")),
                None => {}
            }
        }
    }

    fn records(&mut self, size: u64) -> Result<Records, TarError> {
        let body = self.header_body(size)?;
        pax::parse(&body).ok_or_else(|| self.field("extended header", "well-formed records"))
    }

    fn long_name(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let mut name = self.header_body(size)?;
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    fn header_body(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > limits::TAR_HEADER_BYTES {
            return Err(self.over("an extended header", limits::TAR_HEADER_BYTES));
        }
        let length = usize::try_from(size).unwrap_or_default();
        let mut body = vec![0u8; length.next_multiple_of(BLOCK)];
        self.source.read_exact(&mut body).map_err(short("an extended header"))?;
        body.truncate(length);
        Ok(body)
    }

    fn number(
        &self,
        block: &[u8; BLOCK],
        range: std::ops::Range<usize>,
        field: &'static str,
    ) -> Result<u64, TarError> {
        let bytes = block.get(range).unwrap_or_default();
        octal(bytes)
            .ok_or_else(|| self.field(field, "an octal or base-256 number that is not negative"))
    }

    fn field(&self, field: &'static str, allowed: &'static str) -> TarError {
        TarError::Field { entry: self.entries, field, allowed }
    }

    fn over(&self, what: &'static str, bound: u64) -> TarError {
        TarError::Bound { entry: self.entries, what, bound }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn retry(mut read: impl FnMut() -> std::io::Result<usize>) -> Result<usize, TarError> {
    loop {
        match read() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result.map_err(TarError::Read),
        }
    }
}

fn short(what: &'static str) -> impl FnOnce(std::io::Error) -> TarError {
    move |error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => TarError::Short(what),
        _ => TarError::Read(error),
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Reader};
    use proptest::prelude::{any, proptest};
    use std::io::Read;

    fn archive(build: impl FnOnce(&mut ::tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = ::tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    fn file(builder: &mut ::tar::Builder<Vec<u8>>, path: &str, data: &[u8]) {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o4755);
        header.set_uid(7);
        builder.append_data(&mut header, path, data).unwrap();
    }

    #[test]
    fn long_names_and_data_come_out_as_they_went_in() {
        let long = format!("{}/file", "d".repeat(150));
        let bytes = archive(|b| {
            file(b, &long, b"hello");
            file(b, "second", &[1u8; 1000]);
        });
        let mut reader = Reader::new(bytes.as_slice());
        let first = reader.next_entry().unwrap().unwrap();
        assert_eq!(
            (first.path.as_slice(), first.kind, first.mode, first.uid),
            (long.as_bytes(), Kind::File, 0o4755, 7)
        );
        let mut data = [0u8; 10];
        assert_eq!(reader.read_data(&mut data).unwrap(), 5);
        assert_eq!(reader.next_entry().unwrap().unwrap().path, b"second");
        assert!(reader.next_entry().unwrap().is_none());
    }

    #[test]
    fn a_flipped_bit_in_a_header_and_a_short_archive_are_errors() {
        let bytes = archive(|b| file(b, "a", b"data"));
        let mut flipped = bytes.clone();
        flipped[0] ^= 1;
        assert!(Reader::new(flipped.as_slice()).next_entry().is_err());
        let mut reader = Reader::new(bytes.get(..514).unwrap());
        reader.next_entry().unwrap();
        assert!(reader.next_entry().is_err());
    }

    #[test]
    fn a_lone_zero_block_before_more_is_refused() {
        let mut bytes = vec![0u8; 512];
        bytes.extend(archive(|b| file(b, "a", b"data")));
        assert!(Reader::new(bytes.as_slice()).next_entry().is_err());
        assert!(Reader::new([0u8; 512].as_slice()).next_entry().unwrap().is_none());
    }

    proptest! {
        #[test]
        fn hostile_bytes_end_in_an_error_or_an_end(bytes in any::<Vec<u8>>()) {
            let mut reader = Reader::new(bytes.as_slice().chain(std::io::repeat(0).take(1024)));
            for _ in 0..10 {
                match reader.next_entry() {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                }
            }
        }
    }
}
