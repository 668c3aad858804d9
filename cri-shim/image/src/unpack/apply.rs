//! One layer's archive to one folder: the story of unpacking. Every decision about a name is pure
//! (`name`, `whiteout`), every deed is `writer`.

use super::borrow::Borrowed;
use super::name::clean;
use super::split::Split;
use super::whiteout::{Meaning, meaning};
use super::writer::{Writer, hostile, special_of};
use crate::error::ImageError;
use crate::tar::reader::Reader;
use crate::tar::{Entry, Kind, TarError};
use serde::{Deserialize, Serialize};
use shim_model::limits;
use shim_sys::fd;
use shim_sys::path;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

/// Copy buffer: large enough that a file costs few calls.
const BUFFER: usize = 256 << 10;

/// What a layer came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpacked {
    /// Bytes of files, holes among them.
    pub bytes: u64,
    /// Folders that no entry described, parents first: the layers below may say what they are.
    pub implied: Vec<Vec<u8>>,
    /// Hard links to files of layers below.
    pub borrowed: Vec<Borrowed>,
    /// No entry took the place of an earlier one: the folder still holds the data of every entry.
    pub exact: bool,
}

/// Unpacks a whole archive into an empty folder; the stream is read to its end.
pub fn unpack(source: impl Read, into: OwnedFd, layer: &str) -> Result<Unpacked, ImageError> {
    unpack_recorded(source, into, layer, None::<std::io::Sink>)
}

/// As [`unpack`], writing beside it what export needs to make the same archive again (see
/// [`super::split`]).
pub fn unpack_recorded(
    source: impl Read,
    into: OwnedFd,
    layer: &str,
    record: Option<impl Write>,
) -> Result<Unpacked, ImageError> {
    let broken = |source: TarError| ImageError::Layer { layer: layer.to_owned(), source };
    let watched = Split::new(source, record).map_err(|error| unrecorded(layer, error))?;
    let mut reader = Reader::new(watched);
    let mut writer = Writer::new(into);
    let mut done = Unpacked::default();
    let mut buffer = vec![0u8; BUFFER];
    while let Some(entry) = reader.next_entry().map_err(broken)? {
        let Some(at) = clean(&entry.path) else {
            return Err(hostile(&entry.path, "its name leaves the layer"));
        };
        done.bytes = done.bytes.saturating_add(entry.size);
        if done.bytes > limits::LAYER_EXPANDED_BYTES {
            let what = format!("the size of layer {layer}");
            return Err(ImageError::Bound { what, bound: limits::LAYER_EXPANDED_BYTES });
        }
        let (parent, name) = path::split(&at);
        match meaning(name) {
            Meaning::Plain => one(&mut reader, &mut writer, &at, &entry, &mut buffer, layer)?,
            Meaning::Hide(hidden) => {
                let mut whole = parent.to_vec();
                if !whole.is_empty() {
                    whole.push(b'/');
                }
                whole.extend_from_slice(hidden);
                writer.hide(&whole)?;
            }
            Meaning::Opaque => writer.hide_below(parent)?,
            Meaning::Ignore => {}
            Meaning::Refused => return Err(hostile(&at, "no whiteout has this name")),
        }
    }
    // What follows the archive's end is part of the digest.
    let mut rest = reader.into_inner();
    drain(&mut rest, &mut buffer).map_err(|error| broken(TarError::Read(error)))?;
    rest.finish().map_err(|error| unrecorded(layer, error))?;
    done.exact = !writer.has_replaced();
    (done.implied, done.borrowed) = writer.finish()?;
    Ok(done)
}

fn unrecorded(layer: &str, source: std::io::Error) -> ImageError {
    ImageError::Unrecorded { layer: layer.to_owned(), source }
}

