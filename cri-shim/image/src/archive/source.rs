//! Where an import reads from: files by name, out of a folder or out of an archive whose entries were
//! listed once. Names are those of strangers: a folder is read beneath its handle, an archive is never
//! unpacked. A compressed archive is inflated to a file without a name first.

use crate::decode::{Compression, decoder};
use crate::error::ImageError;
use crate::tar::Kind;
use crate::tar::reader::Reader;
use crate::unpack::name::clean;
use shim_model::limits;
use shim_sys::path;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Files by name.
#[derive(Debug)]
pub enum Source {
    /// Beneath a folder.
    Folder(OwnedFd),
    /// In an archive.
    Archive { file: Arc<File>, entries: BTreeMap<Vec<u8>, Place> },
}

/// Where an archive keeps an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Offset and length of its data.
    Data(u64, u64),
    /// It is another entry: old `docker save` archives link equal layers.
    Link(Vec<u8>),
}

impl Source {
    /// Opens a folder or an archive. `scratch` is a folder of ours for inflating.
    pub fn open(from: &Path, scratch: &Path) -> Result<Self, ImageError> {
        let failed = |error| ImageError::file("read", from)(error);
        if std::fs::metadata(from).map_err(failed)?.is_dir() {
            let folder = path::open_folder(from).map_err(ImageError::system("open the layout"))?;
            return Ok(Self::Folder(folder));
        }
        let file = File::open(from).map_err(failed)?;
        let mut start = [0u8; 4];
        let count = file.read_at(&mut start, 0).map_err(failed)?;
        let compression = Compression::of_start(start.get(..count).unwrap_or_default());
        let file = match compression {
            Compression::Plain => file,
            Compression::Gzip | Compression::Zstd => inflated(file, compression, scratch)?,
        };
        let entries = listed(&file)?;
        Ok(Self::Archive { file: Arc::new(file), entries })
    }

    /// True if there is such a file.
    pub fn has(&self, name: &str) -> bool {
        self.open_file(name).is_ok()
    }

    /// A small file, whole.
    pub fn small(&self, name: &str, limit: usize) -> Result<Vec<u8>, ImageError> {
        let (reader, length) = self.open_file(name)?;
        if length > limit as u64 {
            return Err(ImageError::Bound {
                what: format!("{name} of the archive"),
                bound: limit as u64,
            });
        }
        let mut bytes = Vec::new();
        reader
            .take(limit as u64)
            .read_to_end(&mut bytes)
            .map_err(ImageError::file("read", name))?;
        Ok(bytes)
    }

    /// A file and its length.
    pub fn open_file(&self, name: &str) -> Result<(Box<dyn Read + Send>, u64), ImageError> {
        let missing = || ImageError::NotInArchive(name.to_owned());
        let at = clean(name.as_bytes()).filter(|at| !at.is_empty()).ok_or_else(missing)?;
        match self {
            Self::Folder(folder) => {
                let file = path::open_file(folder, &at).map_err(|error| {
                    if error.is_missing() {
                        missing()
                    } else {
                        ImageError::system(format!("open {name}"))(error)
                    }
                })?;
                let meta =
                    path::describe(&file).map_err(ImageError::system(format!("open {name}")))?;
                if !meta.is_file() {
                    return Err(missing());
                }
                Ok((Box::new(File::from(file)), meta.size))
            }
            Self::Archive { file, entries } => {
                let (offset, length) = found(entries, &at).ok_or_else(missing)?;
                let part = Part { file: Arc::clone(file), at: offset, left: length };
                Ok((Box::new(part), length))
            }
        }
    }
}

/// An entry's data, links followed.
fn found(entries: &BTreeMap<Vec<u8>, Place>, name: &[u8]) -> Option<(u64, u64)> {
    let mut name = name.to_vec();
    for _ in 0..limits::IMPORT_LINKS {
        match entries.get(&name)? {
            Place::Data(offset, length) => return Some((*offset, *length)),
            Place::Link(to) => name.clone_from(to),
        }
    }
    None
}

