//! Where an export writes to: files by name, into a fresh folder or one after the other into an archive
//! (POSIX ustar). Sizes are known before the first byte, so an archive can be a pipe.

use crate::error::ImageError;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

/// Files by name.
#[derive(Debug)]
pub enum Sink {
    /// Beneath a folder that did not exist or was empty.
    Folder(PathBuf),
    /// In an archive.
    Archive(BufWriter<File>),
}

const BLOCK: u64 = 512;

impl Sink {
    /// A fresh folder.
    pub fn folder(at: PathBuf) -> Result<Self, ImageError> {
        std::fs::create_dir_all(&at).map_err(ImageError::file("make the folder", &at))?;
        let mut entries = std::fs::read_dir(&at).map_err(ImageError::file("list", &at))?;
        if entries.next().is_some() {
            return Err(ImageError::file("export to", &at)(
                std::io::ErrorKind::DirectoryNotEmpty.into(),
            ));
        }
        Ok(Self::Folder(at))
    }

    /// An archive that is written to a file or pipe.
    pub fn archive(to: File) -> Self {
        Self::Archive(BufWriter::with_capacity(256 << 10, to))
    }

    /// Writes one file of `size` bytes; `fill` must write exactly that many.
    pub fn put(
        &mut self,
        name: &str,
        size: u64,
        fill: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let failed = |error| ImageError::file("write", name)(error);
        match self {
            Self::Folder(at) => {
                let path = at.join(name);
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent).map_err(failed)?;
                }
                let mut file = Counted { to: File::create(path).map_err(failed)?, count: 0 };
                fill(&mut file)?;
                check(name, size, file.count)?;
                file.to.sync_all().map_err(failed)
            }
            Self::Archive(to) => {
                to.write_all(header(name, size).map_err(failed)?.as_bytes()).map_err(failed)?;
                let mut file = Counted { to, count: 0 };
                fill(&mut file)?;
                check(name, size, file.count)?;
                let padding = size.next_multiple_of(BLOCK).saturating_sub(size);
                let zeros = [0u8; 512];
                let padding = usize::try_from(padding).unwrap_or_default();
                file.to.write_all(zeros.get(..padding).unwrap_or_default()).map_err(failed)
            }
        }
    }

    /// Writes a small file.
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
        self.put(name, bytes.len() as u64, |to| {
            to.write_all(bytes).map_err(ImageError::file("write", name))
        })
    }

    /// Ends it.
    pub fn finish(self) -> Result<(), ImageError> {
        match self {
            Self::Folder(at) => File::open(&at)
                .and_then(|folder| folder.sync_all())
                .map_err(ImageError::file("flush", at)),
            Self::Archive(mut to) => to
                .write_all(&[0u8; 1024])
                .and_then(|()| to.flush())
                .map_err(ImageError::file("write", "the end of the archive")),
        }
    }
}

fn header(name: &str, size: u64) -> std::io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

fn check(name: &str, wanted: u64, written: u64) -> Result<(), ImageError> {
    if wanted == written {
        return Ok(());
    }
    let what = format!("{name} of {wanted} bytes");
    Err(ImageError::Mismatch { what, found: format!("{written} bytes") })
}

/// Counts what is written.
struct Counted<W> {
    to: W,
    count: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let count = self.to.write(buffer)?;
        self.count = self.count.saturating_add(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::Sink;
    use std::io::Read;

    #[test]
    fn an_archive_reads_back_and_a_wrong_size_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("a.tar");
        let mut sink = Sink::archive(std::fs::File::create(&at).unwrap());
        sink.bytes("blobs/one", b"hello").unwrap();
        sink.bytes("two", &[1; 512]).unwrap();
        assert!(sink.put("three", 9, |_nothing| Ok(())).is_err());
        sink.finish().unwrap();
        let mut archive = ::tar::Archive::new(std::fs::File::open(at).unwrap());
        let mut entries = archive.entries().unwrap();
        let mut first = entries.next().unwrap().unwrap();
        let mut text = String::new();
        first.read_to_string(&mut text).unwrap();
        assert_eq!((first.path().unwrap().to_str(), &*text), (Some("blobs/one"), "hello"));
    }

    #[test]
    fn a_folder_that_holds_something_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mine"), "x").unwrap();
        assert!(Sink::folder(dir.path().to_owned()).is_err());
    }
}