#[expect(clippy::too_many_arguments, reason = "the state of one pass over an archive")]
fn one<R: Read, W: Write>(
    reader: &mut Reader<Split<R, W>>,
    writer: &mut Writer,
    at: &[u8],
    entry: &Entry,
    buffer: &mut [u8],
    layer: &str,
) -> Result<(), ImageError> {
    match &entry.kind {
        Kind::Folder => writer.folder(at, entry),
        Kind::Symlink => writer.link(at, entry),
        Kind::HardLink => {
            let target =
                clean(&entry.link).ok_or_else(|| hostile(at, "its hard link leaves the layer"))?;
            writer.hard_link(at, &target)
        }
        Kind::File => {
            let file = writer.file(at)?;
            reader.source_mut().data_begins().map_err(|error| unrecorded(layer, error))?;
            let copied = match &entry.pieces {
                None => copy(reader, &file, buffer),
                Some(pieces) => copy_pieces(reader, &file, buffer, (pieces, entry.size)),
            };
            copied.map_err(|failed| failed.told(at, layer))?;
            let ended = reader.source_mut().data_ends(at, entry.pieces.as_deref());
            ended.map_err(|error| unrecorded(layer, error))?;
            writer.finish_file(&file, at, entry)
        }
        kind @ (Kind::Character(..) | Kind::Block(..) | Kind::Fifo) => match special_of(kind) {
            Some(special) => writer.special(at, special, entry),
            None => Err(hostile(at, "a device that overlayfs takes for a whiteout")),
        },
        Kind::Other(_) => Ok(()),
    }
}

/// Why data was not copied.
enum Copy {
    Read(TarError),
    Write(shim_sys::error::SysError),
}

impl Copy {
    fn told(self, at: &[u8], layer: &str) -> ImageError {
        match self {
            Self::Read(source) => ImageError::Layer { layer: layer.to_owned(), source },
            Self::Write(source) => ImageError::System {
                doing: format!("write {}", String::from_utf8_lossy(at)),
                source,
            },
        }
    }
}

fn copy<R: Read>(reader: &mut Reader<R>, file: &OwnedFd, buffer: &mut [u8]) -> Result<(), Copy> {
    loop {
        let count = fill(reader, buffer)?;
        let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else { return Ok(()) };
        fd::write_all(file, part).map_err(Copy::Write)?;
    }
}

/// Fills the buffer as far as the entry goes: few large writes instead of many small ones.
fn fill<R: Read>(reader: &mut Reader<R>, buffer: &mut [u8]) -> Result<usize, Copy> {
    let mut have = 0usize;
    while let Some(room) = buffer.get_mut(have..).filter(|room| !room.is_empty()) {
        match reader.read_data(room).map_err(Copy::Read)? {
            0 => break,
            count => have = have.saturating_add(count),
        }
    }
    Ok(have)
}

fn copy_pieces<R: Read>(
    reader: &mut Reader<R>,
    file: &OwnedFd,
    buffer: &mut [u8],
    (pieces, size): (&[(u64, u64)], u64),
) -> Result<(), Copy> {
    for (offset, length) in pieces {
        let (mut at, mut left) = (*offset, *length);
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let room = buffer.get_mut(..want).unwrap_or_default();
            let count = reader.read_data(room).map_err(Copy::Read)?;
            if count == 0 {
                return Err(Copy::Read(TarError::Short("the data of a sparse file")));
            }
            path::write_at(file, buffer.get(..count).unwrap_or_default(), at)
                .map_err(Copy::Write)?;
            at = at.saturating_add(count as u64);
            left = left.saturating_sub(count as u64);
        }
    }
    path::set_length(file, size).map_err(Copy::Write)
}