/// Every entry of an archive.
fn listed(file: &File) -> Result<BTreeMap<Vec<u8>, Place>, ImageError> {
    let broken = |source| ImageError::Archive { source };
    let counted = Counted { source: BufReader::with_capacity(256 << 10, file), count: 0 };
    let mut reader = Reader::new(counted);
    let mut entries = BTreeMap::new();
    while let Some(entry) = reader.next_entry().map_err(broken)? {
        let Some(name) = clean(&entry.path) else { continue };
        let place = match entry.kind {
            Kind::File if entry.pieces.is_none() => {
                Place::Data(reader.source_mut().count, entry.size)
            }
            Kind::Symlink => match joined(path::split(&name).0, &entry.link) {
                Some(target) => Place::Link(target),
                None => continue,
            },
            Kind::HardLink => match clean(&entry.link) {
                Some(target) => Place::Link(target),
                None => continue,
            },
            Kind::File
            | Kind::Folder
            | Kind::Character(..)
            | Kind::Block(..)
            | Kind::Fifo
            | Kind::Other(_) => continue,
        };
        entries.insert(name, place);
        if entries.len() > limits::IMPORT_ENTRIES {
            let what = "the number of files of the archive".to_owned();
            return Err(ImageError::Bound { what, bound: limits::IMPORT_ENTRIES as u64 });
        }
    }
    Ok(entries)
}

/// A link's target as a name of the archive; `None` if it leads out.
fn joined(folder: &[u8], link: &[u8]) -> Option<Vec<u8>> {
    if link.starts_with(b"/") {
        return None;
    }
    let mut parts: Vec<&[u8]> = folder.split(|b| *b == b'/').filter(|p| !p.is_empty()).collect();
    for part in link.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// The archive without its compression, in a file that has no name and goes with its descriptor.
fn inflated(file: File, compression: Compression, scratch: &Path) -> Result<File, ImageError> {
    let at = scratch.join(format!("import-{:016x}", rand::random::<u64>()));
    let failed = |error| ImageError::file("inflate the archive to", &at)(error);
    let mut open = std::fs::OpenOptions::new();
    let mut inflated = open.read(true).write(true).create_new(true).open(&at).map_err(failed)?;
    std::fs::remove_file(&at).map_err(failed)?;
    let bound = limits::IMPORT_BYTES;
    let mut plain = decoder(compression, file).map_err(failed)?.take(bound.saturating_add(1));
    let count = std::io::copy(&mut plain, &mut inflated).map_err(failed)?;
    if count > bound {
        return Err(ImageError::Bound { what: "the size of the archive".to_owned(), bound });
    }
    inflated.rewind().map_err(failed)?;
    Ok(inflated)
}

/// A stretch of a file; many may be read at once.
struct Part {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let Some(room) = buffer.get_mut(..want).filter(|room| !room.is_empty()) else {
            return Ok(0);
        };
        let count = self.file.read_at(room, self.at)?;
        self.at = self.at.saturating_add(count as u64);
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }
}

/// Counts what passes: where the data of an entry begins.
struct Counted<R> {
    source: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.count = self.count.saturating_add(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::{Source, joined};
    use std::io::Write;

    #[test]
    fn links_stay_inside_the_archive() {
        assert_eq!(joined(b"a/b", b"../c/layer.tar").as_deref(), Some(b"a/c/layer.tar".as_slice()));
        assert_eq!(joined(b"a", b"../../x"), None);
        assert_eq!(joined(b"a", b"/etc/passwd"), None);
    }

    #[test]
    fn files_of_an_archive_are_found_by_name_and_by_link() {
        let mut builder = ::tar::Builder::new(Vec::new());
        let mut header = ::tar::Header::new_gnu();
        header.set_size(5);
        builder.append_data(&mut header, "one/layer.tar", b"hello".as_slice()).unwrap();
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(::tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "two/layer.tar", "../one/layer.tar").unwrap();
        let bytes = builder.into_inner().unwrap();
        let dir = tempfile::tempdir().unwrap();
        for packed in [bytes.clone(), zstd::encode_all(bytes.as_slice(), 1).unwrap()] {
            let at = dir.path().join("a.tar");
            std::fs::File::create(&at).unwrap().write_all(&packed).unwrap();
            let source = Source::open(&at, dir.path()).unwrap();
            assert_eq!(source.small("two/layer.tar", 10).unwrap(), b"hello");
            assert!(source.small("one/layer.tar", 4).is_err());
            assert!(!source.has("../a.tar") && !source.has("three"));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_is_read_beneath_its_handle() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("layout")).unwrap();
        std::fs::write(dir.path().join("outside"), "x").unwrap();
        std::fs::write(dir.path().join("layout/inside"), "y").unwrap();
        std::os::unix::fs::symlink("../outside", dir.path().join("layout/link")).unwrap();
        let source = Source::open(&dir.path().join("layout"), dir.path()).unwrap();
        assert_eq!(source.small("inside", 10).unwrap(), b"y");
        assert!(source.small("link", 10).is_err() && source.small("../outside", 10).is_err());
    }
}