fn drain(mut source: impl Read, buffer: &mut [u8]) -> std::io::Result<()> {
    loop {
        match source.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::unpack;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
    use std::path::Path;

    fn header(kind: ::tar::EntryType, size: u64) -> ::tar::Header {
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(1_000);
        header
    }

    /// Entries by kind, name and link or data; names are written as they are.
    fn archive(entries: &[(::tar::EntryType, &str, &str)]) -> Vec<u8> {
        let mut builder = ::tar::Builder::new(Vec::new());
        for (kind, name, text) in entries {
            let is_file = *kind == ::tar::EntryType::Regular;
            let mut header = header(*kind, if is_file { text.len() as u64 } else { 0 });
            let raw = header.as_old_mut();
            raw.name[..name.len()].copy_from_slice(name.as_bytes());
            if !is_file {
                raw.linkname[..text.len()].copy_from_slice(text.as_bytes());
            }
            header.set_cksum();
            builder.append(&header, if is_file { text.as_bytes() } else { b"" }).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn into(
        dir: &Path,
        entries: &[(::tar::EntryType, &str, &str)],
    ) -> Result<super::Unpacked, String> {
        let folder = shim_sys::path::open_folder(dir).map_err(|error| error.to_string())?;
        unpack(archive(entries).as_slice(), folder, "test").map_err(|error| error.chain())
    }

    use ::tar::EntryType::{Char, Directory, Link, Regular, Symlink};

    fn root() -> bool {
        let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        if !is_root {
            eprintln!("skipped: unpacking owners and devices needs root");
        }
        is_root
    }

    #[test]
    fn root_hostile_archives_do_not_leave_the_layer() {
        if !root() {
            return;
        }
        let outside = tempfile::tempdir().unwrap();
        let out = outside.path().to_str().unwrap();
        for entries in [
            vec![(Regular, "../evil", "x")],
            vec![(Regular, "a/../../evil", "x")],
            vec![(Symlink, "link", out), (Regular, "link/evil", "x")],
            vec![(Symlink, "link", ".."), (Directory, "link/evil", "")],
            vec![(Link, "hard", "../../etc/passwd")],
            vec![(Symlink, "s", out), (Link, "hard", "s/x")],
            vec![(Char, "forged", "")],
            vec![(Regular, "dir/.wh..", "")],
        ] {
            let dir = tempfile::tempdir().unwrap();
            let told = into(dir.path(), &entries);
            assert!(told.is_err(), "{entries:?}");
            assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "{entries:?}");
        }
    }

    #[test]
    fn root_whiteouts_become_overlay_whiteouts() {
        if !root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        into(
            dir.path(),
            &[
                (Directory, "a", ""),
                (Regular, "a/.wh.gone", ""),
                (Regular, "b/.wh..wh..opq", ""),
                (Regular, ".wh.again", ""),
                (Directory, "again", ""),
            ],
        )
        .unwrap();
        let gone = std::fs::symlink_metadata(dir.path().join("a/gone")).unwrap();
        assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
        let opaque = |name: &str| {
            shim_sys::path::xattrs(shim_sys::path::open_folder(&dir.path().join(name)).unwrap())
                .unwrap()
        };
        assert_eq!(opaque("b"), [(b"trusted.overlay.opaque".to_vec(), b"y".to_vec())]);
        assert_eq!(opaque("again"), [(b"trusted.overlay.opaque".to_vec(), b"y".to_vec())]);
    }

    #[test]
    fn root_the_last_entry_of_a_name_wins_and_links_share_an_inode() {
        if !root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        into(
            dir.path(),
            &[
                (Directory, "x", ""),
                (Regular, "x/y", "1"),
                (Regular, "x", "file"),
                (Regular, "one", "data"),
                (Link, "two", "one"),
            ],
        )
        .unwrap();
        assert_eq!(std::fs::read(dir.path().join("x")).unwrap(), b"file");
        let [one, two] =
            ["one", "two"].map(|name| std::fs::metadata(dir.path().join(name)).unwrap());
        assert_eq!(
            (one.ino(), one.mtime(), one.permissions().mode() & 0o7777),
            (two.ino(), 1_000, 0o644)
        );
    }

    #[test]
    fn root_folders_that_nobody_described_are_named() {
        if !root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let done = into(dir.path(), &[(Regular, "usr/bin/tool", "x")]).unwrap();
        assert_eq!(done.implied, [b"".to_vec(), b"usr".to_vec(), b"usr/bin".to_vec()]);
    }
}
